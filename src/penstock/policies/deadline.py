"""End a call that takes too long.

Knows: calls and the loop's clock. Does not know: HTTP, JSON-RPC, other policies.
Invariant: a call that showed no progress for `idle_seconds`, or has lasted `total_seconds`, ends within one sweep with
`ServerTimedOut`, and its server is told to stop by the cancelling of its task. While its client owes an answer only the total
counts.

One sweep for all calls instead of a timer for each, and no coroutine of its own: entering and leaving cost a set operation,
and whoever runs the call's task asks `refusal` what a cancellation meant.
"""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Final, NamedTuple, TypeVar

from penstock.errors import ServerTimedOut
from penstock.upstreams.calls import Call

T = TypeVar("T")


class DeadlineSettings(NamedTuple):
    """Both in seconds, both > 0."""

    idle_seconds: float = 60.0
    """Without progress."""
    total_seconds: float = 900.0
    """In all."""


class Deadline:
    """The policy of one server's routes."""

    __slots__ = ("_server", "_settings", "leave", "running")
    is_transparent = True

    def __init__(self, server: str, settings: DeadlineSettings) -> None:
        self._server = server
        self._settings = settings
        self.running: Final[set[Call]] = set()
        """The server's calls under way."""
        self.leave: Final[Callable[[Call], None]] = self.running.discard
        """The call has ended."""

    def __repr__(self) -> str:
        idle, total = self._settings.idle_seconds, self._settings.total_seconds
        return f"<Deadline {self._server} {idle:g} s idle, {total:g} s in all [{len(self.running)} calls]>"

    def __call__(self, proceed: Callable[[Call], T], call: Call) -> T:
        """Watch the call from here on; `leave` ends that."""
        self.running.add(call)
        call.watch = self
        return proceed(call)

    def expire(self, now: float) -> None:
        """Cancel the task of each call that is over its time at `now` (loop seconds)."""
        settings = self._settings
        for call in list(self.running):  # cancelling may end a call at once, and so leave
            if call.expired_after:
                continue
            if not call.asking_since and now - (call.progress_at or call.started_at) >= settings.idle_seconds:
                call.expired_after = settings.idle_seconds
            elif now - call.started_at >= settings.total_seconds:
                call.expired_after = settings.total_seconds
            else:
                continue
            if call.task is not None:
                call.task.cancel()

    def refusal(self, call: Call) -> ServerTimedOut | None:
        """What the cancelling of an expired call's task means; None when it was cancelled for another reason."""
        if not call.expired_after:
            return None
        wanted = "progress or an answer" if call.expired_after == self._settings.idle_seconds else "an answer"
        return ServerTimedOut(
            self._server,
            f"expected {wanted} to {call.method} within {call.expired_after:g} s, got none;"
            f" raise servers.{self._server}.timeout if it needs longer",
        )


class DeadlineSweep:
    """The one clock hand that passes over all running calls of all servers."""

    INTERVAL_SECONDS: Final = 0.1

    def __init__(self) -> None:
        self._deadlines: list[Deadline] = []
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<DeadlineSweep {len(self)} calls of {len(self._deadlines)} servers>"

    def __len__(self) -> int:
        return sum(len(deadline.running) for deadline in self._deadlines)

    def add(self, deadline: Deadline) -> None:
        """Sweep this one too; forgotten by `forget` once its last call has ended."""
        self._deadlines.append(deadline)
        if self._timer is None:
            self._schedule()

    def forget(self, deadline: Deadline) -> None:
        """The server is gone and runs nothing any more."""
        if deadline in self._deadlines:
            self._deadlines.remove(deadline)

    def sweep(self, now: float) -> None:
        """Expire what is over its time at `now` (loop seconds)."""
        for deadline in self._deadlines:
            if deadline.running:
                deadline.expire(now)

    def close(self) -> None:
        """Stop the clock hand."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._deadlines.clear()

    def _schedule(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self.INTERVAL_SECONDS, self._tick)

    def _tick(self) -> None:
        self._timer = None
        try:
            self.sweep(monotonic())
        finally:  # a fault in ending one call must not leave all others without their time limit
            if self._deadlines:
                self._schedule()
