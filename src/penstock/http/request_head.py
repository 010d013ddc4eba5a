"""What a request's header block means, or why it is refused.

Knows: RFC 9112 §§2-3, 5-7 and what llhttp leaves open of them (docs/decisions/002). Does not know: sockets, time, bodies.
Invariant: a pure function of the bytes; whatever two parsers on one path could read differently is refused.
"""

import re
from typing import Final, NamedTuple

import httptools

SINGLE_FIELDS: Final = frozenset({
    b"authorization", b"content-length", b"content-type", b"date", b"expect", b"from", b"host", b"if-modified-since",
    b"if-unmodified-since", b"last-event-id", b"location", b"max-forwards", b"origin", b"proxy-authorization",
    b"referer", b"retry-after", b"transfer-encoding", b"user-agent",
})  # fmt: skip
"""Fields of which a second one is refused; so are all `mcp-…` and `penstock-…` fields."""
OWN_PREFIXES: Final = (b"mcp-", b"penstock-")
GUARDED_TWINS: Final = SINGLE_FIELDS | {
    b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip", b"connection", b"te",
}  # fmt: skip
"""Fields that no `under_score` spelling may imitate: some servers read `_` as `-`."""

_REQUEST_LINE: Final = re.compile(rb"([A-Z]+) ([!-\"$-~]+) HTTP/1\.([01])\r\n")
_ANY_REQUEST_LINE: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~]+) HTTP/([0-9])\.([0-9])\r\n")
_AUTHORITY: Final = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_ABSOLUTE_FORM: Final = re.compile(rb"(?i:https?)://([^/?]*)(.*)")


class Refusal(NamedTuple):
    """Why bytes are no acceptable request: the HTTP status, and one word for it."""

    status: int
    reason: str


class Head:
    """A header block that was accepted."""

    __slots__ = ("content_length", "expects_continue", "headers", "is_chunked", "is_http_10", "keep_alive", "method",
                 "path", "query")  # fmt: skip

    def __init__(self, method: bytes, target: bytes, minor: bytes, headers: dict[bytes, bytes]) -> None:
        path, _, self.query = target.partition(b"?")
        self.method = method
        self.path = path.decode("ascii")
        self.headers = headers
        self.is_http_10 = minor == b"0"
        self.keep_alive = not self.is_http_10
        self.content_length = 0
        self.is_chunked = False
        self.expects_continue = False

    def __repr__(self) -> str:
        framing = "chunked" if self.is_chunked else f"{self.content_length} B"
        return f"<Head {self.method.decode()} {self.path} [{len(self.headers)} fields | {framing}]>"


class HeadParser:
    """Judges header blocks, one after the other; one instance serves a whole server."""

    __slots__ = ("_fields", "_llhttp", "max_fields", "max_target_bytes", "on_header")

    def __init__(self, max_fields: int, max_target_bytes: int) -> None:
        self.max_fields = max_fields
        self.max_target_bytes = max_target_bytes
        self._fields: dict[bytes, bytes] = {}
        self.on_header = self._fields.__setitem__  # called by llhttp; no Python frame per field
        self._llhttp = httptools.HttpRequestParser(self)

    def __repr__(self) -> str:
        return f"<HeadParser [≤ {self.max_fields} fields | target ≤ {self.max_target_bytes} B]>"

    def parse(self, block: bytes) -> Head | Refusal:
        """Judge one whole header block: from the request line to the empty line, both included."""
        line = _REQUEST_LINE.match(block)
        if line is None:
            return _why_no_request_line(block)
        method, target, minor = line.groups()
        if len(target) > self.max_target_bytes:
            return Refusal(414, "target_too_long")
        if method == b"CONNECT":
            return Refusal(405, "method_not_allowed")
        raw = self._fields
        refusal = self._run_llhttp(block)
        count = block.count(b"\r\n") - 2
        if count > self.max_fields:
            return Refusal(431, "too_many_header_fields")
        if refusal is not None:
            return refusal
        headers = {name.lower(): value.strip(b" \t") for name, value in raw.items()}
        if len(headers) != count:
            merged = _merge_repeated(block)
            if isinstance(merged, Refusal):
                return merged
            headers = merged
        return _judge(method, target, minor, headers)

    def judge_beginning(self, block: bytes) -> Refusal | None:
        """Why a block that is still arriving can never become a request; None while it can."""
        refusal = self._run_llhttp(block)
        if refusal is not None and b"\r\n" in block:
            line = _REQUEST_LINE.match(block)
            if line is None:
                return _why_no_request_line(block)
        return refusal

    def _run_llhttp(self, block: bytes) -> Refusal | None:
        self._fields.clear()
        self._llhttp.__init__(self)  # type: ignore[misc]  # the only way to reset llhttp; cheaper than a new one
        try:
            self._llhttp.feed_data(block)
        except httptools.HttpParserUpgrade:
            return None  # the wish to upgrade is ignored (RFC 9110 §7.8)
        except httptools.HttpParserInvalidMethodError:
            return Refusal(501, "method_not_implemented")
        except httptools.HttpParserError:
            return Refusal(400, "malformed_header")
        return None


