"""Calls over the sessions of a legacy HTTP server: as bytes, and written at once where a session is at hand.

Knows: which session a call's caller has, what its requests look like; each session judges the answers of its own flights. Does
not know: how a session is opened, lost or told something; that is asked of the legacy side of its server.
"""

from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any, ClassVar, Final, Protocol

import msgspec

from penstock.http.client import ClientConnection, RequestFailed, Response
from penstock.protocol.envelopes import encode_request
from penstock.protocol.input_required import NOT_FOR_LEGACY
from penstock.protocol.meta import LOG_LEVEL, PROGRESS_TOKEN
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Answer, Call, Caller, Raw
from penstock.upstreams.exclusive_sessions import ExclusiveSessions
from penstock.upstreams.log_levels import log_rank
from penstock.upstreams.pool import Pool
from penstock.upstreams.sessions import LegacySession, SessionBook
from penstock.upstreams.streamable_http_flight import Flight
from penstock.upstreams.streamable_http_link import extra_lines
from penstock.upstreams.streamable_http_reception import Reception
from penstock.upstreams.streamable_http_side import Supervisor

_encode: Final = msgspec.json.Encoder().encode
_FOREIGN: Final = NOT_FOR_LEGACY
"""A name of our own for what every call needs: compiled, it is not looked up."""


class Legacy(Protocol):
    """What a session's flights ask of their server's legacy side."""

    def reception(self, request_id: bytes, session: LegacySession | None, call: Call | None) -> Reception:
        """What takes in an answer that comes in more than one piece."""

    def unusual(
        self, session: LegacySession, call: Call, reception: Reception, came: Response | RequestFailed
    ) -> Coroutine[Any, Any, Answer]:
        """What becomes of a flight whose answer is not ordinary."""

    def cancel(self, session: LegacySession, request_id: bytes) -> None:
        """Tell the server that a call's answer is not wanted any more."""


class SessionFlights:
    """Writes the calls to one server, each in the session of its caller."""

    __slots__ = ("_book", "_exclusive", "_last_id", "_now", "_pool")

    def __init__(
        self,
        pool: Pool[ClientConnection],
        book: SessionBook[LegacySession],
        exclusive: ExclusiveSessions,
        now: Callable[[], float],
    ) -> None:
        """`pool`: where flights give their connections back."""
        self._pool: Final = pool
        self._book: Final = book
        self._exclusive: Final = exclusive
        self._now: Final = now
        self._last_id = 0

    def __repr__(self) -> str:
        return f"<SessionFlights {self._book!r} {self._exclusive!r}>"

    def ready(self, caller: Caller) -> LegacySession | None:
        """The session of a caller, if there is one that can be used now. To be given back."""
        key = self._book.key_for(caller)
        if caller.can_be_asked and key == caller.shared_key:
            return self._exclusive.for_caller(caller).try_borrow()
        return self._book.find(key, self._now())

    def give_back(self, session: LegacySession, *, discard: bool = False) -> None:
        """Others may use it; of consequence only for those that are lent to one call at a time. `discard`: the server may still
        speak of a call there, which would be taken for the next one's.
        """
        if session.is_exclusive:
            self._exclusive.give_back(session, discard=discard)

    def landed(self, session: LegacySession, request_id: bytes, *, discard: bool = False) -> None:
        """A call of the session is over."""
        session.calls.pop(request_id, None)
        self.give_back(session, discard=discard)

    def begin(self, call: Call, connection: ClientConnection, supervisor: Supervisor) -> Flight | None:
        """Write the call at once over a connection on loan; None when its session is not ready for it."""
        session = self.ready(call.caller)
        if session is None:
            return None
        side = session.side
        if side is None or (call.meta and (rank := log_rank(call)) is not None and rank < session.log_rank):
            self.give_back(session)
            return None
        head, body, request_id = self.write(session, call)
        flight = Flight(supervisor, side, call, request_id, connection, self._pool)
        call.sent_at = monotonic()
        connection.detach_on_cancel = True
        try:
            connection.begin(flight, head, body, flight.on_event)
        except BaseException:
            self.give_back(session)
            raise
        session.calls[request_id] = call
        return flight

    def write(self, session: LegacySession, call: Call) -> tuple[bytes, bytes, bytes]:
        """Head, body and id of the request that carries a call."""
        request_id = self.next_id()
        body = encode_request(request_id, call.method, params_of(call, request_id))
        head = session.post_head
        if call.headers:
            head += extra_lines(call.headers, with_params=False)
        return b"%bcontent-length: %d\r\n\r\n" % (head, len(body)), body, request_id

    def next_id(self) -> bytes:
        """For a request of whatever kind to that server."""
        number = self._last_id = self._last_id + 1
        return b"%d" % number


class SessionSide:
    """The legacy side of the flights of one session."""

    __slots__ = ("_flights", "_legacy", "_session")
    era: ClassVar[Era] = Era.LEGACY

    def __init__(self, legacy: Legacy, flights: SessionFlights, session: LegacySession) -> None:
        self._legacy: Final = legacy
        self._flights: Final = flights
        self._session: Final = session

    def reception(self, call: Call, request_id: bytes) -> Reception:
        """See `Side`."""
        return self._legacy.reception(request_id, self._session, call)

    def unusual(self, call: Call, reception: Reception, came: Response | RequestFailed) -> Coroutine[Any, Any, Answer]:
        """See `Side`."""
        return self._legacy.unusual(self._session, call, reception, came)

    def cancelled(self, request_id: bytes) -> None:
        """See `Side`."""
        self._legacy.cancel(self._session, request_id)

    def landed(self, request_id: bytes) -> None:
        """See `Side`."""
        self._flights.landed(self._session, request_id)


def params_of(call: Call, request_id: bytes) -> dict[str, Raw]:
    """The params of a legacy request: without words of the other era, and our id in the place of the caller's progress token."""
    meta, params = call.meta, call.params
    if not _FOREIGN.isdisjoint(params):
        params = {key: value for key, value in params.items() if key not in _FOREIGN}
    if not meta:
        return params
    rest = {key: value for key, value in meta.items() if key != LOG_LEVEL}
    if PROGRESS_TOKEN in rest:
        rest[PROGRESS_TOKEN] = Raw(request_id)
    return params | {"_meta": Raw(_encode(rest))} if rest else params
