"""Calls to an HTTP server that are written at once: where its era, a session and a connection are at hand.

Knows: the requests of both eras, the pool. Does not know: how eras are found out and sessions opened, what comes of a call. Of a
server that speaks HTTP+SSE there are no such sessions: answers come another way there, and no call is begun here.
"""

from collections.abc import Mapping
from time import monotonic
from typing import Final

from penstock.http.client import ClientConnection, ConnectionLost
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Call
from penstock.upstreams.pool import Pool
from penstock.upstreams.sessions import LegacySession
from penstock.upstreams.streamable_http_flight import Flight
from penstock.upstreams.streamable_http_legacy import LegacyHttp
from penstock.upstreams.streamable_http_modern import ModernHttp
from penstock.upstreams.streamable_http_reception import HttpCounts
from penstock.upstreams.streamable_http_side import Side, Supervisor

_MODERN: Final = Era.MODERN
"""A name of our own for what every call needs: compiled, it is not looked up."""


class QuickStart:
    """Begins flights to one server: from `open` on, until `close`."""

    __slots__ = (
        "_choice",
        "_counts",
        "_modern",
        "_modern_requests",
        "_pool",
        "_sessions",
        "_supervisor",
    )

    def __init__(
        self,
        pool: Pool[ClientConnection],
        choice: Mapping[Era, Era | None],
        counts: HttpCounts,
        *,
        modern: ModernHttp,
        legacy: LegacyHttp,
    ) -> None:
        """`choice`: the era to speak for a caller of each; None while that is not known."""
        self._pool: Final = pool
        self._choice: Final = choice
        self._counts: Final = counts
        self._modern: Final[Side] = modern
        self._modern_requests: Final = modern.requests
        self._sessions: Final = legacy.requests
        self._supervisor: Supervisor | None = None

    def __repr__(self) -> str:
        return f"<QuickStart {'closed' if self._supervisor is None else 'open'} {self._pool!r}>"

    def open(self, supervisor: Supervisor) -> None:
        """Begin calls from now on, as somebody takes care of the pool."""
        self._supervisor = supervisor

    def close(self) -> None:
        """Begin no more, and let go of the server."""
        self._supervisor = None

    def start(self, call: Call) -> Flight | None:
        """See `QuickUpstream.start`."""
        era, supervisor = self._choice[call.caller.era], self._supervisor
        if era is None or supervisor is None:
            return None
        pool = self._pool
        connection = pool.try_borrow()
        if connection is None:
            return None
        flight: Flight | None = None
        try:
            if era is _MODERN:
                written = self._modern_requests.write(call)
                flight = self._begin(supervisor, self._modern, call, connection, written, detach=False)
            else:
                session = self._sessions.session_for(call)
                if session is not None:
                    flight = self._begin_in(session, supervisor, call, connection)
        except ConnectionLost:
            pass  # it was dead already: nothing was written
        except BaseException:
            pool.give_back(connection, discard=True)
            raise
        if flight is None:
            pool.give_back(connection)
        else:
            self._counts.calls += 1
        return flight

    def _begin_in(
        self, session: LegacySession, supervisor: Supervisor, call: Call, connection: ClientConnection
    ) -> Flight:
        side = session.side
        assert side is not None, "as `session_for` promises"
        try:
            written = self._sessions.write(session, call)
            flight = self._begin(supervisor, side, call, connection, written, detach=True)
        except BaseException:
            self._sessions.give_back(session)
            raise
        session.calls[written[2]] = call
        return flight

    def _begin(
        self,
        supervisor: Supervisor,
        side: Side,
        call: Call,
        connection: ClientConnection,
        written: tuple[bytes, bytes, bytes],
        *,
        detach: bool,
    ) -> Flight:
        head, body, request_id = written
        flight = Flight(supervisor, side, call, request_id, connection, self._pool)
        call.sent_at = monotonic()
        connection.detach_on_cancel = detach
        connection.begin(flight, head, body, flight.on_event)
        return flight
