"""Chunked framing taken off a request's body (RFC 9112 §7.1).

Knows: chunk sizes, extensions, trailers. Does not know: sockets, what follows the body.
Invariant: strict: hexadecimal sizes of at most 8 digits, CRLF only, extensions and trailers bounded and thrown away;
a trailer never becomes a header.
"""

import re
from typing import Final

from penstock.http.request_head import Refusal

MAX_LINE_BYTES: Final = 4096
_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_TRAILER: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*")
_FREE_LINE_BYTES: Final = 32

SIZE, DATA, DATA_END, TRAILERS = range(4)


class ChunkedBody:
    """Collects one body; `feed` until it answers something else than None."""

    __slots__ = ("_max_bytes", "_missing", "_overhead", "_pieces", "_rest", "_state", "size")

    def __init__(self, max_bytes: int, max_overhead: int) -> None:
        self._max_bytes = max_bytes
        self._overhead = max_overhead
        self._pieces: list[bytes] = []
        self._rest = b""
        self._state = SIZE
        self._missing = 0
        self.size = 0

    def __repr__(self) -> str:
        return f"<ChunkedBody {('size', 'data', 'data end', 'trailers')[self._state]} [{self.size} B]>"

    def body(self) -> bytes:
        """The body, once complete."""
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)

    def feed(self, data: bytes) -> bytes | Refusal | None:
        """Take bytes: what follows the body once it is complete, a refusal, or None while more is needed."""
        if self._rest:
            data, self._rest = self._rest + data, b""
        position = 0
        while True:
            if self._state == DATA:
                piece = data[position : position + self._missing]
                if piece:
                    self._pieces.append(piece)
                    position += len(piece)
                    self._missing -= len(piece)
                if self._missing:
                    return None
                self._state = DATA_END
            if self._state == DATA_END:
                ending = data[position : position + 2]
                if ending != b"\r\n"[: len(ending)]:
                    return Refusal(400, "malformed_chunk")
                if len(ending) < 2:
                    self._rest = ending
                    return None
                position += 2
                self._state = SIZE
            end = data.find(b"\r\n", position)
            if end < 0:
                self._rest = data[position:]
                return self._judge_beginning(self._rest)
            line = data[position:end]
            position = end + 2
            if self._state == TRAILERS:
                if not line:
                    return data[position:]
                refusal = self._take_trailer(line)
            else:
                refusal = self._take_size(line)
            if refusal is not None:
                return refusal

    def _judge_beginning(self, line: bytes) -> Refusal | None:
        if len(line) > MAX_LINE_BYTES or b"\n" in line or b"\r" in line[:-1]:
            return Refusal(400, "malformed_chunk")
        return None

    def _take_size(self, line: bytes) -> Refusal | None:
        match = _SIZE_LINE.fullmatch(line)
        if match is None or not self._spend(len(line) - _FREE_LINE_BYTES):
            return Refusal(400, "malformed_chunk")
        size = self._missing = int(match[1], 16)
        self.size += size
        if self.size > self._max_bytes:
            return Refusal(413, "body_too_large")
        self._state = DATA if size else TRAILERS
        return None

    def _take_trailer(self, line: bytes) -> Refusal | None:
        if _TRAILER.fullmatch(line) is None or not self._spend(len(line)):
            return Refusal(400, "malformed_chunk")
        return None

    def _spend(self, overhead: int) -> bool:
        if overhead > 0:
            self._overhead -= overhead
        return self._overhead >= 0
