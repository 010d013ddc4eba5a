"""One HTTP request, as values.

Knows: what a complete request consists of. Does not know: sockets, parsing, what a path means.
"""


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
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.body = body
        self.shared: dict[str, object] = {} if shared is None else shared
        """What the handler worked out from this very header block: all requests that repeat it have the same dict."""

    def __repr__(self) -> str:
        return f"<Request {self.method.decode()} {self.path} [{len(self.headers)} fields | body {len(self.body)} B]>"
