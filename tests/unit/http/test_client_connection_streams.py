"""One connection and an event stream: what resumes the awaiter, and when the connection is free again."""

import asyncio
from collections.abc import Callable
from typing import ClassVar

import pytest

from penstock.http.client_connection import ClientConnection
from penstock.http.client_messages import ConnectionLost, ResponseTooLarge
from penstock.http.limits import ClientLimits
from penstock.protocol.event_stream import Event
from tests.unit.http.client_scripted import GET, Peer, connected, feed, scripted
from tests.unit.http.test_client_connection import END, EVENT, JSON, SSE, Taker, is_final, settled


async def test_events_arrive_as_they_are_sent_and_the_final_one_resumes_the_awaiter() -> None:
    go_on = asyncio.Event()

    async def answer(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(SSE, b"c\r\ndata: zero\n\n\r\n")
        await go_on.wait()  # the next event comes only once the first was seen
        await peer.send(EVENT)
        await peer.closed_by_client()

    seen: list[bytes] = []

    def take(event: Event) -> bool:
        seen.append(bytes(event.data))
        go_on.set()
        return is_final(event)

    async with connected(answer) as connection:
        answered = await asyncio.wait_for(connection.request(GET, b"", take), 5)
        assert (answered.status, answered.body, seen) == (200, b"", [b"zero", b"one"])
        assert not connection.is_idle()
        assert not connection.is_closed()
        assert "draining" in repr(connection)


async def test_a_stream_that_ends_with_its_final_event_leaves_the_connection_idle_at_once() -> None:
    transport = scripted()
    connection = transport.protocol
    settlements: list[ClientConnection] = []
    connection.on_settled = settlements.append
    answer = await feed(transport, connection.request(GET, b"", is_final), [SSE + EVENT + END])
    assert answer.body == b""
    assert connection.is_idle()
    await feed(transport, connection.request(GET), [JSON])
    assert settlements == [connection]
    assert connection._watch is None


async def test_after_an_early_finish_the_connection_is_reusable_once_the_stream_has_ended() -> None:
    finish = asyncio.Event()

    async def answer(peer: Peer) -> None:
        while await peer.read_request():
            await peer.send(SSE, EVENT)
            await finish.wait()
            await peer.send(EVENT, END)

    seen = Taker()
    async with connected(answer) as connection:
        for number in range(3):
            finish.clear()
            await connection.request(GET, b"", seen)
            assert len(seen) == number + 1, "what comes after the final event goes to nobody"
            finish.set()
            await settled(connection)
            assert connection.is_idle()
            assert connection.on_settled is None


async def test_a_stream_that_does_not_end_after_its_final_event_is_closed_after_the_grace() -> None:
    transport = scripted(ClientLimits(finish_grace_seconds=0.01))
    connection = transport.protocol
    await feed(transport, connection.request(GET, b"", is_final), [SSE + EVENT])
    await settled(connection)
    assert connection.is_closed()
    assert transport.ended == "aborted"


async def test_one_timer_serves_many_early_finishes() -> None:
    transport = scripted(ClientLimits(finish_grace_seconds=0.05))
    connection = transport.protocol
    for _ in range(50):
        await feed(transport, connection.request(GET, b"", is_final), [SSE + EVENT, END])
    watch = connection._watch
    assert watch is not None
    for _ in range(50):
        await feed(transport, connection.request(GET, b"", is_final), [SSE + EVENT, END])
    assert connection._watch is watch
    await feed(transport, connection.request(GET, b"", is_final), [SSE + EVENT])
    await settled(connection)  # the old timer looks again for the last stream, which never ends
    assert connection.is_closed()
    transport.lose()


async def test_a_timer_that_finds_nothing_to_do_leaves_the_connection_alone() -> None:
    transport = scripted(ClientLimits(finish_grace_seconds=10))
    connection = transport.protocol
    await feed(transport, connection.request(GET, b"", is_final), [SSE + EVENT, END])
    connection._look()
    assert connection.is_idle()
    busy = asyncio.ensure_future(connection.request(GET))
    await asyncio.sleep(0)
    connection._look()
    connection.data_received(JSON)
    assert (await busy).body == b"{}"
    await feed(transport, connection.request(GET, b"", is_final), [SSE + EVENT])
    early = connection._watch
    assert early is not None
    early.cancel()
    connection._look()
    assert connection._watch is not early, "it looks again when the grace is not over"
    transport.lose()
    assert connection.is_closed()


async def test_a_stream_that_ends_without_a_final_event_returns_normally() -> None:
    transport = scripted()
    answer = await feed(transport, transport.protocol.request(GET, b"", lambda _: False), [SSE + EVENT + END])
    assert (answer.status, answer.body) == (200, b"")
    assert transport.protocol.is_idle()


async def test_without_a_callback_a_stream_is_a_body() -> None:
    transport = scripted()
    answer = await feed(transport, transport.protocol.request(GET), [SSE + EVENT + END])
    assert answer.body == b"data: one\n\n"


async def test_what_the_callback_raises_reaches_the_awaiter_and_ends_the_connection() -> None:
    def take(event: Event) -> bool:
        raise LookupError(event.data)

    transport = scripted()
    with pytest.raises(LookupError, match="one"):
        await feed(transport, transport.protocol.request(GET, b"", take), [SSE + EVENT + END])
    assert transport.protocol.is_closed()


async def test_a_callback_may_close_the_connection() -> None:
    transport = scripted()
    connection = transport.protocol
    seen: list[Event] = []

    def take(event: Event) -> bool:
        seen.append(event)
        connection.close()
        return False

    with pytest.raises(ConnectionLost, match="closed here"):
        await feed(
            transport, connection.request(GET, b"", take), [SSE + b"16\r\n" + b"data: one\n\n" * 2 + b"\r\n" + END]
        )
    assert len(seen) == 1


class Gone:
    """A waiter that abandons its request at the first event, and must hear nothing more."""

    takes_views: ClassVar[bool] = False

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.heard = 0

    def on_event(self, _event: Event) -> bool:
        self.connection.abandon()
        return False

    def settle(self, *_: object) -> None:
        self.heard += 1

    def lose(self, _: BaseException) -> None:
        self.heard += 1


@pytest.mark.parametrize("detach", [True, False])
async def test_a_request_abandoned_by_its_own_event_is_not_answered_even_if_its_head_is_known(detach: bool) -> None:
    transport = scripted()
    connection = transport.protocol
    await feed(transport, connection.request(GET, b"", is_final), [SSE + EVENT + END])
    assert connection._repeated_head is not None
    settlements: list[ClientConnection] = []
    connection.detach_on_cancel = detach
    connection.on_settled = settlements.append
    waiter = Gone(connection)
    connection.begin(waiter, GET, b"", waiter.on_event)
    connection.data_received(SSE + EVENT + END)
    assert waiter.heard == 0
    assert connection.is_idle() is detach
    assert settlements == ([connection] if detach else [])
    if detach:
        assert (await feed(transport, connection.request(GET), [JSON])).status == 200


async def test_a_known_head_does_not_let_a_body_over_the_limit_through() -> None:
    transport = scripted(ClientLimits(response_bytes=8))
    chunked = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    assert (await feed(transport, transport.protocol.request(GET), [chunked + b"2\r\n{}\r\n0\r\n\r\n"])).body == b"{}"
    with pytest.raises(ResponseTooLarge):
        await feed(transport, transport.protocol.request(GET), [chunked + b'a\r\n{"a":1234}\r\n0\r\n\r\n'])


async def test_an_answer_that_is_not_read_waits_at_the_server_until_reading_goes_on() -> None:
    event = b"data: %b\n\n" % (b"x" * 65_536)
    peers: list[Peer] = []

    async def floods(peer: Peer) -> None:
        await peer.read_request()
        peers.append(peer)
        await peer.send(SSE, *[b"%x\r\n%b\r\n" % (len(event), event)] * 400, END)

    events = 0

    def count(_event: Event) -> bool:
        nonlocal events
        events += 1
        return False

    async def turns_until(holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not holds():  # noqa: ASYNC110 - what is waited for tells nobody
                await asyncio.sleep(0)

    async with connected(floods) as connection:
        asking = asyncio.create_task(connection.request(GET, b"", count))
        await turns_until(lambda: events > 0)
        connection.pause_reading()
        seen = events
        await turns_until(lambda: peers[0].writer.transport.get_write_buffer_size() > len(event))  # the kernel is full
        assert events == seen < 400
        connection.resume_reading()
        assert (await asyncio.wait_for(asking, 10)).status == 200
        assert events == 400
    connection.pause_reading()  # of what is closed: nothing happens
    connection.resume_reading()
