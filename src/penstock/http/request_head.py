"""What a request's header block means, or why it is refused.

Knows: RFC 9112 §§2-3, 5-7 and what llhttp leaves open of them (docs/decisions/002). Does not know: sockets, time, bodies.
Invariant: a pure function of the bytes; whatever two parsers on one path could read differently is refused.
"""

import re
from typing import Final, NamedTuple

import httptools

from penstock.http.messages import Head

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

REMEMBERED_BYTES: Final = 1 << 20
"""Header blocks whose lines are remembered, together."""
HTTP_2_PREFACE: Final = b"PRI * HTTP/2.0"
_REQUEST_LINE: Final = re.compile(rb"([A-Z]+) ([!-\"$-~]+) HTTP/1\.([01])\r\n")
_ANY_REQUEST_LINE: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~]+) HTTP/([0-9])\.([0-9])\r\n")
_METHOD_BEGINNING: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?: |\Z)")
_AUTHORITY: Final = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_ABSOLUTE_FORM: Final = re.compile(rb"(?i:https?)://([^/?]*)(.*)")


class Refusal(NamedTuple):
    """Why bytes are no acceptable request: the HTTP status, and one word for it."""

    status: int
    reason: str


class RequestLine(NamedTuple):
    """What the first line says; `target` is kept only where it is not a path."""

    method: bytes
    path: str
    query: bytes
    is_http_10: bool
    target: bytes


class HeadParser:
    """Judges header blocks, one after the other; one instance serves a whole server.

    llhttp judges the grammar. What it accepted is remembered line by line, within a bound: clients say the same lines
    again and again, and the grammar of a field line depends on no other line. What depends on several lines (framing,
    repetition, twins) is judged for every block.
    """

    __slots__ = ("_fields", "_good_host", "_lines", "_llhttp", "_remembered_bytes", "max_fields", "max_target_bytes")

    # llhttp's binding looks all of these up at each reset: names that are found are cheaper than names that are not
    on_message_begin = on_url = on_header = on_headers_complete = on_body = on_message_complete = None
    on_chunk_header = on_chunk_complete = None

    def __init__(self, max_fields: int, max_target_bytes: int) -> None:
        self.max_fields = max_fields
        self.max_target_bytes = max_target_bytes
        self._lines: dict[bytes, RequestLine] = {}
        self._fields: dict[bytes, tuple[bytes, bytes]] = {}
        self._remembered_bytes = 0
        self._good_host = b" "  # no host can be this
        self._llhttp = httptools.HttpRequestParser(self)

    def __repr__(self) -> str:
        known = len(self._lines) + len(self._fields)
        return f"<HeadParser [≤ {self.max_fields} fields | {known} lines known {self._remembered_bytes} B]>"

    def parse(self, block: bytes) -> Head | Refusal:
        """Judge one whole header block: from the request line to the empty line, both included."""
        lines = block.split(b"\r\n")
        fields = lines[1:-2]
        if len(fields) > self.max_fields:
            return Refusal(431, "too_many_header_fields")
        try:
            line = self._lines[lines[0]]
            headers = dict(map(self._fields.__getitem__, fields))
        except KeyError:
            refusal = self._learn(block, lines[0], fields)
            if refusal is not None:
                return refusal
            line = self._lines[lines[0]]
            headers = dict(map(self._fields.__getitem__, fields))
        if len(headers) != len(fields):
            merged = _merge_repeated([self._fields[field] for field in fields])
            if isinstance(merged, Refusal):
                return merged
            headers = merged
        host = headers.get(b"host")
        if host != self._good_host or line.target:
            judged = self._judge_host(line, host)
            if isinstance(judged, Refusal):
                return judged
            line = judged
        if b"_" in block and b"_" in b" ".join(headers) and _holds_a_twin(headers):
            return Refusal(400, "header_name_imitates_another")
        head = Head(line.method, line.path, line.query, line.is_http_10, headers)
        return _judge_framing(head, headers) or _judge_manners(head, headers) or head

    def judge_beginning(self, block: bytes) -> Refusal | None:
        """Why a block that is still arriving can never become a request; None while it can."""
        refusal = self._run_llhttp(block)
        if refusal is None or _REQUEST_LINE.match(block) is not None:
            return refusal
        if block.startswith(HTTP_2_PREFACE[: len(block)]):
            return Refusal(505, "http_version_not_supported")
        if b"\r\n" in block or _METHOD_BEGINNING.match(block) is None:
            return _why_no_request_line(block)
        return refusal

    def _learn(self, block: bytes, first: bytes, fields: list[bytes]) -> Refusal | None:
        """Judge lines that are not all known yet, and remember them."""
        match = _REQUEST_LINE.match(block)
        if match is None:
            return _why_no_request_line(block)
        method, target, minor = match.groups()
        if len(target) > self.max_target_bytes:
            return Refusal(414, "target_too_long")
        if method == b"CONNECT":
            return Refusal(405, "method_not_allowed")
        refusal = self._run_llhttp(block)
        if refusal is not None:
            return refusal
        self._remembered_bytes += len(block)
        if self._remembered_bytes > REMEMBERED_BYTES:
            self._remembered_bytes = len(block)
            self._lines.clear()
            self._fields.clear()
        self._lines[first] = _request_line(method, target, minor == b"0")
        for field in fields:
            name, _, value = field.partition(b":")
            self._fields[field] = (name.lower(), value.strip(b" \t"))
        return None

    def _run_llhttp(self, block: bytes) -> Refusal | None:
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

    def _judge_host(self, line: RequestLine, host: bytes | None) -> RequestLine | Refusal:
        """Host is there and one authority; absolute form is taken for that host only (RFC 9112 §3.2)."""
        if host is None:
            if not line.is_http_10:
                return Refusal(400, "host_missing")
        elif _AUTHORITY.fullmatch(host) is None:
            return Refusal(400, "host_malformed")
        else:
            self._good_host = host
        if not line.target:
            return line
        absolute = _ABSOLUTE_FORM.fullmatch(line.target)
        if absolute is None or host is None or absolute[1].lower() != host.lower():
            return Refusal(400, "target_malformed")
        path = absolute[2] if absolute[2][:1] == b"/" else b"/" + absolute[2]
        return _request_line(line.method, path, line.is_http_10)


