"""gzip and deflate for answers, with bounds on what a small answer may become.

Knows: content codings. Does not know: HTTP framing, event streams, connections.
Invariant: never yields more than `max_bytes` in all (when set), never more than `ratio` times what it was fed beyond a
free MiB, and never more than 256 KiB at a time.
"""

import zlib
from collections.abc import Iterator
from typing import Final

from penstock.http.client_messages import BadResponse, ResponseTooLarge

_PIECE_BYTES: Final = 256 * 1024
_FREE_BYTES: Final = 1024 * 1024
_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS
_CODINGS: Final = {b"gzip": True, b"x-gzip": True, b"deflate": False}


class Decoder:
    """Decodes one body, fed in any pieces."""

    __slots__ = ("_inflate", "_is_gzip", "_is_known", "_max_bytes", "_ratio", "_taken", "_yielded")

    def __init__(self, coding: bytes, *, max_bytes: int | None, ratio: int) -> None:
        self._is_known = coding in _CODINGS
        self._is_gzip = _CODINGS.get(coding, False)
        self._max_bytes = max_bytes
        self._ratio = ratio
        self._inflate: zlib._Decompress | None = None
        self._taken = 0
        self._yielded = 0

    def __repr__(self) -> str:
        name = "gzip" if self._is_gzip else "deflate" if self._is_known else "unknown"
        return f"<Decoder {name} {self._taken} bytes → {self._yielded}>"

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Decoded pieces, none of them empty.

        Raises:
            BadResponse: the bytes are not of this coding, or nobody asked for it.
            ResponseTooLarge: a bound was crossed.
        """
        if not self._is_known:
            raise BadResponse("the answer's content-encoding is none of gzip, deflate, identity")
        self._taken += len(data)
        while data:
            inflate = self._inflate
            if inflate is None:
                inflate = self._inflate = self._next_member(data)
            try:
                piece = inflate.decompress(data, _PIECE_BYTES)
            except zlib.error as error:
                raise BadResponse("the answer's body does not match its content-encoding") from error
            if piece:
                self._account(len(piece))
                yield piece
            if inflate.eof:
                data = inflate.unused_data
                if data and not self._is_gzip:
                    raise BadResponse("the answer's body goes on after its compressed data")
                if data:
                    self._inflate = None
            else:
                data = inflate.unconsumed_tail
                if not data and len(piece) == _PIECE_BYTES:
                    yield from self._held_back(inflate)

    def finish(self) -> None:
        """The body has ended.

        Raises:
            BadResponse: in the middle of compressed data.
        """
        if self._taken and (self._inflate is None or not self._inflate.eof):
            raise BadResponse("the answer's compressed body is cut off")

    def _held_back(self, inflate: "zlib._Decompress") -> Iterator[bytes]:
        """zlib may have consumed all input and still hold output that did not fit into the piece."""
        while piece := inflate.decompress(b"", _PIECE_BYTES):
            self._account(len(piece))
            yield piece

    def _next_member(self, data: bytes) -> "zlib._Decompress":
        if self._is_gzip:
            return zlib.decompressobj(_GZIP_WINDOW)
        # "deflate" should be zlib's format (RFC 9110 8.4.1.2); some servers send it bare. Method 8 tells them apart.
        return zlib.decompressobj(zlib.MAX_WBITS if data[0] & 0x0F == 8 else -zlib.MAX_WBITS)

    def _account(self, size: int) -> None:
        self._yielded += size
        if self._max_bytes is not None and self._yielded > self._max_bytes:
            raise ResponseTooLarge(f"the answer's decoded body is larger than {self._max_bytes} bytes")
        if self._yielded > _FREE_BYTES + self._taken * self._ratio:
            raise ResponseTooLarge(f"the answer's body decodes to more than {self._ratio} times its size")


def decoder_for(content_encoding: bytes, *, max_bytes: int | None, ratio: int) -> Decoder | None:
    """The decoder that a Content-Encoding asks for; None for `identity` and for none.

    A coding we do not know fails only when there is a body: answers without one may name any.
    """
    coding = content_encoding.strip().lower()
    return Decoder(coding, max_bytes=max_bytes, ratio=ratio) if coding not in (b"", b"identity") else None
