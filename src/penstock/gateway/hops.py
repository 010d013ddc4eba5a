"""From one worker to another: a request that only a sibling can answer is handed to it whole, and its answer passed on.

Where all that its client asks for is there, the client's connection goes with it, and nothing has to be passed on any more.

Knows: where siblings listen, HTTP requests and answers. Does not know: sessions, eras, why a request has to hop.
Invariants: a request hops once at most; a client that goes away is gone for the sibling too; a sibling that is being started
again costs its requests a clear error, and nothing else.

Source: DESIGN "Processes"; the answer goes the way of any server's: plainly, or event by event.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, NamedTuple

from penstock.clock import Clock
from penstock.errors import PenstockError, ServerError
from penstock.gateway.admittance import HOPPED, PRINCIPAL
from penstock.gateway.edges.head import FACTS, HeadFacts
from penstock.http.client import ClientConnection, ConnectionLost, RequestFailed, Response, connect_unix
from penstock.http.limits import ClientLimits, ServerLimits
from penstock.http.passage import Passage
from penstock.http.server import EventStream, Exchange
from penstock.protocol.event_stream import Event, encode_event
from penstock.protocol.headers import encode_value
from penstock.upstreams.pool import Pool, PoolSettings

CONNECTIONS: Final = PoolSettings(
    max_size=4096, max_waiting=4096, wait_seconds=5.0, idle_seconds=60.0, lifetime_seconds=3600.0
)
_FRAMING: Final = frozenset({b"content-length", b"expect", b"transfer-encoding"})
_NOT_HANDED_ON: Final = _FRAMING | {
    b"connection",
    b"keep-alive",
    b"te",
    b"upgrade",
    b"accept-encoding",
    PRINCIPAL,
    HOPPED,
}
_MARK: Final = HOPPED + b": 1\r\n"
_GREETING: Final = b"GET /health HTTP/1.1\r\nhost: worker\r\n\r\n"
_DROPPABLE: Final = tuple(
    b'{"jsonrpc":"2.0","method":"notifications/%b' % word
    for word in (
        b'progress"',
        b'resources/updated"',
        b'tools/list_changed"',
        b'prompts/list_changed"',
        b'resources/list_changed"',
    )
)
"""How events begin that a slow reader loses first, as our edges write them."""
_HANDED_BACK: Final = (b"mcp-session-id", b"allow", b"server-timing", b"retry-after")
TELL_SECONDS: Final = 2.0
"""What a sibling has for each."""
RECENTLY_SECONDS: Final = 2.0
"""Clients' connections are passed to a sibling that has answered within this time; with one that hangs nobody would be told."""


class Telling(NamedTuple):
    """How much may be under way to the siblings that nobody waits for, and that they are only to take note of."""

    of_one: int = 256
    """Messages of one client session: who floods us loses its own, not those of others."""
    of_all: int = 1024
    """Messages of all sessions together."""
    max_bytes: int = 8 * 1024 * 1024
    """Of all together, their heads included."""


TELLING: Final = Telling()


