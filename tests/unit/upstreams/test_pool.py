"""What a pool promises its borrowers, one promise a test."""

import asyncio
from collections.abc import Callable

import pytest

from penstock.clock import FakeClock
from penstock.errors import ServerBusy, ServerUnavailable
from penstock.upstreams.pool import Pool, PoolSettings


class Item:
    def __init__(self, number: int) -> None:
        self.number = number
        self.is_closed = False
        self.closes = 0

    def __repr__(self) -> str:
        return f"<Item {self.number}{' closed' if self.is_closed else ''}>"


class Maker:
    """Opens items, at once or when told, and counts."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.gate: asyncio.Event | None = None
        self.error: Exception | None = None
        self.check_error: BaseException | None = None
        self.check_gate: asyncio.Event | None = None
        self.check_answer = True
        self.checks = 0

    async def open(self) -> Item:
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.items.append(Item(len(self.items) + 1))
        return self.items[-1]

    def close(self, item: Item) -> None:
        item.closes += 1
        item.is_closed = True

    async def check(self, item: Item) -> bool:
        self.checks += 1
        if self.check_gate is not None:
            await self.check_gate.wait()
        if self.check_error is not None:
            raise self.check_error
        return self.check_answer

    @property
    def alive(self) -> int:
        return sum(not item.is_closed for item in self.items)


def make_pool(
    maker: Maker, clock: FakeClock, settings: PoolSettings | None = None, *, random: Callable[[], float] = lambda: 0.0
) -> Pool[Item]:
    return Pool(
        "weather",
        open=maker.open,
        close=maker.close,
        is_closed=lambda item: item.is_closed,
        check=maker.check,
        settings=settings or PoolSettings(max_size=2, max_waiting=2),
        clock=clock,
        random=random,
    )


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_an_item_given_back_is_lent_again_newest_first() -> None:
    maker, clock = Maker(), FakeClock()
    pool = make_pool(maker, clock)
    assert pool.try_borrow() is None
    first, second = await pool.borrow(), await pool.borrow()
    pool.give_back(first)
    pool.give_back(second)
    assert pool.try_borrow() is second
    assert await pool.borrow() is first
    assert len(maker.items) == 2


async def test_its_repr_shows_its_state() -> None:
    maker, clock = Maker(), FakeClock()
    pool = make_pool(maker, clock, PoolSettings(max_size=5))
    items = [await pool.borrow() for _ in range(4)]
    pool.give_back(items[0])
    assert repr(pool) == "<Pool weather [3 busy 1 idle | waiting 0]>"
    pool.give_back(items[1], discard=True)
    maker.gate = asyncio.Event()
    assert pool.try_borrow() is items[0]
    opening = asyncio.create_task(pool.borrow())
    await settle()
    assert repr(pool) == "<Pool weather [3 busy 0 idle 1 opening | waiting 0]>"
    opening.cancel()
    await settle()
    await pool.close()
    assert repr(pool) == "<Pool weather [3 busy 0 idle | waiting 0 | closed]>"


async def test_waiters_are_served_in_the_order_they_came() -> None:
    maker, clock = Maker(), FakeClock()
    pool = make_pool(maker, clock, PoolSettings(max_size=1))
    held = await pool.borrow()
    order: list[str] = []

    async def wait(name: str) -> None:
        item = await pool.borrow()
        order.append(name)
        pool.give_back(item)

    tasks = [asyncio.create_task(wait(name)) for name in "abc"]
    await settle()
    assert pool.stats().waiting == 3
    pool.give_back(held)
    await asyncio.gather(*tasks)
    assert order == ["a", "b", "c"]
    assert len(maker.items) == 1
    await pool.close()


async def test_one_waiter_too_many_is_refused_at_once() -> None:
    maker, clock = Maker(), FakeClock()
    pool = make_pool(maker, clock, PoolSettings(max_size=1, max_waiting=1))
    held = await pool.borrow()
    waiting = asyncio.create_task(pool.borrow())
    await settle()
    with pytest.raises(ServerBusy, match="its 1 connection is in use and 1 calls wait already"):
        await pool.borrow()
    pool.give_back(held)
    assert await waiting is held
    assert pool.stats().refused == 1
    await pool.close()


async def test_waiting_ends_at_the_earlier_of_deadline_and_wait_limit() -> None:
    maker, clock = Maker(), FakeClock()
    pool = make_pool(maker, clock, PoolSettings(max_size=1, wait_seconds=5))
    held = await pool.borrow()
    long = asyncio.create_task(pool.borrow(clock.now() + 100))
    await settle()
    short = asyncio.create_task(pool.borrow(clock.now() + 1))
    await settle()
    await clock.advance(1)
    await settle()
    with pytest.raises(ServerBusy, match=r"none became free within 1\.0 s"):
        await short
    assert not long.done()
    await clock.advance(4)
    await settle()
    with pytest.raises(ServerBusy, match=r"none became free within 5\.0 s"):
        await long
    pool.give_back(held)
    assert pool.stats().timed_out == 2
    assert pool.stats().wait_seconds == pytest.approx(6)
    assert pool.try_borrow() is held
    await pool.close()


async def test_a_failed_open_tells_the_next_waiter_and_lets_the_one_after_try() -> None:
    maker, clock = Maker(), FakeClock()
    pool = make_pool(maker, clock, PoolSettings(max_size=1))
    maker.gate, maker.error = asyncio.Event(), ServerUnavailable("weather", "refused the connection")
    tasks = [asyncio.create_task(pool.borrow()) for _ in range(3)]
    await settle()
    gate, maker.gate = maker.gate, asyncio.Event()
    gate.set()
    await settle()
    assert [task.done() for task in tasks] == [True, True, False]
    maker.error = None
    maker.gate.set()
    item = await tasks[2]
    assert all(isinstance(task.exception(), ServerUnavailable) for task in tasks[:2])
    pool.give_back(item)
    assert pool.stats().open_failures == 1
    await pool.close()


async def test_a_cancelled_waiter_passes_on_what_it_was_just_given() -> None:
    maker, clock = Maker(), FakeClock()
    pool = make_pool(maker, clock, PoolSettings(max_size=1))
    held = await pool.borrow()
    first, second = asyncio.create_task(pool.borrow()), asyncio.create_task(pool.borrow())
    await settle()
    pool.give_back(held)
    first.cancel()
    await settle()
    assert first.cancelled()
    assert second.done()
    assert await second is held
    third = asyncio.create_task(pool.borrow())
    await settle()
    pool.give_back(held)
    third.cancel()
    await settle()
    assert pool.try_borrow() is held
    fourth = asyncio.create_task(pool.borrow())
    await settle()
    pool.give_back(held, discard=True)
    fourth.cancel()
    await settle()
    assert pool.stats().idle == pool.stats().busy == 0
    assert pool.try_borrow() is None
    assert (await pool.borrow()).number == 2
    await pool.close()


async def test_what_a_cancelled_waiter_was_given_is_closed_if_it_died_meanwhile() -> None:
    maker, clock = Maker(), FakeClock()
    pool = make_pool(maker, clock, PoolSettings(max_size=1))
    held = await pool.borrow()
    waiting = asyncio.create_task(pool.borrow())
    await settle()
    pool.give_back(held)
    waiting.cancel()
    closing = asyncio.create_task(pool.close())
    await settle()
    await closing
    assert held.is_closed


async def test_a_cancelled_open_passes_its_place_to_the_next_waiter() -> None:
    maker, clock = Maker(), FakeClock()
    pool = make_pool(maker, clock, PoolSettings(max_size=1))
    maker.gate = asyncio.Event()
    first, second = asyncio.create_task(pool.borrow()), asyncio.create_task(pool.borrow())
    await settle()
    first.cancel()
    maker.gate.set()
    assert (await second).number == 1
    await pool.close()


async def test_a_cancelled_check_closes_the_item_and_frees_its_place() -> None:
    maker, clock = Maker(), FakeClock()
    pool = make_pool(maker, clock, PoolSettings(max_size=1, check_after_idle_seconds=1))
    pool.give_back(await pool.borrow())
    await clock.advance(2)
    maker.check_gate = asyncio.Event()
    task = asyncio.create_task(pool.borrow())
    await settle()
    task.cancel()
    await settle()
    assert maker.items[0].is_closed
    assert (await pool.borrow()).number == 2


async def test_an_item_is_checked_only_after_idling() -> None:
    maker, clock = Maker(), FakeClock()
    pool = make_pool(maker, clock, PoolSettings(max_size=1, check_after_idle_seconds=3))
    pool.give_back(await pool.borrow())
    pool.give_back(await pool.borrow())
    assert maker.checks == 0
    await clock.advance(3)
    assert pool.try_borrow() is None
    item = await pool.borrow()
    assert (maker.checks, item.number) == (1, 1)
    pool.give_back(item)
    await clock.advance(3)
    maker.check_answer = False
    item = await pool.borrow()
    assert (maker.checks, item.number, maker.alive) == (2, 2, 1)
    pool.give_back(item)
    await clock.advance(3)
    maker.check_error = OSError("gone")
    assert (await pool.borrow()).number == 3


async def test_a_dead_idle_item_is_replaced() -> None:
    maker, clock = Maker(), FakeClock()
    pool = make_pool(maker, clock, PoolSettings(max_size=1))
    item = await pool.borrow()
    pool.give_back(item)
    item.is_closed = True
    assert pool.try_borrow() is None
    assert (await pool.borrow()).number == 2
    assert pool.stats().closed == 1


async def test_an_item_that_died_on_loan_is_not_kept() -> None:
    maker, clock = Maker(), FakeClock()
    pool = make_pool(maker, clock)
    item = await pool.borrow()
    item.is_closed = True
    pool.give_back(item)
    assert pool.stats().idle == 0


async def test_giving_back_what_is_not_on_loan_is_a_mistake() -> None:
    maker, clock = Maker(), FakeClock()
    pool = make_pool(maker, clock)
    item = await pool.borrow()
    pool.give_back(item)
    with pytest.raises(ValueError, match="<Item 1> is not on loan"):
        pool.give_back(item)


async def test_lifetimes_are_jittered_and_end_a_loan_for_good() -> None:
    maker, clock = Maker(), FakeClock()
    settings = PoolSettings(max_size=1, lifetime_seconds=100, lifetime_jitter=0.5, idle_seconds=1000)
    pool = make_pool(maker, clock, settings, random=lambda: 1.0)
    item = await pool.borrow()
    await clock.advance(49)
    pool.give_back(item)
    assert await pool.borrow() is item
    await clock.advance(1)
    pool.give_back(item)
    assert item.is_closed
    pool.give_back(await pool.borrow())
    await clock.advance(50)
    assert (await pool.borrow()).number == 3


async def test_the_sweep_closes_what_idled_too_long_but_keeps_the_minimum() -> None:
    maker, clock = Maker(), FakeClock()
    pool = make_pool(maker, clock, PoolSettings(max_size=3, min_size=1, idle_seconds=10))
    items = [await pool.borrow() for _ in range(3)]
    for item in items:
        pool.give_back(item)
        await clock.advance(1)
    pool.sweep()
    assert pool.stats().idle == 3
    await clock.advance(20)
    pool.sweep()
    assert [item.is_closed for item in items] == [True, True, False]
    items[2].is_closed = True
    pool.sweep()
    await settle()
    assert (pool.stats().idle, len(maker.items)) == (1, 4)
    await pool.close()
    pool.sweep()
    assert maker.alive == 0


async def test_idle_too_long_is_not_lent_even_before_the_sweep() -> None:
    maker, clock = Maker(), FakeClock()
    pool = make_pool(maker, clock, PoolSettings(max_size=1, idle_seconds=4))
    pool.give_back(await pool.borrow())
    await clock.advance(4)
    assert pool.try_borrow() is None
    assert (await pool.borrow()).number == 2
    assert maker.checks == 0


async def test_a_failed_refill_is_counted_and_tried_again() -> None:
    maker, clock = Maker(), FakeClock()
    pool = make_pool(maker, clock, PoolSettings(max_size=2, min_size=2))
    maker.error = OSError("no route")
    pool.sweep()
    await settle()
    assert pool.stats().open_failures == 1
    maker.error = None
    pool.sweep()
    await settle()
    assert repr(pool) == "<Pool weather [0 busy 2 idle | waiting 0]>"
    await pool.close()


async def test_closing_refuses_waiters_and_closes_loans_when_they_come_back() -> None:
    maker, clock = Maker(), FakeClock()
    pool = make_pool(maker, clock, PoolSettings(max_size=1, min_size=1))
    held = await pool.borrow()
    waiting = asyncio.create_task(pool.borrow())
    await settle()
    await pool.close()
    with pytest.raises(ServerUnavailable, match="server 'weather': has been removed"):
        await waiting
    with pytest.raises(ServerUnavailable):
        await pool.borrow()
    pool.give_back(held)
    assert held.is_closed
    await pool.close()


async def test_a_refill_that_ends_after_closing_leaves_nothing_open() -> None:
    maker, clock = Maker(), FakeClock()
    pool = make_pool(maker, clock, PoolSettings(max_size=1, min_size=1))
    maker.gate = asyncio.Event()
    pool.sweep()
    await settle()
    assert pool.stats().opening == 1
    maker.gate.set()
    await pool.close()
    assert maker.alive == 0


async def test_an_item_refilled_goes_to_whoever_waits() -> None:
    maker, clock = Maker(), FakeClock()
    pool = make_pool(maker, clock, PoolSettings(max_size=1, min_size=1))
    maker.gate = asyncio.Event()
    pool.sweep()
    await settle()
    waiting = asyncio.create_task(pool.borrow())
    await settle()
    maker.gate.set()
    assert (await waiting).number == 1
    await pool.close()


async def test_it_counts_waits_holds_and_peaks() -> None:
    maker, clock = Maker(), FakeClock()
    pool = make_pool(maker, clock, PoolSettings(max_size=1))
    held = await pool.borrow()
    waiting = asyncio.create_task(pool.borrow())
    await settle()
    await clock.advance(2)
    pool.give_back(held)
    pool.give_back(await waiting)
    stats = pool.stats()
    assert (stats.borrowed, stats.waited, stats.opened, stats.peak_busy, stats.peak_waiting) == (2, 1, 1, 1, 1)
    assert stats.wait_seconds == pytest.approx(2)
    assert stats.hold_seconds == pytest.approx(2)
    await pool.close()


async def test_closing_may_end_loans_at_once() -> None:
    maker, clock = Maker(), FakeClock()
    pool = make_pool(maker, clock)
    held = await pool.borrow()
    await pool.close(loans_too=True)
    assert held.is_closed
    pool.give_back(held)
    assert pool.stats().busy == 0
