"""The GET stream of a session at a legacy server: opened again where it broke off, without losing or repeating anything."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from penstock.clock import FakeClock
from penstock.http.client import Response
from penstock.protocol.messages import Message, Notification, Request
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Raw
from penstock.upstreams.interface import Description
from penstock.upstreams.sessions import LegacySession
from penstock.upstreams.streamable_http_link import HttpLink
from penstock.upstreams.streamable_http_settings import StreamableHttpSettings
from penstock.upstreams.streamable_http_stream import (
    DEFAULT_RETRY_SECONDS,
    HEALTHY_SECONDS,
    LONGEST_RETRY_SECONDS,
    SHORTEST_RETRY_SECONDS,
    SessionStream,
)
from tests.unit.upstreams.scripted_http import Asked, Line, Scripted, chunk, http, rpc, stream
from tests.unit.upstreams.stdio_kit import until

CHANGED = rpc(method="notifications/tools/list_changed")
END = b"0\r\n\r\n"
OPEN = stream(end=False)


def event(data: bytes = b"", identity: str | None = None, retry: int | None = None, name: str | None = None) -> bytes:
    """One chunk with one event."""
    lines = [f"id: {identity}"] if identity is not None else []
    lines += [f"retry: {retry}"] if retry is not None else []
    lines += [f"event: {name}"] if name is not None else []
    return chunk("".join(f"{line}\n" for line in lines).encode() + b"data: " + data + b"\n\n")


class Stream:
    """A session's stream at a scripted server: each GET is answered by the next of `answers`, the last one for ever."""

    def __init__(self, scripted: Scripted, link: HttpLink, clock: FakeClock, settings: StreamableHttpSettings) -> None:
        self.scripted, self.link, self.clock = scripted, link, clock
        self.taken: list[Message] = []
        self.missed = 0
        description = Description((Era.LEGACY,), ("2025-11-25",), Raw(b"{}"), Raw(b"{}"))
        head = b"mcp-session-id: s-1\r\nmcp-protocol-version: 2025-11-25\r\n"
        session = LegacySession(("shared", ""), b"s-1", "2025-11-25", description, head)
        self.stream = SessionStream(
            link, session, self.taken.append, missed=self._missed, settings=settings, clock=clock
        )
        self.running: asyncio.Task[Response | None] = asyncio.create_task(self.stream.run())

    def _missed(self) -> None:
        self.missed += 1

    @property
    def gets(self) -> list[Asked]:
        return [asked for asked in self.scripted.asked if asked.method == "GET"]

    async def asked(self, count: int) -> Asked:
        """The last GET, once there are so many."""
        await until(lambda: len(self.gets) >= count)
        return self.gets[-1]

    async def pause(self) -> float:
        """How long it waits before it asks again, to a tenth of a second; moves time on by that."""
        await until(lambda: bool(self.clock._sleepers) or self.running.done())
        before, began_at = len(self.gets), self.clock.now()
        at = self.clock._sleepers[0][0]
        await self.clock.advance(at - began_at)
        await until(lambda: len(self.gets) > before or self.running.done())
        return round(at - began_at, 1)


Answer = bytes | Callable[[Line], Any]


@asynccontextmanager
async def streamed(*answers: Answer, **settings: Any) -> AsyncIterator[Stream]:
    left = list(answers)

    async def script(_: Asked, line: Line) -> bytes | None:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if not isinstance(answer, bytes):
            await answer(line)
            return None
        await line.write(answer)
        if answer.startswith(OPEN[:20]) and b"event-stream" in answer and not answer.endswith(END):
            await line.until_closed()
        return None

    scripted = Scripted(script)
    server = await asyncio.start_server(scripted.serve, "127.0.0.1", 0)
    scripted.port = server.sockets[0].getsockname()[1]
    made = StreamableHttpSettings(url=scripted.url, **settings)
    clock = FakeClock()
    link = HttpLink("s", made, None, clock)
    it = Stream(scripted, link, clock, made)
    try:
        yield it
    finally:
        it.running.cancel()
        await asyncio.wait((it.running,))
        await link.pool.close(loans_too=True)
        server.close()
        await scripted.stop()


async def torn(line: Line) -> None:
    """The connection ends before an answer."""
    line.close()


async def test_what_comes_is_handed_on_and_the_session_is_named() -> None:
    async with streamed(OPEN + event(CHANGED) + event(b"[" + CHANGED + b"," + CHANGED + b"]")) as it:
        await until(lambda: len(it.taken) == 3)
        assert all(isinstance(one, Notification) for one in it.taken)
        (asked,) = it.gets
        assert (asked.headers["mcp-session-id"], asked.headers["mcp-protocol-version"]) == ("s-1", "2025-11-25")
        assert asked.headers["accept"] == "text/event-stream"
        assert "last-event-id" not in asked.headers
        assert (it.missed, it.stream.breaks, it.stream.seen) == (0, 0, 2)
        assert repr(it.stream) == "<SessionStream of s 2 messages>"


