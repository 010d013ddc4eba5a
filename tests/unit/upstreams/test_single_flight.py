import asyncio

import pytest

from penstock.upstreams.single_flight import SingleFlight


async def test_callers_of_one_key_share_one_piece_of_work() -> None:
    gate, runs = asyncio.Event(), 0

    async def work() -> int:
        nonlocal runs
        runs += 1
        await gate.wait()
        return runs

    flights: SingleFlight[int] = SingleFlight("count")
    tasks = [asyncio.create_task(flights.run("a", work)) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert repr(flights) == "<SingleFlight count [1 running]>"
    tasks[0].cancel()
    gate.set()
    assert await asyncio.gather(*tasks[1:]) == [1, 1]
    assert await flights.run("a", work) == 2


async def test_each_caller_gets_the_error_and_nothing_is_remembered() -> None:
    async def fail() -> int:
        raise OSError("no")

    async def work() -> int:
        return 1

    flights: SingleFlight[int] = SingleFlight("count")
    results = await asyncio.gather(flights.run("a", fail), flights.run("a", fail), return_exceptions=True)
    assert all(isinstance(result, OSError) for result in results)
    assert await flights.run("a", work) == 1


async def test_closing_ends_what_runs() -> None:
    flights: SingleFlight[None] = SingleFlight("wait")
    task = asyncio.create_task(flights.run("a", asyncio.Event().wait))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await flights.close()
    with pytest.raises(asyncio.CancelledError):
        await task
