"""One call at a time, with a server that asks where nothing links its requests to calls: only one may be at work.

Knows: which calls are at work, rest, or wait. Does not know: messages, transports.
Invariants, once a server is known to ask: at most one call is at work; those that wait begin in the order they came; a call
that rests, as its client owes an answer, lets others work until the answer is there and its turn comes again, but only calls of
its own principal, and none if the server was seen to ask several things of one call at different times. A server that never
asked is not held up. Why this is enough: docs/decisions/015.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from penstock.upstreams.calls import Heard


class Habits:
    """What is known of a server beyond one conversation with it."""

    __slots__ = ("asks", "asks_in_parallel", "heard", "uris")

    def __init__(self) -> None:
        self.asks = False
        """It has asked clients something."""
        self.asks_in_parallel = False
        """It has asked something in the course of a call of which it still awaited another answer."""
        self.heard: Heard | None = None
        """Takes what it says of changes."""
        self.uris: dict[str, None] = {}
        """Resources a legacy server was subscribed to."""


class Turn:
    """One call's part of a server's time."""

    __slots__ = ("_turns", "_when_awake", "is_at_work", "is_over", "principal")

    def __init__(self, turns: "Turns", principal: str) -> None:
        self._turns: Final = turns
        self.principal: Final = principal
        self.is_at_work = True
        """False while it rests."""
        self._when_awake: Callable[[], None] | None = None
        self.is_over = False

    def __repr__(self) -> str:
        return f"<Turn {'at work' if self.is_at_work else 'resting'}>"

    def rest(self) -> None:
        """The server waits for this call's client: others may work."""
        if self.is_at_work and not self.is_over:
            self.is_at_work = False
            self._turns.rested(self)

    def wake(self, then: Callable[[], None]) -> None:
        """Go on at once, or as soon as nobody else is at work; `then` is called when that is. One at a time."""
        if self.is_at_work or self.is_over:
            then()
        else:
            self._when_awake = then
            self._turns.wants_back(self)

    def stir(self) -> None:
        """The server works on it without having been answered, whoever else is at work."""
        if not self.is_at_work and not self.is_over:
            self._turns.stirred(self)

    def awake(self) -> None:
        """It is at work again."""
        self.is_at_work = True
        then, self._when_awake = self._when_awake, None
        if then is not None:
            then()

    def end(self) -> None:
        """The call has ended."""
        self.is_over = True
        self._when_awake = None  # it holds us
        self._turns.ended(self)


class Turns:
    """The calls of one conversation."""

    __slots__ = ("_at_work", "_habits", "_is_granted", "_resting", "_returning", "_waiting")

    def __init__(self, habits: Habits) -> None:
        self._habits: Final = habits
        self._at_work: set[Turn] = set()
        self._resting: set[Turn] = set()
        self._returning: deque[Turn] = deque()
        """Those of the resting that have their answer."""
        self._waiting: deque[tuple[asyncio.Future[None], str]] = deque()
        self._is_granted = False
        """Somebody was told to begin, and has not yet."""

    def __repr__(self) -> str:
        return f"<Turns {len(self._at_work)} at work, {len(self._resting)} resting, {len(self._waiting)} waiting>"

    @property
    def waiting(self) -> int:
        """Calls that wait for their turn."""
        return len(self._waiting)

    def try_begin(self, principal: str) -> Turn | None:
        """Begin at once, if that may be."""
        if self._habits.asks and (
            self._is_granted or self._waiting or self._returning or not self._may_work(principal)
        ):
            return None
        return self._begin(principal)

    async def begin(self, principal: str, seconds: float) -> Turn:
        """Wait for the turn.

        Raises:
            TimeoutError: it did not come in time.
        """
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = turn, principal
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(seconds):
                await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                self._is_granted = False  # it came in the same moment
            elif entry in self._waiting:
                self._waiting.remove(entry)
            self._go_on()
            raise
        self._is_granted = False
        return self._begin(principal)

    def rested(self, turn: Turn) -> None:
        """See `Turn.rest`."""
        self._at_work.discard(turn)
        self._resting.add(turn)
        self._go_on()

    def wants_back(self, turn: Turn) -> None:
        """See `Turn.wake`."""
        self._returning.append(turn)
        self._go_on()

    def stirred(self, turn: Turn) -> None:
        """See `Turn.stir`."""
        if turn in self._returning:
            self._returning.remove(turn)
        self._resting.discard(turn)
        self._at_work.add(turn)
        turn.awake()

    def ended(self, turn: Turn) -> None:
        """See `Turn.end`."""
        self._at_work.discard(turn)
        self._resting.discard(turn)
        if turn in self._returning:
            self._returning.remove(turn)
        self._go_on()

    def _begin(self, principal: str) -> Turn:
        turn = Turn(self, principal)
        self._at_work.add(turn)
        return turn

    def _may_work(self, principal: str) -> bool:
        if self._at_work or (self._resting and self._habits.asks_in_parallel):
            return False
        return all(turn.principal == principal for turn in self._resting)

    def _go_on(self) -> None:
        """Somebody has made room: those that have their answer come first, then whoever has waited longest."""
        while self._returning and not self._at_work and not self._is_granted:
            turn = self._returning.popleft()
            self._resting.discard(turn)
            self._at_work.add(turn)
            turn.awake()
        if self._is_granted or self._at_work:
            return
        while self._waiting:
            future, principal = self._waiting[0]
            if not future.done():
                if not self._may_work(principal):
                    return
                self._is_granted = True
                self._waiting.popleft()
                future.set_result(None)
                return
            self._waiting.popleft()
