"""Answers whose head is that of the answer before, but for its length and date: most are, and need no second judgement.

Knows: where such an answer's body lies. Does not know: sockets, who waits. A head is remembered only after the parser has
judged a whole answer with it that came in one read; anything that does not fit exactly is for the parser again.
"""

import re
from typing import Final

_CHUNK_SIZE: Final = re.compile(rb"[0-9A-Fa-f]{1,7}")
_LAST_CHUNK: Final = b"\r\n0\r\n\r\n"
_DATE: Final = rb"[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT"
"""RFC 9110 §5.6.7, as servers write it."""
_VARIES: Final = re.compile(
    rb"\r\n(?i:content-length): (?P<length>[0-9]{1,15})(?=\r\n)|\r\n(?i:date): (?P<date>%b)(?=\r\n)" % _DATE
)


class RepeatedHead:
    """A head that was judged: status, fields, and where the body ends."""

    __slots__ = ("_block", "_length", "_match", "headers", "is_chunked", "is_stream", "status")

    def __init__(self, block: bytes, status: int, headers: dict[bytes, bytes]) -> None:
        self.status: Final = status
        self.headers: Final = headers
        """Of the answer it was learnt from: its length and date are that one's."""
        self.is_chunked: Final = b"transfer-encoding" in headers
        self.is_stream: Final = is_event_stream(headers)
        self._block = block
        """As it came last."""
        self._length = 0 if self.is_chunked else int(headers[b"content-length"])
        pattern, at = b"", 0
        for field in _VARIES.finditer(block):
            is_length = field["length"] is not None
            start, stop = field.span("length" if is_length else "date")
            pattern += re.escape(block[at:start]) + (b"([0-9]{1,15})" if is_length else _DATE)
            at = stop
        self._match: Final = re.compile(pattern + re.escape(block[at:])).match

    def __repr__(self) -> str:
        return f"<RepeatedHead {self.status} {'chunked' if self.is_chunked else 'of known length'}>"

    @classmethod
    def learn(cls, read: bytes, status: int, headers: dict[bytes, bytes]) -> "RepeatedHead | None":
        """The head of an answer that was complete in this one read; None when it is not worth remembering."""
        end = read.find(b"\r\n\r\n") + 4
        if not 200 <= status < 300 or b"content-encoding" in headers or end < 4:
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
        digits = read[start:line_end]
        if line_end < 0 or not _CHUNK_SIZE.fullmatch(digits):
            return None
        start, size = line_end + 2, int(digits, 16)
        if size == 0 or len(read) != start + size + len(_LAST_CHUNK) or not read.endswith(_LAST_CHUNK):
            return None
        return start, start + size

    def _takes(self, read: bytes) -> bool:
        """Whether it starts with this head but for length and date; then these are the ones to expect next."""
        found = self._match(read)
        if found is None:
            return False
        self._block = found[0]
        if not self.is_chunked and found.re.groups:
            self._length = int(found[1])
        return True


def is_event_stream(headers: dict[bytes, bytes]) -> bool:
    """Whether the content type is that of an event stream, parameters aside."""
    content_type = headers.get(b"content-type", b"")
    return content_type[:17].lower() == b"text/event-stream" and content_type[17:18] in b"; "
