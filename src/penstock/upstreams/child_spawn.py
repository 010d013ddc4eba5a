"""Fork a program with three pipes, off the event loop, and say when it has exited.

Knows: `subprocess.Popen`, threads. Does not know: what the pipes carry, who is told.

Not `loop.subprocess_exec`: it forks on the event loop's thread, hands out sockets where programs expect pipes (uvloop), and
leaves copies of the child's pipe ends open in the child (uvloop), so that a closed stdout would never be noticed.
"""

import asyncio
import contextlib
import os
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence

Popen = subprocess.Popen[bytes]


async def spawn(
    argv: Sequence[str], *, environment: Mapping[str, str], cwd: str | None, has_output: bool = True
) -> Popen:
    """Start a program in a session and process group of its own; no descriptor but its three is open in it.

    When the awaiting task is cancelled halfway, the child, if there is one, is killed and reaped before this returns.

    Raises:
        OSError, ValueError: it cannot be started.
    """
    output = subprocess.PIPE if has_output else subprocess.DEVNULL
    starting = asyncio.ensure_future(
        asyncio.to_thread(
            subprocess.Popen,
            list(argv),
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=dict(environment),
            cwd=cwd,
            start_new_session=True,
        )
    )
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        await asyncio.wait((starting,))
        if starting.exception() is None:
            await asyncio.to_thread(_undo, starting.result())
        raise


def watch_exit(child: Popen, told: Callable[[], None]) -> None:
    """Call `told` on this thread's event loop when the child has exited.

    It is not reaped yet then, where the system allows that, so its number and its group's still belong to it: `child.poll()`
    reaps.
    """
    loop = asyncio.get_running_loop()

    def wait() -> None:
        if hasattr(os, "waitid"):
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        else:
            child.wait()
        with contextlib.suppress(RuntimeError):  # the loop was closed before the child's end
            loop.call_soon_threadsafe(told)

    threading.Thread(target=wait, name=f"child {child.pid}", daemon=True).start()


def _undo(child: Popen) -> None:
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            pipe.close()
