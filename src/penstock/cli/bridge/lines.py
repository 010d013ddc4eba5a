"""Bytes from stdin into lines, one message each.

Knows: line ends, a bound. Does not know: where the bytes come from, JSON beyond the two ends of a line that is too long.
Invariant: no more than `limit` bytes are kept, and of a line that is longer only its two ends.
"""

import re
from typing import Final, NamedTuple

_END_BYTES: Final = 512
_ID: Final = rb'(?P<id>-?[0-9]{1,16}|"[^"\\\x00-\x1f]{0,200}")'
_ID_FIRST: Final = re.compile(rb'\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"id"\s*:\s*' + _ID + rb'\s*,\s*"method"\s*:')
_METHOD_FIRST: Final = re.compile(rb'\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"method"\s*:')
_ID_LAST: Final = re.compile(
    rb'[,{]\s*"id"\s*:\s*' + _ID + rb'\s*(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*$',
)


class TooLong(NamedTuple):
    """A line that was not kept."""

    id: bytes | None
    """Of the request it holds, where its beginning or its end shows it: SDKs write the id first or last."""


class LineReader:
    """Chunks in, whole lines out, without their ends; blank lines are left out."""

    __slots__ = ("_head", "_limit", "_partial", "_tail")

    def __init__(self, limit: int) -> None:
        self._limit: Final = limit
        self._partial = bytearray()
        self._head: bytes | None = None
        """The beginning of a line that is being dropped."""
        self._tail = b""

    def __repr__(self) -> str:
        state = "dropping a line" if self._head is not None else f"{len(self._partial)} of {self._limit} bytes"
        return f"<LineReader {state}>"

    def feed(self, chunk: bytes) -> list[bytes | TooLong]:
        """The lines that end in this chunk."""
        *ends, rest = chunk.split(b"\n")
        found: list[bytes | TooLong] = []
        for end in ends:
            self._take(end)
            found += self.finish()
        self._take(rest)
        return found

    def finish(self) -> list[bytes | TooLong]:
        """The line that ends here, be it for its newline or for the end of all input; none when it is blank."""
        if self._head is not None:
            line: bytes | TooLong = TooLong(_request_id(self._head, self._tail))
            self._head, self._tail = None, b""
            return [line]
        line = bytes(self._partial).strip(b" \t\r")
        self._partial.clear()
        return [line] if line else []

    def _take(self, piece: bytes) -> None:
        if self._head is not None:
            self._tail = (self._tail + piece[-_END_BYTES:])[-_END_BYTES:]
            return
        self._partial += piece
        if len(self._partial) > self._limit:
            self._head, self._tail = bytes(self._partial[:_END_BYTES]), bytes(self._partial[-_END_BYTES:])
            self._partial = bytearray()


def _request_id(head: bytes, tail: bytes) -> bytes | None:
    """The id of a request whose two ends these are. What closes the line closes the message, so an id before it is its own."""
    found = _ID_FIRST.match(head)
    if found is None and _METHOD_FIRST.match(head):
        found = _ID_LAST.search(tail)
    return found["id"] if found is not None else None
