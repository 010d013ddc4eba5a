import asyncio
import os
import signal
import sys

from penstock.upstreams.child_guard import ChildGuard
from penstock.upstreams.child_spawn import Popen, spawn
from tests.unit.upstreams.stdio_kit import is_running, until

SLEEPER = (sys.executable, "-I", "-S", "-c", "import time; print('up', flush=True); time.sleep(60)")
STUBBORN = (
    sys.executable,
    "-I",
    "-S",
    "-c",
    "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)",
)


async def started(argv: tuple[str, ...]) -> Popen:
    """A child that has come as far as its first line."""
    child = await spawn(argv, environment={}, cwd=None)
    assert child.stdout is not None
    assert await asyncio.to_thread(child.stdout.readline) == b"up\n"
    return child


async def end(child: Popen) -> None:
    child.kill()
    await asyncio.to_thread(child.communicate)


async def test_groups_that_were_not_forgotten_end_with_the_guards_pipe() -> None:
    guard = ChildGuard()
    await guard.start()
    meek, stubborn, forgotten = await started(SLEEPER), await started(STUBBORN), await started(SLEEPER)
    for child in (meek, stubborn, forgotten):
        guard.watch(child.pid)
    guard.forget(forgotten.pid)
    assert repr(guard) == f"<ChildGuard pid {guard.pid} | groups 2>"
    await guard.close()
    assert await asyncio.to_thread(meek.wait) == -signal.SIGTERM
    assert await asyncio.to_thread(stubborn.wait) == -signal.SIGKILL
    assert is_running(forgotten.pid)
    for child in (meek, stubborn, forgotten):
        await end(child)


async def test_groups_are_killed_when_there_is_no_time() -> None:
    guard = ChildGuard()
    guard.kill()  # nobody is there yet
    await guard.start()
    stubborn, gone = await started(STUBBORN), await started(SLEEPER)
    await end(gone)
    for child in (stubborn, gone):
        guard.watch(child.pid)
    guard.kill()
    assert await asyncio.to_thread(stubborn.wait) == -signal.SIGKILL
    for child in (stubborn, gone):
        guard.forget(child.pid)
    await guard.close()
    await end(stubborn)


async def test_a_guard_that_was_killed_is_replaced_and_knows_what_it_must() -> None:
    guard = ChildGuard()
    await guard.start()
    first = guard.pid
    child = await started(SLEEPER)
    guard.watch(child.pid)
    os.kill(first, signal.SIGKILL)
    await until(lambda: not guard.is_watching)
    assert guard.pid == 0
    guard.watch(child.pid)
    await guard.start()
    await guard.start()
    assert guard.pid not in {0, first}
    await guard.close()
    assert await asyncio.to_thread(child.wait) == -signal.SIGTERM
    await end(child)


async def test_a_guard_without_groups_ends_at_once() -> None:
    guard = ChildGuard()
    await guard.close()
    await guard.start()
    pid = guard.pid
    guard.forget(12345)
    await guard.close()
    assert not is_running(pid)
    assert repr(guard) == "<ChildGuard not watching | groups 0>"
    await guard.close()


async def test_a_guard_that_hangs_is_killed() -> None:
    guard = ChildGuard()
    await guard.start()
    pid = guard.pid
    os.kill(pid, signal.SIGSTOP)
    await guard.close()
    assert not is_running(pid)
