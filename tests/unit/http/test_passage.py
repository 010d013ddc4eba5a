import array
import asyncio
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from penstock.http.passage import MAX_BYTES, MAX_MOVES, SLICE, Passage
from penstock.http.server import Exchange
from tests.unit.http.server_lane import GET, Lane, hold, post, serving

BODY: Final = b"x" * 100


class Worker:
    """A server with a passage; it answers with its number, or gives everybody away."""

    def __init__(self, number: int, lane: Lane, passage: Passage, own: socket.socket) -> None:
        self.number, self.lane, self.passage, self.own = number, lane, passage, own
        self.gives_to = number
        self.stayed = 0
        lane.handle = self._handle

    def _handle(self, exchange: Exchange) -> None:
        request = exchange.request
        again = b"POST %b HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n%b"
        whole = again % (request.path.encode(), len(request.body), request.body)
        if self.gives_to != self.number:
            if exchange.give_away(partial(self.passage.give, self.gives_to, whole)):
                return
            self.stayed += 1
        exchange.respond(200, b"%d %b" % (self.number, request.path.encode()))


@asynccontextmanager
async def workers(count: int = 2, *, is_open: bool = True, at_once: int = SLICE) -> AsyncIterator[list[Worker]]:
    """The first gives all its clients to the second."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="passage-")))
        places = [folder / str(number) for number in range(count)]
        found = []
        for number, place in enumerate(places):
            own = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            own.bind(str(place))
            passage = Passage(own, places, at_once=at_once)
            lane = await stack.enter_async_context(serving())
            worker = Worker(number, lane, passage, own)
            if is_open or number == 0:
                passage.open(lane.server.adopt)
            stack.callback(passage.close)
            found.append(worker)
        found[0].gives_to = 1
        yield found


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd" if Path("/proc/self/fd").exists() else "/dev/fd"))  # noqa: PTH208 - only their number


async def test_what_is_passed_is_answered_by_the_other_and_so_is_all_that_follows() -> None:
    async with workers() as (first, second):
        client = await first.lane.connect()
        for number in range(3):
            client.send(GET % number)
            assert (await client.answer()).body == b"1 /%d" % number
        assert [request.path for request in first.lane.seen] == ["/0"]
        assert (first.passage.passed, second.passage.taken) == (1, 1)
        await first.lane.until(lambda: first.lane.server.connections == 0)
        assert second.lane.server.connections == 1
        assert repr(first.passage) == "<Passage [1 passed 0 taken]>"


async def test_what_was_sent_ahead_goes_along_in_order() -> None:
    async with workers() as (first, second):
        client = await first.lane.connect()
        client.send(post(BODY) + GET % 1 + GET % 2 + (GET % 3)[:20])
        assert [(await client.answer()).body for _ in range(3)] == [b"1 /mcp", b"1 /1", b"1 /2"]
        client.send((GET % 3)[20:])
        assert (await client.answer()).body == b"1 /3"
        assert second.lane.seen[0].body == BODY


async def test_a_client_that_ends_is_noticed_where_it_is_now_and_leaves_nothing() -> None:
    async with workers() as (first, second):
        second.lane.handle = hold
        before = descriptors()
        client = await first.lane.connect()
        client.send(post(BODY))
        exchange = await second.lane.exchange()
        client.close()
        await second.lane.until(lambda: exchange.is_disconnected)
        await second.lane.until(lambda: descriptors() <= before)


async def test_many_at_once_are_all_answered_wherever_they_end_up() -> None:
    async with workers() as (first, second):
        clients = [await first.lane.connect() for _ in range(100)]
        for client in clients:
            client.send(post(BODY))
        answers = [(await client.answer()).body for client in clients]
        assert set(answers) <= {b"0 /mcp", b"1 /mcp"}
        assert second.passage.taken == first.passage.passed == answers.count(b"1 /mcp") > 0
        assert first.stayed == answers.count(b"0 /mcp")


async def test_a_connection_goes_to_and_fro_only_so_often() -> None:
    async with workers() as (first, second):
        second.gives_to = 0
        client = await first.lane.connect()
        for _ in range(3):
            client.send(post(BODY))
            assert (await client.answer()).status == 200
        assert first.passage.passed + second.passage.passed == MAX_MOVES
        assert first.stayed + second.stayed == 3


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"POST /mcp HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx", b"0 /mcp"),
        (b"POST /mcp HTTP/1.0\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", b"0 /mcp"),
        (post(b"x" * (MAX_BYTES + 1)), b"0 /mcp"),
    ],
    ids=["closes", "HTTP/1.0", "too large"],
)
async def test_what_cannot_be_passed_stays(said: bytes, answer: bytes) -> None:
    async with workers() as (first, second):
        client = await first.lane.connect()
        client.send(said)
        assert (await client.answer()).body == answer
        assert second.passage.taken == 0


async def test_nobody_is_passed_to_one_whose_queue_is_full_or_that_is_gone() -> None:
    async with workers(is_open=False) as (first, second):
        clients = [await first.lane.connect() for _ in range(50)]
        for client in clients:
            client.send(post(BODY))
        await first.lane.until(lambda: first.stayed + first.passage.passed == len(clients))
        assert first.passage.passed < len(clients)
        second.passage.open(second.lane.server.adopt)  # it has been started again, and finds them
        for client in clients:
            assert (await client.answer()).status == 200
        assert second.passage.taken == first.passage.passed > 0
        second.passage.close()
        second.own.close()
        client = await first.lane.connect()
        client.send(post(BODY))
        assert (await client.answer()).body == b"0 /mcp"


async def test_all_that_wait_to_be_taken_are_taken_before_none_is_any_more() -> None:
    async with workers(at_once=3) as (first, second):
        clients = [await first.lane.connect() for _ in range(8)]
        asyncio.get_running_loop().remove_reader(second.own.fileno())  # it is busy with other things
        for client in clients:
            client.send(post(BODY))
        await first.lane.until(lambda: first.passage.passed == len(clients))
        second.passage.close()
        for client in clients:
            assert (await client.answer()).body == b"1 /mcp"


async def test_nobody_is_passed_on_while_calls_end() -> None:
    async with workers() as (first, second):
        first.lane.handle = hold
        client = await first.lane.connect()
        client.send(post(BODY))
        exchange = await first.lane.exchange()
        draining = asyncio.create_task(first.lane.server.drain(5))
        await first.lane.until(lambda: first.lane.server.is_draining)
        assert not exchange.give_away(partial(first.passage.give, 1, post(BODY)))
        exchange.respond(200, b"here")
        assert (await client.answer()).body == b"here"
        assert await draining
        assert second.passage.taken == 0


async def test_an_answer_that_is_on_its_way_comes_before_the_client_goes() -> None:
    async with workers() as (first, _second):
        large = b"y" * 8_000_000
        first.lane.handle = hold
        client = await first.lane.connect(read_limit=1 << 20)
        client.send(post(BODY) + post(BODY))
        (await first.lane.exchange()).respond(200, large)
        answered: Callable[[], Any] = client.answer
        assert len((await answered()).body) == len(large)
        exchange = await first.lane.exchange()
        exchange.open_stream()
        assert not exchange.give_away(partial(first.passage.give, 1, post(BODY)))


async def test_what_is_no_connection_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    async with workers() as (first, second):
        before = descriptors()
        read, write = os.pipe()
        both, one_alone = (
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", some))] for some in ([read, write], [read])
        )
        place = second.own.getsockname()
        first.own.sendmsg([b"\x01" + post(BODY)], [], 0, place)
        first.own.sendmsg([b"\x01" + post(BODY)], both, 0, place)
        first.own.sendmsg([b"\x01" + b"x" * (MAX_BYTES + 1)], one_alone, 0, place)
        for one in (read, write):
            os.close(one)
        client = await first.lane.connect()
        client.send(post(BODY))
        assert (await client.answer()).body == b"1 /mcp"
        assert caplog.text.count("a connection came without its request") == 3
        client.close()
        await second.lane.until(lambda: descriptors() <= before)
