"""Legacy clients that lose their connection, and come back with `Last-Event-ID`."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from penstock.upstreams.in_memory import CallContext, InMemoryServer, InMemoryUpstream
from tests.unit.gateway.conftest import Line, Running, request_body, until

PROGRESS = {"progressToken": "mine"}


class Slow:
    """A server whose tool says that it works, and answers when it is told to."""

    def __init__(self) -> None:
        self.server = InMemoryServer("slow")
        self.upstream = InMemoryUpstream("slow", self.server)
        self.may_end = asyncio.Event()
        self.steps: asyncio.Queue[float] = asyncio.Queue()

        @self.server.tool("work")
        async def work(_arguments: dict[str, Any], context: CallContext) -> Any:
            context.progress(1)
            ended = asyncio.ensure_future(self.may_end.wait())
            step = asyncio.ensure_future(self.steps.get())
            try:
                while not ended.done():
                    await asyncio.wait((ended, step), return_when=asyncio.FIRST_COMPLETED)
                    if step.done():
                        context.progress(step.result())
                        step = asyncio.ensure_future(self.steps.get())
            finally:
                ended.cancel()
                step.cancel()
            return "done"

        @self.server.tool("later")
        async def later(_arguments: dict[str, Any], context: CallContext) -> Any:
            assert context.call.poll is not None
            context.call.poll(20)
            await self.may_end.wait()
            return "done"


@pytest.fixture
async def slow(empty: Running) -> Slow:
    found = Slow()
    await empty.apply({"slow": lambda: found.upstream})
    await empty.listed()
    return found


@pytest.fixture(autouse=True)
async def lines(empty: Running) -> AsyncIterator[list[Line]]:
    """Every connection of the test, closed at its end."""
    opened: list[Line] = []
    open_line = empty.line

    async def kept() -> Line:
        opened.append(await open_line())
        return opened[-1]

    empty.line = kept  # type: ignore[method-assign]
    yield opened
    for line in opened:
        line.close()
        await asyncio.gather(line.writer.wait_closed(), return_exceptions=True)


async def events_of(line: Line) -> tuple[int, dict[str, str]]:
    """Status and headers of an answer; what follows are chunks of events."""
    head = (await line.until(b"\r\n\r\n")).decode("latin-1").lower()
    fields = dict(field.split(": ", 1) for field in head.split("\r\n")[1:] if ": " in field)
    return int(head[9:12]), fields


async def next_event(line: Line) -> dict[str, str]:
    """The next event with its fields; empty when the stream has ended."""
    size = int((await line.until(b"\r\n")).strip(), 16)
    raw = (await line.reader.readexactly(size + 2)).decode()
    return dict(part.split(": ", 1) for part in raw.strip().split("\n") if ": " in part)


async def called(running: Running, session: str, tool: str, *, meta: bool = True) -> Line:
    """A call whose answer has become a stream."""
    line = await running.line()
    params = {"name": f"slow_{tool}", "arguments": {}} | ({"_meta": PROGRESS} if meta else {})
    line.post(request_body("tools/call", params), {"mcp-session-id": session, "mcp-protocol-version": "2025-11-25"})
    status, _ = await events_of(line)
    assert status == 200
    return line


async def resumed(running: Running, session: str, event_id: str) -> Line:
    line = await running.line()
    head = f"GET /mcp HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\nmcp-session-id: {session}\r\n"
    line.writer.write(f"{head}last-event-id: {event_id}\r\n\r\n".encode())
    status, _ = await events_of(line)
    assert status == 200
    return line


async def test_a_call_goes_on_without_its_client_which_gets_the_rest_when_it_is_back(
    empty: Running, slow: Slow
) -> None:
    _, session = await empty.initialize()
    line = await called(empty, session, "work")
    primed, first = await next_event(line), await next_event(line)
    assert "data" not in primed
    assert '"progress":1' in first["data"]
    line.close()
    slow.steps.put_nowait(2)
    await until(slow.steps.empty)
    back = await resumed(empty, session, first["id"])
    assert '"progress":2' in (await next_event(back))["data"]
    slow.may_end.set()
    assert '"done"' in (await next_event(back))["data"]
    assert await back.until(b"0\r\n\r\n")


async def test_an_answer_that_came_meanwhile_is_kept_and_given_once(empty: Running, slow: Slow) -> None:
    _, session = await empty.initialize()
    line = await called(empty, session, "work")
    primed = await next_event(line)
    line.close()
    slow.may_end.set()
    replay = empty.gateway.context.replay
    await until(lambda: "over" in repr(list(replay._streams.values())))
    back = await resumed(empty, session, primed["id"])
    assert '"progress":1' in (await next_event(back))["data"]
    assert '"done"' in (await next_event(back))["data"]
    assert len(replay) == 0
    again = await resumed(empty, session, primed["id"])
    assert await again.until(b"0\r\n\r\n") == b"0\r\n\r\n"


async def test_nothing_of_another_session_is_given(empty: Running, slow: Slow) -> None:
    _, mine = await empty.initialize()
    _, theirs = await empty.initialize()
    line = await called(empty, mine, "work")
    primed = await next_event(line)
    stranger = await resumed(empty, theirs, primed["id"])
    assert await stranger.until(b"0\r\n\r\n") == b"0\r\n\r\n"
    slow.may_end.set()
    await next_event(line)
    assert '"done"' in (await next_event(line))["data"]


async def test_what_was_missed_on_the_stream_beside_the_calls_is_given_as_well(empty: Running, slow: Slow) -> None:
    _, session = await empty.initialize()
    line = await resumed(empty, session, "unknown")
    primed = await next_event(line)
    line.close()
    listener = next(iter(empty.gateway.listeners._by_view[""]))
    await until(lambda: listener.stream is not None and not listener.stream.is_open)
    listener.tell_list_changed("tools")
    back = await resumed(empty, session, primed["id"])
    assert "notifications/tools/list_changed" in (await next_event(back))["data"]
    listener.tell_list_changed("prompts")
    assert "notifications/prompts/list_changed" in (await next_event(back))["data"]


async def test_a_server_that_lets_its_client_come_back_later_is_followed(empty: Running, slow: Slow) -> None:
    _, session = await empty.initialize()
    line = await called(empty, session, "later", meta=False)
    primed, pause = await next_event(line), await next_event(line)
    assert pause["retry"] == "20"
    assert await line.until(b"0\r\n\r\n")
    slow.may_end.set()
    back = await resumed(empty, session, primed["id"])
    assert '"done"' in (await next_event(back))["data"]


async def test_clients_of_older_revisions_get_ids_but_nothing_empty(empty: Running, slow: Slow) -> None:
    _, session = await empty.initialize(version="2025-06-18")
    line = await called(empty, session, "work")
    first = await next_event(line)
    assert first["id"]
    assert '"progress":1' in first["data"]
    slow.may_end.set()
    assert '"done"' in (await next_event(line))["data"]


async def test_the_end_of_a_session_forgets_what_was_kept_for_it(empty: Running, slow: Slow) -> None:
    _, session = await empty.initialize()
    await called(empty, session, "work")
    assert len(empty.gateway.context.replay) == 1
    await empty.client.request("DELETE", empty.url + "/mcp", {"mcp-session-id": session})
    assert len(empty.gateway.context.replay) == 0
