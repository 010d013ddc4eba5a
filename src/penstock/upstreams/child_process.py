"""One child process: start it, read its lines, write to it, end it and all it started.

Knows: argv, environment, pipes, process groups, signals. Does not know: MCP, restarts, servers' names.
Invariant: after `stop` returned, or after `ended` is done, neither the child nor a process of its group runs, its pipes are
closed and it is reaped. A child is never started through a shell.
"""

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from penstock.upstreams.child_guard import ChildGuard
from penstock.upstreams.child_output import LineSplitter, LineTooLong, StderrTail
from penstock.upstreams.child_pipe import PipeEnd
from penstock.upstreams.child_spawn import Popen, spawn, watch_exit

PASSED_ON: Final = ("PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR", "SHELL", "TERM")
"""What a child gets of our own environment; everything else must be configured."""
_LAST_WORDS_SECONDS: Final = 0.25
"""How long output is still read after the child exited, when something else holds its pipes open."""
_DEAF_SECONDS: Final = 0.5
"""How long a child may go on after it closed its stdin or stdout."""
_KILLED_SECONDS: Final = 1.0
"""How long the kernel may take to deliver SIGKILL and let us reap."""
_GROUP_POLL_SECONDS: Final = 0.02


@dataclass(frozen=True, slots=True)
class ChildCommand:
    """What to start, with nothing left to guess."""

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    cwd: str | None = None


@dataclass(frozen=True, slots=True)
class StopTimes:
    """How long a child may take to end: seconds after its stdin was closed, then after SIGTERM; SIGKILL follows."""

    close_seconds: float = 2.0
    terminate_seconds: float = 1.0


class ChildListener(Protocol):
    """Who is told what the child does. Must not raise."""

    def line_received(self, line: bytes) -> None:
        """One line of stdout, not empty, without its line end."""
        ...

    def line_too_long(self) -> None:
        """A line exceeded the limit; the child is being killed."""
        ...


class ChildFailedToStart(Exception):
    """The command cannot be run; the message says why and what to do."""


def child_environment(configured: Mapping[str, str], inherited: Mapping[str, str]) -> dict[str, str]:
    """The allow-listed part of `inherited`, overridden by `configured`."""
    return {name: inherited[name] for name in PASSED_ON if name in inherited} | dict(configured)