def _request_line(method: bytes, target: bytes, is_http_10: bool) -> RequestLine:
    path, _, query = target.partition(b"?")
    is_path = target[:1] == b"/" or (target == b"*" and method == b"OPTIONS")
    return RequestLine(method, path.decode("ascii"), query, is_http_10, b"" if is_path else target)


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


def _merge_repeated(fields: list[tuple[bytes, bytes]]) -> dict[bytes, bytes] | Refusal:
    """Join repeated list-valued fields in order (RFC 9110 §5.3); refuse the others."""
    headers: dict[bytes, bytes] = {}
    for name, value in fields:
        if name not in headers:
            headers[name] = value
        elif name in SINGLE_FIELDS or name.startswith(OWN_PREFIXES):
            return Refusal(400, "repeated_header_field")
        else:
            headers[name] = headers[name] + (b"; " if name == b"cookie" else b", ") + value
    return headers


def _judge_framing(head: Head, headers: dict[bytes, bytes]) -> Refusal | None:
    """One way to announce the body's length, and that one exactly (RFC 9112 §6)."""
    if b"transfer-encoding" in headers:
        if b"content-length" in headers or head.is_http_10 or headers[b"transfer-encoding"].lower() != b"chunked":
            return Refusal(400, "ambiguous_body_length")
        head.is_chunked = True
    elif b"content-length" in headers:
        length = headers.pop(b"content-length")  # it is of this one block; the other fields are of all that repeat it
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


def _holds_a_twin(headers: dict[bytes, bytes]) -> bool:
    for name in headers:
        if b"_" in name:
            twin = name.replace(b"_", b"-")
            if twin in headers or twin in GUARDED_TWINS or twin.startswith(OWN_PREFIXES):
                return True
    return False
