"""Time as an argument: now() and sleep(), real and fake.

Knows: nothing of the rest of Penstock. Everything that decides by time takes a `Clock`, so that no test ever sleeps.
"""

import asyncio
import heapq
import time
from typing import Protocol


class Clock(Protocol):
    """Seconds on a clock that never runs backwards, and a way to wait on it."""

    def now(self) -> float:
        """Monotonic seconds; only differences mean anything."""
        ...

    def wall(self) -> float:
        """Seconds since 1970; for what people read and what outlives the process."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait that long; a delay of 0 or less yields once."""
        ...


class SystemClock:
    """The machine's clock."""

    __slots__ = ()

    now = staticmethod(time.monotonic)
    wall = staticmethod(time.time)
    sleep = staticmethod(asyncio.sleep)


class FakeClock:
    """A clock that stands still until `advance` moves it; sleepers wake in order of their time."""

    def __init__(self, start: float = 1_000.0, wall: float = 1_800_000_000.0) -> None:
        self._now = start
        self._wall_offset = wall - start
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    def __repr__(self) -> str:
        return f"<FakeClock {self._now:.3f} | sleepers {len(self._sleepers)}>"

    def now(self) -> float:
        return self._now

    def wall(self) -> float:
        return self._now + self._wall_offset

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        waiter = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._sleepers, (self._now + seconds, self._count, waiter))
        await waiter

    async def advance(self, seconds: float) -> None:
        """Move time on, waking each sleeper at its own moment and letting it run before the next."""
        target = self._now + seconds
        while self._sleepers and self._sleepers[0][0] <= target:
            self._now, _, waiter = heapq.heappop(self._sleepers)
            if not waiter.done():
                waiter.set_result(None)
            for _ in range(5):  # a woken task may need several turns of the loop to reach its next sleep
                await asyncio.sleep(0)
        self._now = target
        await asyncio.sleep(0)
