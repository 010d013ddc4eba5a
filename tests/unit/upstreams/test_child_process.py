"""One child, without a server's protocol on its pipes."""

import asyncio
import signal
import sys
from typing import Any

import pytest

from penstock.upstreams.child_guard import ChildGuard
from penstock.upstreams.child_output import StderrTail
from penstock.upstreams.child_process import ChildCommand, ChildProcess, StopTimes, child_environment
from tests.unit.upstreams.stdio_kit import is_running, until


class Listener:
    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.too_long = 0

    def line_received(self, line: bytes) -> None:
        self.lines.append(line)

    def line_too_long(self) -> None:
        self.too_long += 1


def python(script: str) -> ChildCommand:
    return ChildCommand((sys.executable, "-I", "-S", "-c", script), child_environment({}, {}))


def new_child(guard: ChildGuard, listener: Listener, **times: float) -> ChildProcess:
    stop_times = StopTimes(**{"close_seconds": 0.2, "terminate_seconds": 0.2} | times)
    return ChildProcess(listener, guard=guard, stderr=StderrTail(1000), line_limit=1000, stop_times=stop_times)


@pytest.fixture(scope="module", params=[True, False], ids=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param}


async def test_lines_go_in_and_come_out_until_the_child_is_stopped() -> None:
    guard, listener = ChildGuard(), Listener()
    child = new_child(guard, listener)
    await child.start(python("import sys\nfor line in sys.stdin: print(line.upper(), end='', flush=True)"))
    child.write(b"hello\nworld\n")
    await until(lambda: listener.lines == [b"HELLO", b"WORLD"])
    assert (child.unsent_bytes, child.is_writable, child.exit_words()) == (0, True, "did not exit")
    assert repr(child) == f"<ChildProcess pid {child.pid} running>"
    await child.stop()
    assert (child.returncode, child.is_writable, child.unsent_bytes) == (0, False, 0)
    assert repr(child) == f"<ChildProcess pid {child.pid} exited with status 0>"
    child.write(b"nobody hears this\n")
    child.kill()
    await child.stop()
    await guard.close()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("raise SystemExit(5)", "exited with status 5"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "was killed by SIGSEGV"),
        ("import os; os.kill(os.getpid(), 35)", "was killed by signal 35"),
    ],
)
async def test_an_end_is_told_in_words(script: str, words: str) -> None:
    guard = ChildGuard()
    child = new_child(guard, Listener())
    await child.start(python(script))
    await asyncio.wait((child.ended,), timeout=10)
    assert child.exit_words() == words
    await child.stop()
    await guard.close()


async def test_a_line_without_end_gets_the_child_killed_and_is_told_once() -> None:
    guard, listener = ChildGuard(), Listener()
    child = new_child(guard, listener)
    await child.start(python("import os\nwhile True: os.write(1, b'x' * 4096)"))
    await asyncio.wait((child.ended,), timeout=10)
    assert (listener.too_long, listener.lines, child.returncode) == (1, [], -signal.SIGKILL)
    await guard.close()


async def test_a_child_that_does_not_read_is_noticed_and_can_be_stopped() -> None:
    guard = ChildGuard()
    child = new_child(guard, Listener())
    await child.start(python("import time; time.sleep(60)"))
    child.write(b"x" * 1_000_000 + b"\n")
    assert child.is_paused
    assert child.unsent_bytes > 500_000
    await child.stop()
    assert child.returncode == -signal.SIGTERM
    await guard.close()


async def test_a_child_that_reads_again_is_noticed_too() -> None:
    guard, listener = ChildGuard(), Listener()
    child = new_child(guard, listener)
    await child.start(python("import sys\nsys.stdin.readline()\nprint(len(sys.stdin.readline()), flush=True)"))
    child.write(b"\n" + b"x" * 1_000_000 + b"\n")
    await until(lambda: listener.lines == [b"1000001"])
    assert not child.is_paused
    await child.stop()
    await guard.close()


async def test_a_stop_that_is_cancelled_still_ends_the_child() -> None:
    guard = ChildGuard()
    child = new_child(guard, Listener(), close_seconds=60.0)
    await child.start(python("import time; time.sleep(60)"))
    stopping = asyncio.create_task(child.stop())
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert not is_running(child.pid)
    assert child.returncode == -signal.SIGKILL
    await guard.close()


async def test_a_start_that_is_cancelled_at_any_point_leaves_no_child() -> None:
    guard = ChildGuard()
    await guard.start()
    for turns in range(30):
        child = new_child(guard, Listener())
        starting = asyncio.create_task(child.start(python("import time; time.sleep(60)")))
        for _ in range(turns):
            await asyncio.sleep(0.0002 if turns % 3 else 0)
        starting.cancel()
        await asyncio.wait((starting,))
        if not starting.cancelled():
            await child.stop()
        assert child.pid == 0 or not is_running(child.pid)
    assert "groups 0" in repr(guard)
    await guard.close()


async def test_a_child_that_was_never_started_can_be_stopped() -> None:
    child = new_child(ChildGuard(), Listener())
    child.write(b"x\n")
    child.kill()
    await child.stop()
    assert child.pid == 0


def test_the_environment_is_an_allow_list() -> None:
    inherited = {"PATH": "/bin", "HOME": "/home", "AWS_SECRET": "x", "PYTHONPATH": "y", "LD_PRELOAD": "z"}
    assert child_environment({"HOME": "/other", "KEY": "k"}, inherited) == {
        "PATH": "/bin",
        "HOME": "/other",
        "KEY": "k",
    }
