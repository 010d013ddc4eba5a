import asyncio
import sys
import threading

import pytest

from penstock.upstreams.child_spawn import spawn, watch_exit

EXIT_3 = (sys.executable, "-I", "-S", "-c", "raise SystemExit(3)")


async def test_an_exit_is_told_before_the_child_is_reaped() -> None:
    child = await spawn(EXIT_3, environment={}, cwd=None)
    told = asyncio.Event()
    watch_exit(child, told.set)
    await asyncio.wait_for(told.wait(), 10)
    assert child.returncode is None
    assert child.poll() == 3
    await asyncio.to_thread(child.communicate)


async def test_what_cannot_be_started_raises() -> None:
    with pytest.raises(FileNotFoundError):
        await spawn(("/no/such/program",), environment={}, cwd=None)


def test_an_exit_after_the_loop_was_closed_disturbs_nobody() -> None:
    async def start() -> None:
        child = await spawn((sys.executable, "-I", "-S", "-c", "input()"), environment={}, cwd=None, has_output=False)
        watch_exit(child, lambda: None)
        kept.append(child)

    kept: list[object] = []
    asyncio.run(start())
    [child] = kept
    watcher = next(thread for thread in threading.enumerate() if thread.name.startswith("child "))
    child.stdin.close()  # type: ignore[attr-defined]
    watcher.join(10)
    assert not watcher.is_alive()
    child.wait()  # type: ignore[attr-defined]
