"""Let many callers share one piece of work that is under way.

Knows: tasks. Does not know: what the work is; nothing is remembered once it has ended.
Invariant: the work goes on however many of its callers are cancelled; each caller gets its result or its error.
"""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """At most one piece of work for each key at a time."""

    __slots__ = ("_running", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._running: dict[Hashable, asyncio.Task[T]] = {}

    def __repr__(self) -> str:
        return f"<SingleFlight {self.name} [{len(self._running)} running]>"

    async def run(self, key: Hashable, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of the work that runs for this key; started now when there is none."""
        task = self._running.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(work(), name=f"{self.name} {key!r:.60}")
            self._running[key] = task
            task.add_done_callback(lambda done: self._ended(key, done))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():  # not our caller was cancelled, but the work: `close` ended it
                raise asyncio.CancelledError(f"{self.name} was closed") from None
            raise
        finally:
            del task  # its error holds this frame

    async def settled(self, key: Hashable) -> None:
        """Wait for the end of the work that runs for this key, if there is any, however it ends."""
        task = self._running.get(key)
        if task is not None:
            await asyncio.wait((task,))

    def _ended(self, key: Hashable, task: asyncio.Task[T]) -> None:
        if self._running.get(key) is task:
            del self._running[key]
        if not task.cancelled():
            task.exception()  # all its callers may have gone: then nobody needs to hear of it

    async def close(self) -> None:
        """Cancel what runs and wait for its end."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
