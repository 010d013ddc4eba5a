"""Time as an argument."""

import asyncio
import time

from penstock.clock import FakeClock, SystemClock


async def test_sleepers_wake_in_order_of_their_time_each_at_its_moment() -> None:
    clock = FakeClock()
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, *naps: float) -> None:
        for seconds in naps:
            await clock.sleep(seconds)
            woken.append((name, clock.now()))

    tasks = [asyncio.create_task(sleeper("late", 3.0)), asyncio.create_task(sleeper("often", 1.0, 1.0, 5.0))]
    await asyncio.sleep(0)
    assert repr(clock) == "<FakeClock 1000.000 | sleepers 2>"
    await clock.advance(4.0)
    assert woken == [("often", 1001.0), ("often", 1002.0), ("late", 1003.0)]
    assert clock.now() == 1004.0
    await clock.advance(3.0)
    assert woken[-1] == ("often", 1007.0)
    await asyncio.gather(*tasks)


async def test_a_sleeper_that_was_cancelled_does_no_harm() -> None:
    clock = FakeClock()
    task = asyncio.create_task(clock.sleep(1.0))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await clock.advance(2.0)
    assert clock.now() == 1002.0


async def test_no_delay_is_one_turn_of_the_loop() -> None:
    clock = FakeClock()
    for seconds in (0, -1):
        await asyncio.wait_for(clock.sleep(seconds), 1)
    assert clock.now() == 1000.0


async def test_wall_time_goes_with_the_other() -> None:
    clock = FakeClock(start=5.0, wall=100.0)
    await clock.advance(2.5)
    assert (clock.now(), clock.wall()) == (7.5, 102.5)


async def test_the_machines_clock_is_the_machines() -> None:
    clock = SystemClock()
    before = time.monotonic()
    await clock.sleep(0)
    assert before <= clock.now() <= time.monotonic()
    assert abs(clock.wall() - time.time()) < 5
