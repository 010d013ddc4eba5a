"""Legacy client sessions: their sealed ids, and the little that cannot be sealed.

Knows: sealing, callers. Does not know: HTTP, servers. A session id is the whole session: any worker opens it, and a restart
with the same keys keeps it valid. What lives only here, and is bounded, is the log level, the calls in flight (so that they
can be cancelled) and the mark of a deleted session; losing those costs only them.
"""

import os
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import msgspec

from penstock.clock import Clock
from penstock.errors import SealError
from penstock.gateway.client_questions import ClientQuestions
from penstock.gateway.listeners import Listener
from penstock.identity.seal import Sealer
from penstock.protocol.versions import Era
from penstock.upstreams.interface import Caller, Cancellable

_PURPOSE: Final = b"session"
LIFETIME_SECONDS: Final = 30 * 24 * 3600
MAX_CAPABILITIES: Final = 4096
"""Bytes of a client's capabilities that are sealed; larger ones are cut to the core ones."""
_MAX_CLIENT_INFO: Final = 512
_CORE: Final = ("elicitation", "sampling", "roots")


class _Sealed(msgspec.Struct, array_like=True):
    key: str
    view: str
    revision: str
    opened: int
    capabilities: bytes
    client_info: bytes


_decode: Final = msgspec.msgpack.Decoder(_Sealed).decode


class ClientSession:
    """One legacy client's conversation."""

    __slots__ = ("caller", "expires", "in_flight", "is_over", "key", "listener", "log_level", "questions", "view")

    def __init__(self, key: str, view: str, caller: Caller, expires: float) -> None:
        self.key: Final = key
        """A name for logs and maps; it opens nothing."""
        self.view: Final = view
        self.caller: Final = caller
        self.expires: Final = expires
        """Seconds since 1970."""
        self.is_over = False
        """It has ended or is forgotten: nobody would end what is begun for it now."""
        self.log_level: msgspec.Raw | None = None
        self.listener: Listener | None = None
        """What the client wants to hear of; None until it opened a stream or subscribed to something."""
        self.questions: ClientQuestions | None = None
        """What the client has been asked; None until it was asked something."""
        self.in_flight: dict[Cancellable, bytes] = {}
        """Each call with its request's id; a careless client, or two that share a session, may give one id to several."""

    def __repr__(self) -> str:
        return f"<ClientSession {self.key[:8]} {self.caller.revision} [{len(self.in_flight)} in flight]>"

    def cancel(self, request_id: bytes) -> None:
        """End what runs under that id."""
        for task in [task for task, its_id in self.in_flight.items() if its_id == request_id]:
            task.cancel()


class Sessions:
    """Opens, finds and ends sessions. Both maps hold at most `limit` entries, oldest out first."""

    def __init__(
        self, sealer: Sealer, clock: Clock, limit: int, on_end: Callable[[ClientSession], None] = lambda _: None
    ) -> None:
        """`on_end` is told of each session that has ended or is forgotten."""
        self._sealer = sealer
        self._clock = clock
        self._limit = limit
        self._on_end = on_end
        self._known: OrderedDict[bytes, ClientSession] = OrderedDict()
        self._ended: OrderedDict[str, None] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Sessions {len(self._known)} known, {len(self._ended)} ended, at most {self._limit}>"

    def __len__(self) -> int:
        return len(self._known)

    def open(self, view: str, revision: str, capabilities: bytes, client_info: bytes) -> str:
        """A new session's id, to be sent as `Mcp-Session-Id`."""
        sealed = _Sealed(
            os.urandom(12).hex(),
            view,
            revision,
            int(self._clock.wall()),
            _bounded_capabilities(capabilities),
            client_info if len(client_info) <= _MAX_CLIENT_INFO else b"",
        )
        token = self._sealer.seal(_PURPOSE, msgspec.msgpack.encode(sealed))
        self._remember(token.encode(), sealed)
        return token

    def find(self, view: str, token: bytes) -> ClientSession | None:
        """The session of an id; None when it is not ours, has ended, has expired or belongs to another view."""
        session = self._known.get(token)
        if session is None:
            try:
                session = self._remember(token, _decode(self._sealer.open(_PURPOSE, token)))
            except (SealError, msgspec.DecodeError):
                return None
        if session.view != view or session.key in self._ended or session.expires < self._clock.wall():
            return None
        return session

    def end(self, session: ClientSession) -> None:
        """From now on the id is unknown, and what the session still runs is cancelled."""
        self._ended[session.key] = None
        if len(self._ended) > self._limit:
            self._ended.popitem(last=False)
        for task in list(session.in_flight):
            task.cancel()
        self._over(session)

    def _over(self, session: ClientSession) -> None:
        session.is_over = True
        self._on_end(session)

    def _remember(self, token: bytes, sealed: _Sealed) -> ClientSession:
        caller = Caller(Era.LEGACY, sealed.revision, sealed.key, sealed.capabilities, sealed.client_info)
        session = ClientSession(sealed.key, sealed.view, caller, sealed.opened + LIFETIME_SECONDS)
        self._known[token] = session
        if len(self._known) > self._limit:
            self._forget_one()
        return session

    def _forget_one(self) -> None:
        """Let go of the oldest session that runs nothing, of one that listens to nothing if there is any; its id opens again."""
        idle = (token for token, session in self._known.items() if not session.in_flight)
        first = next(idle, None)
        token = first
        while token is not None and self._known[token].listener is not None:
            token = next(idle, None)
        if token is None or token == next(reversed(self._known)):  # the newest is the one that needs the room
            token = first
        if token is None:
            token = next(iter(self._known))
        self._over(self._known.pop(token))


def _bounded_capabilities(raw: bytes) -> bytes:
    if len(raw) <= MAX_CAPABILITIES:
        return raw
    fields = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    kept = {name: fields[name] for name in _CORE if name in fields and len(bytes(fields[name])) < MAX_CAPABILITIES // 8}
    return msgspec.json.encode(kept)
