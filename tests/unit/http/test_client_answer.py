"""Reading answers: any cut gives the same result, and whatever is ambiguous or too large ends the connection."""

import asyncio
import gzip
import zlib
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from penstock.http.client_answer import AnswerReader, whole_event
from penstock.http.client_messages import BadResponse, ConnectionLost, RequestFailed, Response, ResponseTooLarge
from penstock.http.limits import ClientLimits
from penstock.protocol.event_stream import Event, EventParser
from tests.unit.http.client_scripted import GET, feed, scripted

OK = b"HTTP/1.1 200 OK\r\n"
SSE = OK + b"Content-Type: text/event-stream\r\n"
PACKED = gzip.compress(b'{"a":1}' * 100, mtime=0)
STREAM = b": hi\n\nid: 1\ndata: one\n\nevent: x\r\ndata: two\r\ndata: three\r\n\r\n"


def chunked(*parts: bytes, trailer: bytes = b"") -> bytes:
    return b"".join(b"%x;ext=1\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n" + trailer + b"\r\n"


WELL_FORMED: dict[str, tuple[bytes, bytes, int]] = {
    "length": (OK + b"Content-Length: 3\r\nX-A: 1\r\nx-a: 2\r\n\r\nabc", b"abc", 0),
    "chunked": (OK + b"Transfer-Encoding: Chunked\r\n\r\n" + chunked(b"ab", b"c", trailer=b"X-T: 1\r\n"), b"abc", 0),
    "gzip": (
        OK + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(PACKED[:20], PACKED[20:]),
        b'{"a":1}' * 100,
        0,
    ),
    "deflate": (
        OK
        + b"Content-Encoding: deflate\r\nContent-Length: %d\r\n\r\n" % len(zlib.compress(b"abc"))
        + zlib.compress(b"abc"),
        b"abc",
        0,
    ),
    "interim": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        + OK
        + b"Content-Length: 3\r\n\r\nabc",
        b"abc",
        0,
    ),
    "no content": (b"HTTP/1.1 204 No Content\r\nKeep-Alive: timeout=5, max=9\r\n\r\n", b"", 0),
    "not modified": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", b"", 0),
    "stream": (SSE + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(STREAM[:9], STREAM[9:30], STREAM[30:]), b"", 2),
    "stream of a length": (SSE + b"Content-Length: %d\r\n\r\n" % len(STREAM) + STREAM, b"", 2),
    "packed stream": (
        SSE + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(gzip.compress(STREAM, mtime=0)),
        b"",
        2,
    ),
    "stream of an error": (
        b"HTTP/1.1 500 Oops\r\nContent-Type: text/event-stream\r\nContent-Length: 3\r\n\r\nabc",
        b"abc",
        0,
    ),
    "almost a stream": (OK + b"Content-Type: text/event-streams\r\nContent-Length: 3\r\n\r\nabc", b"abc", 0),
    "close": (OK + b"Connection: close\r\nContent-Length: 3\r\n\r\nabc", b"abc", 0),
    "until the end": (OK + b"\r\nabc", b"abc", 0),
    "stream until the end": (SSE + b"\r\n" + STREAM, b"", 2),
    "old": (b"HTTP/1.0 200 OK\r\n\r\nabc", b"abc", 0),
}
CLOSING = {"close", "until the end", "stream until the end", "old"}


def exchange(
    pieces: list[bytes], *, limits: ClientLimits | None = None, head: bytes = GET, eof: bool = False
) -> tuple[Response | None, list[Event], Any, Any]:
    """Answer, events, failure and connection."""
    events: list[Event] = []

    async def run() -> tuple[Response | None, list[Event], Any, Any]:
        transport = scripted(limits)

        def take(event: Event) -> bool:
            events.append(event)
            return False

        request = transport.protocol.request(head, b"", take)
        try:
            answer = await feed(transport, request, pieces, eof=eof)
        except RequestFailed as error:
            return None, events, error, transport.protocol
        return answer, events, None, transport.protocol

    return asyncio.run(run())


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % len(data) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges) if start < end]


