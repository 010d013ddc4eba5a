import contextlib

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.http.messages import Head
from penstock.http.request_head import HeadParser, Refusal

HOST = b"POST /mcp HTTP/1.1\r\nHost: a\r\n"


def parse(block: bytes, *, max_fields: int = 100, max_target_bytes: int = 8192) -> Head | Refusal:
    """Judge once with a new parser and once with one that knows the lines; both must agree."""
    parser = HeadParser(max_fields, max_target_bytes)
    first, second = parser.parse(block), parser.parse(block)
    if isinstance(first, Head) and isinstance(second, Head):
        assert first.headers == second.headers
        assert repr(first) == repr(second)
    else:
        assert first == second
    return first


def accepted(block: bytes) -> Head:
    head = parse(block)
    assert isinstance(head, Head), head
    return head


def test_an_ordinary_head_is_understood() -> None:
    head = accepted(
        b"POST /mcp/weather?a=b%20c HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Type:application/json \t\r\n"
        b"Mcp-Name: a_b\r\nContent-Length: 12\r\n\r\n"
    )
    assert (head.method, head.path, head.query) == (b"POST", "/mcp/weather", b"a=b%20c")
    assert head.headers == {
        b"host": b"127.0.0.1:8080",
        b"content-type": b"application/json",
        b"mcp-name": b"a_b",
    }
    assert (head.content_length, head.is_chunked, head.keep_alive, head.expects_continue) == (12, False, True, False)
    assert repr(head) == "<Head POST /mcp/weather [3 fields | 12 B]>"


