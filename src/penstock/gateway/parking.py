"""Calls that wait for their client to answer what a server asked.

Knows: keys, a bound in number and one in time. Does not know: who asked what, or how a client is asked.
Invariants: never more than `limit` are parked; each one leaves, or is told within a moment that its time is over.
"""

import os
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from penstock.clock import Clock


class Parked(Protocol):
    """Something that waits for a client."""

    def expire(self) -> None:
        """The client has not come back in time. Must not raise."""


class Parking:
    """What is parked in this worker."""

    __slots__ = ("_clock", "_in_background", "_is_watched", "_places", "is_closed", "limit", "seconds", "worker")

    def __init__(
        self,
        clock: Clock,
        in_background: Callable[[Coroutine[Any, Any, None]], None],
        *,
        limit: int = 256,
        seconds: float = 600.0,
        worker: int = 0,
    ) -> None:
        self._clock = clock
        self._in_background = in_background
        self.limit: Final = limit
        self.worker: Final = worker
        """This worker's number, which keys and ids name."""
        self.seconds: Final = seconds
        """How long each one may wait."""
        self._places: OrderedDict[str, tuple[Parked, float]] = OrderedDict()
        """Oldest first, as all may wait for the same time."""
        self._is_watched = False
        self.is_closed = False
        """Nobody may wait any more: the gateway stops."""

    def __repr__(self) -> str:
        return f"<Parking [{len(self._places)} of {self.limit}] {self.seconds:g} s>"

    def __len__(self) -> int:
        return len(self._places)

    def enter(self, parked: Parked) -> str | None:
        """A key that finds it again, which nobody can guess; None when all places are taken, or nobody may wait any more."""
        if self.is_closed or len(self._places) >= self.limit:
            return None
        key = f"{self.worker}.{os.urandom(12).hex()}"
        self._places[key] = parked, self._clock.now() + self.seconds
        if not self._is_watched:
            self._is_watched = True
            self._in_background(self._watch())
        return key

    def find(self, key: str) -> Parked | None:
        """What is parked there; None when nothing is, or not any more."""
        place = self._places.get(key)
        return place[0] if place is not None else None

    def leave(self, key: str) -> None:
        """The place is free again; nothing happens when it is already."""
        self._places.pop(key, None)

    def close(self) -> None:
        """The gateway stops: the time of all is over, as no client that is not connected can come back."""
        self.is_closed = True
        while self._places:
            _, (parked, _) = self._places.popitem(last=False)
            parked.expire()

    async def _watch(self) -> None:
        """Runs while anything is parked."""
        try:
            while self._places:
                _, until = next(iter(self._places.values()))
                wait = until - self._clock.now()
                if wait > 0:
                    await self._clock.sleep(wait)
                else:
                    _, (parked, _) = self._places.popitem(last=False)
                    parked.expire()
        finally:
            self._is_watched = False