@pytest.mark.parametrize("name", WELL_FORMED)
def test_an_answer_in_one_read_is_understood(name: str) -> None:
    wire, body, events = WELL_FORMED[name]
    answer, seen, error, connection = exchange([wire], eof=True) if "end" in name or name == "old" else exchange([wire])
    assert error is None
    assert answer is not None
    assert (answer.body, len(seen)) == (body, events)
    assert answer.first_byte_at > 0
    assert connection.is_idle() == (name not in CLOSING)
    assert connection.is_closed() == (name in CLOSING)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(WELL_FORMED)), st.lists(st.integers(0, 2000), max_size=12))
def test_any_cut_of_an_answer_gives_the_same_result(name: str, places: list[int]) -> None:
    wire = WELL_FORMED[name][0]
    whole = exchange([wire], eof=name in CLOSING)
    parts = exchange(cut(wire, places), eof=name in CLOSING)
    assert whole[0] is not None
    assert parts[0] is not None
    assert (parts[0].status, parts[0].headers, parts[0].body) == (whole[0].status, whole[0].headers, whole[0].body)
    assert parts[1] == whole[1]
    assert parts[3].is_closed() == whole[3].is_closed()


def test_an_answer_byte_by_byte_is_the_same() -> None:
    for name, (wire, body, events) in WELL_FORMED.items():
        answer, seen, error, _ = exchange([wire[i : i + 1] for i in range(len(wire))], eof=name in CLOSING)
        assert error is None
        assert answer is not None
        assert (answer.body, len(seen)) == (body, events)


def test_names_are_lower_case_repeats_are_joined_and_trailers_left_out() -> None:
    answer = exchange([WELL_FORMED["length"][0]])[0]
    assert answer is not None
    assert answer.headers == {b"content-length": b"3", b"x-a": b"1, 2"}
    answer = exchange([WELL_FORMED["chunked"][0]])[0]
    assert answer is not None
    assert answer.headers == {b"transfer-encoding": b"Chunked"}


def test_events_carry_their_fields() -> None:
    _, events, _, _ = exchange([WELL_FORMED["stream"][0]])
    assert events == [Event(b"one", b"message", b"1"), Event(b"two\nthree", b"x")]


@pytest.mark.parametrize(
    "wire",
    [
        OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        OK + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        OK + b"Content-Length: 3, 3\r\n\r\nabc",
        OK + b"Content-Length: +3\r\n\r\nabc",
        OK + b"Content-Length: -3\r\n\r\nabc",
        OK + b"Content-Length: 0x3\r\n\r\nabc",
        OK + b"Content-Length: 99999999999999999999999\r\n\r\nabc",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: identity\r\n\r\nabc",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        OK + b"X-A: a\r\n b\r\nContent-Length: 0\r\n\r\n",
        OK + b"X-A: a\r\n\tb\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        OK + b"X: a\nContent-Length: 0\r\n\r\n",
        OK + b"X: a\rb\r\nContent-Length: 0\r\n\r\n",
        OK + b"X: a\0b\r\nContent-Length: 0\r\n\r\n",
        OK + b"X : a\r\nContent-Length: 0\r\n\r\n",
        OK + b"X\xc3: a\r\nContent-Length: 0\r\n\r\n",
        OK + b": a\r\nContent-Length: 0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nabc\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n3\nabc\n0\n\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nabc",
        OK + b"Content-Encoding: br\r\nContent-Length: 3\r\n\r\nabc",
        OK + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
        OK + b"Content-Encoding: gzip\r\nContent-Length: 15\r\n\r\n" + PACKED[:15],
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 17,
        b"HTTP/1.1 99 Low\r\n\r\n",
        b"HTTP/1.1 1000 High\r\n\r\n",
        b"<html>no HTTP at all</html>",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ],
)
def test_what_is_no_clear_answer_is_refused_and_the_connection_ends(wire: bytes) -> None:
    for pieces in ([wire], [wire[i : i + 1] for i in range(len(wire))]):
        answer, _, error, connection = exchange(pieces)
        assert answer is None
        assert isinstance(error, BadResponse)
        assert connection.is_closed()


def test_a_second_answer_behind_the_first_ends_the_connection_but_keeps_the_first() -> None:
    for extra in (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"H", b"garbage"):
        answer, _, error, connection = exchange([OK + b"Content-Length: 3\r\n\r\nabc" + extra])
        assert error is None
        assert answer is not None
        assert answer.body == b"abc"
        assert connection.is_closed()