def _why_no_request_line(block: bytes) -> Refusal:
    line = _ANY_REQUEST_LINE.match(block)
    if line is None:
        return Refusal(400, "malformed_request_line")
    _, target, major, minor = line.groups()
    if major != b"1" or minor not in b"01":
        return Refusal(505, "http_version_not_supported")
    if b"#" in target:
        return Refusal(400, "fragment_in_target")
    return Refusal(501, "method_not_implemented")


def _merge_repeated(block: bytes) -> dict[bytes, bytes] | Refusal:
    """Join repeated list-valued fields in order (RFC 9110 §5.3); refuse the others."""
    headers: dict[bytes, bytes] = {}
    for line in block.split(b"\r\n")[1:-2]:
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        if name not in headers:
            headers[name] = value
        elif name in SINGLE_FIELDS or name.startswith(OWN_PREFIXES):
            return Refusal(400, "repeated_header_field")
        else:
            headers[name] = headers[name] + (b"; " if name == b"cookie" else b", ") + value
    return headers


def _judge(method: bytes, target: bytes, minor: bytes, headers: dict[bytes, bytes]) -> Head | Refusal:
    host = headers.get(b"host")
    if host is None:
        if minor == b"1":
            return Refusal(400, "host_missing")
    elif _AUTHORITY.fullmatch(host) is None:
        return Refusal(400, "host_malformed")
    path = _path_of(method, target, host)
    if path is None:
        return Refusal(400, "target_malformed")
    if any(b"_" in name and _is_twin(name, headers) for name in headers):
        return Refusal(400, "header_name_imitates_another")
    head = Head(method, path, minor, headers)
    return _judge_framing(head, headers) or _judge_manners(head, headers) or head


def _path_of(method: bytes, target: bytes, host: bytes | None) -> bytes | None:
    """The target in origin form; absolute form is taken for the named host only (RFC 9112 §3.2.2)."""
    if target[0] == 0x2F or (target == b"*" and method == b"OPTIONS"):
        return target
    absolute = _ABSOLUTE_FORM.fullmatch(target)
    if absolute is None or host is None or absolute[1].lower() != host.lower():
        return None
    path = absolute[2]
    return path if path[:1] == b"/" else b"/" + path


def _judge_framing(head: Head, headers: dict[bytes, bytes]) -> Refusal | None:
    """One way to announce the body's length, and that one exactly (RFC 9112 §6)."""
    if b"transfer-encoding" in headers:
        if b"content-length" in headers or head.is_http_10 or headers[b"transfer-encoding"].lower() != b"chunked":
            return Refusal(400, "ambiguous_body_length")
        head.is_chunked = True
    elif b"content-length" in headers:
        length = headers[b"content-length"]
        if not length.isdigit() or len(length) > 18:
            return Refusal(400, "malformed_content_length")
        head.content_length = int(length)
    return None


def _judge_manners(head: Head, headers: dict[bytes, bytes]) -> Refusal | None:
    if head.is_http_10:
        return None
    if b"connection" in headers:
        options = headers[b"connection"].lower().split(b",")
        head.keep_alive = b"close" not in [option.strip(b" \t") for option in options]
    if b"expect" in headers:
        if headers[b"expect"].lower() != b"100-continue":
            return Refusal(417, "expectation_failed")
        head.expects_continue = True
    return None


def _is_twin(name: bytes, headers: dict[bytes, bytes]) -> bool:
    twin = name.replace(b"_", b"-")
    return twin in headers or twin in GUARDED_TWINS or twin.startswith(OWN_PREFIXES)
