"""The behaviour table: it is whole, every check passes directly and through the gateway, and fails with each of its mutations."""

from collections.abc import Mapping

import pytest

pytest.register_assert_rewrite("tests.conformance.checks")

from tests.conformance.all_checks import all_checks  # noqa: E402 - after its assertions are told to explain themselves
from tests.conformance.behaviour_report import markdown, summary  # noqa: E402
from tests.conformance.behaviour_table import TESTS, RowError, holes, read_row, rows  # noqa: E402
from tests.conformance.checking import RunResult, run_all, runs_of  # noqa: E402
from tests.conformance.stage import Stage  # noqa: E402

CHECKS = all_checks()
TABLE = list(rows().values())
RUNS = runs_of(TABLE, CHECKS)
MAX_VAIN = 5
"""Of several hundred runs; none on a machine that does nothing else."""
GOOD = {"level": "SHOULD", "revisions": ["2026-07-28"], "says": "…", "link": "x", "cells": ["any -> legacy over any"]}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, RunResult]:
    """What came of every run, on one stage."""
    with Stage(tmp_path_factory.mktemp("behaviours")) as stage:
        found = run_all(RUNS, CHECKS, stage)
    print(f"\n{summary(TABLE, CHECKS, found)}")
    return {str(result.run): result for result in found}


@pytest.mark.conformance
@pytest.mark.parametrize("row", [row.id for row in TABLE if row.id in CHECKS])
def test_a_behaviour_holds_and_its_check_fails_with_each_mutation(row: str, results: Mapping[str, RunResult]) -> None:
    problems = [
        f"{result.run}: {result.problem}" for result in results.values() if result.run.row.id == row and result.problem
    ]
    assert not problems, "\n".join(problems)
    assert any(result.run.row.id == row for result in results.values())


@pytest.mark.conformance
def test_few_mutations_meet_nothing_at_first(results: Mapping[str, RunResult]) -> None:
    again = [f"{result.run}: {why}" for result in results.values() for why in result.vain]
    assert len(again) <= MAX_VAIN, "\n".join(again)


def test_every_row_is_held_and_every_must_is_mutated_or_says_why_not() -> None:
    assert not holes(TABLE, frozenset(CHECKS))


def test_every_check_is_of_a_row() -> None:
    assert CHECKS.keys() <= rows().keys()


def test_a_row_says_what_is_wrong_with_it() -> None:
    row = read_row("a", "topic", GOOD)
    assert [str(cell) for cell in row.cells] == [
        f"{client} -> legacy{over}" for client in ("modern", "legacy") for over in ("", " over stdio")
    ]
    for bad, said in (
        ({"level": "MAY"}, "expected one of MUST"),
        ({"cells": ["new -> old"]}, "expected 'modern|legacy|any"),
        ({"revisions": ["2099-01-01"]}, "unknown 2099-01-01"),
        ({"colour": "red"}, "has no key colour"),
        ({"mutations": [{"to": "client"}], "not_mutable": "…"}, "says why it has none"),
    ):
        with pytest.raises(RowError, match=said.replace("|", "\\|")):
            read_row("a", "topic", {**GOOD, **bad})
    with pytest.raises(RowError, match="lacks says"):
        read_row("a", "topic", {key: value for key, value in GOOD.items() if key != "says"})


def test_holes_are_named() -> None:
    must = {**GOOD, "level": "MUST"}
    table = [
        read_row("bare", "topic", must),
        read_row("unchecked", "topic", {**must, "mutations": [{"to": "client", "omit": True}]}),
        read_row("missing", "topic", {**GOOD, "tests": ["conformance/test_behaviours.py::test_nothing"]}),
        read_row("held", "topic", {**GOOD, "tests": ["conformance/test_behaviours.py::test_holes_are_named"]}),
    ]
    assert holes(table, frozenset({"checked"})) == [
        "bare is held by nothing: neither a check nor a test",
        "bare is a MUST without a mutation, and does not say why (not_mutable)",
        "unchecked is held by nothing: neither a check nor a test",
        "unchecked has mutations, but no check that they could break",
        "missing names conformance/test_behaviours.py::test_nothing, which does not exist",
    ]


def test_the_docs_have_the_table_as_it_is() -> None:
    page = (TESTS.parent / "docs" / "behaviours.md").read_text("utf-8")
    assert page == f"{markdown(TABLE, CHECKS)}\n", (
        "run python -m tests.conformance.behaviours --markdown > docs/behaviours.md"
    )


def test_the_table_is_printed_by_topic() -> None:
    text = markdown(TABLE, CHECKS)
    assert all(f"[{row.id}]({row.url})" in text for row in TABLE)
    assert "| all | " in summary(TABLE, CHECKS, [RunResult(RUNS[0], "why")])
