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
from penstock.gateway.eviction import oldest_idle
from penstock.gateway.listeners import Listener
from penstock.gateway.sealed_session import SealedSession
from penstock.identity.seal import Sealer
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Caller, Cancellable

_PURPOSE: Final = b"session"
_STREAM_PURPOSE: Final = b"sse stream"
LIFETIME_SECONDS: Final = 30 * 24 * 3600
MAX_CAPABILITIES: Final = 4096
"""Bytes of a client's capabilities that are sealed; larger ones are cut to the core ones."""
_MAX_CLIENT_INFO: Final = 512
_CORE: Final = ("elicitation", "sampling", "roots")


_decode: Final = msgspec.msgpack.Decoder(SealedSession).decode
_decode_stream: Final = msgspec.msgpack.Decoder(tuple[str, str, int]).decode


class ClientSession:
    """One legacy client's conversation."""

    __slots__ = (
        "caller",
        "ends_with_stream",
        "expires",
        "home",
        "in_flight",
        "is_over",
        "key",
        "listener",
        "log_level",
        "questions",
        "token",
        "used_at",
        "view",
    )

    def __init__(
        self, key: str, view: str, caller: Caller, expires: float, home: int = 0, *, ends_with_stream: bool = False
    ) -> None:
        self.key: Final = key
        """A name for logs and maps; it opens nothing."""
        self.view: Final = view
        self.caller: Final = caller
        self.expires: Final = expires
        """Seconds since 1970."""
        self.is_over = False
        """It has ended or is forgotten: nobody would end what is begun for it now."""
        self.home: Final = home
        """The worker that has what cannot be sealed."""
        self.ends_with_stream: Final = ends_with_stream
        """All that is for the client goes onto one stream (HTTP+SSE), so nothing is kept for another."""
        self.token = b""
        """Its id as the client sends it; never shown."""
        self.used_at = 0.0
        """Clock time of its last request."""
        self.log_level: msgspec.Raw | None = None
        self.listener: Listener | None = None
        """What the client wants to hear of; None until it opened a stream or subscribed to something."""
        self.questions: ClientQuestions | None = None
        """What the client has been asked; None until it was asked something."""
        self.in_flight: dict[Cancellable, bytes] = {}
        """Each call with its request's id; a careless client, or two that share a session, may give one id to several."""

    def __repr__(self) -> str:
        return f"<ClientSession {self.key[:8]} {self.caller.revision} [{len(self.in_flight)} in flight]>"

    @property
    def is_in_use(self) -> bool:
        """Whether something goes on in it: a call, a question, a client that listens."""
        listens = self.listener is not None and self.listener.stream is not None and self.listener.stream.is_open
        return bool(self.in_flight or self.questions or listens)

    def cancel(self, request_id: bytes) -> None:
        """End what runs under that id."""
        for task in [task for task, its_id in self.in_flight.items() if its_id == request_id]:
            task.cancel()


