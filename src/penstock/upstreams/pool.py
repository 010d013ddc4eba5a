"""Keep a bounded number of costly things (connections, sessions, children) open and lend them out.

Knows: asyncio, a clock, how to open, close and check an item by four functions it is given. Does not know what an item is.
Invariants: never more than `max_size` items exist, those being opened included; while an item is idle or a place is free,
nobody waits; waiters are served in the order they came; whatever await is cancelled, no item and no place is lost.

The newest idle item is lent first, so that the pool shrinks to what the load needs; older ones reach their idle limit and
`sweep` closes them. The shape (first come first served, bounded queue, jittered lifetime, check only after idling) follows
psycopg_pool and HikariCP, which explain at length what goes wrong without each of them.
"""

import asyncio
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

import msgspec

from penstock.clock import Clock
from penstock.errors import ServerBusy, ServerUnavailable
from penstock.upstreams.pool_shelf import Shelf, Slot

T = TypeVar("T")


class PoolSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one pool; all times in seconds."""

    min_size: int = 0
    """Items kept open by `sweep` even when nobody asks."""
    max_size: int = 64
    max_waiting: int = 1024
    """Borrowers that may queue; the next one is refused at once."""
    wait_seconds: float = 10.0
    idle_seconds: float = 60.0
    lifetime_seconds: float = 300.0
    lifetime_jitter: float = 0.2
    """Share of the lifetime that is taken off at random, so that items opened together do not end together."""
    check_after_idle_seconds: float = 30.0


class PoolStats(msgspec.Struct, frozen=True, kw_only=True):
    """What a pool has done; totals only grow."""

    busy: int
    idle: int
    opening: int
    waiting: int
    borrowed: int
    waited: int
    wait_seconds: float
    hold_seconds: float
    opened: int
    open_failures: int
    closed: int
    refused: int
    timed_out: int
    peak_busy: int
    peak_waiting: int


class Pool(Generic[T]):
    """Lends items of one kind, for one server."""

    __slots__ = (
        "_alarm",
        "_alarm_at",
        "_check",
        "_close",
        "_closed_count",
        "_idle_seconds",
        "_is_closed",
        "_now",
        "_open",
        "_open_failures",
        "_opened",
        "_opening",
        "_peak_waiting",
        "_random",
        "_refill",
        "_refused",
        "_shelf",
        "_size",
        "_sleep",
        "_timed_out",
        "_wait_seconds",
        "_waited",
        "_waiters",
        "give_back",
        "name",
        "noun",
        "settings",
        "try_borrow",
    )

    def __init__(
        self,
        name: str,
        *,
        open: Callable[[], Awaitable[T]],
        close: Callable[[T], None],
        is_closed: Callable[[T], bool],
        check: Callable[[T], Awaitable[bool]] | None,
        settings: PoolSettings,
        clock: Clock,
        noun: str = "connection",
        random: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self.noun = noun
        self.settings = settings
        self._open, self._close, self._is_closed, self._check = open, close, is_closed, check
        self._now, self._sleep, self._random = clock.now, clock.sleep, random
        check_after = settings.check_after_idle_seconds if check is not None else settings.idle_seconds
        self._idle_seconds = settings.idle_seconds
        self._waiters: OrderedDict[asyncio.Future[Slot[T] | None], tuple[float, float]] = OrderedDict()
        """Future -> (deadline, since). Its result is an item's slot, or None: a place to open one in."""
        self._shelf: Final = Shelf[T](
            is_closed=is_closed,
            now=clock.now,
            fresh_seconds=min(check_after, settings.idle_seconds),
            waiters=self._waiters,
            drop=self._drop,
            release=self._release,
        )
        self.try_borrow: Final = self._shelf.try_borrow
        """The newest idle item if it can be lent without waiting for anything, else None: then ask `borrow`."""
        self.give_back: Final = self._shelf.give_back
        """End a loan; see `Shelf.give_back`."""
        self._size = 0
        """Places taken: idle, lent, being opened or checked."""
        self._opening = 0
        self._alarm: asyncio.Task[None] | None = None
        self._alarm_at = 0.0
        self._refill: asyncio.Task[None] | None = None
        self._waited = self._opened = self._open_failures = self._closed_count = 0
        self._refused = self._timed_out = self._peak_waiting = 0
        self._wait_seconds = 0.0

    def __repr__(self) -> str:
        opening = f" {self._opening} opening" if self._opening else ""
        end = " | closed" if self._shelf.closed else ""
        return (
            f"<Pool {self.name} [{len(self._shelf.busy)} busy {len(self._shelf.idle)} idle{opening} | "
            f"waiting {len(self._waiters)}{end}]>"
        )

    # ---- borrowing

    async def borrow(self, deadline: float | None = None) -> T:
        """An item, opened or waited for if need be; give it back in every case.

        `deadline` is a time of the pool's clock and bounds the waiting for others; opening bounds itself.

        Raises:
            ServerBusy: too many wait already, or none became free in time.
            ServerUnavailable: the pool is closed.
            Exception: whatever `open` raised, here or for the borrower just ahead in the queue.
        """
        item = self.try_borrow()
        if item is not None:
            return item
        if self._shelf.closed:
            raise self._gone()
        slot = self._take_idle()
        if slot is None:
            if self._size < self.settings.max_size:
                self._size += 1
            else:
                slot = await self._wait(deadline)
            if slot is None:
                slot = await self._open_in_place()
        elif self._check is not None and not await self._passes(slot, self._check):
            slot = await self._open_in_place()
        return self._shelf.lend(slot, self._now())

    def limit_idle(self, seconds: float) -> None:
        """From now on let no item rest longer than that: whoever is at the other end says that it does not."""
        self._idle_seconds = min(self._idle_seconds, seconds)
        self._shelf.fresh_seconds = min(self._shelf.fresh_seconds, seconds)

    def drop_idle(self) -> None:
        """Close what rests: it is known to be of no use any more."""
        idle, self._shelf.idle = self._shelf.idle, []
        for slot in idle:
            self._drop(slot)

    def has_lent(self, item: T) -> bool:
        """Whether the item is on loan."""
        return item in self._shelf.busy

    # ---- housekeeping

    def sweep(self) -> None:
        """Close what has idled or lived too long, and open towards `min_size`. To be called about once a second."""
        now, keep = self._now(), []
        spare = self._size - self.settings.min_size
        for slot in self._shelf.idle:  # oldest first
            outlived = now >= slot.expires_at or self._is_closed(slot.item)
            if outlived or (spare > 0 and now - slot.idle_since >= self._idle_seconds):
                spare -= 1
                self._discard_item(slot.item)
                self._size -= 1
            else:
                keep.append(slot)
        self._shelf.idle = keep
        if self._size < self.settings.min_size and not self._shelf.closed and self._refill is None:
            self._refill = asyncio.get_running_loop().create_task(self._fill_up())

    def stats(self) -> PoolStats:
        """Counts and totals at this moment."""
        return PoolStats(
            busy=len(self._shelf.busy),
            idle=len(self._shelf.idle),
            opening=self._opening,
            waiting=len(self._waiters),
            borrowed=self._shelf.borrowed,
            waited=self._waited,
            wait_seconds=self._wait_seconds,
            hold_seconds=self._shelf.hold_seconds,
            opened=self._opened,
            open_failures=self._open_failures,
            closed=self._closed_count,
            refused=self._refused,
            timed_out=self._timed_out,
            peak_busy=self._shelf.peak_busy,
            peak_waiting=self._peak_waiting,
        )

    async def close(self, *, loans_too: bool = False) -> None:
        """Close idle items, refuse waiters; items on loan are closed when they come back, or `loans_too` now. Idempotent."""
        self._shelf.closed = True
        idle, self._shelf.idle = self._shelf.idle, []
        for slot in idle:
            self._drop(slot)
        while self._waiters:
            waiter, _ = self._waiters.popitem(last=False)
            if not waiter.done():
                waiter.set_exception(self._gone())
        if loans_too:
            for item in list(self._shelf.busy):
                self._close(item)
        tasks = [task for task in (self._alarm, self._refill) if task is not None]
        self._alarm = self._refill = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ---- inside

    def _gone(self) -> ServerUnavailable:
        return ServerUnavailable(self.name, "has been removed or is shutting down; nothing is opened to it any more")

    def _take_idle(self) -> Slot[T] | None:
        """The newest idle item that is alive; its place stays taken."""
        while self._shelf.idle:
            slot, now = self._shelf.idle.pop(), self._now()
            stale = now >= slot.expires_at or now - slot.idle_since >= self._idle_seconds
            if not stale and not self._is_closed(slot.item):
                return slot
            self._drop(slot)
        return None

    async def _passes(self, slot: Slot[T], check: Callable[[T], Awaitable[bool]]) -> bool:
        """Whether an item that has idled still works; if not it is closed, its place stays taken."""
        if self._now() < slot.idle_since + self.settings.check_after_idle_seconds:
            return True
        try:
            if await check(slot.item):
                return True
        except Exception:  # noqa: S110 - a check that fails in whatever way says that the item is of no use
            pass
        except BaseException:
            self._drop(slot)
            raise
        self._discard_item(slot.item)
        return False

    async def _open_in_place(self) -> Slot[T]:
        """Open an item in a place already taken; on failure the place is passed on and the next waiter told why."""
        self._opening += 1
        try:
            item = await self._open()
        except Exception as error:
            self._open_failures += 1
            self._fail_next_waiter(error)
            self._free_place()
            raise
        except BaseException:
            self._free_place()
            raise
        finally:
            self._opening -= 1
        self._opened += 1
        jitter = 1.0 - self.settings.lifetime_jitter * self._random()
        return Slot(item, self._now() + self.settings.lifetime_seconds * jitter)

    async def _wait(self, deadline: float | None) -> Slot[T] | None:
        """Queue for an item or a place."""
        if len(self._waiters) >= self.settings.max_waiting:
            self._refused += 1
            raise self._busy_error(f"and {len(self._waiters)} calls wait already")
        since = self._now()
        latest = since + self.settings.wait_seconds
        until = latest if deadline is None else min(deadline, latest)
        waiter: asyncio.Future[Slot[T] | None] = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = (until, since)
        self._waited += 1
        self._peak_waiting = max(self._peak_waiting, len(self._waiters))
        self._set_alarm(until)
        try:
            return await waiter
        except asyncio.CancelledError:
            self._waiters.pop(waiter, None)
            if not waiter.cancelled() and waiter.exception() is None:  # served in the same turn of the loop
                self._pass_on(waiter.result())
            raise
        finally:
            self._wait_seconds += self._now() - since

    def _busy_error(self, detail: str) -> ServerBusy:
        size = self.settings.max_size
        plural = f"{self.noun}s are" if size > 1 else f"{self.noun} is"
        return ServerBusy(
            self.name,
            f"all of its {size} {plural} in use {detail}; try again a little later, or allow it more {self.noun}s",
        )

    def _next_waiter(self) -> "asyncio.Future[Slot[T] | None] | None":
        while self._waiters:
            waiter, _ = self._waiters.popitem(last=False)
            if not waiter.done():
                return waiter
        return None

    def _release(self, slot: Slot[T], now: float) -> None:
        """Hand a usable item to whoever has waited longest, else keep it."""
        if self._waiters:
            waiter = self._next_waiter()
            if waiter is not None:
                waiter.set_result(slot)
                return
        self._shelf.rest(slot, now)

    def _pass_on(self, slot: Slot[T] | None) -> None:
        """An item or place that its owner has no use for goes to whoever waits next."""
        if slot is None:
            self._free_place()
        elif self._shelf.closed or self._is_closed(slot.item):
            self._drop(slot)
        else:
            self._release(slot, self._now())

    def _drop(self, slot: Slot[T]) -> None:
        self._discard_item(slot.item)
        self._free_place()

    def _discard_item(self, item: T) -> None:
        self._closed_count += 1
        self._close(item)

    def _free_place(self) -> None:
        """A place is empty: whoever has waited longest opens an item in it."""
        waiter = self._next_waiter()
        if waiter is None:
            self._size -= 1
        else:
            waiter.set_result(None)

    def _fail_next_waiter(self, error: Exception) -> None:
        waiter = self._next_waiter()
        if waiter is not None:
            waiter.set_exception(error)

    def _set_alarm(self, at: float) -> None:
        """One task watches the earliest deadline; it exists only while somebody waits, or has until lately."""
        if self._alarm is not None and not self._alarm.done():
            if self._alarm_at <= at:
                return
            self._alarm.cancel()
        self._alarm_at = at
        self._alarm = asyncio.get_running_loop().create_task(self._ring())

    async def _ring(self) -> None:
        while self._waiters:
            self._alarm_at = min(deadline for deadline, _ in self._waiters.values())
            await self._sleep(self._alarm_at - self._now())
            now = self._now()
            for waiter, (deadline, since) in list(self._waiters.items()):
                if deadline <= now and not waiter.done():
                    del self._waiters[waiter]
                    self._timed_out += 1
                    waiter.set_exception(self._busy_error(f"and none became free within {now - since:.1f} s"))

    async def _fill_up(self) -> None:
        try:
            while self._size < self.settings.min_size and not self._shelf.closed:
                self._size += 1
                slot = await self._open_in_place()
                self._pass_on(slot)
        except Exception:  # noqa: S110 - counted as an open failure; the next sweep tries again
            pass
        finally:
            self._refill = None
