"""Modern clients of a whole gateway: cancelling, waiting for lists, what is neither request nor call."""

import asyncio
from typing import Any

import msgspec
import pytest

from penstock.errors import ServerTimedOut, ServerUnavailable
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Failure, Result
from penstock.upstreams.in_memory import CallContext, InMemoryServer, InMemoryUpstream, InputRequired, Refused, Step
from tests.unit.gateway.conftest import (
    MODERN_META,
    Running,
    modern_headers,
    plan_of,
    request_body,
    until,
    weather_server,
)

NOW: dict[str, Any] = {"name": "weather_now", "arguments": {}}


async def upstream_of(running: Running) -> InMemoryUpstream:
    await running.listed()
    upstream = running.gateway.context.snapshot.servers["weather"].upstream
    assert isinstance(upstream, InMemoryUpstream)
    return upstream


@pytest.mark.parametrize("with_progress", [False, True], ids=["plain", "streaming"])
async def test_closing_the_response_cancels_the_call_at_once(running: Running, with_progress: bool) -> None:
    upstream = await upstream_of(running)
    started, meta = asyncio.Event(), MODERN_META | ({"progressToken": 1} if with_progress else {})

    @upstream.server.tool("now")
    async def now(_arguments: dict[str, Any], context: CallContext) -> Any:
        context.progress(1)
        started.set()
        await asyncio.Event().wait()

    line = await running.line()
    line.post(request_body("tools/call", NOW | {"_meta": meta}), modern_headers("tools/call", NOW))
    await started.wait()
    if with_progress:
        assert b"notifications/progress" in await line.until(b"\n\n")
    line.close()
    await until(lambda: upstream.in_flight == 0)
    assert [call.method for call in upstream.cancelled] == ["tools/call"]
    await until(lambda: not running.server.tasks)
    cells = {cell.tool: cell for cell in running.gateway.cells if cell.method == "tools/call"}
    assert cells["now"].outcomes["cancelled"] == 1


async def test_closing_the_response_of_a_list_that_waits_ends_the_waiting(empty: Running) -> None:
    upstream = InMemoryUpstream("weather", weather_server())
    upstream.every_call = Step(wait_for=asyncio.Event())
    await empty.apply({"weather": lambda: upstream})
    line = await empty.line()
    line.post(request_body("tools/list", {"_meta": MODERN_META}), modern_headers("tools/list", {}))
    await until(lambda: empty.server.tasks)
    line.close()
    await until(lambda: not empty.server.tasks)


@pytest.mark.parametrize("method", ["tools/list", "server/discover"])
async def test_a_list_waits_for_a_server_never_listed_and_not_longer_than_its_bound(
    empty: Running, method: str
) -> None:
    slow = InMemoryUpstream("slow", weather_server())
    slow.every_call = Step(wait_for=asyncio.Event())
    quick = InMemoryUpstream("quick", weather_server())
    plans = {
        "slow": plan_of("slow", lambda: slow, list_seconds=0.05),
        "quick": plan_of("quick", lambda: quick),
    }
    await empty.gateway.apply(plans, ())
    answer = await empty.modern(method)
    assert answer["status"] == 200
    if method == "tools/list":
        assert [tool["name"] for tool in answer["result"]["tools"]] == ["quick_forecast", "quick_now"]
        assert answer["result"]["ttlMs"] == 0
    again = await asyncio.wait_for(empty.modern("tools/list"), 1)  # nobody waits a second time
    assert len(again["result"]["tools"]) == 2
    assert "slow" in repr(empty.gateway.context.snapshot.servers["slow"])
    assert empty.gateway.context.snapshot.servers["slow"].state == "starting"


async def test_a_server_that_lists_itself_in_time_is_in_the_first_answer(empty: Running) -> None:
    gate = asyncio.Event()
    upstream = InMemoryUpstream("weather", weather_server())
    upstream.every_call = Step(wait_for=gate)
    await empty.apply({"weather": lambda: upstream})
    listing = asyncio.create_task(empty.modern("tools/list"))
    await until(lambda: empty.server.tasks)
    gate.set()
    assert len((await listing)["result"]["tools"]) == 2


