"""Processes that are measured: started, waited for, measured by /proc, and ended by id.

Knows: process ids, /proc. Does not know: what the processes do.
"""

import contextlib
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

TICK_SECONDS: Final = 1 / os.sysconf("SC_CLK_TCK")
STOP_SECONDS: Final = 5.0


class Failed(Exception):
    """What was to be measured cannot be: the message says what, and what to do."""


class Memory(NamedTuple):
    """Memory of a process and its children, in bytes."""

    rss: int
    pss: int
    """Pages shared with other processes count in part only."""


class Process:
    """One process and the children it has; ends with the `with` block."""

    def __init__(
        self, name: str, command: Sequence[str | Path], log: Path, environment: dict[str, str] | None = None
    ) -> None:
        self.name = name
        self._log = log
        self.started_at = time.perf_counter()
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
            )
        self.pid = self._process.pid
        self._read = b""

    def __repr__(self) -> str:
        code = self._process.poll()
        return f"<Process {self.name} {self.pid} {'runs' if code is None else f'ended {code}'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def wait_for_line(self, start: str, seconds: float) -> str:
        """What follows `start` on the first line of its output that begins with it.

        Raises:
            Failed: it ended, or said nothing of the kind within `seconds`.
        """
        give_up_at = time.monotonic() + seconds
        stream = self._process.stdout
        assert stream is not None
        wanted = start.encode()
        while True:
            *lines, self._read = self._read.split(b"\n")
            for line in lines:
                if line.startswith(wanted):
                    return line[len(wanted) :].decode().strip()
            left = give_up_at - time.monotonic()
            if left <= 0 or not select.select([stream], [], [], left)[0]:
                raise Failed(f"{self.name} did not say '{start}' within {seconds:g} s; its log ends: {self.log_tail()}")
            more = os.read(stream.fileno(), 65536)
            if not more:
                raise Failed(f"{self.name} ended ({self._process.wait(STOP_SECONDS)}); its log ends: {self.log_tail()}")
            self._read += more

    def wait_for_port(self, port: int, seconds: float) -> None:
        """Until somebody listens on a port of the loopback interface.

        Raises:
            Failed: it ended, or nobody did within `seconds`.
        """
        give_up_at = time.monotonic() + seconds
        while time.monotonic() < give_up_at and self.is_running():
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        state = "does not listen" if self.is_running() else "ended"
        raise Failed(f"{self.name} {state} instead of listening on port {port}; its log ends: {self.log_tail()}")

    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def log_tail(self) -> str:
        """The last of what it wrote to its standard error."""
        return self._log.read_text("utf-8", "replace")[-2000:].strip() or "(empty)"

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for what is left of it after `STOP_SECONDS`."""
        children = tree(self.pid)[1:]
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for child in children:
            if _parent(child) in {1, self.pid}:  # orphaned; an id that was given to another process has another parent
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
        if self._process.stdout:
            self._process.stdout.close()

    def cpu_seconds(self) -> float:
        """User and system time of it and its children so far."""
        return cpu_seconds(self.pid)

    def memory(self) -> Memory:
        """Resident memory of it and its children now."""
        parts = [_memory(pid) for pid in tree(self.pid)]
        return Memory(sum(part.rss for part in parts), sum(part.pss for part in parts))


def tree(pid: int) -> list[int]:
    """A process and its living descendants."""
    found = [pid]
    for one in found:
        for thread in _entries(Path(f"/proc/{one}/task")):
            try:
                found += [int(word) for word in (thread / "children").read_text().split()]
            except OSError:
                continue  # it ended while we looked
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, its living descendants, and children it waited for (proc_pid_stat(5), 14 to 17)."""
    ticks = 0
    for one in tree(pid):
        fields = _stat(one)
        ticks += sum(int(word) for word in fields[11:15])
    return ticks * TICK_SECONDS


def machine_seconds() -> float:
    """Time all cores together have been busy since boot (proc_stat(5)); that of a hypervisor's other guests is none of it."""
    user, nice, system, _idle, _wait, irq, softirq = (
        int(word) for word in Path("/proc/stat").read_text().split("\n")[0].split()[1:8]
    )
    return (user + nice + system + irq + softirq) * TICK_SECONDS


def _stat(pid: int) -> list[str]:
    """Fields 3 and following; empty when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _parent(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _memory(pid: int) -> Memory:
    values = {"Rss": 0, "Pss": 0}
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, rest = line.partition(":")
        if name in values:
            values[name] = int(rest.split()[0]) * 1024
    return Memory(values["Rss"], values["Pss"])
