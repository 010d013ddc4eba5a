"""Requests to one gateway's endpoint: written one after the other, answered side by side.

Knows: connections, when one is opened, how long a gateway that is away is waited for. Does not know: JSON-RPC, eras.
Invariants: `begin` returns when its request was written, so requests leave in the order of their `begin`s; while `pause` holds,
no more of any answer is read.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final, Literal

from penstock import __version__
from penstock.clock import Clock
from penstock.http.client import ClientConnection, ConnectionLost, OnEvent, RequestFailed, Response
from penstock.http.client_awaited import Awaited

_log = logging.getLogger(__name__)
Open = Callable[[], Awaitable[ClientConnection]]
RETRY_SECONDS: Final = 5.0
"""How long a gateway that is away is waited for, counted from when it was missed: a restart takes less."""
_FIRST_DELAY: Final = 0.05
_LONGEST_DELAY: Final = 0.5
_IDLE_CONNECTIONS: Final = 8
_IDLE_SECONDS: Final = 30.0
"""Less than the 75 s after which a gateway closes: a request must not cross that."""


class Sent:
    """A request that was written."""

    __slots__ = ("_connection", "_link", "_waiter")

    def __init__(self, link: "GatewayLink", connection: ClientConnection, waiter: Awaited) -> None:
        self._link: Final = link
        self._connection: ClientConnection | None = connection
        self._waiter: Final = waiter

    def __repr__(self) -> str:
        return f"<Sent {self._connection!r}>"

    async def answer(self) -> Response:
        """
        Raises:
            RequestFailed: none came.
        """
        try:
            return await self._waiter
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Nobody wants the answer any more; one that is not complete closes its connection. Idempotent."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._waiter.cancelled() or not self._waiter.done():
            connection.abandon()
        else:
            self._waiter.exception()  # asyncio need not complain that nobody asked
        self._link.give_back(connection)


class GatewayLink:
    """The way to one endpoint."""

    def __init__(
        self,
        open_connection: Open,
        *,
        target: bytes,
        authority: bytes,
        url: str,
        clock: Clock,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self._open: Final = open_connection
        self.url: Final = url
        """What the endpoint is called in messages."""
        self._clock: Final = clock
        self._retry_seconds: Final = retry_seconds
        self._common: Final = b" %b HTTP/1.1\r\nhost: %b\r\nuser-agent: penstock-stdio/%b\r\n" % (
            target,
            authority,
            __version__.encode(),
        )
        self._idle: list[ClientConnection] = []
        self._busy: set[ClientConnection] = set()
        self._is_paused = False
        self._missed_at: float | None = None
        """When the gateway was first missed; None while it is there."""

    def __repr__(self) -> str:
        state = "away" if self._missed_at is not None else "paused" if self._is_paused else "open"
        return f"<GatewayLink {self.url} {state} [{len(self._busy)} busy {len(self._idle)} idle]>"

    async def begin(
        self,
        method: Literal["POST", "GET", "DELETE"],
        headers: bytes,
        body: bytes = b"",
        on_event: OnEvent | None = None,
    ) -> Sent:
        """Write one request; a gateway that cannot be reached is waited for, within `retry_seconds` of an absence.

        Raises:
            RequestFailed: it is still away.
        """
        length = b"" if method == "GET" else b"content-length: %d\r\n" % len(body)
        head = b"%b%b%b%b\r\n" % (method.encode(), self._common, headers, length)
        tries = 0
        while True:
            tries += 1
            connection = self._take_idle() or await self._connect()
            waiter = Awaited(loop=asyncio.get_running_loop())
            self._busy.add(connection)
            try:
                connection.begin(waiter, head, body, on_event)
            except ConnectionLost:  # it was closed meanwhile; nothing was written
                self.give_back(connection)
                if tries > _IDLE_CONNECTIONS:
                    raise
                continue
            if self._is_paused:
                connection.pause_reading()
            return Sent(self, connection, waiter)

    def pause(self) -> None:
        """Read no more of any answer."""
        self._is_paused = True
        for connection in self._busy:
            connection.pause_reading()

    def resume(self) -> None:
        """Go on reading."""
        self._is_paused = False
        for connection in self._busy:
            connection.resume_reading()

    def give_back(self, connection: ClientConnection) -> None:
        """A request is over. One whose answer has not ended comes back by itself."""
        if connection.is_busy:
            connection.on_settled = self.give_back
            return
        self._busy.discard(connection)
        if not connection.is_idle():
            return
        connection.resume_reading()  # or the gateway's closing would go unnoticed
        if len(self._idle) < _IDLE_CONNECTIONS:
            self._idle.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """End all connections; what is under way fails."""
        for connection in [*self._idle, *self._busy]:
            connection.close()
        self._idle.clear()

    def _take_idle(self) -> ClientConnection | None:
        now = monotonic()
        while self._idle:
            connection = self._idle.pop()
            if connection.is_idle() and not connection.has_expired(now) and now - connection.idle_since < _IDLE_SECONDS:
                return connection
            connection.close()
        return None

    async def _connect(self) -> ClientConnection:
        delay = _FIRST_DELAY
        while True:
            try:
                connection = await self._open()
            except RequestFailed as error:
                now = self._clock.now()
                if self._missed_at is None:
                    self._missed_at = now
                    _log.warning("%s; trying again for %g s", error.reason, self._retry_seconds)
                if now - self._missed_at >= self._retry_seconds:
                    raise
                await self._clock.sleep(delay)
                delay = min(2 * delay, _LONGEST_DELAY)
            else:
                if self._missed_at is not None:
                    self._missed_at = None
                    _log.warning("the gateway at %s is there again", self.url)
                return connection
