import asyncio
import logging
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.http.connection import ServerConnection
from penstock.http.limits import ServerLimits
from penstock.http.server import Exchange, HttpServer, Request
from tests.unit.http.server_lane import GET, Lane, echo, hold, post, serving


async def test_requests_on_one_connection_are_answered_one_after_the_other() -> None:
    async with serving() as lane:
        client = await lane.connect()
        for body in (b"one", b"", b"three" * 1000):
            client.send(post(body))
            answer = await client.answer()
            assert (answer.status, answer.body) == (200, body)
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["date"].endswith("GMT")
            assert "connection" not in answer.headers
        assert len(lane.exchanges._queue) == 3  # type: ignore[attr-defined]
        assert lane.server.connections == 1


async def test_what_was_worked_out_from_a_header_block_is_shared_by_its_repeats_whatever_length_they_say() -> None:
    async with serving() as lane:
        client, stranger = await lane.connect(), await lane.connect()
        for sender, sent in (
            (client, post(b"1")),
            (client, post(b"1")),
            (client, GET % 2),
            (client, post(b"x" * 12)),
            (stranger, post(b"123")),
        ):
            sender.send(sent)
            await sender.answer()
        first, again, other, longer, foreign = (request.shared for request in lane.seen)
        assert first is again is longer is foreign
        assert other is not first
        assert [request.body for request in lane.seen] == [b"1", b"1", b"", b"x" * 12, b"123"]


@pytest.mark.parametrize(
    "length", [b"4", b"0004", b"4 ", b"-4", b"+4", b"4, 4", b"", b"4" * 19, b"4\r\nContent-Length: 4"]
)
async def test_a_known_head_with_another_length_is_judged_as_if_it_were_new(length: bytes) -> None:
    sent = b"POST /mcp HTTP/1.1\r\nHost: a\r\nContent-Length: %b\r\n\r\nbody" % length
    async with serving() as lane:
        fresh, used = await lane.connect(), await lane.connect()
        fresh.send(sent)
        expected = await fresh.answer()
        used.send(post(b"once"))
        await used.answer()
        used.send(sent)
        answer = await used.answer()
        assert answer.status == expected.status
        if answer.status == 200:
            assert answer.body == expected.body == b"body"
            used.send(post(b"next"))
            assert (await used.answer()).body == b"next"


async def test_the_limit_of_the_body_holds_for_a_known_head_too() -> None:
    async with serving(limits=ServerLimits(body_bytes=16)) as lane:
        client = await lane.connect()
        client.send(post(b"x" * 16))
        assert (await client.answer()).status == 200
        client.send(post(b"x" * 17))
        assert (await client.answer()).status == 413


async def test_pipelined_requests_are_handled_one_at_a_time_and_answered_in_order() -> None:
    async with serving(handle=hold) as lane:
        client = await lane.connect()
        client.send(b"".join(GET % number for number in range(40)) + post(b"last"))
        for number in range(40):
            exchange = await lane.exchange()
            assert exchange.request.path == f"/{number}"
            assert lane.exchanges.empty()
            exchange.respond(200, b"%d" % number)
            assert (await client.answer()).body == b"%d" % number
        (await lane.exchange()).respond(202)
        assert (await client.answer()).status == 202


async def test_reading_pauses_while_too_much_was_sent_ahead() -> None:
    async with serving(ServerLimits(pipelined_bytes=1000, header_bytes=1000), handle=hold) as lane:
        client = await lane.connect()
        client.send(GET % 0)
        first = await lane.exchange()
        flood = (GET % 1) * 10_000
        client.send(flood)
        connection = next(iter(lane.server.open_connections))
        await lane.until(lambda: connection._reading_paused)
        assert len(connection._stash) < len(flood)
        lane.handle = lambda exchange: exchange.respond(204)
        first.respond(204)
        await lane.until(lambda: len(lane.seen) == 10_001)
        assert not connection._reading_paused


