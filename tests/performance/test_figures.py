"""The benchmarks' arithmetic."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import instructions
from benchmarks.budgets import Budget, Verdict
from benchmarks.figures import Figure, quantile, ratios, rotated, rounded
from benchmarks.processes import Failed
from benchmarks.profiling import render
from benchmarks.rows import choose


def test_a_figure_is_the_median_and_keeps_the_extremes() -> None:
    assert Figure.of([3.0, 1.0, 100.0, 2.0, 4.0]) == Figure(3.0, 1.0, 100.0, 5)


def test_a_ratio_compares_values_of_the_same_round() -> None:
    # the machine was twice as slow in the second round, for both
    assert ratios([10.0, 20.0, 10.0], [5.0, 10.0, 5.0]) == Figure(2.0, 2.0, 2.0, 3)


def test_rounds_that_do_not_correspond_have_no_ratio() -> None:
    with pytest.raises(ValueError, match="zip"):
        ratios([1.0, 2.0], [1.0, 2.0, 3.0])


def test_a_quantile_is_a_value_that_occurred() -> None:
    values = [float(number) for number in range(1, 101)]
    assert (quantile(values, 0.5), quantile(values, 0.99), quantile(values, 1.0)) == (50.0, 99.0, 100.0)
    assert quantile([7.0], 0.99) == 7.0


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1.0))
def test_at_least_the_share_of_values_is_within_the_quantile(values: list[float], share: float) -> None:
    ordered = sorted(values)
    found = quantile(ordered, share)
    assert sum(value <= found for value in ordered) >= share * len(ordered) - 1e-9


def test_each_round_begins_with_another_row() -> None:
    assert [rotated("abc", by) for by in range(4)] == [list("abc"), list("bca"), list("cab"), list("abc")]
    assert rotated([], 3) == []


def test_figures_claim_no_more_digits_than_they_have() -> None:
    assert rounded(16.123456) == 16.12
    assert rounded(0.000123456) == 0.0001235


@pytest.mark.parametrize(
    ("value", "outcome", "is_kept"),
    [(1.0, "aim", True), (1.7, "ok", True), (1.91, "over", False), (None, "void", False)],
)
def test_a_budget_is_kept_only_by_what_was_shown(value: float | None, outcome: str, is_kept: bool) -> None:
    verdict = Verdict(Budget("CPU", "×", 1.9, 1.6), value)
    assert (verdict.outcome, verdict.is_kept) == (outcome, is_kept)


def test_a_profile_shows_shares_of_what_a_call_takes() -> None:
    row = choose(["modern-modern-1k"])[-1]
    text = render(row, {"a.py:1 inner": 30, "b.py:2 outer": 10}, {"a.py:1 inner": 30, "b.py:2 outer": 40}, 60.0)
    assert [line.split() for line in text.splitlines()[2:4]] == [
        ["a.py:1", "inner", "45.00", "75.0%", "45.00"],
        ["b.py:2", "outer", "15.00", "25.0%", "60.00"],
    ]
    with pytest.raises(Failed, match="saw nothing"):
        render(row, {}, {}, 60.0)


LISTING = """
30,000 (100.0%)  PROGRAM TOTALS
20,000 (66.67%)  ???:_PyEval_EvalFrameDefault [/usr/bin/python3.11]
 4,000 (13.33%)  /a/b.c:inner [/lib/c.so]
 2,000 ( 6.67%)  /a/c.h:inner [/lib/c.so]
"""


def test_instructions_are_those_of_one_call() -> None:
    row = choose(["modern-modern-1k"])[-1]
    text = instructions.render(row, "events: Ir\nsummary: 0\ntotals: 30000\n", LISTING, 10)
    assert "3,000 instructions for each call" in text
    assert [line.split() for line in text.splitlines()[2:]] == [
        ["_PyEval_EvalFrameDefault", "2,000", "66.7%", "python3.11"],
        ["inner", "600", "20.0%", "c.so"],
    ]
    with pytest.raises(Failed, match="counted nothing"):
        instructions.render(row, "summary: 0\ntotals: 0\n", "", 10)
