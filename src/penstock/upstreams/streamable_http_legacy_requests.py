"""Requests of the legacy era as bytes, each in the session of its caller.

Knows: which session a caller has, and whether a call can go over it now. Does not know: connections, answers, how a session is
opened or lost.
Invariant: an exclusive session that was had is given back.

Source: basic/transports of 2025-03-26, 2025-06-18 and 2025-11-25.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from penstock.protocol.envelopes import encode_request
from penstock.protocol.input_required import NOT_FOR_LEGACY
from penstock.protocol.meta import LOG_LEVEL, PROGRESS_TOKEN
from penstock.upstreams.calls import Call, Caller, Raw
from penstock.upstreams.exclusive_sessions import ExclusiveSessions
from penstock.upstreams.log_levels import log_rank
from penstock.upstreams.sessions import LegacySession, SessionBook
from penstock.upstreams.streamable_http_link import extra_lines

_encode: Final = msgspec.json.Encoder().encode
_FOREIGN: Final = NOT_FOR_LEGACY
"""A name of our own for what every call needs: compiled, it is not looked up."""


class LegacyRequests:
    """Finds the sessions of one server's callers, and writes what is sent in them."""

    __slots__ = ("_book", "_exclusive", "_last_id", "_now")

    def __init__(
        self, book: SessionBook[LegacySession], exclusive: ExclusiveSessions, now: Callable[[], float]
    ) -> None:
        self._book: Final = book
        self._exclusive: Final = exclusive
        self._now: Final = now
        self._last_id = 0

    def __repr__(self) -> str:
        return f"<LegacyRequests {self._book!r} {self._exclusive!r}>"

    def session_of(self, caller: Caller) -> LegacySession | None:
        """The session of a caller, if there is one that can be used now. To be given back."""
        key = self._book.key_for(caller)
        if caller.can_be_asked and key == caller.shared_key:
            return self._exclusive.for_caller(caller).try_borrow()
        return self._book.find(key, self._now())

    def session_for(self, call: Call) -> LegacySession | None:
        """The same for a call, if nothing has to be told to the server before. To be given back."""
        session = self.session_of(call.caller)
        if session is None:
            return None
        if session.side is None or (call.meta and (rank := log_rank(call)) is not None and rank < session.log_rank):
            self.give_back(session)
            return None
        return session

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