async def test_what_is_no_message_is_passed_over() -> None:
    odd = event(b"{}") + event(b"nonsense") + event(CHANGED, name="endpoint") + event(b"") + event(b"[]")
    question = rpc(id=1, method="ping")
    async with streamed(OPEN + odd + event(question)) as it:
        await until(lambda: bool(it.taken))
        assert [type(one) for one in it.taken] == [Request]
        assert not it.running.done()


async def test_a_stream_with_event_ids_is_taken_up_where_it_broke_off_and_nothing_was_missed() -> None:
    first = OPEN + event(CHANGED, "7") + event(b"", "8") + END
    second = OPEN + event(CHANGED) + END
    async with streamed(first, second, OPEN) as it:
        assert await it.pause() == DEFAULT_RETRY_SECONDS
        assert (await it.asked(2)).headers["last-event-id"] == "8"
        assert await it.pause() == DEFAULT_RETRY_SECONDS
        assert (await it.asked(3)).headers["last-event-id"] == "8"
        assert (len(it.taken), it.missed) == (2, 0)


async def test_a_stream_without_event_ids_that_ended_may_have_missed_something() -> None:
    async with streamed(OPEN + event(CHANGED) + END, OPEN + END, OPEN) as it:
        for count in (1, 2):
            await it.pause()
            await it.asked(count + 1)
            await until(lambda: it.missed == count)  # noqa: B023 - awaited here


async def test_a_torn_connection_may_have_missed_something_which_is_told_once_the_stream_is_there_again() -> None:
    async with streamed(OPEN + END, torn, OPEN) as it:
        await it.pause()
        await it.asked(2)
        assert it.missed == 0
        await it.pause()
        await it.asked(3)
        await until(lambda: it.missed == 1)


@pytest.mark.parametrize(
    ("asked", "waits"),
    [(0, SHORTEST_RETRY_SECONDS), (5, SHORTEST_RETRY_SECONDS), (3_000, 3.0), (3_600_000, LONGEST_RETRY_SECONDS)],
)
async def test_the_server_says_how_long_to_wait_within_bounds(asked: int, waits: float) -> None:
    async with streamed(OPEN + event(b"", "1", asked) + END) as it:
        for _ in range(3):
            assert await it.pause() == waits


async def test_a_server_that_ends_each_stream_at_once_is_asked_ever_more_slowly() -> None:
    async with streamed(OPEN + event(b"", None, 0) + END) as it:
        assert [await it.pause() for _ in range(5)] == [1.0, 2.0, 3.0, 4.0, 5.0]
        for _ in range(60):
            last = await it.pause()
        assert last == LONGEST_RETRY_SECONDS
        assert not it.running.done()


async def test_a_stream_that_brings_something_is_opened_again_soon() -> None:
    async with streamed(OPEN + event(CHANGED) + END) as it:
        assert [await it.pause() for _ in range(4)] == [DEFAULT_RETRY_SECONDS] * 4


async def test_a_stream_that_lasted_is_opened_again_soon() -> None:
    gate = asyncio.Event()

    async def quiet(line: Line) -> None:
        await line.write(OPEN)
        await gate.wait()
        await line.write(END)

    async with streamed(OPEN + END, OPEN + END, quiet, OPEN) as it:
        assert [await it.pause() for _ in range(2)] == [1.0, 2.0]
        await it.clock.advance(HEALTHY_SECONDS)
        gate.set()
        assert await it.pause() == DEFAULT_RETRY_SECONDS


async def test_a_server_that_cannot_be_reached_is_given_up_after_so_many_tries() -> None:
    async with streamed(torn, resume_tries=3) as it:
        pauses = [await it.pause() for _ in range(3)]
        assert pauses == [1.0, 2.0, 3.0]
        assert await asyncio.wait_for(it.running, 5) is None
        assert len(it.gets) >= 4


@pytest.mark.parametrize("answer", [http(405), http(404), http(503), http(200, b"{}")])
async def test_a_refusal_ends_it(answer: bytes) -> None:
    async with streamed(answer) as it:
        refusal = await asyncio.wait_for(it.running, 5)
        assert refusal is not None
        assert refusal.status == int(answer[9:12])
        assert (len(it.gets), it.stream.breaks, it.missed) == (1, 0, 0)


def test_the_script_writes_what_it_says() -> None:
    assert json.loads(CHANGED)["method"] == "notifications/tools/list_changed"
