"""Answers whose head is, byte for byte, that of the answer before: most are, and need no second judgement.

Knows: where such an answer's body lies. Does not know: sockets, who waits. A head is remembered only after the parser has
judged a whole answer with it that came in one read; anything that does not fit exactly is for the parser again.
"""

import re
from typing import Final

_CHUNK_SIZE: Final = re.compile(rb"[0-9A-Fa-f]{1,7}")
_LAST_CHUNK: Final = b"\r\n0\r\n\r\n"


class RepeatedHead:
    """A head that was judged: status, fields, and where the body ends."""

    __slots__ = ("block", "headers", "is_stream", "length", "status")

    def __init__(self, block: bytes, status: int, headers: dict[bytes, bytes], length: int | None) -> None:
        self.block: Final = block
        self.status: Final = status
        self.headers: Final = headers
        self.length: Final = length
        """Bytes of the body; None when it is chunked."""
        self.is_stream: Final = is_event_stream(headers)

    def __repr__(self) -> str:
        return f"<RepeatedHead {self.status} {'chunked' if self.length is None else self.length}>"

    @classmethod
    def learn(cls, read: bytes, status: int, headers: dict[bytes, bytes]) -> "RepeatedHead | None":
        """The head of an answer that was complete in this one read; None when it is not worth remembering."""
        end = read.find(b"\r\n\r\n") + 4
        if not 200 <= status < 300 or b"content-encoding" in headers or end < 4:
            return None
        length = None
        if b"transfer-encoding" not in headers:
            if b"content-length" not in headers:
                return None
            length = int(headers[b"content-length"])
        known = cls(read[:end], status, headers, length)
        return known if known.body_in(read) is not None else None

    def body_in(self, read: bytes) -> bytes | None:
        """The body, if the read starts with this head and is exactly one whole answer; None: parse it."""
        start = len(self.block)
        if self.length is not None:
            return read[start:] if len(read) - start == self.length else None
        line_end = read.find(b"\r\n", start, start + 10)
        digits = read[start:line_end]
        if line_end < 0 or not _CHUNK_SIZE.fullmatch(digits):
            return None
        start, size = line_end + 2, int(digits, 16)
        if size == 0 or len(read) != start + size + len(_LAST_CHUNK) or not read.endswith(_LAST_CHUNK):
            return None
        return read[start : start + size]


def is_event_stream(headers: dict[bytes, bytes]) -> bool:
    """Whether the content type is that of an event stream, parameters aside."""
    content_type = headers.get(b"content-type", b"")
    return content_type[:17].lower() == b"text/event-stream" and content_type[17:18] in b"; "
