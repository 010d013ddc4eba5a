"""The official conformance suite, before the fixtures and through the gateway."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conformance.cells import DIRECT, MINIMA, THROUGH, Cell, CellResult, expected_failures, run_cells, table
from tests.conformance.suite import Outcome

pytestmark = pytest.mark.conformance

ALL = (*DIRECT, *THROUGH)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Mapping[Cell, CellResult]:
    """Every cell's results, from one gateway before all servers."""
    folder: Path = tmp_path_factory.mktemp("conformance")
    found = list(run_cells(ALL, folder))
    print(f"\n{table(found)}\nlogs: {folder}")
    return {result.cell: result for result in found}


@pytest.mark.parametrize("cell", ALL, ids=str)
def test_exactly_the_listed_scenarios_wait(cell: Cell, results: Mapping[Cell, CellResult]) -> None:
    surprises = results[cell].surprises()
    assert not surprises, f"{cell}:\n  " + "\n  ".join(surprises)


@pytest.mark.parametrize("cell", MINIMA, ids=str)
def test_a_cell_passes_as_many_required_scenarios_as_was_promised(
    cell: Cell, results: Mapping[Cell, CellResult]
) -> None:
    assert results[cell].passed >= MINIMA[cell]


def test_a_scenario_that_fails_unlisted_or_passes_though_listed_is_a_surprise() -> None:
    passes, fails = Outcome(passed=True, problems=()), Outcome(passed=False, problems=("why",))
    required = {"ping": passes, "caching": fails, "prompts-list": passes, "tools-list": fails}
    waiting = {"prompts-list": "later", "tools-list": "later", "misspelt": "later"}
    found = CellResult(THROUGH[0], required, {"extra": fails}, waiting)
    assert [line.split()[0] for line in found.surprises()] == ["caching", "extra", "prompts-list", "misspelt"]
    assert found.passed == 2


def test_every_list_of_waiting_scenarios_is_of_a_cell_and_gives_reasons() -> None:
    known = {str(cell) for cell in THROUGH}
    for cell, scenarios in expected_failures().items():
        assert cell in known
        assert all(len(reason) > 10 for reason in scenarios.values()), cell
