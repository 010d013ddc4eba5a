"""What was promised, and whether it holds.

Knows: the numbers. Does not know: how anything was measured.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

from benchmarks.at_rest import SERVE, VERSION, Times
from benchmarks.figures import Figure, rounded
from benchmarks.latency import Latency
from benchmarks.processes import Memory
from benchmarks.rows import Row

MIB: Final = 2**20


class Budget(NamedTuple):
    """At most `ships`, or it does not ship; `aim` is what is worked towards."""

    name: str
    unit: str
    ships: float
    aim: float


P50: Final = Budget("added latency p50 at 1,000 calls/s", "ms", 0.3, 0.15)
P99: Final = Budget("added latency p99 at 1,000 calls/s", "ms", 1.5, 0.8)
MEMORY: Final = Budget("memory of a worker at rest (RSS)", "MB", 70, 50)
FIRST_ANSWER: Final = Budget(SERVE, "s", 1.5, 0.8)
VERSION_TIME: Final = Budget(VERSION, "s", 0.25, 0.12)


class Verdict(NamedTuple):
    """A budget, and what was measured."""

    budget: Budget
    value: float | None
    """None when it could not be measured: too many rounds were void."""

    @property
    def outcome(self) -> Literal["aim", "ok", "over", "void"]:
        """`aim` when even the aim is met."""
        if self.value is None:
            return "void"
        if self.value > self.budget.ships:
            return "over"
        return "aim" if self.value <= self.budget.aim else "ok"

    @property
    def is_kept(self) -> bool:
        """What could not be shown is not kept."""
        return self.outcome in {"aim", "ok"}

    def as_json(self) -> dict[str, Any]:
        """JSON-ready."""
        value = None if self.value is None else rounded(self.value)
        return {**self.budget._asdict(), "value": value, "outcome": self.outcome}


def of_rows(found: Mapping[Row, Figure]) -> list[Verdict]:
    """Verdicts on each row's ratio to its nginx row."""
    return [
        Verdict(Budget(f"CPU per call: {row.title}", "× nginx", row.ships, row.aim), figure.median)
        for row, figure in found.items()
        if row.ships is not None and row.aim is not None
    ]


def of_latency(latency: Latency) -> list[Verdict]:
    """Verdicts on p50 and p99."""
    added = latency.added()
    return [Verdict(P50, added[0].median if added else None), Verdict(P99, added[1].median if added else None)]


def of_memory(memory: Memory) -> list[Verdict]:
    """The stricter of both figures: memory shared with other processes counts in full."""
    return [Verdict(MEMORY, memory.rss / 1e6)]


def of_times(times: Times) -> list[Verdict]:
    """Verdicts on starting."""
    figures = times.figures()
    return [Verdict(FIRST_ANSWER, figures[SERVE][0].median), Verdict(VERSION_TIME, figures[VERSION][0].median)]
