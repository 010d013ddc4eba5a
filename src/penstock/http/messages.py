"""One HTTP request, as values: its head, and the whole of it.

Knows: what a request consists of. Does not know: sockets, parsing, what a path means.
"""

from typing import Final

Body = bytes | tuple[bytes | memoryview, ...]
"""What a body consists of: bytes, or pieces of it in order, so that large ones need not be copied into one."""

LARGE_BYTES: Final = 32 * 1024
"""From here on results are handed on as views, and answers as pieces: copying costs more than the objects for that."""


def joined(body: Body) -> bytes:
    """A body as bytes."""
    return b"".join(body) if isinstance(body, tuple) else body


class Head:
    """A header block that was accepted; what its fields say of the framing is set by who judges them."""

    __slots__ = (
        "content_length",
        "expects_continue",
        "headers",
        "is_chunked",
        "is_http_10",
        "keep_alive",
        "method",
        "path",
        "query",
        "shared",
    )

    def __init__(self, method: bytes, path: str, query: bytes, is_http_10: bool, headers: dict[bytes, bytes]) -> None:
        self.method: Final = method
        self.path: Final = path
        self.query: Final = query
        self.is_http_10: Final = is_http_10
        self.headers: Final = headers
        self.keep_alive = not is_http_10
        self.content_length = 0
        self.is_chunked = False
        self.expects_continue = False
        self.shared: Final[dict[str, object]] = {}
        """For the handler: see `Request.shared`."""

    def __repr__(self) -> str:
        framing = "chunked" if self.is_chunked else f"{self.content_length} B"
        return f"<Head {self.method.decode()} {self.path} [{len(self.headers)} fields | {framing}]>"


class Request:
    """A complete request whose framing and header have been judged.

    `path` is as it came (visible ASCII, not percent-decoded), `query` what follows the `?`; names in `headers` are
    lower-case, values carry no surrounding whitespace, repeated list-valued fields are joined with ", ". `content-length` is
    not among them: `body` tells. `headers` is shared by all requests that repeat the block: read it, never change it.
    """

    __slots__ = ("body", "headers", "method", "path", "query", "shared")

    def __init__(
        self,
        method: bytes,
        path: str,
        query: bytes,
        headers: dict[bytes, bytes],
        body: bytes,
        shared: dict[str, object] | None = None,
    ) -> None:
        self.method: Final = method
        self.path: Final = path
        self.query: Final = query
        self.headers: Final = headers
        self.body = body
        self.shared: Final[dict[str, object]] = {} if shared is None else shared
        """What the handler worked out from this very header block: all requests that repeat it have the same dict."""

    def __repr__(self) -> str:
        return f"<Request {self.method.decode()} {self.path} [{len(self.headers)} fields | body {len(self.body)} B]>"
