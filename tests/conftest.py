"""What holds in every test: one event loop, no blocking call in our code, no task left behind."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from blockbuster import BlockBuster

IS_COMPILED = os.environ.get("TEST_COMPILED") == "yes"
"""Set by scripts/test for the runs that are to prove something of compiled modules."""
SETTLE_SECONDS = 1.0
"""How long tasks that are already ending may take to do so after a test."""


def pytest_sessionstart() -> None:
    """Where compiled modules are asked for, nothing else is tested unnoticed: neither here nor in gateways of their own."""
    if not IS_COMPILED:
        return
    from penstock.http import connection
    from penstock.protocol import result_marks
    from tests.peers.environments import gateway_environment, penstock_command

    command, environment = penstock_command(), gateway_environment(Path("/nonexistent"))
    said = subprocess.run([*command, "--version"], env=environment, capture_output=True, text=True, check=True).stdout
    if "(compiled)" not in said or result_marks.members_of is None or str(connection.__file__).endswith(".py"):
        pytest.exit(f"TEST_COMPILED is set, but the modules are not compiled: {said!r} {connection.__file__}", 1)


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """The loop that production runs on."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="session")
def blocking_calls() -> BlockBuster:
    """A detector of blocking calls made by a coroutine or callback under src/penstock."""
    return BlockBuster(scanned_modules=["penstock"])


@pytest.fixture(autouse=True)
def every_async_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """Around each async test: blocking calls raise, and tasks that outlive the test fail it."""
    if "anyio_backend" not in request.fixturenames:
        yield
        return
    request.getfixturevalue("no_task_left_behind")
    detector: BlockBuster = request.getfixturevalue("blocking_calls")
    detector.activate()
    try:
        yield
    finally:
        detector.deactivate()


@pytest.fixture
async def no_task_left_behind(anyio_backend: tuple[str, dict[str, Any]]) -> AsyncIterator[None]:
    """Fail a test after which tasks still run that did not run before it, and end them."""
    before = asyncio.all_tasks()
    yield
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + SETTLE_SECONDS
    while (left := _running(before)) and loop.time() < give_up_at:
        await asyncio.wait(left, timeout=0.02)
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    if left:
        names = "\n".join(sorted(f"  {task!r}" for task in left))
        pytest.fail(f"{len(left)} task(s) outlived the test:\n{names}", pytrace=False)


def _running(before: set[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    """Tasks newer than `before`, without this fixture's own and the one in which the anyio plugin waits for it."""
    new = asyncio.all_tasks() - before - {asyncio.current_task()}
    return {task for task in new if "TestRunner" not in getattr(task.get_coro(), "__qualname__", "")}
