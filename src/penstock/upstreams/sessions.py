"""Sessions at a legacy HTTP server: which one a caller's calls belong to, how many are kept, how long.

Knows: keys, bounds, times. Does not know: HTTP, how a session is opened or ended.
Invariants: a session that belongs to one client session is never given to another caller; never more than `max_sessions`
of those are kept; a session is shared only by callers of one principal who can be asked the same.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, Generic, Protocol, TypeVar

from penstock.protocol.meta import LOG_LEVELS
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Call, Caller
from penstock.upstreams.interface import Description
from penstock.upstreams.own_subscriptions import OwnSubscriptions
from penstock.upstreams.questions import Questions
from penstock.upstreams.streamable_http_side import Side

STATELESS: Final = ("shared", "")
"""Everybody's, at a server that keeps no sessions."""
MAX_SHARED: Final = 256
"""Sessions that equal callers share; beyond it the oldest are ended that nobody uses."""
Key = tuple[str, str]
"""("own", name of the client session), ("shared", for whom and with which capabilities: `Caller.shared_key`), or "exclusive" and
the same."""


class Kept(Protocol):
    """What the book has to know of a session."""

    last_used: float

    @property
    def key(self) -> Key:
        """Whose it is."""
        ...

    @property
    def id(self) -> bytes | None:
        """The server's name of it; None when the server keeps no sessions."""
        ...

    @property
    def in_flight(self) -> int:
        """Calls under way in it."""
        ...

    @property
    def is_in_use(self) -> bool:
        """Calls are under way, or somebody listens in it."""
        ...


S = TypeVar("S", bound=Kept)


class LegacySession:
    """One conversation with a legacy server: what `initialize` agreed on."""

    __slots__ = (
        "calls",
        "description",
        "had_stream",
        "head",
        "id",
        "is_exclusive",
        "is_over",
        "key",
        "last_used",
        "last_words",
        "listening",
        "log_rank",
        "on_lost",
        "own",
        "post_head",
        "questions",
        "side",
        "version",
    )

    def __init__(self, key: Key, session_id: bytes | None, version: str, description: Description, head: bytes) -> None:
        self.key: Final = key
        self.is_exclusive: Final = key[0] == "exclusive"
        """Lent to one call at a time."""
        self.id: Final = session_id
        """None when the server keeps no sessions."""
        self.version: Final = version
        self.description: Final = description
        self.head: Final = head
        """Header lines for each request of it: session id, version."""
        self.post_head = b""
        """All of a call's head but its length."""
        self.questions: Questions | None = None
        """What the server has asked in it."""
        self.on_lost: Callable[[], object] | None = None
        """Told when the session is over: whoever listens to its stream."""
        self.side: Side | None = None
        """Who judges the answers of its flights."""
        self.calls: dict[bytes, Call] = {}
        """Those under way, by our id."""
        self.is_over = False
        """Nothing can be sent in it any more."""
        self.had_stream = False
        """A stream of its own was open once: until then a 404 to a GET may as well say that the server has none."""
        self.listening: asyncio.Task[Any] | None = None
        """To what its server says beside the calls."""
        self.own: OwnSubscriptions | None = None
        """What its client has subscribed to in it; None when it is no client's own, or not listened to."""
        self.last_used = 0.0
        self.last_words = b""
        """A message the server is to hear before it hears that the session is over."""
        self.log_rank = len(LOG_LEVELS)
        """The most talkative log level set so far."""

    def hang_up(self) -> None:
        """Nothing is sent in it any more; what it holds and is held by is let go of, so that no cycle keeps it."""
        self.is_over = True
        listening, questions, own = self.listening, self.questions, self.own
        self.listening = self.questions = self.side = self.own = None
        if listening is not None:
            listening.cancel()
        if questions is not None:
            questions.close()
        if own is not None:
            own.close()
        if self.on_lost is not None:
            self.on_lost()

    @property
    def in_flight(self) -> int:
        """Calls under way."""
        return len(self.calls)

    @property
    def is_in_use(self) -> bool:
        """Calls are under way, or somebody listens to its stream."""
        return bool(self.calls) or self.on_lost is not None or (self.own is not None and self.own.is_in_use)

    def __repr__(self) -> str:
        kept = "session" if self.id else "no session"
        return f"<LegacySession {self.key[0]} {self.version} {kept} | in flight {self.in_flight}>"


class SessionBook(Generic[S]):
    """The sessions of one server."""

    __slots__ = ("_idle_seconds", "_max_own", "_own", "_shared", "_shares_all", "issues_ids")

    def __init__(self, *, shares_all: bool, max_own: int, idle_seconds: float) -> None:
        self._shares_all, self._max_own, self._idle_seconds = shares_all, max_own, idle_seconds
        self._own: OrderedDict[Key, S] = OrderedDict()
        """Least recently used first."""
        self._shared: OrderedDict[Key, S] = OrderedDict()
        """Likewise, but for those in use: oldest first."""
        self.issues_ids: bool | None = None
        """Whether the server keeps sessions; None until the first one was opened."""

    def __repr__(self) -> str:
        return f"<SessionBook [{len(self._own)} own {len(self._shared)} shared]>"

    def __len__(self) -> int:
        return len(self._own) + len(self._shared)

    def key_for(self, caller: Caller) -> Key:
        """Whose session a caller's calls go over: the client session's own, or one shared with its equals."""
        if self.issues_ids is False:
            return STATELESS
        if caller.session is not None and caller.era is Era.LEGACY and not self._shares_all:
            return ("own", caller.session)
        return caller.shared_key

    def find(self, key: Key, now: float) -> S | None:
        """The open session of that key; it counts as used now."""
        session = self._shared.get(key)
        if session is None:
            session = self._own.get(key)
            if session is None:
                return None
            self._own.move_to_end(key)
        session.last_used = now
        return session

    def add(self, session: S, now: float) -> list[S]:
        """Keep a session just opened; returns those that must be ended to make room."""
        self.issues_ids = session.id is not None
        session.last_used = now
        if session.key[0] == "shared":
            self._shared[session.key] = session
            return [one for one in list(self._shared.values())[:-MAX_SHARED] if not one.is_in_use and self.remove(one)]
        self._own[session.key] = session
        surplus = len(self._own) - self._max_own
        if surplus <= 0:
            return []
        idle = [one for one in self._own.values() if not one.in_flight and one is not session]
        return [one for one in (idle or list(self._own.values()))[:surplus] if self.remove(one)]

    def remove(self, session: S) -> bool:
        """Forget it; False when another one has taken its place, or none is there."""
        book = self._shared if session.key[0] == "shared" else self._own
        if book.get(session.key) is not session:
            return False
        del book[session.key]
        return True

    def take_own(self, name: str) -> S | None:
        """Forget and return the session of a client session."""
        return self._own.pop(("own", name), None)

    def take_idle(self, now: float) -> list[S]:
        """Forget and return the sessions nobody used for long."""
        limit = now - self._idle_seconds
        idle = []
        for session in self._own.values():  # least recently used first
            if session.last_used > limit:
                break
            if not session.is_in_use:
                idle.append(session)
        return [session for session in idle if self.remove(session)]

    def take_all(self) -> list[S]:
        """Forget and return all."""
        everything = [*self._own.values(), *self._shared.values()]
        self._own.clear()
        self._shared.clear()
        return everything
