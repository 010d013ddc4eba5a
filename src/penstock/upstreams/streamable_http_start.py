"""Calls to an HTTP server that are written at once: where its era, a session and a connection are at hand.

Knows: the requests of both eras, the pool. Does not know: how eras are found out and sessions opened, what comes of a call.
"""

from collections.abc import Mapping
from time import monotonic
from typing import Final

from penstock.http.client import ClientConnection, ConnectionLost
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Call
from penstock.upstreams.pool import Pool
from penstock.upstreams.streamable_http_flight import Flight
from penstock.upstreams.streamable_http_legacy_flight import SessionFlights
from penstock.upstreams.streamable_http_modern_requests import ModernRequests
from penstock.upstreams.streamable_http_reception import HttpCounts
from penstock.upstreams.streamable_http_side import Side, Supervisor

_MODERN: Final = Era.MODERN
"""A name of our own for what every call needs: compiled, it is not looked up."""


class QuickStart:
    """Begins flights to one server."""

    __slots__ = (
        "_choice",
        "_counts",
        "_modern",
        "_pool",
        "_requests",
        "_sessions",
        "_supervisor",
        "has_sessions",
        "is_open",
    )

    def __init__(
        self,
        supervisor: Supervisor,
        pool: Pool[ClientConnection],
        choice: Mapping[Era, Era | None],
        counts: HttpCounts,
        *,
        modern: Side,
        requests: ModernRequests,
        sessions: SessionFlights,
    ) -> None:
        """
        Args:
            choice: the era to speak for a caller of each; None while that is not known.
            modern: who judges the answers to `requests`.
        """
        self._supervisor: Final = supervisor
        self._pool: Final = pool
        self._choice: Final = choice
        self._counts: Final = counts
        self._modern: Final = modern
        self._requests: Final = requests
        self._sessions: Final = sessions
        self.is_open = False
        """Whether anything is begun: not before somebody takes care of the pool."""
        self.has_sessions = True
        """Whether the legacy transport is one whose calls can be written at once: of HTTP+SSE the answers come another way."""

    def __repr__(self) -> str:
        return f"<QuickStart {self._pool!r}>"

    def start(self, call: Call) -> Flight | None:
        """See `QuickUpstream.start`."""
        era = self._choice[call.caller.era]
        if era is None or not self.is_open or (era is not _MODERN and not self.has_sessions):
            return None
        pool = self._pool
        connection = pool.try_borrow()
        if connection is None:
            return None
        flight: Flight | None = None
        try:
            if era is _MODERN:
                flight = self._begin(call, connection)
            else:
                flight = self._sessions.begin(call, connection, self._supervisor)
        except ConnectionLost:  # it was dead already: nothing was written
            flight = None
        except BaseException:
            pool.give_back(connection, discard=True)
            raise
        if flight is None:
            pool.give_back(connection)
        else:
            self._counts.calls += 1
        return flight

    def _begin(self, call: Call, connection: ClientConnection) -> Flight:
        head, body, request_id = self._requests.write(call)
        flight = Flight(self._supervisor, self._modern, call, request_id, connection, self._pool)
        call.sent_at = monotonic()
        connection.detach_on_cancel = False
        connection.begin(flight, head, body, flight.on_event)
        return flight
