"""Batches, which 2025-03-26 alone has."""

import asyncio
from typing import Any

import msgspec
import pytest

from penstock.upstreams.in_memory import InMemoryUpstream, Step
from tests.unit.gateway.conftest import Running, request_body, until

OLD = {"mcp-protocol-version": "2025-03-26"}
NOTE = {"jsonrpc": "2.0", "method": "notifications/initialized"}
PING = request_body("ping", request_id=1)
NOW = {"name": "weather_now", "arguments": {}}


async def batch(running: Running, items: Any, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    response = await running.post("/mcp", items, OLD if headers is None else headers)
    return response.status, msgspec.json.decode(response.body) if response.body else None


async def test_every_member_is_answered_in_order(running: Running) -> None:
    call = request_body("tools/call", NOW, "two")
    reply = {"jsonrpc": "2.0", "id": 5, "result": {}}
    status, answers = await batch(running, [PING, NOTE, call, reply, request_body("nothing", request_id=3)])
    assert status == 200
    assert [answer["id"] for answer in answers] == [1, "two", 3]
    assert answers[0]["result"] == {}
    assert answers[1]["result"]["content"][0]["text"] == "rain"
    assert answers[2]["error"]["code"] == -32601


@pytest.mark.parametrize("headers", [OLD, {}], ids=["named", "by default"])
async def test_a_batch_of_notifications_alone_is_202(running: Running, headers: dict[str, str]) -> None:
    assert await batch(running, [NOTE, NOTE], headers) == (202, None)


async def test_a_member_that_is_no_message_is_answered_as_such_and_the_others_are_served(running: Running) -> None:
    items = [5, PING, {"jsonrpc": "2.0", "id": 1.5, "method": "ping"}, request_body("initialize"), PING]
    status, answers = await batch(running, items)
    assert status == 200
    assert [answer.get("error", {}).get("code", 0) for answer in answers] == [-32600, 0, -32600, -32600, -32600]
    assert [answer["id"] for answer in answers] == [None, 1, None, 7, 1]


@pytest.mark.parametrize(
    ("items", "code"),
    [([], -32600), ([PING] * 101, -32600), (b"[{},", -32700)],
    ids=["empty", "too many", "cut off"],
)
async def test_what_is_no_batch_is_400_as_a_whole(running: Running, items: Any, code: int) -> None:
    status, answer = await batch(running, items)
    assert (status, answer["error"]["code"], answer["id"]) == (400, code, None)


@pytest.mark.parametrize("version", ["2025-06-18", "2025-11-25", "2026-07-28", "2024-11-05"])
async def test_other_revisions_have_no_batches(running: Running, version: str) -> None:
    status, answer = await batch(running, [PING], {"mcp-protocol-version": version})
    assert (status, answer["error"]["code"]) == (400, -32600)


async def test_a_batch_of_a_lost_session_is_404_as_a_whole(running: Running) -> None:
    status, answer = await batch(running, [PING, NOTE], OLD | {"mcp-session-id": "made-up"})
    assert (status, answer["error"]["code"]) == (404, -32600)


async def test_a_member_cancelled_by_its_own_batch_has_no_answer(running: Running) -> None:
    upstream = await held(running)
    _, session = await running.initialize(version="2025-03-26")
    cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2}}
    items = [PING, request_body("tools/call", NOW, 2), cancel]
    status, answers = await batch(running, items, OLD | {"mcp-session-id": session})
    assert status == 200
    assert [answer["id"] for answer in answers] == [1]
    assert upstream.in_flight == 0
    assert not running.server.tasks


async def test_a_member_cancelled_later_has_no_answer(running: Running) -> None:
    upstream = await held(running)
    _, session = await running.initialize(version="2025-03-26")
    headers = OLD | {"mcp-session-id": session}
    waiting = asyncio.create_task(batch(running, [request_body("tools/call", NOW, 2)], headers))
    await until(lambda: upstream.in_flight == 1)
    cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2}}
    assert (await running.post("/mcp", cancel, headers)).status == 202
    assert await waiting == (202, None)


async def test_the_batch_of_a_client_that_is_gone_runs_to_its_end(running: Running) -> None:
    upstream = await held(running)
    line = await running.line()
    line.post([request_body("tools/call", NOW, 2)], OLD)
    await until(lambda: upstream.in_flight == 1)
    line.close()
    await until(lambda: running.server.connections == 0)
    assert upstream.every_call.wait_for is not None
    upstream.every_call.wait_for.set()
    await until(lambda: not running.server.tasks)
    assert not upstream.cancelled


async def held(running: Running) -> InMemoryUpstream:
    await running.listed()
    upstream = running.gateway.context.snapshot.servers["weather"].upstream
    assert isinstance(upstream, InMemoryUpstream)
    upstream.every_call = Step(wait_for=asyncio.Event())
    return upstream


async def test_a_member_whose_server_says_more_than_its_answer_is_answered_all_the_same(running: Running) -> None:
    await running.listed()
    params = {"name": "weather_forecast", "arguments": {}, "_meta": {"progressToken": 1}}
    headers = OLD | {"accept": "application/json, text/event-stream"}
    status, answers = await batch(running, [PING, request_body("tools/call", params, 2)], headers)
    assert status == 200
    assert [answer["id"] for answer in answers] == [1, 2]
    assert answers[1]["result"]["content"][0]["text"] == "sunny in town"