def test_a_body_where_none_belongs_ends_the_connection() -> None:
    answer, _, _, connection = exchange([b"HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nabc"])
    assert answer is not None
    assert answer.body == b""
    assert connection.is_closed()


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 3000000000\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Encoding: br\r\n", b""]
)
def test_an_answer_to_head_ends_with_its_head(framing: bytes) -> None:
    async def run() -> None:
        transport = scripted()
        for _ in range(2):
            request = transport.protocol.request(b"HEAD / HTTP/1.1\r\nhost: x\r\n\r\n")
            answer = await feed(transport, request, [OK + framing + b"X: 1\r\n\r\n"])
            assert (answer.status, answer.body, answer.headers[b"x"]) == (200, b"", b"1")
            assert transport.protocol.is_idle()
        request = transport.protocol.request(b"HEAD / HTTP/1.1\r\nhost: x\r\n\r\n")
        await feed(transport, request, [OK + b"Content-Length: 3\r\n\r\nabc"])
        assert transport.protocol.is_closed()

    asyncio.run(run())


SMALL = ClientLimits(response_bytes=1000, event_bytes=100, header_bytes=500, header_fields=10)
TOO_LARGE: dict[str, bytes] = {
    "announced body": OK + b"Content-Length: 1001\r\n\r\n",
    "chunked body": OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b"a" * 600, b"a" * 401),
    "single chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b"a" * 1001),
    "body until the end": OK + b"\r\n" + b"a" * 1001,
    "unpacked body": OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"a" * 1001, mtime=0),
    "event": SSE + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b"data: " + b"a" * 120 + b"\n\n"),
    "event without end": SSE + b"\r\ndata: " + b"a" * 120,
    "header value": OK + b"Content-Length: 0\r\nX: " + b"a" * 600 + b"\r\n\r\n",
    "header without end": OK + b"X: " + b"a" * 600,
    "reason": b"HTTP/1.1 200 " + b"O" * 600,
    "repeated fields": OK + b"X: a\r\n" * 12 + b"\r\n",
    "trailer": OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"a" * 600,
    "chunk extension": OK + b"Transfer-Encoding: chunked\r\n\r\n1;x=" + b"a" * 600,
}


@pytest.mark.parametrize("name", TOO_LARGE)
def test_what_is_too_large_is_refused_and_the_connection_ends(name: str) -> None:
    wire = TOO_LARGE[name]
    for pieces in ([wire], [wire[i : i + 7] for i in range(0, len(wire), 7)]):
        answer, _, error, connection = exchange(pieces, limits=SMALL)
        assert answer is None
        assert isinstance(error, ResponseTooLarge)
        assert "larger than" in error.reason or "more than" in error.reason
        assert connection.is_closed()


def test_too_many_different_fields_are_refused() -> None:
    wire = OK + b"".join(b"x-%d: a\r\n" % number for number in range(300)) + b"\r\n"
    assert isinstance(exchange([wire])[2], ResponseTooLarge)
    limits = ClientLimits(header_fields=400)
    assert exchange([wire + b"abc"], limits=limits, eof=True)[2] is None


def test_a_stream_may_be_longer_than_any_body_and_any_event() -> None:
    event = b"data: " + b"a" * 80 + b"\n\n"
    wire = SSE + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(*[event] * 100)
    answer, events, error, _ = exchange([wire[i : i + 64] for i in range(0, len(wire), 64)], limits=SMALL)
    assert error is None
    assert answer is not None
    assert len(events) == 100


def test_a_body_of_exactly_the_bound_is_taken() -> None:
    answer = exchange([OK + b"Content-Length: 1000\r\n\r\n" + b"a" * 1000], limits=SMALL)[0]
    assert answer is not None
    assert len(answer.body) == 1000


