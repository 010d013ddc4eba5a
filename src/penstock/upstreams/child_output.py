"""What a child wrote: lines from its stdout, the tail of its stderr.

Knows: bytes and bounds. Does not know: processes, pipes, MCP.
Invariant: what is kept never exceeds the bounds, however much is fed.
"""

import re
from typing import Final

_CONTROL: Final = re.compile(
    r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]"
)
_LINE_CHARACTERS: Final = 2_000
_LAST_WORDS: Final = 100
"""Among so many lines the last one that is not empty is looked for."""


class LineTooLong(Exception):
    """A line grew beyond the limit."""


class LineSplitter:
    """Bytes in, whole lines out, without their line ends; empty lines are left out."""

    __slots__ = ("_limit", "_partial")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._partial = bytearray()

    def __repr__(self) -> str:
        return f"<LineSplitter {len(self._partial)} of {self._limit} bytes>"

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the lines that are complete with `chunk`.

        Raises:
            LineTooLong: a line, complete or not, has more bytes than the limit.
        """
        if self._partial:
            head, newline, chunk = chunk.partition(b"\n")
            self._partial += head
            if len(self._partial) > self._limit:
                raise LineTooLong
            if not newline:
                return []
            lines = [bytes(self._partial), *chunk.split(b"\n")]
            self._partial = bytearray()
        else:
            lines = chunk.split(b"\n")
        rest = lines.pop()
        if rest:
            self._partial += rest
            if len(rest) > self._limit:
                raise LineTooLong
        if any(len(line) > self._limit for line in lines):
            raise LineTooLong
        return [line for line in lines if line and line != b"\r"]


class StderrTail:
    """The last bytes a child, and the ones before it in the same place, wrote to stderr."""

    __slots__ = ("_begun_at", "_kept", "_limit", "_newlines", "total_bytes")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept = bytearray()
        self._newlines = 0
        self._begun_at = 0
        self.total_bytes = 0
        """All bytes ever written, kept or not."""

    def __repr__(self) -> str:
        return f"<StderrTail {len(self._kept)} bytes kept of {self.total_bytes}>"

    def begin(self) -> None:
        """From now on another child writes: the last words of the one before it are not its own."""
        self._begun_at = self.total_bytes

    def feed(self, chunk: bytes) -> None:
        """Keep `chunk`, drop the oldest; constant cost per byte however long the flood lasts."""
        self.total_bytes += len(chunk)
        self._newlines += chunk.count(b"\n")
        self._kept += chunk[-self._limit :]
        if len(self._kept) > 2 * self._limit:
            del self._kept[: -self._limit]

    @property
    def total_lines(self) -> int:
        """All lines ever begun, empty ones too."""
        return self._newlines + bool(self._kept and not self._kept.endswith(b"\n"))

    def lines(self, count: int) -> list[str]:
        """What is not empty of the last `count` lines, oldest first, safe to print: control characters gone, cut at 2,000."""
        return self._lines(count, self._limit)

    def _lines(self, count: int, size: int) -> list[str]:
        if count <= 0 or size <= 0:
            return []
        lines = bytes(self._kept[-size:]).decode("utf-8", "replace").split("\n")
        if not lines[-1]:
            lines.pop()
        shown = (printable(line, _LINE_CHARACTERS) for line in lines[-count:])
        return [line for line in shown if line.strip()]

    def last_line(self) -> str:
        """The last line of this child with something on it, short enough for an error message; empty when there is none."""
        lines = self._lines(_LAST_WORDS, min(self._limit, self.total_bytes - self._begun_at))
        return printable(lines[-1].strip(), 200) if lines else ""


def printable(text: str, limit: int) -> str:
    """`text` on one line without terminal escapes, control or direction-changing characters, cut at `limit`."""
    clean = _CONTROL.sub("", text).replace("\n", " ").rstrip()
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"
