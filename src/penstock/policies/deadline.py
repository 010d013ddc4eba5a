"""End a call that takes too long.

Knows: the loop's clock, calls. Does not know: HTTP, JSON-RPC, other policies.
Invariant: a call that showed no progress for `idle_seconds`, or has lasted `total_seconds`, ends within one sweep with
`ServerTimedOut`, and its server is told to stop by the cancelling of its task.

One sweep for all calls instead of one timer for each: entering and leaving cost a set operation.
"""

import asyncio
from typing import Final

import msgspec

from penstock.errors import ServerTimedOut
from penstock.policies.interface import Handle
from penstock.upstreams.interface import Answer, Call


class DeadlineSettings(msgspec.Struct, frozen=True):
    """Both in seconds, both > 0."""

    idle_seconds: float = 60.0
    """Without progress."""
    total_seconds: float = 900.0
    """In all."""


class _Running:
    """One call under a deadline."""

    __slots__ = ("call", "expired_after", "settings", "task")

    def __init__(self, call: Call, settings: DeadlineSettings, task: "asyncio.Task[object]") -> None:
        self.call = call
        self.settings = settings
        self.task = task
        self.expired_after = 0.0


class DeadlineSweep:
    """The one clock hand that passes over all running calls."""

    INTERVAL_SECONDS: Final = 0.1

    def __init__(self) -> None:
        self._running: set[_Running] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<DeadlineSweep {len(self._running)} calls>"

    def __len__(self) -> int:
        return len(self._running)

    def enter(self, call: Call, settings: DeadlineSettings) -> _Running:
        task = asyncio.current_task()
        assert task is not None, "a call runs in a task"
        running = _Running(call, settings, task)
        self._running.add(running)
        if self._timer is None:
            self._schedule()
        return running

    def leave(self, running: _Running) -> None:
        self._running.discard(running)

    def sweep(self, now: float) -> None:
        """Cancel what is over its time at `now` (loop seconds)."""
        for running in self._running:
            call, settings = running.call, running.settings
            if running.expired_after:
                continue
            if now - (call.progress_at or call.started_at) >= settings.idle_seconds:
                running.expired_after = settings.idle_seconds
            elif now - call.started_at >= settings.total_seconds:
                running.expired_after = settings.total_seconds
            else:
                continue
            running.task.cancel()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self.INTERVAL_SECONDS, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.sweep(asyncio.get_running_loop().time())
        if self._running:
            self._schedule()


class Deadline:
    """The policy: one for each route's server, all sharing one sweep."""

    def __init__(self, server: str, settings: DeadlineSettings, sweep: DeadlineSweep) -> None:
        self._server = server
        self._settings = settings
        self._sweep = sweep

    def __repr__(self) -> str:
        return f"<Deadline {self._settings.idle_seconds:g} s idle, {self._settings.total_seconds:g} s in all>"

    async def __call__(self, call: Call, proceed: Handle) -> Answer:
        sweep = self._sweep
        running = sweep.enter(call, self._settings)
        try:
            return await proceed(call)
        except asyncio.CancelledError:
            if not running.expired_after:
                raise
            if running.task.uncancel() > 0:
                raise  # somebody else cancelled as well: that wins
            raise ServerTimedOut(self._server, self._message(call, running.expired_after)) from None
        finally:
            sweep.leave(running)

    def _message(self, call: Call, seconds: float) -> str:
        progress = "progress or an answer" if seconds == self._settings.idle_seconds else "an answer"
        return (
            f"expected {progress} to {call.method} within {seconds:g} s, got none;"
            f" raise servers.{self._server}.timeout if it needs longer"
        )