class Sessions:
    """Opens, finds and ends sessions. Both maps hold at most `limit` entries, oldest out first, those in use last."""

    def __init__(
        self,
        sealer: Sealer,
        clock: Clock,
        limit: int,
        *,
        idle_seconds: float = 1800.0,
        on_known: Callable[[ClientSession], None] = lambda _: None,
        on_end: Callable[[ClientSession], None] = lambda _: None,
    ) -> None:
        """
        Args:
            on_known: told of each session that is opened, or found by its id for the first time.
            on_end: told of each that has ended or is forgotten.
        """
        self._sealer = sealer
        self._clock = clock
        self._limit = limit
        self._idle_seconds = idle_seconds
        self._on_known = on_known
        self._on_end = on_end
        self._known: OrderedDict[bytes, ClientSession] = OrderedDict()
        self._ended: OrderedDict[str, None] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Sessions {len(self._known)} known, {len(self._ended)} ended, at most {self._limit}>"

    def __len__(self) -> int:
        return len(self._known)

    def open(
        self, view: str, revision: str, capabilities: bytes, client_info: bytes, *, worker: int = 0, principal: str = ""
    ) -> str:
        """A new session's id, to be sent as `Mcp-Session-Id`; `worker` is its home, `principal` whose it is."""
        sealed = SealedSession(
            os.urandom(12).hex(),
            view,
            revision,
            int(self._clock.wall()),
            _bounded_capabilities(capabilities),
            client_info if len(client_info) <= _MAX_CLIENT_INFO else b"",
            worker,
            principal,
        )
        token = self._sealer.seal(_PURPOSE, msgspec.msgpack.encode(sealed))
        self._remember(token.encode(), sealed)
        return token

    def open_unnamed(
        self, view: str, revision: str, capabilities: bytes, client_info: bytes, *, worker: int = 0, principal: str = ""
    ) -> ClientSession:
        """A new session without an id, which is its client's stream: whoever opens it holds it, and ends it."""
        key = os.urandom(12).hex()
        info = client_info if len(client_info) <= _MAX_CLIENT_INFO else b""
        caller = Caller(Era.LEGACY, revision, key, _bounded_capabilities(capabilities), info, principal)
        expires = self._clock.wall() + LIFETIME_SECONDS
        session = ClientSession(key, view, caller, expires, worker, ends_with_stream=True)
        self._on_known(session)
        return session

    def name_stream(self, view: str, worker: int = 0) -> tuple[str, str]:
        """For a new stream of HTTP+SSE: what that worker calls it, and the same sealed for its client."""
        key = os.urandom(12).hex()
        return key, self._sealer.seal(_STREAM_PURPOSE, msgspec.msgpack.encode((key, view, worker)))

    def find_stream(self, view: str, token: bytes) -> tuple[str, int] | None:
        """What `name_stream` called it, and its worker; None when the token is not ours, or belongs to another view."""
        try:
            key, its_view, worker = _decode_stream(self._sealer.open(_STREAM_PURPOSE, token))
        except (SealError, msgspec.DecodeError):
            return None
        return (key, worker) if its_view == view else None

    def find(self, view: str, token: bytes, principal: str = "") -> ClientSession | None:
        """The session of an id; None when it is not ours, has ended, has expired or belongs to another view or principal."""
        session = self._known.get(token)
        if session is None:
            try:
                sealed = _decode(self._sealer.open(_PURPOSE, token))
            except (SealError, msgspec.DecodeError):
                return None
            expired = sealed.opened + LIFETIME_SECONDS < self._clock.wall()
            if expired or sealed.key in self._ended or sealed.view != view or sealed.principal != principal:
                return None  # nothing is remembered for whoever has no right to it
            session = self._remember(token, sealed)
        if (
            session.view != view
            or session.caller.principal != principal
            or session.key in self._ended
            or session.expires < self._clock.wall()
        ):
            return None
        session.used_at = self._clock.now()
        return session

    def sweep(self) -> None:
        """Forget sessions nobody used for long: their ids open again when they are used."""
        limit = self._clock.now() - self._idle_seconds
        for token, session in list(self._known.items()):
            if session.used_at <= limit and not session.is_in_use:
                del self._known[token]
                self._over(session)

    def end(self, session: ClientSession) -> None:
        """From now on the id is unknown, and what the session still runs is cancelled."""
        self._ended[session.key] = None
        if len(self._ended) > self._limit:
            self._ended.popitem(last=False)
        for task in list(session.in_flight):
            task.cancel()
        self._known.pop(session.token, None)
        self._over(session)

    def _over(self, session: ClientSession) -> None:
        session.is_over = True
        self._on_end(session)

    def _remember(self, token: bytes, sealed: SealedSession) -> ClientSession:
        caller = Caller(
            Era.LEGACY, sealed.revision, sealed.key, sealed.capabilities, sealed.client_info, sealed.principal
        )
        session = ClientSession(sealed.key, sealed.view, caller, sealed.opened + LIFETIME_SECONDS, sealed.worker)
        session.token, session.used_at = token, self._clock.now()
        while self._known and len(self._known) >= self._limit:  # before: who has just come is not who has to go
            self._forget_one()
        self._on_known(session)
        self._known[token] = session
        return session

    def _forget_one(self) -> None:
        """Let go of the oldest session that runs nothing, or else of the oldest; its id opens again when it is used."""
        known = self._known
        token = oldest_idle(known, lambda session: not session.is_in_use)
        self._over(known.popitem(last=False)[1] if token is None else known.pop(token))


def _bounded_capabilities(raw: bytes) -> bytes:
    if len(raw) <= MAX_CAPABILITIES:
        return raw
    fields = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    kept = {name: fields[name] for name in _CORE if name in fields and len(bytes(fields[name])) < MAX_CAPABILITIES // 8}
    return msgspec.json.encode(kept)
