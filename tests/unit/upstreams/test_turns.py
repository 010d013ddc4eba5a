import asyncio

import pytest

from penstock.upstreams.turns import Habits, Turn, Turns


def asking() -> Habits:
    habits = Habits()
    habits.asks = True
    return habits


async def queued(turns: Turns, count: int) -> None:
    """Give those that wait the time to queue."""
    async with asyncio.timeout(5):
        while turns.waiting < count:  # noqa: ASYNC110 - a queue tells nobody
            await asyncio.sleep(0)


def begun(turns: Turns, principal: str = "") -> Turn:
    turn = turns.try_begin(principal)
    assert turn is not None
    return turn


async def test_a_server_that_never_asked_works_on_any_number_of_calls() -> None:
    turns = Turns(Habits())
    assert all(turns.try_begin("") for _ in range(100))
    assert repr(turns) == "<Turns 100 at work, 0 resting, 0 waiting>"


async def test_a_server_that_asks_is_given_one_call_after_the_other_in_order() -> None:
    turns, order = Turns(asking()), []

    async def call(name: str) -> None:
        turn = await turns.begin("", 5)
        order.append(name)
        await asyncio.sleep(0)
        turn.end()

    first = begun(turns)
    assert turns.try_begin("") is None
    calls = [asyncio.create_task(call(name)) for name in "abc"]
    await queued(turns, 3)
    assert order == []
    first.end()
    assert turns.try_begin("") is None, "nobody overtakes those that wait"
    await asyncio.gather(*calls)
    assert order == ["a", "b", "c"]
    begun(turns)


async def test_calls_that_began_before_the_server_asked_are_waited_for() -> None:
    habits = Habits()
    turns = Turns(habits)
    first, second = begun(turns), begun(turns)
    habits.asks = True
    waiting = asyncio.create_task(turns.begin("", 5))
    await queued(turns, 1)
    first.end()
    assert turns.waiting == 1
    second.end()
    await waiting
    assert turns.try_begin("") is None


async def test_a_turn_that_does_not_come_in_time_is_given_up_and_harms_nobody() -> None:
    turns = Turns(asking())
    first = begun(turns)
    with pytest.raises(TimeoutError):
        await turns.begin("", 0.01)
    assert turns.waiting == 0
    first.end()
    begun(turns)


async def test_who_is_cancelled_in_the_moment_of_its_turn_passes_it_on() -> None:
    turns = Turns(asking())
    held = begun(turns)
    first, second = (asyncio.create_task(turns.begin("", 5)) for _ in range(2))
    await queued(turns, 2)
    held.end()  # the first is granted, and has not run yet
    first.cancel()
    await asyncio.wait((first,))
    assert first.cancelled()
    (await second).end()
    begun(turns)


async def test_who_is_cancelled_while_it_waits_is_passed_over() -> None:
    turns = Turns(asking())
    held = begun(turns)
    first, second = (asyncio.create_task(turns.begin("", 5)) for _ in range(2))
    await queued(turns, 2)
    first.cancel()
    await asyncio.wait((first,))
    held.end()
    await second


async def test_a_call_that_rests_lets_others_work_and_comes_back_before_those_that_wait() -> None:
    turns, woken = Turns(asking()), []
    first = begun(turns)
    first.rest()
    second = begun(turns)
    waiting = asyncio.create_task(turns.begin("", 5))
    await queued(turns, 1)
    first.wake(lambda: woken.append("first"))
    assert (woken, first.is_at_work) == ([], False)
    second.end()
    assert (woken, first.is_at_work) == (["first"], True)
    assert not waiting.done()
    first.end()
    await waiting


async def test_a_call_that_is_at_work_or_over_goes_on_at_once() -> None:
    turns, woken = Turns(asking()), []
    turn = begun(turns)
    turn.wake(lambda: woken.append("at work"))
    turn.rest()
    turn.end()
    turn.wake(lambda: woken.append("over"))
    turn.rest()
    turn.stir()
    assert woken == ["at work", "over"]
    begun(turns)


async def test_only_calls_of_one_principal_work_while_another_rests() -> None:
    turns = Turns(asking())
    first = begun(turns, "ann")
    first.rest()
    assert turns.try_begin("bob") is None
    bob = asyncio.create_task(turns.begin("bob", 5))
    await queued(turns, 1)
    first.end()
    (await bob).end()


async def test_a_server_that_asks_in_parallel_is_given_nothing_else_meanwhile() -> None:
    habits = asking()
    turns = Turns(habits)
    first = begun(turns)
    first.rest()
    habits.asks_in_parallel = True
    assert turns.try_begin("") is None
    first.end()
    begun(turns)


async def test_a_call_the_server_goes_on_with_by_itself_is_at_work_beside_others() -> None:
    turns = Turns(asking())
    first = begun(turns)
    first.rest()
    second = begun(turns)
    first.wake(lambda: None)
    first.stir()
    assert first.is_at_work
    assert second.is_at_work
    assert repr(turns) == "<Turns 2 at work, 0 resting, 0 waiting>"
