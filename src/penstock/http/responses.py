"""Response heads and the transport's own refusals, formatted ahead of time.

Knows: status lines, the Date field, the JSON body of a refusal. Does not know: connections, MCP.
"""

from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from penstock.http.request_head import Refusal

JSON: Final = b"application/json"
BODILESS: Final = frozenset({204, 304})
"""Statuses whose responses have no body and no content-length here (RFC 9110 §8.6)."""

STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

MESSAGES: Final = {
    "malformed_request_line": "the request line is not 'METHOD target HTTP/1.1'",
    "malformed_header": "the header block is not well-formed HTTP/1.1",
    "fragment_in_target": "a request target has no '#' part",
    "target_malformed": "the request target must be a path, or a URL of the host that the Host field names",
    "target_too_long": "the request target is too long",
    "method_not_allowed": "this method is not served here",
    "method_not_implemented": "this method is not known here",
    "http_version_not_supported": "only HTTP/1.1 and HTTP/1.0 are spoken here",
    "header_too_large": "the request header is too large",
    "too_many_header_fields": "the request has too many header fields",
    "repeated_header_field": "a header field that may appear once appears twice",
    "header_name_imitates_another": "a header field's name differs from a known one by '_' only",
    "host_missing": "the Host field is missing",
    "host_malformed": "the Host field is no host with an optional port",
    "ambiguous_body_length": "the body's length is announced in two ways, or in one that is not 'chunked'",
    "malformed_content_length": "content-length is not a plain number",
    "malformed_chunk": "the chunked body is malformed",
    "expectation_failed": "the only expectation understood here is 100-continue",
    "body_too_large": "the request body is too large",
    "request_timeout": "the request did not arrive in time",
    "too_many_connections": "all connections are in use; try again shortly",
    "no_answer": "the call ended without an answer",
}
_EXTRA_FIELDS: Final = {405: b"allow: GET, POST, DELETE, OPTIONS\r\n", 503: b"retry-after: 1\r\n"}


def refusal_body(refusal: Refusal) -> bytes:
    """The JSON-RPC error, without id, that explains a refusal of the transport."""
    return b'{"jsonrpc":"2.0","error":{"code":%d,"message":"%b","data":{"reason":"%b"}}}' % (
        refusal.status,
        MESSAGES[refusal.reason].encode(),
        refusal.reason.encode(),
    )


class ResponseHeads:
    """Beginnings of responses; refreshed once a second, because they carry the Date (RFC 9110 §6.6.1 demands one)."""

    __slots__ = ("_date", "_starts", "ok_json")

    def __init__(self, wall_seconds: float) -> None:
        self._starts: dict[int, bytes] = {}
        self.refresh(wall_seconds)

    def __repr__(self) -> str:
        return f"<ResponseHeads {self._date.decode().strip()}>"

    def refresh(self, wall_seconds: float) -> None:
        """Carry this time from now on."""
        self._date = b"date: %b\r\n" % formatdate(wall_seconds, usegmt=True).encode()
        self._starts.clear()
        self.ok_json = b"%bcontent-type: application/json\r\ncontent-length: " % self.start(200)

    def start(self, status: int) -> bytes:
        """Status line and Date field."""
        start = self._starts.get(status)
        if start is None:
            line = STATUS_LINES.get(status) or b"HTTP/1.1 %d Unknown\r\n" % status
            start = self._starts[status] = line + self._date
        return start

    def whole(self, status: int, body: bytes, content_type: bytes, headers: bytes, *, is_shown: bool) -> bytes:
        """A whole response; `is_shown` is whether the body goes out, which it does not to a HEAD."""
        start = self.start(status)
        if status in BODILESS:
            return b"%b%b\r\n" % (start, headers)
        kind = b"content-type: %b\r\n" % content_type if body else b""
        shown = body if is_shown else b""
        return b"%b%bcontent-length: %d\r\n%b\r\n%b" % (start, kind, len(body), headers, shown)

    def refusal(self, refusal: Refusal) -> bytes:
        """A whole response that refuses and announces the connection's end."""
        body = refusal_body(refusal)
        return b"%bcontent-type: application/json\r\ncontent-length: %d\r\n%bconnection: close\r\n\r\n%b" % (
            self.start(refusal.status),
            len(body),
            _EXTRA_FIELDS.get(refusal.status, b""),
            body,
        )
