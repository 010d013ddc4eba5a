"""stdin and stdout, read and written by a thread each.

Knows: descriptors of any kind: pipes, sockets, terminals, files. Does not know: lines, messages.
Threads, because a descriptor that was handed to us may be shared with others (a terminal, `2>&1`): to make it non-blocking for
an event loop would make it so for them, too, and files cannot be waited for at all.
Invariant: input is read only when it is asked for; output beyond `high` bytes is told of, so that whoever writes can stop.
"""

import asyncio
import os
import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from select import select
from time import monotonic, sleep
from typing import Final, NamedTuple

_READ_BYTES: Final = 64 * 1024
_WRITE_BYTES: Final = 64 * 1024
"""Small lines that wait are written together up to this size."""
_APART_SECONDS: Final = 0.005
"""Enough for a reader that waits to have read what was written before."""


class InputPipe:
    """Reads one chunk at a time."""

    def __init__(self, fd: int) -> None:
        self._fd: Final = fd
        self._loop: Final = asyncio.get_running_loop()
        self._asked: Final = SimpleQueue[bool]()
        self._waiter: asyncio.Future[bytes] | None = None
        self.thread: Final = threading.Thread(target=self._run, name="stdin", daemon=True)
        self.thread.start()

    def __repr__(self) -> str:
        return f"<InputPipe {self._fd} {'reading' if self._waiter is not None else 'at rest'}>"

    async def read(self) -> bytes:
        """The next bytes, however few; none at the end of input, or when it cannot be read any more."""
        self._waiter = self._loop.create_future()
        self._asked.put(True)
        try:
            return await self._waiter
        finally:
            self._waiter = None

    def close(self) -> None:
        """Read nothing more; a read under way is left to itself. The descriptor stays open."""
        self._asked.put(False)

    def _run(self) -> None:
        while self._asked.get():
            chunk = self._read()
            if not _tell(self._loop, partial(self._take, chunk)):
                return

    def _read(self) -> bytes:
        while True:
            try:
                return os.read(self._fd, _READ_BYTES)
            except BlockingIOError:  # somebody made it so; we wait all the same
                select([self._fd], [], [])
            except OSError:
                return b""

    def _take(self, chunk: bytes) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(chunk)


class _Line(NamedTuple):
    text: bytes
    is_apart: bool


class OutputPipe:
    """Writes lines in their order, and says when more wait than should."""

    def __init__(self, fd: int, *, high: int, on_full: Callable[[bool], None] = lambda _is_full: None) -> None:
        """`on_full` is told True when more than `high` bytes wait, and False once it is a quarter of that."""
        self._fd: Final = fd
        self._high: Final = high
        self._on_full: Final = on_full
        self._loop: Final = asyncio.get_running_loop()
        self._queue: Final = SimpleQueue[_Line | None]()
        self._waiting_bytes = 0
        self._room: Final = asyncio.Event()
        self._room.set()
        self._empty: Final = asyncio.Event()
        self._empty.set()
        self.broken: Final = asyncio.Event()
        """Set when nobody can read what is written any more."""
        self.thread: Final = threading.Thread(target=self._run, name="stdout", daemon=True)
        self.thread.start()

    def __repr__(self) -> str:
        state = "broken" if self.broken.is_set() else "full" if self.is_full else "open"
        return f"<OutputPipe {self._fd} {state} | {self._waiting_bytes} bytes wait>"

    @property
    def is_full(self) -> bool:
        """Whether whoever writes should stop."""
        return not self._room.is_set()

    def write(self, line: bytes, *, apart: bool = False) -> None:
        """Write a line, which holds no line break; never waits. One that is to stand apart is written a little later."""
        if self.broken.is_set():
            return
        self._waiting_bytes += len(line) + 1
        self._empty.clear()
        self._queue.put(_Line(line, apart))
        if self._waiting_bytes > self._high and not self.is_full:
            self._room.clear()
            self._on_full(True)

    async def room(self) -> None:
        """Wait while more waits than should."""
        await self._room.wait()

    async def drained(self, seconds: float) -> None:
        """Wait until all is written, or that long, or until nobody reads any more."""
        try:
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        except TimeoutError:
            pass  # whoever does not read what is written does not want it

    def close(self) -> None:
        """Write what waits, then nothing more. The descriptor stays open."""
        self._queue.put(None)

    def _run(self) -> None:
        line, written_at = self._queue.get(), 0.0
        while line is not None:
            gap = _APART_SECONDS - (monotonic() - written_at)
            if line.is_apart and gap > 0:
                sleep(gap)
            lines, line = self._together(line)
            text = b"\n".join(lines)
            is_broken = not self._write(text)
            written_at = monotonic()
            if not _tell(self._loop, partial(self._written, len(text), is_broken)) or is_broken:
                return
            line = line or self._queue.get()

    def _together(self, first: "_Line") -> tuple[list[bytes], "_Line | None"]:
        """What can be written with the first line, and what was taken from the queue and cannot."""
        lines, size = [first.text, b""], len(first.text)
        while size < _WRITE_BYTES and not self._queue.empty():
            line = self._queue.get()
            if line is None:
                self._queue.put(None)  # it was the last
                break
            if line.is_apart:
                return lines, line
            lines.insert(-1, line.text)
            size += len(line.text)
        return lines, None

    def _write(self, text: bytes) -> bool:
        rest = memoryview(text)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:
                select([], [self._fd], [])
            except OSError:
                return False
        return True

    def _written(self, size: int, is_broken: bool) -> None:
        self._waiting_bytes -= size
        if is_broken:
            self._waiting_bytes = 0
            self.broken.set()
        if not self._waiting_bytes:
            self._empty.set()
        if self.is_full and self._waiting_bytes <= self._high // 4:
            self._room.set()
            self._on_full(False)


def _tell(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> bool:
    """Call back on the loop; False when the loop has ended."""
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        return False
    return True
