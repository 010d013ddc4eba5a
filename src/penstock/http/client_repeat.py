"""Answers whose head is that of the answer before, but for its length and date: most are, and need no second judgement.

Knows: where such an answer's body lies. Does not know: sockets, who waits. A head is remembered only after the parser has
judged a whole answer with it that came in one read; anything that does not fit exactly is for the parser again.
"""

import re
from typing import Final

_CHUNK_SIZE: Final = re.compile(rb"[0-9A-Fa-f]{1,7}")
_LAST_CHUNK: Final = b"\r\n0\r\n\r\n"
_DATE: Final = re.compile(rb"[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT")
"""RFC 9110 §5.6.7, as servers write it."""
_LENGTH: Final = re.compile(rb"[0-9]{1,15}")
_VARIES: Final = re.compile(rb"\r\n(?i:content-length): (?=[0-9]{1,15}\r\n)|\r\n(?i:date): (?=%b\r\n)" % _DATE.pattern)
MAX_BLOCK_BYTES: Final = 2048
"""Longer heads are parsed each time."""


class RepeatedHead:
    """A head that was judged: status, fields, and where the body ends."""

    __slots__ = ("_block", "_end", "_length", "_parts", "headers", "is_chunked", "is_stream", "status")

    def __init__(self, block: bytes, status: int, headers: dict[bytes, bytes]) -> None:
        self.status: Final = status
        self.headers: Final = headers
        """Of the answer it was learnt from: its length and date are that one's."""
        self.is_chunked: Final = b"transfer-encoding" in headers
        self.is_stream: Final = is_event_stream(headers)
        self._block = block
        """As it came last."""
        self._length = 0 if self.is_chunked else int(headers[b"content-length"])
        parts, at = [], 0
        for name in _VARIES.finditer(block):
            value = _LENGTH if b"length" in name[0].lower() else _DATE
            parts.append((block[at : name.end()], value))
            at = value.match(block, name.end()).end()  # type: ignore[union-attr]  # it was just seen there
        self._parts: Final = tuple(parts)
        """What stands before each value that may be another one, and what such a value looks like."""
        self._end: Final = block[at:]

    def __repr__(self) -> str:
        return f"<RepeatedHead {self.status} {'chunked' if self.is_chunked else 'of known length'}>"

    @classmethod
    def learn(cls, read: bytes, status: int, headers: dict[bytes, bytes]) -> "RepeatedHead | None":
        """The head of an answer that was complete in this one read; None when it is not worth remembering.

        204 is not: it has no body, whatever length it says.
        """
        end = read.find(b"\r\n\r\n", 0, MAX_BLOCK_BYTES) + 4
        if not 200 <= status < 300 or status == 204 or b"content-encoding" in headers or end < 4:
            return None
        if b"transfer-encoding" not in headers and b"content-length" not in headers:
            return None
        known = cls(read[:end], status, headers)
        return known if known.body_in(read) is not None else None

    def body_in(self, read: bytes) -> tuple[int, int] | None:
        """Where the body starts and stops, if the read starts with this head and is exactly one whole answer; None: parse it."""
        if not read.startswith(self._block) and not self._takes(read):
            return None
        start = len(self._block)
        if not self.is_chunked:
            stop = start + self._length
            return (start, stop) if len(read) == stop else None
        line_end = read.find(b"\r\n", start, start + 10)
        if line_end < 0:  # asked first: a slice that ends before it starts is an error where it is compiled
            return None
        digits = read[start:line_end]
        if not _CHUNK_SIZE.fullmatch(digits):
            return None
        start, size = line_end + 2, int(digits, 16)
        if size == 0 or len(read) != start + size + len(_LAST_CHUNK) or not read.endswith(_LAST_CHUNK):
            return None
        return start, start + size

    def _takes(self, read: bytes) -> bool:
        """Whether it starts with this head but for length and date; then these are the ones to expect next."""
        at, length = 0, self._length
        for before, value in self._parts:
            at += len(before)
            found = value.match(read, at) if read.startswith(before, at - len(before)) else None
            if found is None:
                return False
            at = found.end()
            if value is _LENGTH:
                length = int(found[0])
        if not read.startswith(self._end, at):
            return False
        self._block, self._length = read[: at + len(self._end)], length
        return True


def is_event_stream(headers: dict[bytes, bytes]) -> bool:
    """Whether the content type is that of an event stream, parameters aside."""
    content_type = headers.get(b"content-type", b"")
    return content_type[:17].lower() == b"text/event-stream" and content_type[17:18] in b"; "
