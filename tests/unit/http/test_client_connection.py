"""One connection: who is resumed when, and what leaves it usable."""

import asyncio
import gc
import socket
import time

import pytest

from penstock.http.client_connect import connect
from penstock.http.client_connection import ClientConnection
from penstock.http.client_messages import BadResponse, ConnectionLost, Response
from penstock.http.limits import ClientLimits
from penstock.protocol.event_stream import Event
from tests.unit.http.client_scripted import GET, Peer, closing, connected, feed, says, scripted, serving

JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b"b\r\ndata: one\n\n\r\n"
END = b"0\r\n\r\n"


def post(body: bytes) -> bytes:
    return b"POST /mcp HTTP/1.1\r\nhost: test\r\ncontent-length: %d\r\n\r\n" % len(body)


def is_final(event: Event) -> bool:
    return event.data == b"one"


class Taker(list[Event]):
    """Keeps events; one that says "one" is the final one."""

    def __call__(self, event: Event) -> bool:
        self.append(event)
        return is_final(event)


async def settled(connection: ClientConnection) -> None:
    """Wait for `on_settled`."""
    done = asyncio.Event()
    connection.on_settled = lambda _: done.set()
    await asyncio.wait_for(done.wait(), 5)


async def test_many_requests_go_over_one_connection() -> None:
    async with connected(says(JSON)) as connection:
        for number in range(3):
            answer = await connection.request(post(b"{}"), b"{}")
            assert (answer.status, answer.body) == (200, b"{}")
            assert connection.requests_done == number + 1
            assert connection.is_idle()
        assert "idle | requests 3>" in repr(connection)


async def test_the_time_of_the_first_byte_is_known() -> None:
    async with connected(says(JSON[:20], JSON[20:])) as connection:
        before = time.monotonic()
        answer = await connection.request(GET)
        assert before <= answer.first_byte_at <= connection.idle_since <= time.monotonic()


async def test_small_packets_are_not_held_back() -> None:
    async with connected(says(JSON)) as connection:
        assert connection._transport is not None
        sock: socket.socket = connection._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