class _Pipe(asyncio.Protocol):
    """One of the three pipes; passes on what the loop calls."""

    __slots__ = ("_child", "_fd")

    def __init__(self, child: "ChildProcess", fd: int) -> None:
        self._child = child
        self._fd = fd

    def data_received(self, data: bytes) -> None:
        self._child.pipe_data_received(self._fd, data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._child.pipe_connection_lost(self._fd)

    def pause_writing(self) -> None:
        self._child.is_paused = True

    def resume_writing(self) -> None:
        self._child.is_paused = False


class ChildProcess:
    """A running child in its own session and process group."""

    __slots__ = (
        "_guard",
        "_is_connected",
        "_is_group_ended",
        "_is_stopping",
        "_listener",
        "_loop",
        "_open_pipes",
        "_pipes",
        "_popen",
        "_splitter",
        "_stdin",
        "_stop_times",
        "_timers",
        "_transports",
        "_was_deaf",
        "ended",
        "is_paused",
        "pid",
        "returncode",
        "stderr",
    )

    def __init__(
        self, listener: ChildListener, *, guard: ChildGuard, stderr: StderrTail, line_limit: int, stop_times: StopTimes
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener: ChildListener | None = listener
        self._guard = guard
        self._stop_times = stop_times
        self._splitter: LineSplitter | None = LineSplitter(line_limit)
        self._popen: Popen | None = None
        self._pipes: dict[int, PipeEnd] = {}
        self._transports: dict[int, asyncio.BaseTransport] = {}
        self._stdin: asyncio.WriteTransport | None = None
        self._open_pipes = {0, 1, 2}
        self._timers: list[asyncio.TimerHandle] = []
        self._is_connected = False
        self._is_stopping = False
        self._is_group_ended = False
        self._was_deaf = False
        """Ended by us because it had closed its stdin or stdout."""
        self.stderr = stderr
        self.pid = 0
        self.returncode: int | None = None
        self.is_paused = False
        """The child does not read as fast as we write."""
        self.ended: asyncio.Future[None] = self._loop.create_future()
        """Done when the child has exited, was reaped, and its last output was read."""

    def __repr__(self) -> str:
        return f"<ChildProcess pid {self.pid} {'running' if self.returncode is None else self.exit_words()}>"

    async def start(self, command: ChildCommand) -> None:
        """Start the child.

        Raises:
            ChildFailedToStart: there is no such command or directory, or it may not be run.
        """
        await self._guard.start()
        try:
            self._popen = await spawn(command.argv, environment=command.environment, cwd=command.cwd)
        except (OSError, ValueError) as error:
            reason = await asyncio.to_thread(_why_not_started, command, error)
            raise ChildFailedToStart(reason) from error
        self.stderr.begin()
        self.pid = self._popen.pid
        pipes = (self._popen.stdin, self._popen.stdout, self._popen.stderr)
        self._pipes = {fd: PipeEnd(pipe) for fd, pipe in enumerate(pipes) if pipe is not None}
        self._guard.watch(self.pid)
        watch_exit(self._popen, self.process_exited)
        try:
            await self._connect()
        except asyncio.CancelledError:
            self._is_connected = True  # as far as it will be
            await self._kill_and_reap()
            raise
        self._is_connected = True
        if self.returncode is not None:
            self._await_last_words()

    async def _connect(self) -> None:
        for fd in (2, 1):
            self._transports[fd] = await self._pipes[fd].connect_reader(_Pipe(self, fd))
        self._transports[0] = writer = await self._pipes[0].connect_writer(_Pipe(self, 0))
        self._stdin = writer if 0 in self._open_pipes else None

    @property
    def is_writable(self) -> bool:
        """Whether the child can still be told anything."""
        return self._stdin is not None and self.returncode is None and not self._is_stopping

    @property
    def unsent_bytes(self) -> int:
        """Written by us, not yet read by the child; the kernel's pipe buffer not counted."""
        return 0 if self._stdin is None else self._stdin.get_write_buffer_size()

    def write(self, line: bytes) -> None:
        """Send bytes that end in a line end; without effect when the child no longer listens."""
        if self._stdin is not None and not self._is_stopping:
            self._stdin.write(line)

    def exit_words(self) -> str:
        """How it ended, for an error message."""
        code = self.returncode
        if code is None:
            return "did not exit"
        if self._was_deaf and code == -signal.SIGKILL:
            return "closed its input or output and was ended"
        if code >= 0:
            return f"exited with status {code}"
        try:
            return f"was killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"was killed by signal {-code}"

    def kill(self) -> None:
        """End the child and its group at once, without waiting."""
        self._signal_group(signal.SIGKILL)

    async def stop(self) -> None:
        """End the child in good order: close stdin, wait, SIGTERM, wait, SIGKILL; bounded, safe to call twice."""
        if self._popen is None or self._is_group_ended:
            return
        self._is_stopping = True
        if self._stdin is not None:
            self._stdin.abort() if self.is_paused else self._stdin.close()
        times = self._stop_times
        for seconds, then in (
            (times.close_seconds, signal.SIGTERM),
            (times.terminate_seconds, signal.SIGKILL),
            (_KILLED_SECONDS, signal.SIGKILL),
        ):
            try:
                await asyncio.wait((self.ended,), timeout=seconds)
            except asyncio.CancelledError:
                await self._kill_and_reap()
                raise
            if self.ended.done():
                break
            self._signal_group(then)
        await self._end_group()
        self._finish()

    # what the loop calls

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Callback: stdout or stderr."""
        if fd != 1:
            self.stderr.feed(data)
            return
        listener = self._listener
        if self._splitter is None or listener is None:
            return
        try:
            lines = self._splitter.feed(data)
        except LineTooLong:
            self._splitter = None
            listener.line_too_long()
            self.kill()
            return
        for line in lines:
            listener.line_received(line)

    def pipe_connection_lost(self, fd: int) -> None:
        """Callback: the child, or what inherited its pipes, closed one."""
        self._open_pipes.discard(fd)
        if fd == 0:
            self._stdin = None
        if self.returncode is None:
            if fd != 2 and not self._is_stopping:
                self._timers.append(self._loop.call_later(_DEAF_SECONDS, self._end_deaf))
        elif self._is_connected and not self._open_pipes & {1, 2}:
            self._finish()

    def process_exited(self) -> None:
        """Callback: the child has exited, and is not reaped yet; what it started must not outlive it."""
        assert self._popen is not None
        self._signal_group(signal.SIGTERM if self._is_stopping else signal.SIGKILL)
        self.returncode = self._popen.poll()
        if not self._is_stopping:
            self._forget_group()
        if self._is_connected:
            self._await_last_words()

    def _await_last_words(self) -> None:
        """It has exited; what it wrote before may still be on its way."""
        if self._open_pipes & {1, 2}:
            self._timers.append(self._loop.call_later(_LAST_WORDS_SECONDS, self._finish))
        else:
            self._finish()

    # inside

    def _end_deaf(self) -> None:
        self._was_deaf = True
        self.kill()

    def _finish(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        for fd, pipe in self._pipes.items():
            self._transports.get(fd, pipe).close()  # a pipe that was never connected has no transport
        if self.ended.done():
            return
        self._splitter = self._stdin = self._listener = None  # who hears us holds us
        self.ended.set_result(None)

    def _signal_group(self, number: signal.Signals) -> bool:
        """Whether somebody in the group could be signalled."""
        if self.pid == 0 or self._is_group_ended:
            return False
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):  # PermissionError: macOS, when only zombies are left
            return False
        return True

    async def _kill_and_reap(self) -> None:
        """The end without manners, for when even its few seconds are not ours to spend."""
        self.kill()
        await asyncio.wait((self.ended,), timeout=_KILLED_SECONDS)
        self._forget_group()
        self._finish()

    def _forget_group(self) -> None:
        self._is_group_ended = True  # its number may be given to others from now on
        self._guard.forget(self.pid)

    async def _end_group(self) -> None:
        """What the child left behind gets a SIGTERM, a moment, a SIGKILL."""
        deadline = self._loop.time() + self._stop_times.terminate_seconds
        alive = self._is_group_alive()
        while alive and self._loop.time() < deadline:
            await asyncio.sleep(_GROUP_POLL_SECONDS)
            alive = self._is_group_alive()
        if alive:
            self._signal_group(signal.SIGKILL)
        self._forget_group()

    def _is_group_alive(self) -> bool:
        try:
            os.killpg(self.pid, 0)
        except (ProcessLookupError, PermissionError):
            return False
        return True


def _why_not_started(command: ChildCommand, error: Exception) -> str:
    """A sentence for people; looks at the file system."""
    program = command.argv[0]
    if command.cwd is not None and not Path(command.cwd).is_dir():
        return f"its working directory '{command.cwd}' does not exist; correct 'cwd'"
    path = command.environment.get("PATH", os.defpath)
    if isinstance(error, FileNotFoundError):
        if os.sep in program:
            if Path(program).exists():
                return f"command '{program}' names an interpreter in its first line that does not exist"
            return f"command '{program}' does not exist; correct the path"
        return f"command '{program}' was not found on PATH ({path}); install it or give its full path"
    if isinstance(error, PermissionError):
        found = program if os.sep in program else shutil.which(program, os.F_OK, path) or program
        return f"command '{found}' may not be executed; is it a program, and does it have the x bit (chmod +x)?"
    with contextlib.suppress(AttributeError):
        if isinstance(error, OSError) and error.strerror:
            return f"command '{program}' could not be started: {error.strerror}"
    return f"command '{program}' could not be started: {error}"
