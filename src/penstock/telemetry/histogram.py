"""A log-linear histogram of durations, made of plain integers.

Knows: microseconds and buckets. Does not know: what is measured. Each power of two is cut into 4 equal parts, so a quantile
is at most 12.5 % off (half a bucket's width); 1 µs to 2^32 µs (71 minutes) fit in 128 buckets. Source: the bucket scheme of
HdrHistogram (G. Tene), with 2 significant bits instead of decimal digits.
"""

from collections import Counter
from collections.abc import Collection
from typing import Final

_SUB_BITS: Final = 2
_SUBS: Final = 1 << _SUB_BITS
_MAX_EXPONENT: Final = 32
BUCKETS: Final = (_MAX_EXPONENT - _SUB_BITS + 1) * _SUBS + _SUBS


def bucket_of(microseconds: int) -> int:
    """The bucket a duration falls in; the first one for those below 0."""
    if microseconds <= 0:
        return 0
    exponent = microseconds.bit_length() - 1 - _SUB_BITS
    if exponent <= 0:
        return microseconds
    return min((exponent << _SUB_BITS) + (microseconds >> exponent), BUCKETS - 1)


def upper_bound(bucket: int) -> int:
    """The first duration, in microseconds, that lies beyond the bucket."""
    exponent, sub = bucket >> _SUB_BITS, bucket & (_SUBS - 1)
    if exponent <= 1:
        return bucket + 1
    return (_SUBS + sub + 1) << (exponent - 1)


class Histogram:
    """Counts by bucket, and the sum."""

    __slots__ = ("_buckets", "count", "sum_us")

    def __init__(self) -> None:
        self._buckets = [0] * BUCKETS
        self.count = 0
        self.sum_us = 0

    def __repr__(self) -> str:
        if not self.count:
            return "<Histogram empty>"
        return (
            f"<Histogram {self.count} | p50 {self.quantile(0.5) * 1e3:.3f} ms p99 {self.quantile(0.99) * 1e3:.3f} ms>"
        )

    def record(self, seconds: float) -> None:
        """Count one duration; negative ones count as 0."""
        self.record_all((seconds,))

    def record_all(self, durations: Collection[float]) -> None:
        """Count many: equal ones, to the microsecond, are counted at once."""
        buckets, total = self._buckets, 0
        for microseconds, times in Counter([int(seconds * 1e6) for seconds in durations]).items():
            buckets[bucket_of(microseconds)] += times
            total += max(0, microseconds) * times
        self.count += len(durations)
        self.sum_us += total

    def quantile(self, share: float) -> float:
        """Seconds below which that share (0 to 1) of the durations lies; 0.0 when there are none."""
        rank = share * self.count
        seen = 0
        for bucket, found in enumerate(self._buckets):
            seen += found
            if found and seen >= rank:
                lower = upper_bound(bucket - 1) if bucket else 0
                return (lower + upper_bound(bucket)) / 2e6
        return 0.0

    def buckets(self) -> tuple[int, ...]:
        """The counts, least durations first."""
        return tuple(self._buckets)

    @staticmethod
    def of(buckets: Collection[int], sum_us: int) -> "Histogram":
        """Counts that came from elsewhere, one for each bucket.

        Raises:
            ValueError: there are not as many as there are buckets.
        """
        if len(buckets) != BUCKETS:
            raise ValueError(f"expected {BUCKETS} buckets, got {len(buckets)}")
        made = Histogram()
        made._buckets = list(buckets)
        made.count, made.sum_us = sum(buckets), sum_us
        return made

    def merge(self, other: "Histogram") -> None:
        """Add another's counts to ours."""
        self._buckets = [mine + theirs for mine, theirs in zip(self._buckets, other.buckets(), strict=True)]
        self.count += other.count
        self.sum_us += other.sum_us

    def cumulative(self, bounds_us: tuple[int, ...]) -> list[int]:
        """How many durations lie at or below each bound (ascending), counted by whole buckets."""
        counts, seen, bucket = [], 0, 0
        for bound in bounds_us:
            while bucket < BUCKETS and upper_bound(bucket) - 1 <= bound:
                seen += self._buckets[bucket]
                bucket += 1
            counts.append(seen)
        return counts
