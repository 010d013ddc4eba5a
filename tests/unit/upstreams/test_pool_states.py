"""Whatever borrowers, openers and the clock do, in whatever order, a pool loses no item and no place."""

import asyncio
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from penstock.clock import FakeClock
from penstock.errors import ServerBusy
from penstock.upstreams.pool import Pool, PoolSettings

SETTINGS = PoolSettings(
    min_size=1,
    max_size=3,
    max_waiting=3,
    wait_seconds=5,
    idle_seconds=6,
    lifetime_seconds=20,
    check_after_idle_seconds=2,
)


class Item:
    def __init__(self) -> None:
        self.is_dead = False
        self.closes = 0


class PoolMachine(RuleBasedStateMachine):
    """Runs the pool on a loop of its own; opening and checking end only when a rule says so."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = FakeClock()
        self.items: list[Item] = []
        self.pending: list[asyncio.Future[Any]] = []
        self.borrowers: list[asyncio.Task[Item]] = []
        self.lent: list[Item] = []
        self.pool: Pool[Item] = Pool(
            "model",
            open=self.open_item,
            close=self.close_item,
            is_closed=lambda item: item.is_dead,
            check=self.check_item,
            settings=SETTINGS,
            clock=self.clock,
        )

    async def open_item(self) -> Item:
        await self.wait_for_rule()
        self.items.append(Item())
        return self.items[-1]

    async def check_item(self, item: Item) -> bool:
        await self.wait_for_rule()
        return True

    async def wait_for_rule(self) -> None:
        future = self.loop.create_future()
        self.pending.append(future)
        try:
            await future
        finally:
            self.pending.remove(future)

    def close_item(self, item: Item) -> None:
        item.closes += 1
        item.is_dead = True

    def run(self, seconds: float = 0.0) -> None:
        async def turn() -> None:
            await self.clock.advance(seconds)
            for _ in range(12):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turn())
        for task in [task for task in self.borrowers if task.done()]:
            self.borrowers.remove(task)
            if not task.cancelled() and task.exception() is None:
                self.lent.append(task.result())
            elif not task.cancelled():
                assert isinstance(task.exception(), (ServerBusy, OSError))

    @rule()
    def borrow(self) -> None:
        self.borrowers.append(self.loop.create_task(self.pool.borrow()))
        self.run()

    @rule()
    def try_borrow(self) -> None:
        item = self.pool.try_borrow()
        if item is not None:
            self.lent.append(item)

    @precondition(lambda self: self.lent)
    @rule(data=st.data(), discard=st.booleans(), cancel=st.booleans())
    def give_back(self, data: st.DataObject, discard: bool, cancel: bool) -> None:
        item = data.draw(st.sampled_from(self.lent))
        self.lent.remove(item)
        self.pool.give_back(item, discard=discard)
        if cancel and self.borrowers:  # in the very turn in which it may have been served
            data.draw(st.sampled_from(self.borrowers)).cancel()
        self.run()

    @precondition(lambda self: self.pending)
    @rule(data=st.data(), ok=st.booleans(), cancel=st.booleans())
    def end_open_or_check(self, data: st.DataObject, ok: bool, cancel: bool) -> None:
        future = data.draw(st.sampled_from(self.pending))
        if not ok:
            future.set_exception(OSError("refused"))
        else:
            future.set_result(None)
        if cancel and self.borrowers:
            data.draw(st.sampled_from(self.borrowers)).cancel()
        self.run()

    @precondition(lambda self: self.borrowers)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.borrowers)).cancel()
        self.run()

    @precondition(lambda self: self.items)
    @rule(data=st.data())
    def kill_an_item(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.items)).is_dead = True

    @rule(seconds=st.sampled_from([0.5, 2.0, 5.0, 20.0]))
    def pass_time(self, seconds: float) -> None:
        self.run(seconds)

    @rule()
    def sweep(self) -> None:
        self.loop.call_soon(self.pool.sweep)
        self.run()

    @invariant()
    def never_more_than_allowed_and_nothing_closed_twice(self) -> None:
        stats = self.pool.stats()
        assert stats.busy == len(self.lent)
        assert stats.waiting <= SETTINGS.max_waiting
        assert all(item.closes <= 1 for item in self.items)
        assert sum(item.closes == 0 for item in self.items) <= SETTINGS.max_size
        assert not any(item.closes for item in self.lent)

    @invariant()
    def nobody_waits_while_something_is_free(self) -> None:
        stats = self.pool.stats()
        checking = len(self.pending) - stats.opening
        if stats.waiting:
            assert stats.idle == 0
            assert stats.busy + stats.opening + checking == SETTINGS.max_size

    def teardown(self) -> None:
        for task in self.borrowers:
            task.cancel()
        self.run()
        for item in self.lent:
            self.pool.give_back(item)
        self.loop.run_until_complete(self.pool.close())
        self.run()
        stats = self.pool.stats()
        assert (stats.busy, stats.idle, stats.opening, stats.waiting) == (0, 0, 0, 0)
        assert self.pool._size == 0
        assert all(item.closes == 1 for item in self.items)
        assert not asyncio.all_tasks(self.loop)
        self.loop.close()


PoolMachine.TestCase.settings = hypothesis_settings(max_examples=100, stateful_step_count=40, deadline=None)
TestPoolStates = pytest.mark.filterwarnings("error")(PoolMachine.TestCase)