class Hops:
    """One worker's ways to its siblings."""

    def __init__(
        self,
        index: int,
        siblings: Sequence[Path],
        *,
        clock: Clock,
        limits: ClientLimits,
        in_background: Callable[[Coroutine[Any, Any, None]], None],
        passage: Passage | None = None,
        header_bytes: int = ServerLimits().header_bytes,
        telling: Telling = TELLING,
    ) -> None:
        """`header_bytes`: of the largest header block that a sibling takes from a client."""
        self.index: Final = index
        self.count: Final = len(siblings)
        self._paths: Final = tuple(siblings)
        self._clock = clock
        self._limits = limits
        self._in_background = in_background
        self._passage = passage
        self._header_bytes = header_bytes
        self._telling: Final = telling
        self._told_bytes = 0
        self._told: Counter[object] = Counter()
        """Messages under way that nobody waits for, by whose they are."""
        self._answered_at = [-RECENTLY_SECONDS] * len(siblings)
        """Clock time when each has last answered us."""
        self._pools = [self._pool_to(number) for number in range(len(siblings))]

    def __repr__(self) -> str:
        return f"<Hops of worker {self.index} of {self.count} [{self._told.total()} told] {self._pools!r}>"

    def home_of(self, worker: int) -> int:
        """Who has what was left with that worker; numbers of an earlier, larger gateway are mapped into this one."""
        return worker % self.count

    def is_home(self, worker: int) -> bool:
        """Whether that is this worker."""
        return self.home_of(worker) == self.index

    def hand_over_client(self, exchange: Exchange, worker: int, fail: Callable[[PenstockError], None]) -> None:
        """Let a sibling answer, and have the client's connection if possible: what comes next on it will be for that one, too."""
        passage = self._passage
        if passage is not None and self._clock.now() - self._answered_at[worker] < RECENTLY_SECONDS:
            head = _head_of(exchange, is_hop=False)
            fits = len(head) <= self._header_bytes  # written anew, a header block may have grown
            if fits and exchange.give_away(partial(passage.give, worker, head + exchange.request.body)):
                return
        self.hand_over(exchange, worker, fail)

    def hand_over(self, exchange: Exchange, worker: int, fail: Callable[[PenstockError], None]) -> None:
        """Let a sibling answer; `fail` is told when it cannot."""
        task = exchange.spawn(self._relay(exchange, worker, fail))
        exchange.on_disconnect = task.cancel

    def tell_others(self, exchange: Exchange, teller: object) -> bool:
        """Hand the request to every sibling, and wait for none; False when too much of that is under way, of one or in all."""
        telling, head, body = self._telling, _head_of(exchange), exchange.request.body
        size = len(head) + len(body)
        if (
            self._told[teller] >= telling.of_one
            or self._told.total() >= telling.of_all
            or self._told_bytes + size > telling.max_bytes
        ):
            return False
        self._told[teller] += 1
        self._told_bytes += size
        self._in_background(self._told_unawaited(head, body, teller))
        return True

    async def others_told(self, exchange: Exchange) -> None:
        """Hand the request to every sibling, until each has taken note or had its time; for clients that wait for that."""
        await self._tell_all(_head_of(exchange), exchange.request.body)

    def sweep(self) -> None:
        """Close connections that have rested too long."""
        for pool in self._pools:
            pool.sweep()

    async def ask(self, worker: int, method: bytes, path: bytes, body: bytes = b"") -> Response:
        """A request of our own.

        Raises:
            RequestFailed, ServerError: it cannot be reached.
        """
        head = b"%b %b HTTP/1.1\r\nhost: worker\r\ncontent-type: application/json\r\n" % (method, path)
        return await self._send(worker, b"%bcontent-length: %d\r\n\r\n" % (head, len(body)), body, None, None)

    async def close(self) -> None:
        """End all connections."""
        for pool in self._pools:
            await pool.close(loans_too=True)

    async def _relay(self, exchange: Exchange, worker: int, fail: Callable[[PenstockError], None]) -> None:
        relay = _Relay(exchange)
        try:
            response = await self._send(
                worker, _head_of(exchange), exchange.request.body, relay.on_event, relay.on_stream
            )
        except (RequestFailed, ServerError) as error:
            if relay.stream is None:
                fail(error)
            else:
                exchange.failed(None)  # the stream is cut: what it still had to say is lost
            return
        relay.end(response)

    async def _told_unawaited(self, head: bytes, body: bytes, teller: object) -> None:
        try:
            await self._tell_all(head, body)
        finally:
            self._told_bytes -= len(head) + len(body)
            self._told[teller] -= 1
            if not self._told[teller]:
                del self._told[teller]

    async def _tell_all(self, head: bytes, body: bytes) -> None:
        others = (worker for worker in range(self.count) if worker != self.index)
        await asyncio.gather(*(self._tell(worker, head, body) for worker in others))

    async def _tell(self, worker: int, head: bytes, body: bytes) -> None:
        try:
            async with asyncio.timeout(TELL_SECONDS):
                await self._send(worker, head, body, None, None)
        except (RequestFailed, ServerError, TimeoutError):
            return  # it is being started again, and knows nothing of what it was to be told

    async def _send(
        self,
        worker: int,
        head: bytes,
        body: bytes,
        on_event: Callable[[Event], bool] | None,
        on_stream: Callable[[], object] | None,
    ) -> Response:
        pool = self._pools[worker]
        connection = pool.try_borrow() or await pool.borrow()
        connection.on_stream = on_stream
        try:
            response = await connection.request(head, body, on_event)
            self._answered_at[worker] = self._clock.now()
            return response
        finally:
            connection.on_stream = None
            pool.give_back(connection, discard=connection.is_busy)

    def _pool_to(self, worker: int) -> Pool[ClientConnection]:
        async def opened() -> ClientConnection:
            connection = await connect_unix(self._paths[worker], limits=self._limits)
            try:  # one that is being started again is connected to as well: its socket has a queue
                async with asyncio.timeout(self._limits.connect_seconds):
                    await connection.request(_GREETING)
                self._answered_at[worker] = self._clock.now()
            except TimeoutError as error:
                seconds = self._limits.connect_seconds
                raise ConnectionLost(
                    f"worker {worker} does not answer within {seconds:g} s", unprocessed=True
                ) from error
            return connection

        return Pool(
            f"worker {worker}",
            open=opened,
            close=ClientConnection.close,
            is_closed=attrgetter("is_over"),
            check=None,
            settings=CONNECTIONS,
            clock=self._clock,
        )


class _Relay:
    """A sibling's answer on its way to the client."""

    __slots__ = ("_exchange", "stream")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange: Final = exchange
        self.stream: EventStream | None = None

    def on_stream(self) -> None:
        """The answer is an event stream."""
        if not self._exchange.is_answered:
            self.stream = self._exchange.open_stream()

    def on_event(self, event: Event) -> bool:
        """Pass one on."""
        self.on_stream()
        if self.stream is not None:
            retry = b"" if event.retry_ms is None else b"retry: %d\n" % event.retry_ms
            data = bytes(event.data)
            written = retry + encode_event(data, event=event.event, id=event.id)
            self.stream.send(written, droppable=data.startswith(_DROPPABLE))
        return False

    def end(self, response: Response) -> None:
        """The answer is complete."""
        if self.stream is not None:
            self.stream.finish()
        elif not self._exchange.is_answered:
            headers = response.headers
            lines = b"".join(b"%b: %b\r\n" % (name, headers[name]) for name in _HANDED_BACK if name in headers)
            kind = headers.get(b"content-type", b"application/json")
            self._exchange.respond(response.status, response.body, kind, lines)


def _head_of(exchange: Exchange, *, is_hop: bool = True) -> bytes:
    """The request's head, as the sibling is to see it: from us, or else from the client."""
    request = exchange.request
    query = b"?" + request.query if request.query else b""
    left_out = _NOT_HANDED_ON if is_hop else _FRAMING
    lines = b"".join(b"%b: %b\r\n" % (name, value) for name, value in request.headers.items() if name not in left_out)
    facts = request.shared.get(FACTS)
    if is_hop:
        lines += _MARK
        if isinstance(facts, HeadFacts) and facts.principal:
            lines += b"%b: %b\r\n" % (PRINCIPAL, encode_value(facts.principal))
    path = request.path.encode("latin-1")
    length = len(request.body)
    return b"%b %b%b HTTP/1.1\r\n%bcontent-length: %d\r\n\r\n" % (request.method, path, query, lines, length)
