"""Durations in buckets: bounded in number, bounded in error."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock.telemetry.histogram import BUCKETS, Histogram, bucket_of, upper_bound

MICROSECONDS = st.integers(0, 2**32 - 1)
DURATIONS = st.lists(MICROSECONDS.map(lambda number: number / 1e6), max_size=50)


@given(MICROSECONDS)
@example(0)
@example(1)
@example(7)
@example(8)
@example(2**32 - 1)
def test_a_duration_lies_within_its_bucket(microseconds: int) -> None:
    bucket = bucket_of(microseconds)
    assert 0 <= bucket < BUCKETS
    lower = upper_bound(bucket - 1) if bucket else 0
    assert lower <= microseconds < upper_bound(bucket)


@given(st.integers(0, BUCKETS - 2))
def test_buckets_follow_each_other_without_gap_and_are_narrow(bucket: int) -> None:
    assert upper_bound(bucket) < upper_bound(bucket + 1)
    assert bucket_of(upper_bound(bucket)) == bucket + 1
    assert bucket_of(upper_bound(bucket) - 1) == bucket
    width = upper_bound(bucket + 1) - upper_bound(bucket)
    assert width <= max(1, upper_bound(bucket) / 4)


@given(st.integers(-(10**6), 2**40))
def test_recording_finds_the_bucket_that_is_documented(microseconds: int) -> None:
    histogram = Histogram()
    histogram.record(microseconds / 1e6)
    (found,) = (bucket for bucket, count in enumerate(histogram.buckets()) if count)
    assert found == bucket_of(int(microseconds / 1e6 * 1e6))
    assert histogram.sum_us == max(0, int(microseconds / 1e6 * 1e6))


@given(DURATIONS.filter(bool), st.floats(0, 1))
def test_a_quantile_is_within_an_eighth_of_the_truth(durations: list[float], share: float) -> None:
    histogram = Histogram()
    for duration in durations:
        histogram.record(duration)
    ranked = sorted(durations)
    truth = ranked[max(0, min(len(ranked) - 1, -(-int(share * len(ranked) * 1e9) // 10**9) - 1))]
    near = [abs(histogram.quantile(share) - one) <= one * 0.126 + 1e-6 for one in (truth, *ranked)]
    assert any(near)


def test_quantiles_of_known_durations() -> None:
    histogram = Histogram()
    assert (repr(histogram), histogram.quantile(0.5)) == ("<Histogram empty>", 0.0)
    for number in range(1, 101):
        histogram.record(number / 1_000)
    for share in (0.1, 0.5, 0.9, 0.99):
        assert abs(histogram.quantile(share) - share / 10) <= share / 10 * 0.13
    assert repr(histogram).startswith("<Histogram 100 | p50 ")
    assert histogram.quantile(2.0) == 0.0  # beyond all there is


@given(DURATIONS, DURATIONS)
def test_merging_is_recording_both(left: list[float], right: list[float]) -> None:
    one, other, both = Histogram(), Histogram(), Histogram()
    for duration in left:
        one.record(duration)
        both.record(duration)
    for duration in right:
        other.record(duration)
        both.record(duration)
    one.merge(other)
    assert (one.buckets(), one.count, one.sum_us) == (both.buckets(), both.count, both.sum_us)


@given(DURATIONS)
def test_counts_that_came_from_elsewhere_are_the_same_histogram(durations: list[float]) -> None:
    there = Histogram()
    there.record_all(durations)
    here = Histogram.of(there.buckets(), there.sum_us)
    assert (here.buckets(), here.count, here.sum_us) == (there.buckets(), there.count, there.sum_us)
    with pytest.raises(ValueError, match="expected 128 buckets, got 127"):
        Histogram.of(there.buckets()[1:], 0)


@given(DURATIONS)
def test_cumulative_counts_are_exact_at_the_ends_of_buckets(durations: list[float]) -> None:
    histogram = Histogram()
    for duration in durations:
        histogram.record(duration)
    bounds = (7, 63, 1_023, 8_191, 2**31 - 1)
    recorded = [int(duration * 1e6) for duration in durations]
    assert histogram.cumulative(bounds) == [sum(one <= bound for one in recorded) for bound in bounds]
    assert histogram.cumulative((2**40,)) == [len(durations)]
