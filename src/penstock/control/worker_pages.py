"""What one worker says of itself, for pages that speak of all of them, and how the words of several become one.

Knows: the gateway's state, cells. Does not know: how workers reach each other, HTTP.
"""

from collections.abc import Callable, Iterable
from time import monotonic
from typing import Final, Protocol
from urllib.parse import parse_qsl, urlencode

import msgspec

from penstock.gateway.gateway import Gateway
from penstock.telemetry.cells import Cell
from penstock.telemetry.exposition import Gauge, merged, render
from penstock.telemetry.histogram import Histogram

METRICS: Final = "/-/metrics"
HEALTH: Final = "/-/health"
CALLS: Final = "/-/calls"
"""With `?server=S&tool=T`: labels of a cell."""
_WORST_FIRST: Final = ("failed", "needs authorization", "starting", "ready")


class Refusal(msgspec.Struct, frozen=True):
    """A configuration that was not taken up."""

    reason: str
    at: float
    """Seconds since 1970."""


class Siblings(Protocol):
    """The other workers."""

    @property
    def count(self) -> int:
        """How many there should be."""
        ...

    async def ask(self, target: str) -> list[bytes]:
        """What those of them say that can be reached, each of itself."""
        ...


class Health(msgspec.Struct, frozen=True):
    """How one worker is, or several together."""

    servers: dict[str, str]
    """The state of each."""
    calls_in_flight: int
    sessions: int
    refusal: Refusal | None
    """Why it has an older configuration than the file's."""
    workers: int = 1
    """Of how many this tells."""

    def with_others(self, others: Iterable["Health"]) -> "Health":
        """A server is as it is where it is worst; what is counted is added up."""
        together = [self, *others]
        states = {
            name: min((one.servers.get(name, state) for one in together), key=_WORST_FIRST.index)
            for name, state in self.servers.items()
        }
        return Health(
            states,
            calls_in_flight=sum(one.calls_in_flight for one in together),
            sessions=sum(one.sessions for one in together),
            refusal=next((one.refusal for one in together if one.refusal is not None), None),
            workers=sum(one.workers for one in together),
        )


class Durations(msgspec.Struct, frozen=True):
    """A histogram on its way."""

    buckets: tuple[int, ...]
    sum_us: int

    @staticmethod
    def of(histogram: Histogram) -> "Durations":
        return Durations(histogram.buckets(), histogram.sum_us)

    def histogram(self) -> Histogram:
        """The histogram again."""
        return Histogram.of(self.buckets, self.sum_us)


class Calls(msgspec.Struct, frozen=True):
    """What became of the calls of one tool, at one worker or at several."""

    outcomes: dict[str, int]
    overhead: Durations
    upstream: Durations
    failed: tuple[float, str] | None
    """How many seconds ago one of them last failed, and how."""

    @staticmethod
    def of(cell: Cell) -> "Calls":
        failed = cell.last_failure
        return Calls(
            {name: count for name, count in cell.outcomes.items() if count},
            Durations.of(cell.overhead),
            Durations.of(cell.upstream),
            (monotonic() - failed[0], failed[1]) if failed is not None else None,
        )

    def with_others(self, others: Iterable["Calls"]) -> "Calls":
        """All of them added up; the last failure of any."""
        together = [self, *others]
        outcomes = dict.fromkeys((name for one in together for name in one.outcomes), 0)
        for name in outcomes:
            outcomes[name] = sum(one.outcomes.get(name, 0) for one in together)
        return Calls(
            outcomes,
            _added(one.overhead for one in together),
            _added(one.upstream for one in together),
            min((one.failed for one in together if one.failed is not None), default=None),
        )


class WorkerPages:
    """The pages of one worker, and the same of all workers together."""

    def __init__(
        self,
        gateway: Gateway,
        gauges: tuple[Gauge, ...],
        refusal: Callable[[], Refusal | None],
        siblings: Siblings | None,
    ) -> None:
        self._gateway = gateway
        self._gauges = gauges
        self._refusal = refusal
        self._siblings = siblings
        self.workers: Final = 1 + (siblings.count if siblings is not None else 0)
        """How many there should be."""

    def __repr__(self) -> str:
        return f"<WorkerPages of {self._gateway!r} | one of {self.workers}>"

    def own(self, path: str, query: str) -> bytes | None:
        """A page of this worker alone; None when there is none of that name."""
        asked = dict(parse_qsl(query))
        if path == METRICS:
            return self.own_metrics()
        if path == HEALTH:
            return _encode(self._own_health())
        if path == CALLS:
            return _encode(self._own_calls(asked.get("server", ""), asked.get("tool", "")))
        return None

    def own_metrics(self) -> bytes:
        """What this worker counts, as Prometheus text."""
        return render(self._gateway.cells, self._gauges)

    async def metrics(self) -> bytes:
        """What all of them count."""
        mine, others = self.own_metrics(), await self._ask(METRICS)
        return merged([mine, *others]) if others else mine

    async def health(self) -> Health:
        """How they are; fewer `workers` than there should be when one cannot be asked."""
        return self._own_health().with_others([_health(page) for page in await self._ask(HEALTH)])

    async def calls(self, cell: Cell) -> Calls:
        """What became of the calls that a cell counts here and its like elsewhere."""
        target = f"{CALLS}?{urlencode({'server': cell.server, 'tool': cell.tool})}"
        return Calls.of(cell).with_others([_calls(page) for page in await self._ask(target)])

    async def _ask(self, target: str) -> list[bytes]:
        return await self._siblings.ask(target) if self._siblings is not None else []

    def _own_health(self) -> Health:
        context = self._gateway.context
        states = {server.name: server.state for server in context.snapshot.servers.values()}
        return Health(states, self._gateway.calls_in_flight, len(context.sessions), self._refusal())

    def _own_calls(self, server: str, tool: str) -> Calls:
        cells = (
            cell
            for cell in self._gateway.cells
            if (cell.server, cell.method, cell.tool) == (server, "tools/call", tool)
        )
        return Calls.of(next(cells, None) or Cell(server, "tools/call", tool))


def _added(all_of_them: Iterable[Durations]) -> Durations:
    total = Histogram()
    for one in all_of_them:
        total.merge(one.histogram())
    return Durations.of(total)


_encode: Final = msgspec.json.Encoder().encode
_health: Final = msgspec.json.Decoder(Health).decode
_calls: Final = msgspec.json.Decoder(Calls).decode
