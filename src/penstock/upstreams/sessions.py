"""Sessions at a legacy HTTP server: which one a caller's calls belong to, how many are kept, how long.

Knows: keys, bounds, times. Does not know: HTTP, how a session is opened or ended.
Invariants: a session that belongs to one client session is never given to another caller; never more than `max_sessions`
of those are kept; a session is shared only by callers of one principal who can be asked the same.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from functools import partial
from operator import attrgetter
from typing import Any, Final, Generic, Protocol, TypeVar

from penstock.clock import Clock
from penstock.protocol.meta import LOG_LEVELS
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Call, Caller
from penstock.upstreams.interface import Description
from penstock.upstreams.own_subscriptions import OwnSubscriptions
from penstock.upstreams.pool import Pool, PoolSettings
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

    @property
    def is_exclusive(self) -> bool:
        """Lent to one call at a time."""
        return self.key[0] == "exclusive"

    def __repr__(self) -> str:
        kept = "session" if self.id else "no session"
        return f"<LegacySession {self.key[0]} {self.version} {kept} | in flight {self.in_flight}>"


class ExclusiveSessions:
    """Sessions for callers that can be asked, each lent to one call at a time: what a server says on a session's own stream names
    no call. A pool for each principal and each set of capabilities.
    """

    __slots__ = ("_clock", "_close", "_closing", "_name", "_open", "_pools", "_settings", "_unwanted")

    def __init__(
        self,
        name: str,
        *,
        open: Callable[[Key, Caller], Coroutine[Any, Any, LegacySession]],
        close: Callable[[LegacySession], None],
        settings: PoolSettings,
        clock: Clock,
    ) -> None:
        self._name, self._open, self._close, self._settings, self._clock = name, open, close, settings, clock
        self._pools: OrderedDict[Key, Pool[LegacySession]] = OrderedDict()
        """By the `shared_key` of the callers, oldest first."""
        self._closing: set[asyncio.Task[None]] = set()
        self._unwanted: set[asyncio.Task[LegacySession]] = set()
        """Sessions being opened that nobody waits for any more."""

    def __repr__(self) -> str:
        return f"<ExclusiveSessions {self._name} [{len(self)}] of {len(self._pools)} kinds of callers>"

    def __len__(self) -> int:
        return sum(stats.busy + stats.idle for stats in map(Pool.stats, self._pools.values()))

    def for_caller(self, caller: Caller) -> Pool[LegacySession]:
        """Those that fit the caller."""
        key = caller.shared_key
        pool = self._pools.get(key)
        if pool is None:
            self._make_room()
            pool = self._pools[key] = Pool(
                f"sessions at {self._name}",
                open=partial(self._opened, ("exclusive", key[1]), caller),
                close=self._close,
                is_closed=attrgetter("is_over"),
                check=None,
                settings=self._settings,
                clock=self._clock,
                noun="session",
            )
        return pool

    def give_back(self, session: LegacySession, *, discard: bool = False) -> None:
        """End a loan; of a pool that is gone the session is closed. `discard`: nobody is to have it any more."""
        pool = self._pools.get(("shared", session.key[1]))
        if pool is None:
            self._close(session)
        elif pool.has_lent(session):
            pool.give_back(session, discard=discard)

    def drop_idle(self, lost: LegacySession) -> None:
        """The server has forgotten a session: those like it that rest were used longer ago, and are as good as lost."""
        pool = self._pools.get(("shared", lost.key[1])) if lost.is_exclusive else None
        if pool is not None:
            pool.drop_idle()

    def sweep(self) -> None:
        """To be called about once a second."""
        for pool in self._pools.values():
            pool.sweep()

    async def close(self) -> None:
        """End all, those on loan included."""
        pools = [self._pools.pop(key) for key in list(self._pools)]
        for pool in pools:
            await pool.close(loans_too=True)
        for task in self._unwanted:
            task.cancel()
        await asyncio.gather(*self._closing, *self._unwanted, return_exceptions=True)

    async def _opened(self, key: Key, caller: Caller) -> LegacySession:
        """A new one. Opening it is never cancelled: if nobody waits for it any more it is ended as soon as it is there."""
        task = asyncio.get_running_loop().create_task(self._open(key, caller))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._unwanted.add(task)
            task.add_done_callback(self._nobody_waited)
            raise
        finally:
            del task  # its error holds this frame

    def _nobody_waited(self, task: asyncio.Task[LegacySession]) -> None:
        self._unwanted.discard(task)
        if not task.cancelled() and task.exception() is None and task.result().is_exclusive:
            self._close(task.result())

    def _make_room(self) -> None:
        for key, pool in list(self._pools.items())[: max(0, len(self._pools) + 1 - MAX_SHARED)]:
            stats = pool.stats()
            if not (stats.busy or stats.opening or stats.waiting):
                del self._pools[key]
                task = asyncio.get_running_loop().create_task(pool.close())
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)


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