def test_http_1_0_needs_no_host_and_never_keeps_the_connection() -> None:
    head = accepted(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert head.is_http_10
    assert not head.keep_alive


@pytest.mark.parametrize("value", [b"close", b"Close", b"keep-alive, close", b"x ,\tCLOSE"])
def test_connection_close_is_found_among_options(value: bytes) -> None:
    assert not accepted(HOST + b"Connection: " + value + b"\r\n\r\n").keep_alive


def test_connection_close_is_not_found_inside_other_words() -> None:
    assert accepted(HOST + b"Connection: closed, x-close\r\n\r\n").keep_alive


def test_repeated_list_fields_are_joined_in_order_and_cookies_by_semicolon() -> None:
    head = accepted(HOST + b"Accept: a\r\nCookie: x=1\r\naccept: b, c\r\nCookie: y=2\r\n\r\n")
    assert head.headers[b"accept"] == b"a, b, c"
    assert head.headers[b"cookie"] == b"x=1; y=2"


@pytest.mark.parametrize(
    "name",
    [b"host", b"Content-Type", b"Authorization", b"Origin", b"Mcp-Name", b"Mcp-Param-City", b"Mcp-Session-Id",
     b"Penstock-Timing", b"Last-Event-ID", b"Content-Length"],
)  # fmt: skip
def test_a_field_that_may_appear_once_is_refused_twice_even_with_the_same_value(name: bytes) -> None:
    line = name + b": 1\r\n"
    refusal = parse(HOST + line + line.lower() + b"\r\n")
    assert isinstance(refusal, Refusal)
    assert refusal.status == 400


@pytest.mark.parametrize(
    "lines",
    [
        b"mcp_name: x\r\n",
        b"Mcp_Method: x\r\n",
        b"Mcp-Param_City: x\r\n",
        b"penstock_timing: 1\r\n",
        b"Content_Length: 3\r\n",
        b"X_Forwarded-For: 1.2.3.4\r\n",
        b"X-Thing: 1\r\nX_Thing: 2\r\n",
    ],
)
def test_underscore_spellings_of_other_fields_are_refused(lines: bytes) -> None:
    assert parse(HOST + lines + b"\r\n") == Refusal(400, "header_name_imitates_another")


def test_an_underscore_that_imitates_nothing_is_harmless() -> None:
    assert accepted(HOST + b"X_Request_Id: a_b\r\n\r\n").headers[b"x_request_id"] == b"a_b"


@pytest.mark.parametrize(
    "lines",
    [
        b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 3\r\nContent-Length: 3\r\n",
        b"Content-Length: 3\r\nContent-Length: 4\r\n",
        b"Content-Length: 3, 3\r\n",
        b"Content-Length: +3\r\n",
        b"Content-Length: -3\r\n",
        b"Content-Length: 0x3\r\n",
        b"Content-Length: 3 3\r\n",
        b"Content-Length: 3;\r\n",
        b"Content-Length:\r\n",
        b"Content-Length: 99999999999999999999\r\n",
        b"Content-Length: 1234567890123456789\r\n",
        b"Content-Length: \xb2\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: chunked, chunked\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: identity\r\n",
        b"Transfer-Encoding: \x0bchunked\r\n",
        b"Transfer-Encoding: chunked;q=1\r\n",
        b'Transfer-Encoding: "chunked"\r\n',
        b"Transfer-Encoding:\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding\r\n : chunked\r\n",
        b"A: b\r\n c\r\n",
        b"A: b\r\n\tc\r\n",
        b"A : b\r\n",
        b": b\r\n",
        b"A\r\n",
        b"A(: b\r\n",
        b"A\xe9: b\r\n",
        b"A\x00: b\r\n",
        b"A: b\x00c\r\n",
        b"A: b\x01c\r\n",
        b"A: b\x7fc\r\n",
        b"A: b\nc: d\r\n",
        b"A: b\rc: d\r\n",
        b"A: b\r\r\n",
        b"Host: b\r\n",
    ],
)  # fmt: skip
def test_what_two_parsers_could_read_differently_is_refused(lines: bytes) -> None:
    refusal = parse(HOST + lines + b"\r\n")
    assert isinstance(refusal, Refusal), refusal
    assert refusal.status == 400


@pytest.mark.parametrize(
    ("block", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a:x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
        (b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET http://a@b/ HTTP/1.1\r\nHost: b\r\n\r\n", 400),
        (b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET http://a/ HTTP/1.0\r\n\r\n", 400),
        (b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /a\x00b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
        (b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET / http/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\nA: b\r\n\r\n", 400),
        (b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (b"get / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (b"PRI * HTTP/2.0\r\n\r\n", 505),
        (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
        (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
        (b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n", 417),
    ],
)
def test_a_request_that_cannot_be_served_is_refused_with_its_status(block: bytes, status: int) -> None:
    refusal = parse(block)
    assert isinstance(refusal, Refusal), refusal
    assert refusal.status == status


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"http://a", "/", b""),
        (b"http://a?x=1", "/", b"x=1"),
        (b"HTTP://A/mcp?x", "/mcp", b"x"),
        (b"https://a/mcp", "/mcp", b""),
    ],
)
def test_absolute_form_is_taken_for_the_named_host(target: bytes, path: str, query: bytes) -> None:
    head = accepted(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (head.path, head.query) == (path, query)


@pytest.mark.parametrize("host", [b"[::1]:8080", b"a.b-c.example:80", b"127.0.0.1", b"a:"])
def test_hosts_of_every_form_are_taken(host: bytes) -> None:
    assert accepted(b"OPTIONS * HTTP/1.1\r\nHost: " + host + b"\r\n\r\n").path == "*"


def test_an_upgrade_is_ignored() -> None:
    head = accepted(HOST + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n\r\n")
    assert head.keep_alive


def test_expect_continue_is_noticed_on_1_1_and_ignored_on_1_0() -> None:
    assert accepted(HOST + b"Expect: 100-Continue\r\n\r\n").expects_continue
    assert not accepted(b"POST / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n").expects_continue


def test_a_chunked_body_is_understood_on_1_1_only() -> None:
    assert accepted(HOST + b"Transfer-Encoding: Chunked\r\n\r\n").is_chunked
    assert parse(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n") == Refusal(400, "ambiguous_body_length")


def test_the_number_of_fields_is_bounded_for_known_lines_too() -> None:
    lines = [b"X-%d: 1\r\n" % number for number in range(4)]
    parser = HeadParser(3, 100)
    for line in lines:
        assert isinstance(parser.parse(HOST + line + b"\r\n"), Head)
    assert isinstance(parser.parse(HOST + b"".join(lines[:2]) + b"\r\n"), Head)
    assert parser.parse(HOST + b"".join(lines[:3]) + b"\r\n") == Refusal(431, "too_many_header_fields")


def test_the_target_is_bounded() -> None:
    assert parse(b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"x" * 8192)) == Refusal(414, "target_too_long")
    assert isinstance(parse(b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"x" * 8191)), Head)


def test_what_is_remembered_is_bounded() -> None:
    parser = HeadParser(100, 8192)
    for number in range(2000):
        assert isinstance(parser.parse(HOST + b"X-Number: %d%b\r\n\r\n" % (number, b"y" * 1000)), Head)
    assert parser._remembered_bytes <= 1 << 20
    assert len(parser._fields) < 1100
    assert repr(parser).startswith("<HeadParser [≤ 100 fields | ")


@pytest.mark.parametrize(
    ("beginning", "status"),
    [
        (b"GET / HTTP/1.1\nHost", 400),
        (b"GET / HTTP/1.1\r\nHost: a\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n b", 400),
        (b"GET / HTTP/1.1\r\nA\x00", 400),
        (b"\x16\x03\x01\x02\x00\x01", 400),
        (b"BREW", 501),
        (b"GET / HTTP/9.9\r\nA", 505),
    ],
)
def test_a_hopeless_beginning_is_refused_before_it_ends(beginning: bytes, status: int) -> None:
    refusal = HeadParser(100, 8192).judge_beginning(beginning)
    assert refusal is not None
    assert refusal.status == status


GOOD = HOST + b"Accept: a, b\r\nContent-Length: 3\r\nX-Y: \xe9 \t\r\n\r\n"


@given(st.integers(0, len(GOOD) - 1))
def test_every_beginning_of_a_good_head_is_waited_for(length: int) -> None:
    assert HeadParser(100, 8192).judge_beginning(GOOD[:length]) is None


class LlhttpView:
    """What llhttp makes of a block."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.is_complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.is_complete = True


PIECES = st.sampled_from([
    b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"Host: a", b"Content-Length: 3", b"Transfer-Encoding: chunked", b"\x00", b"x",
    b"A: b", b"_", b",", b"\xff", b"HTTP/1.1", b"Connection: upgrade", b"Upgrade: x", b"POST /mcp HTTP/1.1\r\nHost: a\r\n",
])  # fmt: skip


@given(st.lists(PIECES, max_size=12), st.lists(PIECES, max_size=12))
def test_whatever_is_accepted_is_what_llhttp_understood(warm: list[bytes], pieces: list[bytes]) -> None:
    parser = HeadParser(100, 8192)
    for middle in (warm, pieces):
        block = HOST + b"".join(middle) + b"\r\n\r\n"
        block = block[: block.index(b"\r\n\r\n") + 4]
        head = parser.parse(block)
        if isinstance(head, Head):
            view = LlhttpView()
            with contextlib.suppress(httptools.HttpParserUpgrade):
                httptools.HttpRequestParser(view).feed_data(block)
            assert view.is_complete
            joined: dict[bytes, bytes] = {}
            for name, value in view.headers:
                joined[name] = joined[name] + b", " + value if name in joined else value
            joined.pop(b"content-length", None)
            assert head.headers == joined


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (b"Transfer-Encoding: chunked\r\n", b"Content-Length: 3\r\n"),
        (b"Content-Length: 3\r\n", b"Content-Length: 4\r\n"),
        (b"Content-Length: 3\r\n", b"content-length: 3\r\n"),
        (b"Mcp-Name: a\r\n", b"Mcp-Name: b\r\n"),
        (b"X-Thing: a\r\n", b"X_Thing: a\r\n"),
        (b"A: b\r\n", b"Host: b\r\n"),
    ],
)
def test_lines_that_are_known_to_be_good_may_still_not_stand_together(first: bytes, second: bytes) -> None:
    parser = HeadParser(100, 8192)
    for line in (first, second):
        start = b"POST /mcp HTTP/1.1\r\n" if line.startswith(b"Host") else HOST
        assert isinstance(parser.parse(start + line + b"\r\n"), Head)
    refusal = parser.parse(HOST + first + second + b"\r\n")
    assert isinstance(refusal, Refusal)
    assert refusal.status == 400
