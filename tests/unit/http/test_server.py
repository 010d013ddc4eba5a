import asyncio
import errno
import socket

import pytest

from penstock.clock import FakeClock
from penstock.errors import ListenError
from penstock.http.client import Origin, connect_over
from penstock.http.connection import NEVER, ServerConnection
from penstock.http.limits import ClientLimits, ServerLimits
from penstock.http.server import REFUSED_CONNECTIONS, SLICE, Exchange, HttpServer
from tests.unit.http.server_lane import GET, echo, hold, post, serving


async def test_localhost_means_both_families() -> None:
    async with serving(host="localhost") as lane:
        assert [address for address, _ in lane.server.addresses] == ["127.0.0.1", "::1"]
        assert len({port for _, port in lane.server.addresses}) == 1
        for host, port in lane.server.addresses:
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(GET % 1)
            assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
            writer.close()


async def test_localhost_is_not_shared_with_a_stranger_on_the_other_family() -> None:
    with socket.socket(socket.AF_INET6) as stranger:
        stranger.bind(("::1", 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        with pytest.raises(ListenError, match=rf"\[::1\]:{port} is in use by another program"):
            await HttpServer.start(echo, host="localhost", port=port)


async def test_an_address_in_brackets_is_understood() -> None:
    async with serving(host="[::1]") as lane:
        assert lane.server.addresses[0][0] == "::1"


async def test_a_port_in_use_is_one_clear_sentence() -> None:
    async with serving() as lane:
        _, port = lane.server.addresses[0]
        with pytest.raises(ListenError) as caught:
            await HttpServer.start(echo, host="127.0.0.1", port=port)
        assert (
            caught.value.message == f"127.0.0.1:{port} is in use by another program; stop it or listen on another port"
        )
        assert isinstance(caught.value.__cause__, OSError)
        assert caught.value.__cause__.errno == errno.EADDRINUSE


@pytest.mark.parametrize("host", ["203.0.113.1", "no-such-host.invalid"])
async def test_an_address_of_another_machine_cannot_be_listened_on(host: str) -> None:
    with pytest.raises(ListenError, match=host):
        await HttpServer.start(echo, host=host, port=0)


async def test_two_servers_share_a_port_when_asked_to() -> None:
    first = await HttpServer.start(echo, host="127.0.0.1", port=0, reuse_port=True)
    second = await HttpServer.start(echo, host="127.0.0.1", port=first.addresses[0][1], reuse_port=True)
    assert first.addresses == second.addresses
    first.close()
    second.close()


async def test_a_connection_too_many_is_told_so_and_closed_and_the_others_go_on() -> None:
    async with serving(ServerLimits(connections=2)) as lane:
        first, second = await lane.connect(), await lane.connect()
        await lane.until(lambda: lane.server.connections == 2)
        third = await lane.connect()
        said = await third.rest()
        assert said.startswith(b"HTTP/1.1 503 ")
        assert b'"reason":"too_many_connections"' in said
        third.close()
        for client in (first, second):
            client.send(post(b"x"))
            assert (await client.answer()).status == 200
        assert lane.server.refused == 1
        await lane.until(lambda: lane.server.connections == 2)
        first.close()
        await lane.until(lambda: lane.server.connections == 1)
        fourth = await lane.connect()
        fourth.send(post(b"y"))
        assert (await fourth.answer()).status == 200


class AbortedTransport(asyncio.Transport):
    """A transport that only notes how it was treated."""

    def __init__(self) -> None:
        super().__init__()
        self.treated: list[str] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.treated.append("write")

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return False

    def abort(self) -> None:
        self.treated.append("abort")


async def test_refusing_is_bounded_too() -> None:
    async with serving(ServerLimits(connections=0)) as lane:
        transports = [AbortedTransport() for _ in range(REFUSED_CONNECTIONS + 1)]
        connections = [ServerConnection(lane.server) for _ in transports]
        for connection, transport in zip(connections, transports, strict=True):
            connection.connection_made(transport)
        assert [transport.treated for transport in transports[:-1]] == [["write"]] * REFUSED_CONNECTIONS
        assert transports[-1].treated == ["abort"]
        for connection in connections:
            connection.connection_lost(None)


async def test_one_connections_trouble_does_not_keep_the_sweep_from_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Troubled(AbortedTransport):
        def close(self) -> None:
            raise OSError("in trouble")

    async with serving() as lane:
        client = await lane.connect()
        await lane.only_connection()
        troubled, transport = ServerConnection(lane.server), Troubled()
        troubled.connection_made(transport)
        await lane.clock.advance(11)
        assert await client.rest() == b""
        assert transport.treated == ["abort"]
        assert "a connection's deadline could not be kept" in caplog.text
        troubled.connection_lost(None)


async def test_many_whose_time_is_up_are_looked_at_in_slices_and_not_if_they_went_on_meanwhile() -> None:
    class Closing(AbortedTransport):
        def close(self) -> None:
            if not closed:
                going_on = next(one for one in connections if one._transport is not self)
                going_on.deadline = NEVER
            closed[self] = turn

    turn, closed = 0, dict[Closing, int]()
    async with serving() as lane:
        connections = [ServerConnection(lane.server) for _ in range(5 * SLICE)]
        for connection in connections:
            connection.connection_made(Closing())
        advancing = asyncio.create_task(lane.clock.advance(11))
        while not advancing.done() or len(closed) < 5 * SLICE - 1:
            await asyncio.sleep(0)
            turn += 1
        assert len(closed) == 5 * SLICE - 1
        assert max(list(closed.values()).count(one) for one in closed.values()) <= SLICE
        for connection in connections:
            connection.connection_lost(None)


async def test_the_date_moves_with_the_sweep() -> None:
    async with serving() as lane:
        client = await lane.connect()
        dates = set()
        for _ in range(3):
            client.send(post(b"x"))
            dates.add((await client.answer()).headers["date"])
            await lane.clock.advance(1)
        assert len(dates) == 3


# draining


async def test_a_drain_closes_idle_connections_at_once_and_lets_calls_end() -> None:
    async with serving(handle=hold) as lane:
        idle, busy, streaming = await lane.connect(), await lane.connect(), await lane.connect()
        busy.send(post(b"x") + post(b"never handled"))
        call = await lane.exchange()
        streaming.send(post(b"y"))
        stream = (await lane.exchange()).open_stream()
        await lane.until(lambda: lane.server.connections == 3)
        drain = asyncio.create_task(lane.server.drain(10))
        assert await idle.rest() == b""
        assert "draining" in repr(lane.server)
        with pytest.raises(ConnectionRefusedError):
            await lane.connect()
        call.respond(200, b"done")
        answer = await busy.answer()
        assert (answer.body, answer.headers["connection"]) == (b"done", "close")
        assert await busy.rest() == b""
        busy.close()
        assert not drain.done()
        stream.finish(b"data: 1\n\n")
        assert (await streaming.rest()).endswith(b"data: 1\n\n\r\n0\r\n\r\n")
        assert await drain is True
        assert len(lane.seen) == 2


async def test_a_request_that_is_arriving_when_the_drain_begins_is_still_answered() -> None:
    async with serving() as lane:
        client = await lane.connect()
        client.send(post(b"abc")[:-1])
        connection = await lane.only_connection()
        await lane.until(lambda: connection.is_under_way)
        drain = asyncio.create_task(lane.server.drain(10))
        await asyncio.sleep(0)
        client.send(b"c")
        answer = await client.answer()
        assert (answer.body, answer.headers["connection"]) == (b"abc", "close")
        assert await drain is True


async def test_what_is_left_at_the_deadline_is_cut_and_its_calls_cancelled() -> None:
    ended: list[str] = []

    async def call(exchange: Exchange) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append(exchange.request.path)

    async with serving(handle=lambda exchange: exchange.spawn(call(exchange))) as lane:
        client = await lane.connect()
        client.send(post(b"x"))
        exchange = await lane.exchange()
        drain = asyncio.create_task(lane.server.drain(10))
        await lane.clock.advance(8)
        assert not drain.done()
        await lane.clock.advance(3)
        assert await drain is False
        assert ended == ["/mcp"]
        assert exchange.is_disconnected
        assert await client.rest() == b""


async def test_a_call_that_will_not_be_cancelled_does_not_hold_up_the_end() -> None:
    release = asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    async with serving(handle=lambda exchange: exchange.spawn(stubborn())) as lane:
        client = await lane.connect()
        client.send(post(b"x"))
        await lane.exchange()
        drain = asyncio.create_task(lane.server.drain())
        await lane.clock.advance(35)
        assert await drain is False
        release.set()


async def test_a_drain_waits_for_calls_whose_clients_left() -> None:
    go = asyncio.Event()

    async def call() -> None:
        await go.wait()

    async with serving(handle=lambda exchange: exchange.spawn(call())) as lane:
        client = await lane.connect()
        client.send(post(b"x"))
        await lane.exchange()
        client.close()
        await lane.until(lambda: lane.server.connections == 0)
        drain = asyncio.create_task(lane.server.drain(10))
        await lane.clock.advance(5)
        assert not drain.done()
        go.set()
        assert await drain is True


async def test_a_connection_accepted_while_draining_has_a_moment_to_be_answered() -> None:
    async with serving() as lane:
        client = await lane.connect()
        await lane.only_connection()
        lane.server.is_draining = True
        late = await lane.connect()
        await lane.until(lambda: lane.server.connections == 2)
        late.send(post(b"x"))
        assert (await late.answer()).headers["connection"] == "close"
        silent = await lane.connect()
        await lane.clock.advance(2)
        assert await silent.rest() == b""
        client.close()


async def test_a_server_with_nothing_to_do_drains_at_once() -> None:
    async with serving() as lane:
        assert await lane.server.drain(10) is True


async def test_it_shows_its_state() -> None:
    async with serving() as lane:
        port = lane.server.addresses[0][1]
        assert repr(lane.server) == f"<HttpServer 127.0.0.1:{port} listening [0 connections | 0 calls]>"
        lane.server.close()
        assert repr(lane.server) == f"<HttpServer 127.0.0.1:{port} closed [0 connections | 0 calls]>"


async def test_a_private_server_has_no_address_and_serves_who_joins_it_here() -> None:
    def answer(exchange: Exchange) -> None:
        exchange.respond(200, exchange.request.body)

    server = HttpServer.start_private(answer, limits=ServerLimits(), clock=FakeClock())
    assert server.addresses == []
    origin, clients = Origin("http", "localhost", 80), []
    for size in (1, 3_000_000):  # the second in many pieces, both ways
        clients.append(await connect_over(await server.join(), origin, limits=ClientLimits()))
        head = b"POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % size
        response = await asyncio.wait_for(clients[-1].request(head, b"x" * size), 5)
        assert (response.status, len(response.body)) == (200, size)
    assert server.connections == 2
    drained = asyncio.create_task(server.drain(5))
    assert await asyncio.wait_for(drained, 5) is True
    await asyncio.sleep(0)
    assert server.connections == 0
    for client in clients:
        client.close()
