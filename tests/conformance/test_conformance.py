"""The official conformance suite, before the fixtures and through the gateway."""

from collections.abc import Mapping

import pytest

from tests.conformance.cells import (
    DIRECT,
    LEGACY,
    MODERN,
    PAGE,
    THROUGH,
    Cell,
    CellResult,
    Expectation,
    expectations,
    page,
    run_and_print,
)
from tests.conformance.suite import Outcome, scenarios

pytestmark = pytest.mark.conformance

ALL = (*DIRECT, *THROUGH)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Mapping[Cell, CellResult]:
    """Every cell's results, from one gateway before all servers."""
    return run_and_print(ALL, tmp_path_factory.mktemp("conformance"), workers=1)


@pytest.mark.parametrize("cell", ALL, ids=str)
def test_exactly_the_listed_scenarios_wait(cell: Cell, results: Mapping[Cell, CellResult]) -> None:
    surprises = results[cell].surprises()
    assert not surprises, f"{cell}:\n  " + "\n  ".join(surprises)


def test_the_page_shows_what_came_out(results: Mapping[Cell, CellResult]) -> None:
    text = PAGE.read_text("utf-8")
    assert text == page(list(results.values()), text), (
        f"run .venv/bin/python -m tests.conformance --docs for {PAGE.name}"
    )


def test_a_scenario_that_fails_unlisted_or_passes_though_listed_is_a_surprise() -> None:
    passes, fails = Outcome(passed=True, problems=()), Outcome(passed=False, problems=("why",))
    required = {"ping": passes, "caching": fails, "prompts-list": passes, "tools-list": fails}
    waiting = {"prompts-list": "later", "tools-list": "later", "misspelt": "later"}
    found = CellResult(THROUGH[0], required, {"extra": fails}, Expectation(2, waiting))
    assert [line.split()[0] for line in found.surprises()] == ["caching", "extra", "prompts-list", "misspelt"]
    assert found.passed == 2


def test_fewer_passes_than_promised_are_a_surprise_though_every_failure_is_listed() -> None:
    required = {"ping": Outcome(passed=False, problems=("why",))}
    found = CellResult(THROUGH[0], required, {}, Expectation(1, {"ping": "later"}))
    assert found.surprises() == ["0 required scenarios pass, 1 were promised"]


def test_every_cell_is_held_to_something_and_every_scenario_that_waits_gives_a_reason() -> None:
    held = expectations()
    assert held.keys() == {str(cell) for cell in ALL}
    for cell, expected in held.items():
        assert expected.least > 0, cell
        assert all(len(reason) > 10 for reason in expected.waiting.values()), cell


def test_the_suite_is_asked_which_scenarios_a_revision_requires_and_which_it_runs_besides() -> None:
    modern, legacy = scenarios(MODERN, "server"), scenarios(LEGACY, "server")
    assert (len(modern.required), len(legacy.required)) == (37, 30)
    assert "http-header-validation" in modern.unscored
    assert "server-session-lifecycle" in legacy.unscored
    assert not any(name.startswith("auth/") for name in (*modern.required, *modern.unscored))