@pytest.mark.parametrize(
    "wire", [b"", OK, OK + b"Content-Length: 3\r\n\r\nab", SSE + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n"]
)
def test_an_end_in_the_middle_of_an_answer_is_a_lost_connection(wire: bytes) -> None:
    answer, _, error, connection = exchange([wire] if wire else [], eof=True)
    assert answer is None
    assert isinstance(error, ConnectionLost)
    assert not error.unprocessed
    assert ("before it answered" in error.reason) == (not wire)
    assert connection.is_closed()


def test_a_packed_body_cut_off_by_the_end_is_refused() -> None:
    assert isinstance(exchange([OK + b"Content-Encoding: gzip\r\n\r\n" + PACKED[:-4]], eof=True)[2], BadResponse)


def test_the_keep_alive_hint_is_read_and_forgotten_when_it_changes() -> None:
    async def run() -> None:
        transport = scripted()
        connection = transport.protocol
        hints: list[tuple[bytes, float | None]] = [
            (b"timeout=5, max=100", 5.0),
            (b"timeout=5, max=100", 5.0),
            (b"Timeout=7", 7.0),
            (b"timeout=-1", None),
            (b"timeout=99999999999", None),
            (b"max=3", None),
        ]
        for hint, seconds in hints:
            wire = OK + b"Keep-Alive: %b\r\nContent-Length: 0\r\n\r\n" % hint
            await feed(transport, connection.request(GET), [wire])
            assert connection.keep_alive_seconds == seconds
            assert connection.has_expired(connection.idle_since + 6.5) == (seconds is not None)
            assert not connection.has_expired(connection.idle_since + 2.0)

    asyncio.run(run())


def test_no_header_value_and_no_body_is_in_a_repr_or_a_message() -> None:
    wire = OK + b"X-Key: hush\r\nContent-Encoding: hush\r\nContent-Length: 4\r\n\r\nhush"
    _, _, error, connection = exchange([wire])
    assert "hush" not in repr(error) + repr(connection) + str(error.__context__)
    answer = exchange([OK + b"X-Key: hush\r\nContent-Length: 4\r\n\r\nhush"])[0]
    assert repr(answer) == "<Response 200 2 headers 4 bytes>"


def test_a_reader_alone_knows_nobody_to_answer() -> None:
    reader = AnswerReader(ClientLimits())
    hooks: list[Callable[[], None]] = [reader._finish, lambda: reader._answer(b"")]
    for hook in hooks:
        with pytest.raises(NotImplementedError):
            hook()
    with pytest.raises(BadResponse):
        reader.on_headers_complete()


LINES = st.lists(
    st.sampled_from(
        [b"event: message", b"data: ", b"data:", b"id: 1", b"\r\n", b"\n", b"\r", b"x", b" ", b"\xef\xbb\xbf", b":"]
    ),
    max_size=8,
)


@settings(max_examples=1000, deadline=None)
@given(LINES.map(b"".join))
@example(b"data: \n\n")
@example(b"data: x\r\n\r\n")
@example(b"event: message\ndata: x\n\n")
@example(b"event: message\r\ndata: x\r\n\r\n")
def test_the_short_way_to_a_whole_event_gives_what_the_parser_gives(chunk: bytes) -> None:
    found = whole_event(chunk, 0, len(chunk))
    event = None if found is None else Event(chunk[found[0] : found[1]])
    inside = whole_event(b"\n\ndata: " + chunk + b"\n\n", 8, 8 + len(chunk))
    assert inside == (None if found is None else (found[0] + 8, found[1] + 8)), "what stands around it is not looked at"
    if event is not None:
        parser = EventParser(1000)
        parser.feed(b"\n")
        assert parser.feed(chunk) == [event]
        assert parser.feed(b"data: next\n\n") == [Event(b"next")], "nothing is left over"


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                b"data: a\n\n",
                b"data: ",
                b"event: message\r\ndata: b\r\n\r\n",
                b"\xef\xbb\xbf",
                b"c\n",
                b"\n",
                b": x\n\n",
            ]
        ),
        max_size=8,
    )
)
def test_whole_events_and_parts_of_events_may_follow_each_other(chunks: list[bytes]) -> None:
    parser = EventParser(1000)
    expected = [event for chunk in chunks for event in parser.feed(chunk)]
    _, events, error, _ = exchange([SSE + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(*chunks)])
    assert error is None
    assert events == expected


def test_after_the_callback_closed_the_connection_no_more_is_unpacked() -> None:
    async def run() -> None:
        transport = scripted()
        connection = transport.protocol
        seen: list[Event] = []

        def take(event: Event) -> bool:
            seen.append(event)
            connection.close()
            return False

        body = gzip.compress(b"data: a\n\n" * 100_000, mtime=0)
        wire = SSE + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        with pytest.raises(ConnectionLost):
            await feed(transport, connection.request(GET, b"", take), [wire])
        assert len(seen) == 1

    asyncio.run(run())
