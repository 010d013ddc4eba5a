"""One call at a time, with a stdio server that asks: its requests name no call, so only one may be under way.

Knows: how many calls are under way, who waits. Does not know: messages, processes.
Invariants: while a server is known to ask, a call begins only when no other is under way, and those that wait begin in the order
they came; a server that never asked is not held up. Source: DESIGN "Whose call is it?", docs/decisions/015.
"""

import asyncio
from collections import deque
from typing import Final

from penstock.upstreams.interface import Heard


class Habits:
    """What is known of a server beyond one process of it."""

    __slots__ = ("asks", "heard", "uris")

    def __init__(self) -> None:
        self.asks = False
        """It has asked clients something."""
        self.heard: Heard | None = None
        """Takes what it says of changes."""
        self.uris: dict[str, None] = {}
        """Resources a legacy server was subscribed to."""


class Turns:
    """Who of one process's callers may begin."""

    __slots__ = ("_habits", "_is_granted", "_under_way", "_waiting")

    def __init__(self, habits: Habits) -> None:
        self._habits: Final = habits
        self._under_way = 0
        self._is_granted = False
        """Somebody was told to begin, and has not yet."""
        self._waiting: deque[asyncio.Future[None]] = deque()

    def __repr__(self) -> str:
        return f"<Turns {self._under_way} under way, {len(self._waiting)} waiting>"

    @property
    def waiting(self) -> int:
        """Calls that wait for their turn."""
        return len(self._waiting)

    def try_begin(self) -> bool:
        """Begin at once, if that may be."""
        if self._habits.asks and (self._under_way or self._is_granted or self._waiting):
            return False
        self._under_way += 1
        return True

    async def begin(self, seconds: float) -> None:
        """Wait for the turn.

        Raises:
            TimeoutError: it did not come in time.
        """
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(seconds):
                await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                self._is_granted = False  # it came in the same moment
            elif turn in self._waiting:
                self._waiting.remove(turn)
            self._grant_next()
            raise
        self._is_granted = False
        self._under_way += 1

    def end(self) -> None:
        """A call that began has ended."""
        self._under_way -= 1
        self._grant_next()

    def _grant_next(self) -> None:
        if self._under_way or self._is_granted:
            return
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                self._is_granted = True
                turn.set_result(None)
                return
