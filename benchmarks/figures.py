"""From many rounds to one figure.

Knows: medians, quantiles, ratios. Does not know: what the numbers are of.
"""

import math
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class Figure(NamedTuple):
    """The median of several rounds, and how far they lie apart."""

    median: float
    least: float
    most: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Figure":
        """Of at least one value."""
        return cls(median(values), min(values), max(values), len(values))

    def as_json(self) -> dict[str, float | int]:
        """JSON-ready."""
        return {
            "median": rounded(self.median),
            "least": rounded(self.least),
            "most": rounded(self.most),
            "rounds": self.rounds,
        }


def ratios(values: Sequence[float], references: Sequence[float]) -> Figure:
    """Each round's value over the reference of the same round: what disturbs the machine for a while disturbs both.

    The rounds must correspond, and no reference may be 0.
    """
    return Figure.of([value / reference for value, reference in zip(values, references, strict=True)])


def quantile(ordered: Sequence[float], share: float) -> float:
    """The least value that at least `share` of all values do not exceed (nearest rank). `ordered` is sorted and not empty."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def rotated(items: Sequence[T], by: int) -> list[T]:
    """The same items, beginning at another one, so that over the rounds none always comes first."""
    start = by % len(items) if items else 0
    return [*items[start:], *items[:start]]


def rounded(value: float) -> float:
    """Four significant digits: no figure here means more."""
    return float(f"{value:.4g}")
