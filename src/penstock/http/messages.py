"""One HTTP request, as values.

Knows: what a complete request consists of. Does not know: sockets, parsing, what a path means.
"""


class Request:
    """A complete request whose framing and header have been judged.

    `path` is as it came (visible ASCII, not percent-decoded), `query` what follows the `?`; names in `headers` are
    lower-case, values carry no surrounding whitespace, repeated list-valued fields are joined with ", ".
    """

    __slots__ = ("body", "headers", "method", "path", "query")

    def __init__(self, method: bytes, path: str, query: bytes, headers: dict[bytes, bytes], body: bytes) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.body = body

    def __repr__(self) -> str:
        return f"<Request {self.method.decode()} {self.path} [{len(self.headers)} fields | body {len(self.body)} B]>"
