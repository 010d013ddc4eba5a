"""Calls that take too long end; times are told, never waited for."""

import asyncio
from typing import Any

import pytest

from penstock.policies.deadline import Deadline, DeadlineSettings, DeadlineSweep
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Answer, Call, Caller, Result

CALLER = Caller(Era.MODERN, "2026-07-28", None)
ANSWER = Result(b"{}", Era.MODERN)
NO_TASK: Any = None


class Unwilling:
    """A call that cannot be ended, by a fault of ours."""

    def cancel(self) -> None:
        raise ValueError("ours")


class Cancellable:
    """Stands where a call's task stands."""

    def __init__(self) -> None:
        self.cancelled = 0

    def cancel(self) -> None:
        self.cancelled += 1


def watched(deadline: Deadline, started_at: float = 100.0) -> tuple[Call, Cancellable]:
    call = Call("tools/call", {}, caller=CALLER, started_at=started_at)
    task: Any = Cancellable()
    call.task = task
    deadline(_proceed, call)
    return call, task


def _proceed(_call: Call) -> Any:
    return None


async def answered(_call: Call) -> Answer:
    return ANSWER


async def test_a_call_in_time_is_answered_and_forgotten() -> None:
    deadline = Deadline("weather", DeadlineSettings())
    call = Call("tools/call", {}, caller=CALLER, started_at=1.0)
    assert await deadline(answered, call) is ANSWER
    assert (call.watch, deadline.running) == (deadline, {call})
    deadline.leave(call)
    deadline.leave(call)
    assert deadline.running == set()
    assert deadline.refusal(call) is None


def test_a_call_without_progress_ends_after_its_idle_time_and_not_before() -> None:
    deadline = Deadline("weather", DeadlineSettings(60.0, 900.0))
    call, task = watched(deadline)
    deadline.expire(159.9)
    assert task.cancelled == 0
    deadline.expire(160.0)
    deadline.expire(161.0)
    assert task.cancelled == 1
    refusal = deadline.refusal(call)
    assert refusal is not None
    assert refusal.message == (
        "server 'weather': expected progress or an answer to tools/call within 60 s, got none;"
        " raise servers.weather.timeout if it needs longer"
    )


def test_progress_starts_the_idle_time_anew_but_not_the_whole() -> None:
    deadline = Deadline("weather", DeadlineSettings(60.0, 130.0))
    call, task = watched(deadline)
    call.progress_at = 150.0
    deadline.expire(209.0)
    assert task.cancelled == 0
    call.progress_at = 200.0
    deadline.expire(229.9)
    assert task.cancelled == 0
    deadline.expire(230.0)
    assert task.cancelled == 1
    refusal = deadline.refusal(call)
    assert refusal is not None
    assert "expected an answer to tools/call within 130 s" in refusal.message


def test_a_call_without_a_task_is_only_marked() -> None:
    deadline = Deadline("weather", DeadlineSettings(1.0, 2.0))
    call, _ = watched(deadline)
    call.task = NO_TASK
    deadline.expire(101.0)
    assert call.expired_after == 1.0


def test_one_sweep_looks_at_the_calls_of_all_servers() -> None:
    sweep = DeadlineSweep()
    quick, slow = Deadline("quick", DeadlineSettings(1.0)), Deadline("slow", DeadlineSettings(10.0))
    sweep._deadlines += [quick, slow, Deadline("idle", DeadlineSettings(1.0))]
    (_, first), (_, second) = watched(quick), watched(slow)
    assert len(sweep) == 2
    assert repr(sweep) == "<DeadlineSweep 2 calls of 3 servers>"
    assert repr(quick) == "<Deadline quick 1 s idle, 900 s in all [1 calls]>"
    sweep.sweep(105.0)
    assert (first.cancelled, second.cancelled) == (1, 0)


async def test_the_clock_hand_turns_while_there_are_servers_and_stops_with_the_last() -> None:
    sweep = DeadlineSweep()
    deadline = Deadline("weather", DeadlineSettings(0.001, 900.0))
    call = Call("tools/call", {}, caller=CALLER, started_at=0.001)  # long ago, by the machine's clock
    call.task = asyncio.create_task(asyncio.Event().wait())
    deadline(_proceed, call)
    sweep.add(deadline)
    sweep.add(Deadline("other", DeadlineSettings()))
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(call.task, 5)
    assert sweep._timer is not None
    sweep.forget(deadline)
    sweep.forget(deadline)
    sweep.close()
    sweep.close()
    assert sweep._deadlines == []
    sweep._tick()
    assert sweep._timer is None


async def test_a_fault_in_ending_one_call_does_not_stop_the_clock_hand() -> None:
    sweep, deadline = DeadlineSweep(), Deadline("weather", DeadlineSettings(0.001))
    call, _ = watched(deadline, 0.001)
    call.task = Unwilling()
    sweep._deadlines.append(deadline)
    with pytest.raises(ValueError, match="ours"):
        sweep._tick()
    assert sweep._timer is not None
    sweep.close()