async def test_a_server_that_vanishes_is_missed_within_two_minutes() -> None:
    async with connected(says(JSON)) as connection:
        assert connection._transport is not None
        sock: socket.socket = connection._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0
        idle = next(getattr(socket, name) for name in ("TCP_KEEPIDLE", "TCP_KEEPALIVE") if hasattr(socket, name))
        first, between, count = (
            sock.getsockopt(socket.IPPROTO_TCP, option) for option in (idle, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        )
        assert 0 < first + between * count <= 120


async def test_a_small_request_is_one_write() -> None:
    transport = scripted()
    await feed(transport, transport.protocol.request(post(b"{}"), b"{}"), [JSON])
    assert transport.written == [post(b"{}") + b"{}"]


async def test_a_second_request_at_the_same_time_is_a_programming_error() -> None:
    transport = scripted()
    first = asyncio.ensure_future(transport.protocol.request(GET))
    await asyncio.sleep(0)
    assert "busy" in repr(transport.protocol)
    with pytest.raises(RuntimeError, match="one request at a time"):
        await transport.protocol.request(GET)
    transport.protocol.data_received(JSON)
    assert (await first).body == b"{}"


# cancelling


async def test_cancelling_the_awaiter_closes_the_connection_at_once() -> None:
    noticed = asyncio.Event()
    asked = asyncio.Event()

    async def answer(peer: Peer) -> None:
        await peer.read_request()
        asked.set()
        await peer.closed_by_client()
        noticed.set()

    async with connected(answer) as connection:
        task = asyncio.ensure_future(connection.request(GET))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert connection.is_closed()
        await asyncio.wait_for(noticed.wait(), 5)


async def test_cancelling_with_much_still_unsent_closes_at_once() -> None:
    async with connected(lambda peer: asyncio.Event().wait()) as connection:  # type: ignore[arg-type,return-value]
        body = b"a" * 30_000_000
        task = asyncio.ensure_future(connection.request(post(body), body))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert connection.is_closed()
        assert connection._unsent is None


async def test_a_detached_request_runs_on_unobserved() -> None:
    transport = scripted()
    connection = transport.protocol
    connection.detach_on_cancel = True
    seen = Taker()
    task = asyncio.ensure_future(connection.request(GET, b"", seen))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "draining" in repr(connection)
    settlements: list[bool] = []
    connection.on_settled = lambda settled: settlements.append(settled.is_idle())
    connection.data_received(SSE + EVENT)
    assert settlements == []
    connection.data_received(END)
    assert settlements == [True]
    assert seen == []
    assert (await feed(transport, connection.request(GET), [JSON])).body == b"{}"
    transport.lose()


async def test_a_detached_request_that_takes_too_long_is_given_up() -> None:
    transport = scripted(ClientLimits(detached_seconds=0.01))
    transport.protocol.detach_on_cancel = True
    task = asyncio.ensure_future(transport.protocol.request(GET))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await settled(transport.protocol)
    assert transport.ended == "aborted"


async def test_a_shorter_wait_replaces_a_longer_timer() -> None:
    transport = scripted(ClientLimits(detached_seconds=1000, finish_grace_seconds=0.01))
    connection = transport.protocol
    connection.detach_on_cancel = True
    task = asyncio.ensure_future(connection.request(GET))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    connection.data_received(JSON)
    assert connection.is_idle()
    await feed(transport, connection.request(GET, b"", is_final), [SSE + EVENT])
    await settled(connection)
    assert connection.is_closed()


async def test_an_answer_that_comes_with_the_cancellation_leaves_the_connection_idle() -> None:
    transport = scripted()
    task = asyncio.ensure_future(transport.protocol.request(GET))
    await asyncio.sleep(0)
    task.cancel()
    transport.protocol.data_received(JSON)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert transport.protocol.is_idle()


async def test_a_failure_that_comes_with_the_cancellation_is_no_failure_of_its_own() -> None:
    transport = scripted()
    task = asyncio.ensure_future(transport.protocol.request(GET))
    await asyncio.sleep(0)
    task.cancel()
    transport.protocol.eof_received()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert transport.protocol.is_closed()


# endings


async def test_an_idle_connection_that_the_server_closes_says_so() -> None:
    closed = asyncio.Event()

    async def answer(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(JSON)

    async with serving(answer) as origin:
        connection = await connect(origin, limits=ClientLimits())
        connection.on_closed = lambda gone: closed.set() if gone is connection else None
        await connection.request(GET)
        await asyncio.wait_for(closed.wait(), 5)
        assert connection.is_closed()
        assert "closed" in repr(connection)
        with pytest.raises(ConnectionLost) as caught:
            await connection.request(GET)
        assert caught.value.unprocessed, "nothing was written: safe to send elsewhere"


async def test_bytes_nobody_asked_for_end_the_connection() -> None:
    unasked = asyncio.Event()

    async def answer(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(JSON)
        await unasked.wait()
        await peer.send(JSON)
        await peer.closed_by_client()

    async with connected(answer) as connection:
        gone = closing(connection)
        await connection.request(GET)
        unasked.set()
        await asyncio.wait_for(gone.wait(), 5)
        assert connection.is_closed()


async def test_even_an_empty_line_nobody_asked_for_ends_the_connection() -> None:
    transport = scripted()
    await feed(transport, transport.protocol.request(GET), [JSON])
    transport.protocol.data_received(b"\r\n")
    assert transport.ended == "aborted"


async def test_an_answer_that_ended_with_its_awaiter_settles_nothing() -> None:
    for ending in ("answer", "loss"):
        transport = scripted()
        settlements: list[ClientConnection] = []
        transport.protocol.on_settled = settlements.append
        task = asyncio.ensure_future(transport.protocol.request(GET))
        await asyncio.sleep(0)
        if ending == "answer":
            transport.protocol.data_received(JSON)
            assert (await task).body == b"{}"
        transport.lose()
        if ending == "loss":
            with pytest.raises(ConnectionLost):
                await task
        assert settlements == []


async def test_a_connection_lost_while_waiting_may_have_been_processed() -> None:
    transport = scripted()
    task = asyncio.ensure_future(transport.protocol.request(GET))
    await asyncio.sleep(0)
    transport.lose(ConnectionResetError(104, "Connection reset by peer"))
    with pytest.raises(ConnectionLost, match=r"before it answered \(Connection reset by peer\)") as caught:
        await task
    assert not caught.value.unprocessed
    assert isinstance(caught.value.__cause__, ConnectionResetError)


async def test_a_body_until_the_end_is_not_complete_when_the_connection_breaks() -> None:
    transport = scripted()
    task = asyncio.ensure_future(transport.protocol.request(GET))
    await asyncio.sleep(0)
    transport.protocol.data_received(b"HTTP/1.1 200 OK\r\n\r\nabc")
    transport.lose(ConnectionResetError(104, "Connection reset by peer"))
    with pytest.raises(ConnectionLost, match="before its answer was complete"):
        await task


async def test_a_write_that_finds_the_transport_closing_was_never_processed() -> None:
    for body in (b"{}", b"a" * 100_000):
        transport = scripted(dies_on_write=True)
        with pytest.raises(ConnectionLost, match="closed by the server") as caught:
            await transport.protocol.request(post(body), body)
        assert caught.value.unprocessed
        assert transport.protocol.is_closed()


async def test_a_connection_without_transport_takes_no_request() -> None:
    transport = scripted()
    transport.lose()
    transport.lose()
    transport.protocol.close()
    transport.protocol.eof_received()
    transport.protocol.data_received(b"late")
    with pytest.raises(ConnectionLost) as caught:
        await transport.protocol.request(GET)
    assert caught.value.unprocessed


async def test_closing_fails_the_request_under_way_and_is_idempotent() -> None:
    transport = scripted()
    task = asyncio.ensure_future(transport.protocol.request(GET))
    await asyncio.sleep(0)
    transport.protocol.close()
    transport.protocol.close()
    with pytest.raises(ConnectionLost, match="closed here") as caught:
        await task
    assert not caught.value.unprocessed
    assert transport.ended == "aborted"


async def test_closing_an_idle_connection_is_done_in_good_order() -> None:
    transport = scripted()
    transport.protocol.close()
    assert transport.ended == "closed"


async def test_an_answer_that_says_close_is_returned_and_the_connection_closed() -> None:
    transport = scripted()
    closing_answer = JSON.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    assert (await feed(transport, transport.protocol.request(GET), [closing_answer])).body == b"{}"
    assert transport.ended == "closed"


async def test_a_broken_stream_after_its_final_event_only_ends_the_connection() -> None:
    transport = scripted()
    answer = await feed(transport, transport.protocol.request(GET, b"", is_final), [SSE + EVENT + b"zz\r\n"])
    assert isinstance(answer, Response)
    assert transport.protocol.is_closed()


async def test_a_server_that_speaks_another_protocol_is_told_from_a_lost_one() -> None:
    async with connected(says(b"\x15\x03\x01\x00\x02\x02\x46")) as connection:
        with pytest.raises(BadResponse, match="not valid HTTP"):
            await connection.request(GET)


# large bodies


async def test_a_large_body_goes_out_as_the_server_takes_it() -> None:
    body = bytes(range(256)) * 40_000

    async def answer(peer: Peer) -> None:
        while request := await peer.read_request():
            assert request.endswith(body)
            await peer.send(JSON)

    async with connected(answer) as connection:
        for _ in range(2):
            answered = await asyncio.wait_for(connection.request(post(body), body), 20)
            assert answered.body == b"{}"
            assert connection.is_idle()


async def test_a_large_body_waits_while_the_transport_is_full() -> None:
    transport = scripted()
    body = b"a" * 700_000
    transport.protocol.pause_writing()
    task = asyncio.ensure_future(transport.protocol.request(post(body), body))
    await asyncio.sleep(0)
    assert transport.written == [post(body)]
    transport.protocol.resume_writing()
    assert b"".join(transport.written) == post(body) + body
    assert max(map(len, transport.written)) <= 256 * 1024
    transport.protocol.data_received(JSON)
    assert (await task).body == b"{}"
    assert transport.protocol.is_idle()


async def test_an_answer_before_the_body_is_through_is_returned_and_the_connection_closed() -> None:
    transport = scripted()
    body = b"a" * 700_000
    transport.protocol.pause_writing()
    task = asyncio.ensure_future(transport.protocol.request(post(body), body))
    await asyncio.sleep(0)
    transport.protocol.data_received(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
    assert (await task).status == 413
    assert transport.ended == "aborted"
    transport.protocol.resume_writing()
    transport.lose()
    transport.protocol.resume_writing()
    assert transport.written == [post(body)]


# growth


async def test_nothing_refers_to_a_closed_connection() -> None:
    transport = scripted()
    await feed(transport, transport.protocol.request(GET, b"", is_final), [SSE + EVENT])
    connection = transport.protocol
    transport.lose()
    gc.collect()
    left = [holder for holder in gc.get_referrers(connection) if type(holder).__name__ == "HttpResponseParser"]
    assert left == []
    assert connection._parser is None
    assert connection._on_event is None
