"""Keep several worker processes running: fork them, start a dead one again, hand signals on, end with them.

Knows: processes, signals, sockets that are inherited. Does not know: what a worker does; it is handed a function.
Invariants: a worker that ends is started again under its number, ever more slowly if it ends at once; a worker that cannot even
start the first time ends them all; when the supervisor is gone, however it went, its workers end too; a signal reaches every
worker that was started, and none is started after the one that ends them.

It has no event loop and no threads, so that forking is safe at any time. Workers are joined by Unix sockets that are bound here
and inherited: whoever connects while a worker is being started again waits in the queue of its socket.
"""

import contextlib
import logging
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Final

import msgspec

_log = logging.getLogger(__name__)
BACKLOG: Final = 512
HEALTHY_SECONDS: Final = 10.0
"""A worker that ran this long is started again at once when it ends."""
DELAYS_SECONDS: Final = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0)
CANNOT_START: Final = 70
"""Exit code of a worker that has said why it cannot start; it is never that of one that could."""
_FORWARDED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_MAX_WORKERS: Final = 64
LAST_SECONDS: Final = 5.0
"""What workers have after a second signal; those that do not even hear it are killed then."""
_LONGEST_PATH: Final = 100
"""Bytes of a Unix socket's path: 108 on Linux, 104 on macOS, the zero at the end included."""


class WorkerPlace(msgspec.Struct, frozen=True):
    """One worker's place among its siblings."""

    index: int
    count: int
    listener: socket.socket
    """Listens for the siblings."""
    siblings: tuple[Path, ...]
    """Where each worker listens, by number; its own included."""
    alive: int
    """A descriptor that becomes readable when the supervisor is gone."""
    passage: socket.socket | None = None
    """Gets clients' connections from the siblings; without one they stay where they came."""
    passages: tuple[Path, ...] = ()
    """Where each worker gets them, by number; its own included."""
    others_gone: int = -1
    """For the first: a descriptor that becomes readable when all others have ended and none comes back; else -1."""
    is_restart: bool = False
    """Another process has had this place before."""

    @property
    def is_first(self) -> bool:
        """The first does what is done once: the admin port, greeting."""
        return self.index == 0


class _Child:
    """One worker's process."""

    def __init__(self, index: int) -> None:
        self.index: Final = index
        self.pid = 0
        self.started_at = 0.0
        self.lives = 0
        """How often it was started."""
        self.failures = 0
        self.start_at = 0.0
        """When it is to be started; 0.0 while it runs."""