async def test_notifications_are_202_and_responses_400(running: Running) -> None:
    headers = {"mcp-protocol-version": "2026-07-28"}
    note = await running.post("/mcp", {"jsonrpc": "2.0", "method": "notifications/whatever"}, headers)
    assert (note.status, note.body) == (202, b"")
    response = await running.post("/mcp", {"jsonrpc": "2.0", "id": 1, "result": {}}, headers)
    assert response.status == 400
    assert msgspec.json.decode(response.body)["error"]["code"] == -32600


async def test_the_body_alone_can_say_that_a_request_is_modern(running: Running) -> None:
    response = await running.post("/mcp", request_body("tools/list", {"_meta": MODERN_META}))
    assert response.status == 400
    assert msgspec.json.decode(response.body)["error"]["code"] == -32020


async def test_tasks_and_what_the_era_has_given_up_are_unknown(running: Running) -> None:
    for method in ("tasks/get", "ping", "resources/subscribe", "logging/setLevel"):
        params = {"taskId": "x"} if method == "tasks/get" else {}
        answer = await running.modern(method, params, headers={"mcp-name": "x"} if params else None)
        assert (answer["status"], answer["error"]["code"]) == (404, -32601), method


@pytest.mark.parametrize(
    ("step", "status", "code"),
    [
        (Step(error=ServerUnavailable("weather", "it fell over")), 503, 503),
        (Step(error=ServerTimedOut("weather")), 504, 504),
        (Step(answer=Failure(-32001, "Of its own", None, Era.LEGACY)), 200, -32001),
        (Step(answer=Failure(-32603, "Internal error", b"{}", Era.MODERN)), 200, -32603),
        (Step(answer=Failure(-32021, "Missing capability", b"{}", Era.MODERN)), 400, -32021),
        (Step(answer=Result(b"5", Era.LEGACY)), 502, 502),
    ],
    ids=["down", "late", "legacy error", "modern error", "missing capability", "no result"],
)
async def test_each_failure_has_its_status(running: Running, step: Step, status: int, code: int) -> None:
    upstream = await upstream_of(running)
    upstream.order(step)
    answer = await running.modern("tools/call", NOW)
    assert (answer["status"], answer["error"]["code"], answer["id"]) == (status, code, 7)


async def test_a_question_of_a_server_passes_through_and_its_answer_too(running: Running) -> None:
    upstream = await upstream_of(running)

    @upstream.server.tool("now")
    async def now(_arguments: dict[str, Any], context: CallContext) -> Any:
        if context.input_responses is None:
            return InputRequired({"q": {"method": "elicitation/create", "params": {}}}, "state")
        return f"{context.request_state} {context.input_responses['q']}"

    declared: dict[str, Any] = {"io.modelcontextprotocol/clientCapabilities": {"elicitation": {}}}
    asked = (await running.modern("tools/call", NOW, meta=declared))["result"]
    assert asked["resultType"] == "input_required"
    assert asked["requestState"] != "state", "it is sealed"
    params = NOW | {"inputResponses": {"q": {"action": "accept"}}, "requestState": asked["requestState"]}
    answer = await running.modern("tools/call", params, meta=declared)
    assert answer["result"]["content"][0]["text"] == "state {'action': 'accept'}"


async def test_a_client_that_takes_no_stream_gets_its_answer_plain(running: Running) -> None:
    params = {"name": "weather_forecast", "arguments": {}, "_meta": MODERN_META | {"progressToken": 1}}
    headers = modern_headers("tools/call", params) | {"accept": "application/json"}
    response = await running.post("/mcp", request_body("tools/call", params), headers)
    assert response.headers[b"content-type"] == b"application/json"
    assert "sunny" in response.body.decode()


