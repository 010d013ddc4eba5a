"""The items a pool has: at rest, or on loan.

Knows: when an item can be lent or put back without waiting for anything. Does not know: how items are opened, checked and waited
for; that is the pool's. Every call passes through here, so it is compiled where that is possible.
"""

from collections.abc import Callable, Sized
from typing import Final, Generic, TypeVar

T = TypeVar("T")


class Slot(Generic[T]):
    """One item and its times."""

    __slots__ = ("borrowed_at", "expires_at", "fresh_until", "idle_since", "item")

    def __init__(self, item: T, expires_at: float) -> None:
        self.item = item
        self.expires_at = expires_at
        self.borrowed_at = 0.0
        self.idle_since = 0.0
        self.fresh_until = 0.0
        """Until then an idle item is lent without another thought."""


class Shelf(Generic[T]):
    """Lends the newest item first, and takes items back."""

    __slots__ = (
        "_drop",
        "_is_closed",
        "_now",
        "_release",
        "_waiters",
        "borrowed",
        "busy",
        "closed",
        "fresh_seconds",
        "hold_seconds",
        "idle",
        "peak_busy",
    )

    def __init__(
        self,
        *,
        is_closed: Callable[[T], bool],
        now: Callable[[], float],
        fresh_seconds: float,
        waiters: Sized,
        drop: Callable[[Slot[T]], None],
        release: Callable[[Slot[T], float], None],
    ) -> None:
        """
        Args:
            waiters: those who queue; while there is one, what comes back is not put to rest.
            drop: takes what is of no use any more.
            release: takes what somebody waits for.
        """
        self._is_closed: Final = is_closed
        self._now: Final = now
        self._waiters: Final = waiters
        self._drop: Final = drop
        self._release: Final = release
        self.fresh_seconds = fresh_seconds
        """How long an item that rests is lent without another thought."""
        self.idle: list[Slot[T]] = []
        """Oldest first."""
        self.busy: dict[T, Slot[T]] = {}
        self.closed = False
        """Nothing is put to rest any more."""
        self.borrowed = 0
        self.peak_busy = 0
        self.hold_seconds = 0.0

    def __repr__(self) -> str:
        return f"<Shelf {len(self.busy)} busy {len(self.idle)} idle>"

    def try_borrow(self) -> T | None:
        """The newest idle item if it can be lent without waiting for anything, else None."""
        while self.idle:
            slot = self.idle[-1]
            now = self._now()
            if now >= slot.fresh_until:
                return None
            self.idle.pop()
            if self._is_closed(slot.item):
                self._drop(slot)
                continue
            return self.lend(slot, now)
        return None

    def lend(self, slot: Slot[T], now: float) -> T:
        """Note the loan of an item that is not at rest."""
        slot.borrowed_at = now
        busy = self.busy
        busy[slot.item] = slot
        self.borrowed += 1
        self.peak_busy = max(self.peak_busy, len(busy))
        return slot.item

    def give_back(self, item: T, *, discard: bool = False) -> None:
        """End a loan. A discarded, closed or outlived item is closed and its place passed on.

        Raises:
            ValueError: the item is not on loan.
        """
        slot = self.busy.pop(item, None)
        if slot is None:
            raise ValueError(f"{self!r}: {item!r} is not on loan")
        now = self._now()
        self.hold_seconds += now - slot.borrowed_at
        if discard or self.closed or now >= slot.expires_at or self._is_closed(item):
            self._drop(slot)
        elif len(self._waiters) > 0:
            self._release(slot, now)
        else:
            self.rest(slot, now)

    def rest(self, slot: Slot[T], now: float) -> None:
        """Put an item that is of use to where the next borrower finds it."""
        slot.idle_since = now
        fresh_until = now + self.fresh_seconds
        slot.fresh_until = fresh_until if fresh_until < slot.expires_at else slot.expires_at
        self.idle.append(slot)
