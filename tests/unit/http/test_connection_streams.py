import asyncio
import socket
from collections.abc import Iterator

import pytest

from penstock.http.limits import ServerLimits
from tests.unit.http.server_lane import GET, Lane, hold, post, serving


async def test_an_event_stream_is_sent_as_it_comes_and_the_connection_lives_on() -> None:
    async with serving(handle=hold) as lane:
        client = await lane.connect()
        client.send(post(b"x"))
        stream = (await lane.exchange()).open_stream(b"x-a: b\r\n")
        head = await client.answer()
        assert head.headers["content-type"] == "text/event-stream"
        assert head.headers["x-accel-buffering"] == "no"
        assert head.headers["cache-control"] == "no-cache"
        assert head.headers["transfer-encoding"] == "chunked"
        assert head.headers["x-a"] == "b"
        stream.send(b"data: 1\n\n")
        assert await client.until(b"1\n\n\r\n") == b"9\r\ndata: 1\n\n\r\n"
        stream.finish(b"data: 2\n\n")
        assert await client.until(b"\r\n\r\n") == b"9\r\ndata: 2\n\n\r\n0\r\n\r\n"
        client.send(post(b"y"))
        (await lane.exchange()).respond(200, b"again")
        assert (await client.answer()).body == b"again"


async def test_a_quiet_stream_says_every_15_seconds_that_it_lives() -> None:
    async with serving(handle=hold) as lane:
        client = await lane.connect()
        client.send(post(b"x"))
        stream = (await lane.exchange()).open_stream()
        await client.answer()
        await lane.clock.advance(10)
        stream.send(b"data: 1\n\n")
        await lane.clock.advance(10)
        stream.send(b"data: 2\n\n")
        await lane.clock.advance(16)
        assert (
            await client.until(b"here\n\n\r\n") == b"9\r\ndata: 1\n\n\r\n9\r\ndata: 2\n\n\r\ne\r\n: still here\n\n\r\n"
        )
        await lane.clock.advance(16)
        assert await client.until(b"here\n\n\r\n") == b"e\r\n: still here\n\n\r\n"


async def test_a_stream_to_http_1_0_ends_with_the_connection() -> None:
    async with serving(handle=hold) as lane:
        client = await lane.connect()
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        stream = (await lane.exchange()).open_stream()
        stream.send(b"data: 1\n\n")
        stream.finish(b"data: 2\n\n")
        head, _, body = (await client.rest()).partition(b"\r\n\r\n")
        assert b"transfer-encoding" not in head
        assert body == b"data: 1\n\ndata: 2\n\n"


async def test_a_stream_asked_for_with_head_is_only_a_head() -> None:
    async with serving(handle=lambda exchange: exchange.open_stream().finish(b"data: 1\n\n")) as lane:
        client = await lane.connect()
        client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert (await client.rest()).endswith(b"\r\n\r\n")


@pytest.fixture
def sockets() -> Iterator[list[socket.socket]]:
    opened: list[socket.socket] = []
    yield opened
    for one in opened:
        one.close()


async def connect_slow_reader(lane: Lane, sockets: list[socket.socket]) -> socket.socket:
    slow = socket.socket()
    sockets.append(slow)
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.setblocking(False)
    await asyncio.get_running_loop().sock_connect(slow, lane.server.addresses[0])
    await asyncio.get_running_loop().sock_sendall(slow, post(b"x"))
    return slow


async def _read_all(slow: socket.socket, ending: bytes) -> bytes:
    loop, said = asyncio.get_running_loop(), bytearray()
    async with asyncio.timeout(5):
        while not said.endswith(ending):
            said += await loop.sock_recv(slow, 1 << 16)
    return bytes(said)


async def test_a_slow_reader_loses_progress_but_never_the_result(sockets: list[socket.socket]) -> None:
    limits = ServerLimits(stream_queue_events=10)
    async with serving(limits, handle=hold) as lane:
        slow = await connect_slow_reader(lane, sockets)
        stream = (await lane.exchange()).open_stream()
        connection = await lane.only_connection()
        filler = b"data: " + b"p" * 100_000 + b"\n\n"
        while not connection._writing_paused:
            stream.send(filler, droppable=True)
            await asyncio.sleep(0)
        for number in range(100):
            stream.send(b"data: %d\n\n" % number, droppable=True)
        stream.send(b"data: kept\n\n")
        stream.finish(b"data: result\n\n")
        assert stream.dropped > 80
        said = await _read_all(slow, b"0\r\n\r\n")
        assert said.endswith(b"data: 99\n\n\r\nc\r\ndata: kept\n\n\r\ne\r\ndata: result\n\n\r\n0\r\n\r\n")
        assert b"data: 5\n\n" not in said
        await lane.until(lambda: not connection.is_under_way)