class Supervisor:
    """Runs the workers of one gateway."""

    def __init__(self, count: int, work: Callable[[WorkerPlace], int], *, last_seconds: float = LAST_SECONDS) -> None:
        """`work` runs in each worker process and returns its exit code."""
        if not 1 <= count <= _MAX_WORKERS:
            raise ValueError(f"expected 1 to {_MAX_WORKERS} workers, got {count}")
        self._work: Final = work
        self._last_seconds: Final = last_seconds
        self._children = [_Child(index) for index in range(count)]
        self._folder = _folder_for_sockets()
        paths = tuple(self._folder / f"{index}.sock" for index in range(count))
        self._listeners = [_listen(path) for path in paths]
        self._paths: Final = paths
        self._places: Final = tuple(self._folder / f"{index}.in" for index in range(count))
        self._passages = [_passage(path) for path in self._places]
        self._alive, self._stay_alive = os.pipe()
        self._others_gone, self._others = os.pipe()
        """Every worker but the first keeps the second one open, and so do we until it is time to end."""
        self._is_stopping = False
        self._kill_at = float("inf")
        self._exit_code = 0

    def __repr__(self) -> str:
        running = sum(child.pid != 0 for child in self._children)
        return f"<Supervisor [{running} of {len(self._children)} running]{' stopping' if self._is_stopping else ''}>"

    def run(self) -> int:
        """Until a signal ends it, or no worker can start; returns the exit code."""
        handlers = {number: signal.signal(number, self._signalled) for number in _FORWARDED}
        handlers[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, children reap themselves
        try:
            for child in self._children:
                self._start(child)
            while any(child.pid for child in self._children) or not self._is_stopping:
                self._reap()
                self._start_due()
                self._kill_late()
                time.sleep(0.02)  # signals and ends of children are seen at the next turn
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            self._close()
        return self._exit_code

    # inside

    def _start(self, child: _Child) -> None:
        place = WorkerPlace(
            child.index,
            len(self._children),
            self._listeners[child.index],
            self._paths,
            alive=self._alive,
            passage=self._passages[child.index],
            passages=self._places,
            others_gone=self._others_gone if child.index == 0 else -1,
            is_restart=child.lives > 0,
        )
        sys.stdout.flush()
        sys.stderr.flush()
        with _signals_held():  # one that came between fork and note would not be handed on
            if self._is_stopping:
                return
            try:
                pid = os.fork()
            except OSError as error:
                self._not_forked(child, error)
                return
            if pid == 0:
                os._exit(self._be_worker(place))
            child.pid, child.started_at, child.start_at = pid, time.monotonic(), 0.0
            child.lives += 1

    def _not_forked(self, child: _Child, error: OSError) -> None:
        """The system has no process for it: the others must not end for that, and it is tried again."""
        if child.lives == 0:
            _log.error("worker %d cannot be started: %s", child.index, error)
            self._exit_code = CANNOT_START
            self._stop(signal.SIGTERM)
            return
        child.failures += 1
        delay = DELAYS_SECONDS[min(child.failures, len(DELAYS_SECONDS) - 1)]
        child.start_at = time.monotonic() + delay
        _log.error("worker %d cannot be started again: %s; it is tried again in %g s", child.index, error, delay)

    def _be_worker(self, place: WorkerPlace) -> int:
        code = 1
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGHUP, _not_yet)
            os.setpgrp()  # Ctrl-C is for the supervisor, which hands it on: twice would mean hurry
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
            os.close(self._stay_alive)
            os.close(self._others if place.is_first else self._others_gone)
            for index, (listener, passage) in enumerate(zip(self._listeners, self._passages, strict=True)):
                if index != place.index:
                    listener.close()
                    passage.close()
            code = self._work(place)
        except BaseException:  # a process's top: whatever it is must be said before the process ends
            traceback.print_exc()
        finally:
            if select.select([self._alive], [], [], 0)[0]:
                shutil.rmtree(self._folder, ignore_errors=True)  # nobody else will
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
        return code

    def _reap(self) -> None:
        """Take note of workers that have ended."""
        for child in self._children:
            if not child.pid:
                continue
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                self._ended(child, os.waitstatus_to_exitcode(status))

    def _ended(self, child: _Child, code: int) -> None:
        lasted = time.monotonic() - child.started_at
        pid, child.pid = child.pid, 0
        if self._is_stopping:
            if code != CANNOT_START:  # it was being started again, which nobody wants any more
                self._exit_code = self._exit_code or max(code, 0)
            return
        if code == CANNOT_START and child.lives == 1:
            self._exit_code = code
            self._stop(signal.SIGTERM)
            return
        child.failures = 0 if lasted >= HEALTHY_SECONDS else child.failures + 1
        delay = DELAYS_SECONDS[min(child.failures, len(DELAYS_SECONDS) - 1)]
        child.start_at = time.monotonic() + delay
        how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        _log.error("worker %d (process %d) %s; it is started again", child.index, pid, how)

    def _start_due(self) -> None:
        now = time.monotonic()
        for child in self._children:
            if not child.pid and child.start_at and now >= child.start_at:
                self._start(child)

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._hand_on(number)
        else:
            self._stop(number)

    def _kill_late(self) -> None:
        if time.monotonic() >= self._kill_at:
            self._kill_at = float("inf")
            self._hand_on(signal.SIGKILL)

    def _stop(self, number: int) -> None:
        if self._is_stopping:
            self._kill_at = min(self._kill_at, time.monotonic() + self._last_seconds)
        else:
            self._is_stopping = True
            os.close(self._others)
            for sock in (*self._listeners, *self._passages):
                sock.close()  # a worker that has ended is waited for by nobody any more
        self._hand_on(number)

    def _hand_on(self, number: int) -> None:
        for child in self._children:
            if child.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, number)

    def _close(self) -> None:
        for descriptor in (self._alive, self._stay_alive, self._others_gone):
            os.close(descriptor)
        if not self._is_stopping:
            os.close(self._others)
        for sock in (*self._listeners, *self._passages):
            sock.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def free_ports(addresses: Sequence[tuple[str, int]]) -> tuple[list[tuple[str, int]], list[socket.socket]]:
    """The addresses with a free port in the place of 0, and the sockets that keep those until the workers have them."""
    kept, found = [], []
    for host, port in addresses:
        if port == 0:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(("127.0.0.1" if host == "localhost" else host.strip("[]"), 0))
            port = sock.getsockname()[1]
            kept.append(sock)
        found.append((host, port))
    return found, kept


def _not_yet(_number: int, _frame: FrameType | None) -> None:
    """A worker that is being started reads the configuration anyway. A handler, as children would inherit that we ignore it."""


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """What comes meanwhile is delivered afterwards."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)


def _folder_for_sockets() -> Path:
    """One that is ours alone, and whose paths are short enough for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-"))
    if len(os.fsencode(folder / f"{_MAX_WORKERS}.sock")) > _LONGEST_PATH:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="penstock-", dir="/tmp"))
    return folder


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener


def _passage(path: Path) -> socket.socket:
    """For connections: it takes a few even while its worker is being started again."""
    passage = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    passage.bind(str(path))
    passage.setblocking(False)
    return passage
