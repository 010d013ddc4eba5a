import asyncio

import pytest

from penstock.upstreams.stdio_turns import Habits, Turns


def asking() -> Habits:
    habits = Habits()
    habits.asks = True
    return habits


async def queued(turns: Turns, count: int) -> None:
    """Give those that wait the time to queue."""
    async with asyncio.timeout(5):
        while turns.waiting < count:  # noqa: ASYNC110 - a queue tells nobody
            await asyncio.sleep(0)


async def test_a_server_that_never_asked_works_on_any_number_of_calls() -> None:
    turns = Turns(Habits())
    assert all(turns.try_begin() for _ in range(100))
    assert repr(turns) == "<Turns 100 under way, 0 waiting>"


async def test_a_server_that_asks_is_given_one_call_after_the_other_in_order() -> None:
    turns, order = Turns(asking()), []

    async def call(name: str) -> None:
        await turns.begin(5)
        order.append(name)
        await asyncio.sleep(0)
        turns.end()

    assert turns.try_begin()
    assert not turns.try_begin()
    calls = [asyncio.create_task(call(name)) for name in "abc"]
    await queued(turns, 3)
    assert order == []
    turns.end()
    assert not turns.try_begin(), "nobody overtakes those that wait"
    await asyncio.gather(*calls)
    assert order == ["a", "b", "c"]
    assert turns.try_begin()


async def test_calls_that_began_before_the_server_asked_are_waited_for() -> None:
    habits = Habits()
    turns = Turns(habits)
    assert turns.try_begin()
    assert turns.try_begin()
    habits.asks = True
    waiting = asyncio.create_task(turns.begin(5))
    await queued(turns, 1)
    turns.end()
    assert turns.waiting == 1
    turns.end()
    await waiting
    assert not turns.try_begin()


async def test_a_turn_that_does_not_come_in_time_is_given_up_and_harms_nobody() -> None:
    turns = Turns(asking())
    assert turns.try_begin()
    with pytest.raises(TimeoutError):
        await turns.begin(0.01)
    assert turns.waiting == 0
    turns.end()
    assert turns.try_begin()


async def test_who_is_cancelled_in_the_moment_of_its_turn_passes_it_on() -> None:
    turns = Turns(asking())
    assert turns.try_begin()
    first, second = (asyncio.create_task(turns.begin(5)) for _ in range(2))
    await queued(turns, 2)
    turns.end()  # the first is granted, and has not run yet
    first.cancel()
    await asyncio.wait((first,))
    assert first.cancelled()
    await second
    turns.end()
    assert turns.try_begin()


async def test_who_is_cancelled_while_it_waits_is_passed_over() -> None:
    turns = Turns(asking())
    assert turns.try_begin()
    first, second = (asyncio.create_task(turns.begin(5)) for _ in range(2))
    await queued(turns, 2)
    first.cancel()
    await asyncio.wait((first,))
    turns.end()
    await second
