"""Sessions that are lent to one call at a time: what a restart of their server costs, and callers that go while one is opened."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from penstock.protocol.versions import Era
from penstock.upstreams.calls import Caller, Result
from tests.unit.upstreams.scripted_http import (
    SESSIONLESS,
    Asked,
    Line,
    Script,
    call_of,
    chunk,
    http,
    initialized,
    result,
    rpc,
    serving,
    stream,
)
from tests.unit.upstreams.stdio_kit import until

MODERN = Caller(Era.MODERN, "2026-07-28", None, b'{"elicitation":{"form":{}},"sampling":{},"roots":{}}')
Tool = Callable[[Asked, Line], Awaitable[bytes | None]]


def server_with(tool: Tool) -> Script:
    """A legacy server without streams beside the calls."""
    issued = 0

    async def script(asked: Asked, line: Line) -> bytes | None:
        nonlocal issued
        if asked.rpc == "server/discover":
            return http(400, b"no session", "text/plain")
        if asked.rpc == "initialize":
            issued += 1
            return initialized(asked, f"s-{issued}", asked.body["params"]["protocolVersion"])
        if asked.rpc == "tools/call":
            return await tool(asked, line)
        return http(405) if asked.method == "GET" else http(202)

    return script


async def test_a_server_that_was_restarted_costs_a_call_one_new_session_however_many_have_rested() -> None:
    forgotten: set[str] = set()
    at_work = asyncio.Event()

    async def tool(asked: Asked, line: Line) -> bytes | None:
        if asked.headers["mcp-session-id"] in forgotten:
            return http(404)
        if asked.body["params"]["name"] == "work":
            await at_work.wait()
        return result(asked, content=[])

    async with serving(server_with(tool)) as (scripted, upstream):
        calls = [asyncio.create_task(upstream.call(call_of(MODERN, "work"))) for _ in range(4)]
        async with asyncio.timeout(5):
            while len(scripted.all("tools/call")) < 4:
                scripted.came.clear()
                await scripted.came.wait()
        at_work.set()
        await asyncio.gather(*calls)
        forgotten |= {asked.headers["mcp-session-id"] for asked in scripted.all("tools/call")}
        assert len(forgotten) == 4
        assert isinstance(await upstream.call(call_of(MODERN, "anew")), Result)
        assert len(scripted.all("initialize")) == 5


@pytest.mark.parametrize("when", ["initialize", "GET"])
async def test_a_session_whose_caller_has_gone_while_it_was_opened_is_ended(when: str) -> None:
    goes_on = asyncio.Event()

    async def tool(asked: Asked, _line: Line) -> bytes | None:
        return result(asked, content=[])

    serve = server_with(tool)

    async def slow(asked: Asked, line: Line) -> bytes | None:
        if asked.rpc == when:
            await goes_on.wait()
        if asked.method == "GET":
            await line.write(stream(end=False))
            await line.until_closed()
            return None
        return await serve(asked, line)

    async with serving(slow) as (scripted, upstream):
        goes_on.set()
        assert isinstance(await upstream.call(call_of(SESSIONLESS, "warm")), Result)
        goes_on.clear()
        scripted.asked.clear()
        task = asyncio.create_task(upstream.call(call_of(MODERN, "work")))
        await scripted.wait_for(when)
        task.cancel()
        await asyncio.wait((task,))
        assert not scripted.all("tools/call")
        goes_on.set()
        assert (await scripted.wait_for("DELETE")).headers["mcp-session-id"] == "s-2"
        await until(lambda: not upstream.state()["streams"] and not upstream.state()["background"])
        assert upstream.state()["sessions"] == 1


@pytest.mark.parametrize("way", ["call", "start"])
async def test_a_session_in_which_a_call_was_cancelled_is_lent_to_nobody_else(way: str) -> None:
    """Until it has read of the cancelling its server may ask and log for that call, on the session's own stream."""

    async def tool(asked: Asked, line: Line) -> bytes | None:
        if asked.body["params"]["name"] == "slow":
            await line.until_closed()
            return None
        return result(asked, content=[])

    async with serving(server_with(tool)) as (scripted, upstream):
        await upstream.call(call_of(MODERN, "warm"))
        slow = call_of(MODERN, "slow")
        if way == "call":
            task = asyncio.create_task(upstream.call(slow))
            await until(lambda: len(scripted.all("tools/call")) == 2)
            task.cancel()
            await asyncio.wait((task,))
        else:
            slow.on_end = lambda _outcome: None
            flight = upstream.start(slow)
            assert flight is not None
            await until(lambda: len(scripted.all("tools/call")) == 2)
            flight.cancel()
        assert isinstance(await upstream.call(call_of(MODERN, "next")), Result)
        sessions = [asked.headers["mcp-session-id"] for asked in scripted.all("tools/call")]
        assert sessions == ["s-1", "s-1", "s-2"]
        assert (await scripted.wait_for("DELETE")).headers["mcp-session-id"] == "s-1"
        words = [asked.rpc for asked in scripted.asked if asked.headers.get("mcp-session-id") == "s-1"]
        assert words.index("notifications/cancelled") < words.index("DELETE")
        await until(lambda: upstream.state()["sessions"] == 1)


async def test_a_call_whose_stream_is_taken_up_again_keeps_its_session_to_itself() -> None:
    goes_on = asyncio.Event()

    async def tool(asked: Asked, _line: Line) -> bytes | None:
        if asked.body["params"]["name"] == "slow":
            head, _, _ = stream().partition(b"0\r\n\r\n")
            return head + chunk(b"id: e1\nretry: 500\ndata:\n\n") + b"0\r\n\r\n"
        return result(asked, content=[])

    serve = server_with(tool)

    async def script(asked: Asked, line: Line) -> bytes | None:
        if asked.method == "GET" and "last-event-id" in asked.headers:
            await goes_on.wait()
            (slow,) = [one for one in scripted.all("tools/call") if one.body["params"]["name"] == "slow"]
            return stream(rpc(id=slow.id, result={"content": []}))
        return await serve(asked, line)

    async with serving(script) as (scripted, upstream):
        await upstream.call(call_of(MODERN, "warm"))
        slow, outcomes = call_of(MODERN, "slow"), list[object]()
        slow.on_end = outcomes.append
        assert upstream.start(slow) is not None
        async with asyncio.timeout(5):
            await scripted.wait_for("tools/call")
            while not any("last-event-id" in asked.headers for asked in scripted.asked):
                scripted.came.clear()
                await scripted.came.wait()
        assert isinstance(await upstream.call(call_of(MODERN, "next")), Result)
        sessions = {
            asked.body["params"]["name"]: asked.headers["mcp-session-id"] for asked in scripted.all("tools/call")
        }
        assert sessions == {"warm": "s-1", "slow": "s-1", "next": "s-2"}
        goes_on.set()
        await until(lambda: len(outcomes) == 1)
        assert isinstance(outcomes[0], Result)