async def test_a_reader_that_stays_stalled_is_cut_and_its_call_told(sockets: list[socket.socket]) -> None:
    async with serving(handle=hold) as lane:
        await connect_slow_reader(lane, sockets)
        exchange = await lane.exchange()
        gone = asyncio.Event()
        exchange.on_disconnect = gone.set
        stream = exchange.open_stream()
        connection = await lane.only_connection()
        while not connection._writing_paused:
            stream.send(b"data: " + b"p" * 100_000 + b"\n\n", droppable=True)
            await asyncio.sleep(0)
        await lane.clock.advance(29)
        assert not gone.is_set()
        await lane.clock.advance(3)
        assert gone.is_set()
        await lane.until(lambda: lane.server.connections == 0)


async def test_a_reader_that_is_slow_but_reads_is_kept(sockets: list[socket.socket]) -> None:
    async with serving(handle=hold) as lane:
        slow = await connect_slow_reader(lane, sockets)
        (await lane.exchange()).respond(200, b"x" * 8_000_000)
        connection = await lane.only_connection()
        loop = asyncio.get_running_loop()
        for _ in range(4):
            for _ in range(40):
                await loop.sock_recv(slow, 1 << 16)
            await lane.clock.advance(29)
        assert connection._writing_paused
        assert lane.server.connections == 1
        await lane.clock.advance(31)
        assert lane.server.connections == 0


async def test_requests_wait_while_their_client_does_not_read_answers(sockets: list[socket.socket]) -> None:
    async with serving(handle=lambda exchange: exchange.respond(200, b"x" * 8_000_000)) as lane:
        slow = await connect_slow_reader(lane, sockets)
        loop = asyncio.get_running_loop()
        connection = await lane.only_connection()
        await lane.until(lambda: connection._writing_paused)
        seen = len(lane.seen)
        await loop.sock_sendall(slow, (GET % 1) * 3)
        await lane.until(lambda: bool(connection._stash))
        assert len(lane.seen) == seen
        async with asyncio.timeout(5):
            while len(lane.seen) < seen + 3:
                await loop.sock_recv(slow, 1 << 20)


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("how", ["close", "abort", "half-close"])
async def test_a_client_that_leaves_is_noticed_once_and_at_once(how: str, streams: bool) -> None:
    async with serving(handle=hold) as lane:
        client = await lane.connect()
        client.send(post(b"x"))
        exchange = await lane.exchange()
        calls: list[int] = []
        exchange.on_disconnect = lambda: calls.append(1)
        stream = exchange.open_stream() if streams else None
        if how == "close":
            client.writer.close()
        elif how == "abort":
            client.writer.transport.abort()
        else:
            client.writer.write_eof()
        await lane.until(lambda: exchange.is_disconnected)
        await lane.until(lambda: lane.server.connections == 0)
        assert calls == [1]
        if stream is not None:
            stream.send(b"x")
            stream.finish(b"y")
        else:
            exchange.respond(200, b"too late")
        assert calls == [1]


async def test_a_client_that_half_closes_is_gone_even_while_it_is_behind_with_reading(
    sockets: list[socket.socket],
) -> None:
    async with serving(handle=hold) as lane:
        slow = await connect_slow_reader(lane, sockets)
        exchange = await lane.exchange()
        stream = exchange.open_stream()
        connection = await lane.only_connection()
        while not connection._writing_paused:
            stream.send(b"data: " + b"p" * 100_000 + b"\n\n", droppable=True)
            await asyncio.sleep(0)
        slow.shutdown(socket.SHUT_WR)
        await lane.until(lambda: exchange.is_disconnected)
        await lane.until(lambda: lane.server.connections == 0)


async def test_a_client_that_leaves_after_its_answer_disturbs_nobody() -> None:
    async with serving(handle=hold) as lane:
        client = await lane.connect()
        client.send(post(b"x"))
        exchange = await lane.exchange()
        exchange.on_disconnect = lambda: pytest.fail("the answer was complete")
        exchange.respond(200, b"x")
        await client.answer()
        client.writer.close()
        await lane.until(lambda: lane.server.connections == 0)
        assert not exchange.is_disconnected


async def test_what_was_sent_ahead_dies_with_the_client() -> None:
    async with serving(handle=hold) as lane:
        client = await lane.connect()
        client.send(GET % 1 + GET % 2)
        await lane.exchange()
        client.writer.close()
        await lane.until(lambda: lane.server.connections == 0)
        assert len(lane.seen) == 1


async def test_a_client_that_leaves_in_the_middle_of_a_body_leaves_nothing() -> None:
    async with serving() as lane:
        client = await lane.connect()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
        await lane.only_connection()
        client.writer.close()
        await lane.until(lambda: lane.server.connections == 0)
        assert lane.seen == []
