"""What waits for clients: bounded in number and in time, found only by who was told where."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from penstock.clock import FakeClock
from penstock.gateway.parking import Parking
from tests.unit.gateway.conftest import until


class Waiting:
    """Something parked."""

    def __init__(self) -> None:
        self.expired = 0

    def expire(self) -> None:
        self.expired += 1


class Lot:
    """A parking on a clock that stands still."""

    def __init__(self, limit: int = 4, seconds: float = 600.0) -> None:
        self.clock = FakeClock()
        self.tasks: list[asyncio.Task[None]] = []
        self.parking = Parking(self.clock, self._spawn, limit=limit, seconds=seconds)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(work))

    def park(self, parked: Waiting | None = None) -> str:
        key = self.parking.enter(parked or Waiting())
        assert key is not None
        return key

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(0)
        await self.clock.advance(seconds)


@pytest.fixture
async def lot() -> AsyncIterator[Lot]:
    it = Lot()
    yield it
    for task in it.tasks:
        task.cancel()


async def test_what_is_parked_is_found_until_it_leaves(lot: Lot) -> None:
    parked = Waiting()
    key = lot.park(parked)
    assert (lot.parking.find(key), len(lot.parking)) == (parked, 1)
    assert repr(lot.parking) == "<Parking [1 of 4] 600 s>"
    lot.parking.leave(key)
    lot.parking.leave(key)
    lot.parking.leave("nobody knows")
    assert (lot.parking.find(key), len(lot.parking)) == (None, 0)
    assert lot.parking.find("") is None


async def test_never_more_than_the_limit(lot: Lot) -> None:
    keys = [lot.park() for _ in range(4)]
    assert lot.parking.enter(Waiting()) is None
    assert len(lot.parking) == 4
    lot.parking.leave(keys[1])
    assert lot.parking.enter(Waiting()) is not None
    assert lot.parking.enter(Waiting()) is None


async def test_keys_cannot_be_guessed_and_never_come_twice(lot: Lot) -> None:
    keys = set()
    for _ in range(500):
        key = lot.park()
        lot.parking.leave(key)
        keys.add(key)
    assert len(keys) == 500
    assert all(key.startswith("0.") for key in keys), "the worker's number"
    keys = {key.removeprefix("0.") for key in keys}
    assert all(len(bytes.fromhex(key)) >= 12 for key in keys), "96 bits at least"
    varying = [len({key[place] for key in keys}) for place in range(len(keys.pop()))]
    assert min(varying) > 8, "no part of a key is counted up or stands still"


async def test_each_is_told_once_when_its_time_is_over_and_not_before(lot: Lot) -> None:
    first, second = Waiting(), Waiting()
    one = lot.park(first)
    await lot.pass_time(10)
    two = lot.park(second)
    await lot.pass_time(589.9)
    assert (first.expired, lot.parking.find(one)) == (0, first)
    await lot.pass_time(0.2)
    assert (first.expired, second.expired) == (1, 0)
    assert (lot.parking.find(one), lot.parking.find(two)) == (None, second)
    await lot.pass_time(10)
    assert (first.expired, second.expired, len(lot.parking)) == (1, 1, 0)


async def test_who_has_left_is_not_told(lot: Lot) -> None:
    gone, stays = Waiting(), Waiting()
    key = lot.park(gone)
    lot.park(stays)
    lot.parking.leave(key)
    await lot.pass_time(601)
    assert (gone.expired, stays.expired) == (0, 1)


async def test_nothing_watches_an_empty_parking_for_longer_than_one_stay(lot: Lot) -> None:
    lot.parking.leave(lot.park())
    await lot.pass_time(601)
    assert [task.done() for task in lot.tasks] == [True]
    parked = Waiting()
    lot.park(parked)
    assert len(lot.tasks) == 2, "the next one is watched again"
    await lot.pass_time(601)
    assert parked.expired == 1
    assert lot.tasks[1].done()


async def test_one_task_watches_all(lot: Lot) -> None:
    for _ in range(4):
        lot.park()
        await lot.pass_time(1)
    assert len(lot.tasks) == 1


async def test_who_parks_again_while_being_told_gets_a_place_and_all_its_time() -> None:
    lot = Lot(limit=1)

    class Stubborn(Waiting):
        def expire(self) -> None:
            super().expire()
            if self.expired == 1:
                assert lot.parking.enter(self) is not None

    stubborn = Stubborn()
    lot.park(stubborn)
    await lot.pass_time(601)
    assert (stubborn.expired, len(lot.parking)) == (1, 1)
    await lot.pass_time(598)
    assert stubborn.expired == 1
    await lot.pass_time(3)
    assert (stubborn.expired, len(lot.parking)) == (2, 0)
    await until(lambda: all(task.done() for task in lot.tasks))


async def test_when_the_gateway_stops_the_time_of_all_is_over_and_nobody_enters(lot: Lot) -> None:
    parked = [Waiting() for _ in range(3)]
    keys = [lot.park(one) for one in parked]
    lot.parking.close()
    assert [one.expired for one in parked] == [1, 1, 1]
    assert [lot.parking.find(key) for key in keys] == [None] * 3
    assert lot.parking.enter(Waiting()) is None
    await lot.pass_time(700)
    assert [one.expired for one in parked] == [1, 1, 1]
