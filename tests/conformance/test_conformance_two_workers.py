"""The official conformance suite through a gateway of two processes: a file of its own, so that it may run beside the other."""

from collections.abc import Mapping

import pytest

from tests.conformance.cells import THROUGH, Cell, CellResult, run_and_print

pytestmark = pytest.mark.conformance


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Mapping[Cell, CellResult]:
    """The results of every cell that leads through the gateway."""
    return run_and_print(THROUGH, tmp_path_factory.mktemp("two-workers"), workers=2)


@pytest.mark.parametrize("cell", THROUGH, ids=str)
def test_exactly_the_listed_scenarios_wait(cell: Cell, results: Mapping[Cell, CellResult]) -> None:
    surprises = results[cell].surprises()
    assert not surprises, f"{cell}:\n  " + "\n  ".join(surprises)