async def test_a_chunked_body_arrives_whole_and_its_trailers_nowhere() -> None:
    async with serving() as lane:
        client = await lane.connect()
        client.send(
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n"
            b"Mcp-Name: evil\r\n\r\n"
        )
        assert (await client.answer()).body == b"abcde"
        assert b"mcp-name" not in lane.seen[0].headers
        client.send(post(b"next"))
        assert (await client.answer()).body == b"next"


async def test_a_body_that_comes_in_parts_ends_where_it_said_it_would() -> None:
    async with serving() as lane:
        client = await lane.connect()
        client.send(post(b"abcdef")[:-4])
        connection = await lane.only_connection()
        await lane.until(lambda: connection.is_under_way)
        client.send(b"cd")
        await lane.until(lambda: connection._received == 4)
        client.send(b"ef" + post(b"next"))
        assert (await client.answer()).body == b"abcdef"
        assert (await client.answer()).body == b"next"


async def test_a_client_that_expects_continue_is_told_to() -> None:
    async with serving() as lane:
        client = await lane.connect()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert (await client.answer()).status == 100
        client.send(b"abc")
        assert (await client.answer()).body == b"abc"


async def test_no_continue_is_sent_once_the_body_has_begun() -> None:
    async with serving() as lane:
        client = await lane.connect()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nab")
        await lane.until(lambda: lane.server.connections == 1)
        client.send(b"c")
        assert (await client.answer()).status == 200


async def test_an_answer_to_head_has_the_length_but_no_body() -> None:
    async with serving(handle=lambda exchange: exchange.respond(200, b"abc")) as lane:
        client = await lane.connect()
        client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n" + GET % 1)
        answer = await client.answer(bodiless=True)
        assert answer.headers["content-length"] == "3"
        assert (await client.answer()).body == b"abc"


async def test_a_204_has_neither_length_nor_body() -> None:
    async with serving(handle=lambda exchange: exchange.respond(204, headers=b"x-a: b\r\n")) as lane:
        client = await lane.connect()
        client.send(GET % 1)
        answer = await client.answer()
        assert answer.status == 204
        assert answer.headers.keys() == {"date", "x-a"}


async def test_any_status_and_content_type_can_be_answered() -> None:
    async with serving(handle=lambda exchange: exchange.respond(299, b"x", b"text/plain", b"a: b\r\n")) as lane:
        client = await lane.connect()
        client.send(GET % 1)
        answer = await client.answer()
        assert (answer.status, answer.body) == (299, b"x")
        assert answer.headers["content-type"] == "text/plain"
        assert answer.headers["a"] == "b"


