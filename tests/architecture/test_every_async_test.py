"""What tests/conftest.py does around every async test, seen from outside: a run of tests that break its rules."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONFTEST = Path(__file__).resolve().parents[1] / "conftest.py"
TESTS = """
import asyncio
import time
import warnings

import penstock.clock

BLOCKS = compile("def nap():\\n    import time\\n    time.sleep(0.001)\\n", penstock.clock.__file__, "exec")


async def test_on_uvloop():
    assert type(asyncio.get_running_loop()).__module__.startswith("uvloop")


async def test_ends_its_tasks():
    await asyncio.create_task(asyncio.sleep(0))
    ending = asyncio.create_task(asyncio.sleep(0.05))


async def test_leaves_a_task():
    test_leaves_a_task.kept = asyncio.create_task(asyncio.sleep(60), name="forgotten")


async def test_blocks_in_our_code():
    exec(BLOCKS, names := {})
    names["nap"]()


async def test_blocks_in_its_own_code():
    time.sleep(0.001)


def test_blocks_where_no_loop_runs():
    exec(BLOCKS, names := {})
    names["nap"]()


def test_warns():
    warnings.warn("careless")
"""
EXPECTED = {
    "test_on_uvloop": "PASSED",
    "test_ends_its_tasks": "PASSED",
    "test_leaves_a_task": "ERROR",
    "test_blocks_in_our_code": "FAILED",
    "test_blocks_in_its_own_code": "PASSED",
    "test_blocks_where_no_loop_runs": "PASSED",
    "test_warns": "FAILED",
}


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("project")
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "tests").mkdir()
    shutil.copy(CONFTEST, folder / "tests")
    (folder / "tests/test_some.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-v", "--no-header", "tests"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60).stdout


@pytest.mark.parametrize(("name", "outcome"), EXPECTED.items())
def test_an_async_test_is_judged(name: str, outcome: str, output: str) -> None:
    lines = [line for line in output.splitlines() if f"::{name} " in line]
    assert any(f"{name} {outcome}" in line for line in lines), output
    if outcome == "PASSED":
        assert not any("ERROR" in line for line in lines), output


def test_the_failure_names_what_was_left_and_what_blocked(output: str) -> None:
    assert "1 task(s) outlived the test" in output
    assert "forgotten" in output
    assert "Blocking call to time.sleep" in output