async def test_the_name_is_judged_each_time_even_for_a_known_caller(running: Running) -> None:
    await running.modern("tools/call", NOW)
    wrong: list[dict[str, Any]] = [{"arguments": {}}, {"name": 5}]
    for params in wrong:
        body = request_body("tools/call", params | {"_meta": MODERN_META})
        response = await running.post("/mcp", body, modern_headers("tools/call", NOW))
        assert response.status == 400
        assert msgspec.json.decode(response.body)["error"]["code"] in {-32602, -32020}


async def test_only_so_many_callers_are_remembered(running: Running) -> None:
    edge = running.worker._modern
    for number in range(3):
        meta = {"io.modelcontextprotocol/clientInfo": {"name": f"client {number}", "version": "1"}}
        assert (await running.modern("tools/list", meta=meta))["status"] == 200
    assert "3 known callers" in repr(edge)
    filler = next(iter(edge._callers.values()))
    edge._callers |= {str(number).encode(): filler for number in range(1_021)}
    await running.modern("tools/list", meta={"io.modelcontextprotocol/clientInfo": {"name": "new", "version": "1"}})
    assert len(edge._callers) == 1_024
    large = {"io.modelcontextprotocol/clientInfo": {"name": "x" * 5_000, "version": "1"}}
    assert (await running.modern("tools/list", meta=large))["status"] == 200
    assert len(edge._callers) == 1_024


async def test_headers_a_server_may_see_reach_it_and_no_others(empty: Running) -> None:
    upstream = InMemoryUpstream("weather", weather_server())
    await empty.gateway.apply(
        {"weather": plan_of("weather", lambda: upstream, forward_headers=(b"x-team", b"x-no"))}, ()
    )
    await empty.listed()
    sent = {"x-team": "blue", "authorization": "Bearer s3cret", "cookie": "c", "mcp-param-a": "1"}
    await empty.modern("tools/call", NOW, headers=sent)
    assert upstream.calls[-1].headers == ((b"mcp-param-a", b"1"), (b"x-team", b"blue"))


async def test_an_error_of_a_tool_is_counted_as_one(running: Running) -> None:
    upstream = await upstream_of(running)

    @upstream.server.tool("now")
    async def now(arguments: dict[str, Any], _context: CallContext) -> Any:
        if arguments.get("how") == "refuse":
            raise Refused(-32602, "no")
        text = {"type": "text", "text": "x"}
        return {"content": [text], "isError": arguments.get("how") == "fail"}

    for how in ("fail", "pass", "refuse"):
        upstream.server._tools["now"].definition["inputSchema"] = {"type": "object"}
        await running.modern("tools/call", {"name": "weather_now", "arguments": {"how": how}})
    upstream.order(Step(answer=Result(b'["isError"]', Era.MODERN)))
    await running.modern("tools/call", NOW)
    (cell,) = (cell for cell in running.gateway.cells if cell.tool == "now")
    counted = {name: count for name, count in cell.outcomes.items() if count}
    assert counted == {"ok": 1, "tool_error": 2, "rpc_error": 1}


async def test_a_server_without_version_of_its_own_shows_ours(empty: Running) -> None:
    server = InMemoryServer("bare", instructions="")
    server.info = {}
    await empty.apply({"bare": lambda: InMemoryUpstream("bare", server)})
    await empty.listed()
    found = (await empty.modern("server/discover", path="/mcp/bare"))["result"]
    assert found["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "penstock"
    assert "instructions" not in found


@pytest.mark.parametrize("era", list(Era))
async def test_the_result_of_a_call_says_which_server_it_is_from(empty: Running, era: Era) -> None:
    server = InMemoryServer("it", version="3", era=era)

    @server.tool("work")
    async def work(_arguments: dict[str, Any], _context: CallContext) -> Any:
        return "done"

    await empty.apply({"it": lambda: InMemoryUpstream("it", server)})
    await empty.listed()
    for _ in range(2):
        found = (await empty.modern("tools/call", {"name": "it_work", "arguments": {}}))["result"]
        assert found["_meta"] == {"io.modelcontextprotocol/serverInfo": {"name": "it", "version": "3"}}
        assert (found["content"], found["resultType"]) == ([{"type": "text", "text": "done"}], "complete")
