"""Child processes of tests: each in a group of its own, with its stderr kept, ended by its id.

Knows: processes and files. Does not know: MCP.
"""

import contextlib
import os
import queue
import signal
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.peers.environments import ROOT

GRACE_SECONDS = 5.0
"""How long a process may take to end by itself."""


class ProcessFailed(Exception):
    """A process did not do what it was started for; the message holds the end of its stderr."""


class Child:
    """A process that serves until it is told to end. Use as a context manager."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], *, ends_with_input: bool = True
    ) -> None:
        self.name = name
        self._ends_with_input = ends_with_input
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            start_new_session=True,
            text=True,
        )
        self._reader = threading.Thread(target=self._read_lines, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def __repr__(self) -> str:
        return f"<Child {self.name} [pid {self.pid} | exit {self._process.poll()}]>"

    @property
    def pid(self) -> int:
        """Its process id, which is its group's too."""
        return self._process.pid

    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def read_line(self, seconds: float) -> str:
        """The next line it prints.

        Raises:
            ProcessFailed: it ended, or printed nothing in time.
        """
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            line = None
        if line is None:
            state = "printed nothing" if self.is_running() else f"ended with {self._process.poll()}"
            raise ProcessFailed(f"{self.name} {state} within {seconds} s\n{self.stderr_tail()}")
        return line

    def write_line(self, line: str) -> None:
        """Write to its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def stderr_tail(self, count: int = 4000) -> str:
        """The end of what it wrote to stderr."""
        size = os.fstat(self._stderr.fileno()).st_size
        tail = os.pread(self._stderr.fileno(), count, max(0, size - count)).decode(errors="replace")
        return f"--- stderr of {self.name} ---\n{tail or '(nothing)'}"

    def end(self) -> None:
        """Close its input, ask it to end where that says nothing to it, then end it; its whole group goes with it."""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        for number in (signal.SIGTERM, signal.SIGKILL):
            if (self._ends_with_input or number == signal.SIGKILL) and self._has_ended():
                break
            self._signal(number)
        self._has_ended()
        self._signal(signal.SIGKILL)  # what it started and left behind
        self._reader.join(GRACE_SECONDS)
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._stderr.close()

    def _read_lines(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def _has_ended(self) -> bool:
        try:
            self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


def run(
    command: Sequence[str], environment: Mapping[str, str], *, seconds: float, stdin: str = ""
) -> tuple[int, str, str]:
    """Run to the end in a group of its own: exit code, stdout, stderr. A process that takes too long is ended, with code -9."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    try:
        out, err = process.communicate(stdin, timeout=seconds)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        err += f"\n(ended after {seconds} s)"
    return process.returncode, out, err


def make_home(folder: Path) -> Path:
    """An empty home directory, so that nothing of the person who runs the tests is read or written."""
    home = folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    return home
