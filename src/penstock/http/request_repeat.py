"""Request heads that were judged before: most are, but for the length of the body, and need no second judgement.

Knows: where a judged block says the body's length. Does not know: sockets, what a head means. What stands in the block
beside the digits must be equal byte for byte; anything else is for the parser again (docs/decisions/008).
"""

from typing import Final

from penstock.http.messages import Head

MAX_BLOCK_BYTES: Final = 2048
"""Longer blocks are parsed each time."""
MAX_KNOWN: Final = 1024
"""Blocks one server remembers, beside the last one of each connection."""
_LENGTH_LINES: Final = (b"\r\ncontent-length: ", b"\r\nContent-Length: ")
"""As clients write it; a block that writes it in another way is known with its length."""


class KnownHead:
    """A block that was accepted, cut where its `content-length` stands."""

    __slots__ = ("_block", "_end_size", "_found", "_start", "after", "before", "head")

    def __init__(self, block: bytes, head: Head) -> None:
        before, after = _cut(block)
        self.before: Final = before
        """Up to the digits, or the whole block where no length is said."""
        self.after: Final = after
        """From the end of the digits; empty where no length is said."""
        self.head: Final = head
        self._start: Final = len(before)
        self._end_size: Final = len(after)
        self._block: Final = block
        self._found: Final = (len(block), head.content_length)

    def __repr__(self) -> str:
        return f"<KnownHead {self.head!r}>"

    def found_in(self, data: bytes) -> tuple[int, int] | None:
        """Where the head at the start of `data` ends and how long its body is, if it is this head; else None."""
        if data.startswith(self._block):
            return self._found
        start, end_size = self._start, self._end_size
        if not end_size or not data.startswith(self.before):
            return None
        stop = data.find(b"\r", start, start + 19)  # at most 18 digits
        if stop < 0:  # asked first: a slice that ends before it starts is an error where it is compiled
            return None
        digits = data[start:stop]
        if digits.isdigit() and data.startswith(self.after, stop):
            return stop + end_size, int(digits)
        return None


class KnownHeads:
    """What one server's connections have seen; bounded: what was not looked for the longest is forgotten first."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[bytes, KnownHead] = {}

    def __repr__(self) -> str:
        return f"<KnownHeads {len(self._known)} of at most {MAX_KNOWN}>"

    def __len__(self) -> int:
        return len(self._known)

    def recall(self, block: bytes) -> KnownHead | None:
        """The known head of a whole block, whatever length it says."""
        before, after = _cut(block)
        known = self._known.pop(before + after, None)
        if known is not None:
            self._known[before + after] = known  # the longest unused is forgotten first
        return known

    def remember(self, block: bytes, head: Head) -> KnownHead | None:
        """Keep what was judged of a whole block; None when it is too long for that."""
        if len(block) > MAX_BLOCK_BYTES:
            return None
        known = KnownHead(block, head)
        if len(self._known) >= MAX_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[known.before + known.after] = known
        return known


def _cut(block: bytes) -> tuple[bytes, bytes]:
    """The block without the digits of its length."""
    for line in _LENGTH_LINES:
        start = block.find(line)
        if start >= 0:
            start += len(line)
            stop = block.find(b"\r", start)
            if block[start:stop].isdigit():
                return block[:start], block[stop:]
    return block, b""
