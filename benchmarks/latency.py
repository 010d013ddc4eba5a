"""How much later answers come through the gateway than from the server itself, at a fixed rate.

Knows: rounds, when one is void. Does not know: how calls are sent, budgets.
In each round the same calls go once to the raw server and once through the gateway; what is added is the difference between the
quantiles of both. A round in which the sender was late counts for nothing and is repeated, a bounded number of times.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from benchmarks.client import Template, verify
from benchmarks.cpu import Note
from benchmarks.figures import Figure
from benchmarks.messages import Shape, shape
from benchmarks.processes import Failed
from benchmarks.rows import GATEWAY, YARDSTICKS
from benchmarks.sender import GIVE_UP_SECONDS, Order, Outcome
from benchmarks.stage import Stage

CALLS_PER_SECOND: Final = 1000.0
MAX_SLIP_MS: Final = 0.3
"""A round is void when one call in a hundred left later than this."""
VOID_PER_ROUND: Final = 2
"""So many void rounds are repeated for each round that was asked for."""
GRACE_SECONDS: Final = 10.0


class Round(NamedTuple):
    """The same calls without and with the gateway."""

    direct: Outcome
    gateway: Outcome

    @property
    def is_void(self) -> bool:
        """Whether the sender slipped."""
        return max(self.direct.slip_p99, self.gateway.slip_p99) > MAX_SLIP_MS

    @property
    def added_p50(self) -> float:
        """In milliseconds."""
        return self.gateway.p50 - self.direct.p50

    @property
    def added_p99(self) -> float:
        """In milliseconds."""
        return self.gateway.p99 - self.direct.p99


class Latency(NamedTuple):
    """All rounds, the void ones apart."""

    rounds: list[Round]
    void: list[Round]
    asked: int

    @property
    def is_complete(self) -> bool:
        """Whether there are as many valid rounds as were asked for."""
        return len(self.rounds) >= self.asked

    def added(self) -> tuple[Figure, Figure] | None:
        """Added latency, p50 and p99; None when too many rounds were void to say."""
        if not self.is_complete:
            return None
        return Figure.of([one.added_p50 for one in self.rounds]), Figure.of([one.added_p99 for one in self.rounds])

    def as_json(self) -> dict[str, Any]:
        """JSON-ready; times in milliseconds."""
        added = self.added()
        return {
            "calls_per_second": CALLS_PER_SECOND,
            "max_slip_p99_ms": MAX_SLIP_MS,
            "added_p50_ms": added[0].as_json() if added else None,
            "added_p99_ms": added[1].as_json() if added else None,
            "rounds": [{"direct": one.direct._asdict(), "gateway": one.gateway._asdict()} for one in self.rounds],
            "void": [{"direct": one.direct._asdict(), "gateway": one.gateway._asdict()} for one in self.void],
        }


def collect(take: Callable[[int], Round], asked: int, note: Note) -> Latency:
    """Take rounds until `asked` are valid, or too many were void. `take` is given the number of the attempt."""
    latency = Latency([], [], asked)
    while not latency.is_complete and len(latency.void) <= asked * VOID_PER_ROUND:
        one = take(len(latency.rounds) + len(latency.void))
        (latency.void if one.is_void else latency.rounds).append(one)
        slip = max(one.direct.slip_p99, one.gateway.slip_p99)
        verdict = "void, the sender slipped" if one.is_void else "valid"
        note(
            f"latency {len(latency.rounds)}/{asked} {verdict}: added p50 {one.added_p50:.3f} ms, p99 {one.added_p99:.3f} ms "
            f"(sender's slip p99 {slip:.3f} ms)"
        )
    return latency


def measure(stage: Stage, *, rounds: int, seconds: float, note: Note) -> Latency:
    """Added latency of a modern call with a 1 KB result.

    Raises:
        Failed: an answer was not right, or did not come.
    """
    ways = {}
    for name in ("raw-modern-1k", "modern-modern-1k"):
        row = next(row for row in (*YARDSTICKS, *GATEWAY) if row.name == name)
        place = stage.place(row)
        made = shape(row.client, row.tool, path=place.path)
        template = verify(place.port, [made], row.client, row.tool, 200, connections=64)
        if template is None:
            raise Failed(f"{name}: answers differ in more than their ids; the sender cannot verify them")
        ways[name] = (place.port, made, template)

    def take(attempt: int) -> Round:
        order = ["raw-modern-1k", "modern-modern-1k"]
        if attempt % 2:
            order.reverse()
        outcomes = {name: _send(stage, *ways[name], seconds) for name in order}
        return Round(outcomes["raw-modern-1k"], outcomes["modern-modern-1k"])

    return collect(take, rounds, note)


def _send(stage: Stage, port: int, made: Shape, template: Template, seconds: float) -> Outcome:
    order = Order(
        port,
        made.head.decode("latin-1"),
        made.tail.decode("latin-1"),
        template.prefix.decode("latin-1"),
        template.suffix.decode("latin-1"),
        CALLS_PER_SECOND,
        round(seconds * CALLS_PER_SECOND),
    )
    file = stage.folder / "order.json"
    file.write_text(json.dumps(order._asdict()), "utf-8")
    command = [sys.executable, "-m", "benchmarks.sender", str(file)]
    limit = seconds * 2 + GIVE_UP_SECONDS + GRACE_SECONDS
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    if done.returncode:
        raise Failed(f"the paced sender failed: {done.stderr[-500:].strip()}")
    outcome = Outcome(**json.loads(done.stdout))
    if outcome.wrong or outcome.unanswered:
        raise Failed(
            f"of {outcome.calls} paced calls {outcome.wrong} were answered wrongly and {outcome.unanswered} not at all"
        )
    return outcome
