"""What comes back from a request: an answer, or why there is none.

Knows: nothing of connections. No `repr` and no message here ever shows a header's value or a body.
"""

from typing import Final

from penstock.errors import PenstockError


class RequestFailed(PenstockError):
    """No usable answer came; the connection is closed."""

    @property
    def reason(self) -> str:
        """One clause for people; free of header values and bodies."""
        return self.message


class ConnectionLost(RequestFailed):
    """The connection could not be made, or ended before the answer was complete."""

    def __init__(self, reason: str = "", *, unprocessed: bool = False) -> None:
        super().__init__(reason)
        self.unprocessed: Final = unprocessed
        """True only when the request cannot have reached the server: sending it again is safe."""


class ResponseTooLarge(RequestFailed):
    """The answer is larger than the limits allow."""


class BadResponse(RequestFailed):
    """What came is not a well-formed HTTP/1.1 answer."""


class Response:
    """A complete answer; for an event stream `body` is empty, its events went to the callback."""

    __slots__ = ("body", "first_byte_at", "headers", "status")

    def __init__(self, status: int, headers: dict[bytes, bytes], body: bytes, first_byte_at: float) -> None:
        self.status = status
        self.headers = headers
        """Names in lower case; repeated fields joined with ', '. Trailers are not among them; length and date may be those of
        an earlier answer with the same head."""
        self.body = body
        """Decoded."""
        self.first_byte_at = first_byte_at
        """When (monotonic seconds) the first byte of the answer came."""

    def __repr__(self) -> str:
        return f"<Response {self.status} {len(self.headers)} headers {len(self.body)} bytes>"
