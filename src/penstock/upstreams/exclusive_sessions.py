"""Sessions at a legacy HTTP server that are lent to one call at a time.

Knows: for whom each is, pools of them. Does not know: HTTP, how a session is opened or ended.
Invariant: two calls are never in one of them at the same time, and no two principals or sets of capabilities share one.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from functools import partial
from operator import attrgetter
from typing import Any

from penstock.clock import Clock
from penstock.upstreams.calls import Caller
from penstock.upstreams.pool import Pool, PoolSettings
from penstock.upstreams.sessions import MAX_SHARED, Key, LegacySession


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
