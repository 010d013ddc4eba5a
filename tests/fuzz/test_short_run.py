"""A short run of each fuzzing target; for a long one: `python -m tests.fuzz`."""

import os
from pathlib import Path

import pytest

from tests.fuzz.session import TARGETS, fuzz

SECONDS = 4


@pytest.mark.parametrize("name", TARGETS)
def test_a_short_run_finds_nothing(name: str, tmp_path: Path) -> None:
    result = fuzz(name, tmp_path, SECONDS)
    if result.finding:
        pytest.fail(f"{result}\n{result.finding}", pytrace=False)
    assert result.executions > 300
    assert (
        result.edges > 100 or os.environ.get("TEST_COMPILED") == "yes"
    )  # compiled code does not say where it has been
