"""One HTTP request, as values.

Knows: what a complete request consists of. Does not know: sockets, parsing, what a path means.
"""

from typing import Final

import msgspec

Body = bytes | tuple[bytes | memoryview, ...]
"""What a body consists of: bytes, or pieces of it in order, so that large ones need not be copied into one."""

LARGE_BYTES: Final = 32 * 1024
"""From here on results are handed on as views, and answers as pieces: copying costs more than the objects for that."""


def joined(body: Body) -> bytes:
    """A body as bytes."""
    return b"".join(body) if isinstance(body, tuple) else body


class Request(msgspec.Struct, eq=False, gc=False):
    """A complete request whose framing and header have been judged.

    `path` is as it came (visible ASCII, not percent-decoded), `query` what follows the `?`; names in `headers` are
    lower-case, values carry no surrounding whitespace, repeated list-valued fields are joined with ", ". `content-length` is
    not among them: `body` tells. `headers` is shared by all requests that repeat the block: read it, never change it.
    """

    method: bytes
    path: str
    query: bytes
    headers: dict[bytes, bytes]
    body: bytes
    shared: dict[str, object] = {}
    """What the handler worked out from this very header block: all requests that repeat it have the same dict."""

    def __repr__(self) -> str:
        return f"<Request {self.method.decode()} {self.path} [{len(self.headers)} fields | body {len(self.body)} B]>"
