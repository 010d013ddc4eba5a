"""The official suite's client scenarios, with the gateway as the client."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conformance.client_driver import SCENARIOS
from tests.conformance.client_side import CONCERNING, LEFT_OUT, Run, RunResult, run_all, runs, table, waiting
from tests.conformance.suite import Outcome, scenarios

pytestmark = pytest.mark.conformance

ALL = runs()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Mapping[Run, RunResult]:
    """What came of every scenario, each with a gateway of its own."""
    folder: Path = tmp_path_factory.mktemp("client-side")
    found = run_all(ALL, folder)
    print(f"\n{table(found)}\nlogs: {folder}")
    return {result.run: result for result in found}


@pytest.mark.parametrize("run", ALL, ids=str)
def test_a_client_scenario_passes_unless_it_is_listed(run: Run, results: Mapping[Run, RunResult]) -> None:
    assert results[run].surprise is None


def test_every_client_scenario_of_the_suite_is_run_or_is_about_signing_in() -> None:
    for revision, names in CONCERNING.items():
        offered = [name for some in scenarios(revision, "client") for name in some]
        assert list(names) == [name for name in offered if not name.startswith(LEFT_OUT)]


def test_the_client_knows_what_to_do_in_every_scenario() -> None:
    assert {run.scenario for run in ALL} == SCENARIOS.keys()


def test_every_listed_scenario_is_one_and_gives_a_reason() -> None:
    known = {(run.pair, run.scenario) for run in ALL}
    for pair, reasons in waiting().items():
        for scenario, reason in reasons.items():
            assert (pair, scenario) in known
            assert len(reason) > 10


def test_a_run_that_fails_unlisted_or_passes_though_listed_is_a_surprise() -> None:
    passes, fails = Outcome(passed=True, problems=()), Outcome(passed=False, problems=("why",))
    assert [
        bool(RunResult(ALL[0], outcome, waits).surprise) for outcome in (passes, fails) for waits in (None, "later")
    ] == [
        False,
        True,
        True,
        False,
    ]