@pytest.mark.parametrize(
    "request_bytes", [b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"]
)
async def test_the_connection_closes_when_the_client_wants_it_and_what_follows_is_ignored(request_bytes: bytes) -> None:
    async with serving() as lane:
        for after in (b"", GET % 2, b"nonsense\r\n\r\n"):
            status, said = await lane.ask(request_bytes + after)
            assert status == 200
            assert said.count(b"HTTP/1.1 ") == 1
            assert b"connection: close\r\n" in said
        assert len(lane.seen) == 3


async def test_empty_lines_ahead_of_a_request_are_tolerated() -> None:
    async with serving() as lane:
        client = await lane.connect()
        client.send(b"\r\n\r\n" + post(b"a") + b"\r\n")
        assert (await client.answer()).body == b"a"
        client.send(post(b"b"))
        assert (await client.answer()).body == b"b"


BAD = {
    b"GET / HTTP/1.1\r\n\r\n": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n": 400,
    b"GET / HTTP/1.1\nHost: a\n\n": 400,
    b"GET / HTTP/1.1\r\nHost: a\r\nmcp_name: x\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n": 400,
    b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n": 400,
    b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n": 405,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n": 505,
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n": 413,
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\nExpect: 100-continue\r\n\r\n": 413,
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\n\r\n" + b"x" * 2000: 413,
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n": 413,
    b"GET /" + b"x" * 500 + b" HTTP/1.1\r\nHost: a\r\n\r\n": 414,
    b"GET /" + b"x" * 2000: 414,
    b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"x" * 2000: 431,
    b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"x" * 2000 + b"\r\n\r\n": 431,
    b"GET / HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 10 + b"\r\n": 431,
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: more\r\n\r\n": 417,
    b"\x16\x03\x01\x02\x00\x01\x00\x01": 400,
}
SMALL = ServerLimits(header_bytes=1000, header_fields=10, target_bytes=400, body_bytes=1000)


@pytest.mark.parametrize(("data", "status"), BAD.items())
async def test_what_is_refused_is_refused_at_every_cut_and_ends_the_connection(data: bytes, status: int) -> None:
    async with serving(SMALL) as lane:
        for cut in range(0, len(data), 1 + len(data) // 60):
            client = await lane.connect()
            client.send(GET % 1 + data[:cut])
            await client.answer()
            client.send(data[cut:])
            said = await client.rest()
            client.close()
            assert said.startswith(b"HTTP/1.1 %d " % status), (cut, said)
            assert said.count(b"date: ") == 1
            assert b"connection: close\r\n" in said
            assert said.partition(b"\r\n\r\n")[2].startswith(b'{"jsonrpc":"2.0","error":{"code":%d,' % status)
            lane.seen.clear()


async def test_nothing_refused_ever_reaches_the_handler() -> None:
    async with serving(SMALL) as lane:
        for data in BAD:
            await lane.ask(data)
        assert lane.seen == []


async def test_the_request_after_a_refused_one_is_not_looked_at() -> None:
    async with serving() as lane:
        status, _ = await lane.ask(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc" + GET % 1)
        assert status == 400
        assert lane.seen == []


class Sink(asyncio.Transport):
    """A transport that remembers what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass


VALID = [
    GET % 1,
    post(b"abc"),
    post(b""),
    b"\r\n" + post(b"\r\n\r\nGET / HTTP/1.1\r\n\r\n"),
    b"POST /x?y HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1f;q\r\n"
    + b"z" * 31
    + b"\r\n0\r\nT: u\r\n\r\n",
    b"DELETE / HTTP/1.1\r\nhOST: a\r\nAccept: a\r\nAccept: b\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\nX:\t v \r\n\r\n",
]


def as_values(request: Request) -> tuple[bytes, str, bytes, tuple[tuple[bytes, bytes], ...], bytes]:
    return request.method, request.path, request.query, tuple(request.headers.items()), request.body


async def requests_from(pieces: list[bytes]) -> list[tuple[bytes, str, bytes, tuple[tuple[bytes, bytes], ...], bytes]]:
    seen: list[Request] = []

    def handle(exchange: Exchange) -> None:
        seen.append(exchange.request)
        exchange.respond(204)

    lane = Lane()
    server = HttpServer(handle, ServerLimits(), lane.clock)
    connection = ServerConnection(server)
    transport = Sink()
    connection.connection_made(transport)
    for piece in pieces:
        connection.data_received(piece)
    for _ in range(20):
        await asyncio.sleep(0)
    connection.connection_lost(None)
    assert transport.written.count(b"HTTP/1.1 204") == len(seen) == transport.written.count(b"HTTP/1.1 ")
    return [as_values(request) for request in seen]


@settings(deadline=None)
@given(st.lists(st.sampled_from(VALID), min_size=1, max_size=5), st.lists(st.integers(0, 800), max_size=30))
def test_any_cut_of_a_valid_stream_gives_the_same_requests(messages: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(messages)
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})

    async def both() -> None:
        whole = await requests_from([stream])
        assert len(whole) == len(messages)
        assert await requests_from([stream[start:end] for start, end in pairwise(places)]) == whole

    asyncio.run(both())


# time


async def test_a_header_that_does_not_end_in_time_is_answered_408() -> None:
    async with serving() as lane:
        client = await lane.connect()
        client.send(GET % 1)
        await client.answer()
        client.send(b"GET / HTTP/1.1\r\nHo")
        connection = next(iter(lane.server.open_connections))
        await lane.until(lambda: connection.is_under_way)
        await lane.clock.advance(9)
        client.send(b"st: a\r\n")
        await lane.until(lambda: connection._stash.endswith(b"a\r\n"))
        await lane.clock.advance(2)
        assert (await client.rest()).startswith(b"HTTP/1.1 408 ")


async def test_a_client_that_says_nothing_is_closed_without_a_word() -> None:
    async with serving() as lane:
        client = await lane.connect()
        await lane.until(lambda: lane.server.connections == 1)
        await lane.clock.advance(11)
        assert await client.rest() == b""


async def test_a_body_slower_than_the_least_rate_is_answered_408() -> None:
    async with serving(ServerLimits(body_bytes_per_second=100)) as lane:
        client = await lane.connect()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n" + b"x" * 300)
        connection = await lane.only_connection()
        await lane.until(lambda: connection._received == 300)
        await lane.clock.advance(12)
        assert connection.is_under_way
        client.send(b"x" * 300)
        await lane.until(lambda: connection._received == 600)
        await lane.clock.advance(3)
        assert connection.is_under_way
        await lane.clock.advance(3)
        assert (await client.rest()).startswith(b"HTTP/1.1 408 ")


async def test_an_idle_connection_is_closed_after_its_time() -> None:
    async with serving() as lane:
        client = await lane.connect()
        client.send(GET % 1)
        await client.answer()
        await lane.clock.advance(70)
        client.send(GET % 2)
        await client.answer()
        await lane.clock.advance(70)
        assert lane.server.connections == 1
        await lane.clock.advance(10)
        assert await client.rest() == b""


async def test_a_call_may_take_longer_than_any_of_these_times() -> None:
    async with serving(handle=hold) as lane:
        client = await lane.connect()
        client.send(GET % 1)
        exchange = await lane.exchange()
        await lane.clock.advance(500)
        exchange.respond(200, b"late")
        assert (await client.answer()).body == b"late"


async def test_a_refused_client_that_keeps_sending_is_cut() -> None:
    async with serving(ServerLimits(body_bytes=1000)) as lane:
        for is_flood in (True, False):
            client = await lane.connect()
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n")
            assert (await client.answer()).status == 413
            if is_flood:
                client.send(b"x" * 100_000)
            else:
                await lane.clock.advance(4)
            await lane.until(lambda: lane.server.connections == 0)
            client.writer.transport.abort()


async def test_a_handler_that_fails_is_logged_and_answered_500(caplog: pytest.LogCaptureFixture) -> None:
    def fail(exchange: Exchange) -> None:
        raise ValueError(exchange.request.path)

    async with serving(handle=fail) as lane:
        client = await lane.connect()
        with caplog.at_level(logging.ERROR, "penstock.http"):
            client.send(GET % 7)
            answer = await client.answer()
        assert answer.status == 500
        assert b'"reason":"no_answer"' in answer.body
        assert "ValueError: /7" in caplog.text
        lane.handle = echo
        client.send(post(b"fine"))
        assert (await client.answer()).body == b"fine"


async def test_it_shows_what_it_is_doing() -> None:
    async with serving(handle=hold) as lane:
        client = await lane.connect()
        client.send(GET % 1 + GET % 2)
        exchange = await lane.exchange()
        connection = await lane.only_connection()
        shown = repr(connection)
        assert shown.startswith("<ServerConnection ('127.0.0.1', ")
        assert shown.endswith(f" answering [{len(GET % 2)} B ahead]>")
        assert repr(exchange) == "<Exchange GET /1 waiting>"
        client.close()
        await lane.until(lambda: lane.server.connections == 0)
        assert repr(connection) == "<ServerConnection closed [0 B ahead]>"
