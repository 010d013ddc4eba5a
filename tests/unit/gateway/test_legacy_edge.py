"""Legacy clients of a whole gateway: sessions, `initialize`, what keeps which status."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.errors import ServerUnavailable
from penstock.identity.seal import SealingKey
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Failure, Result
from penstock.upstreams.in_memory import CallContext, InMemoryServer, InMemoryUpstream, InputRequired, Step
from tests.unit.gateway.conftest import Running, gateway_in, request_body, until, weather_server

NOW = {"name": "weather_now", "arguments": {}}


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ("2025-11-25", "2025-11-25"),
        ("2025-03-26", "2025-03-26"),
        ("2024-11-05", "2024-11-05"),
        ("2026-07-28", "2025-11-25"),
        ("1999-01-01", "2025-11-25"),
    ],
)
async def test_initialize_answers_with_the_revision_asked_for_or_our_newest(
    running: Running, asked: str, given: str
) -> None:
    result, session = await running.initialize(version=asked)
    assert result["protocolVersion"] == given
    assert result["serverInfo"]["name"] == "penstock"
    assert set(result["capabilities"]) >= {"tools", "prompts", "resources"}
    assert "# weather" in result["instructions"]
    assert "result" in await running.legacy("tools/list", session=session, version=given)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"protocolVersion": 5, "capabilities": {}, "clientInfo": {}},
        {"protocolVersion": "2025-06-18", "capabilities": [], "clientInfo": {}},
        {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": "me"},
    ],
    ids=["empty", "version no string", "capabilities no object", "client no object"],
)
async def test_a_malformed_initialize_is_an_error_and_opens_no_session(
    running: Running, params: dict[str, Any]
) -> None:
    response = await running.post("/mcp", request_body("initialize", params))
    assert response.status == 200
    assert msgspec.json.decode(response.body)["error"]["code"] == -32602
    assert b"mcp-session-id" not in response.headers


async def test_initialize_waits_for_a_server_that_was_never_listed(empty: Running) -> None:
    gate = asyncio.Event()
    upstream = InMemoryUpstream("weather", weather_server())
    upstream.every_call = Step(wait_for=gate)
    await empty.apply({"weather": lambda: upstream})
    initializing = asyncio.create_task(empty.initialize())
    listing = asyncio.create_task(empty.legacy("tools/list"))
    await until(lambda: len(empty.server.tasks) == 2)
    gate.set()
    result, _ = await initializing
    assert "# weather" in result["instructions"]
    assert len((await listing)["result"]["tools"]) == 2


async def test_a_view_removed_while_its_clients_wait_is_said_to_be_gone(empty: Running) -> None:
    upstream = InMemoryUpstream("weather", weather_server())
    upstream.every_call = Step(wait_for=asyncio.Event())
    await empty.apply({"weather": lambda: upstream})
    initializing = asyncio.create_task(empty.post("/mcp/weather", request_body("initialize", {})))
    listing = asyncio.create_task(empty.legacy("tools/list", path="/mcp/weather"))
    modern = asyncio.create_task(empty.modern("tools/list", path="/mcp/weather"))
    await until(lambda: len(empty.server.tasks) == 3)
    await empty.apply({})
    assert (await initializing).status == 404
    assert (await listing)["error"]["code"] == -32601
    assert (await modern)["status"] == 404


async def test_the_own_view_of_a_server_says_what_that_server_says(running: Running) -> None:
    result, _ = await running.initialize(path="/mcp/weather")
    assert result["serverInfo"] == {"name": "weather", "version": "1.0"}
    assert result["instructions"] == "Ask about the weather."


async def test_a_session_survives_a_restart_and_is_gone_after_delete(tmp_path: Path) -> None:
    upstream = InMemoryUpstream("weather", weather_server())
    async with gateway_in(tmp_path) as first:
        _, session = await first.initialize()
    async with gateway_in(tmp_path) as second:
        await second.apply({"weather": lambda: upstream})
        assert "result" in await second.legacy("tools/call", NOW, session=session)
        ended = await second.client.request("DELETE", second.url + "/mcp", {"mcp-session-id": session})
        assert (ended.status, ended.body) == (204, b"")
        await until(lambda: upstream.closed_sessions)
        for _ in range(2):
            lost = await second.legacy("tools/call", NOW, session=session)
            assert (lost["status"], lost["error"]["code"]) == (404, -32600)
        again = await second.client.request("DELETE", second.url + "/mcp", {"mcp-session-id": session})
        assert again.status == 404


@pytest.mark.parametrize("kind", ["made up", "of another view", "of another gateway"])
async def test_a_session_that_is_not_ours_is_404(running: Running, tmp_path: Path, kind: str) -> None:
    session = "made-up"
    if kind == "of another view":
        _, session = await running.initialize(path="/mcp/weather")
    elif kind == "of another gateway":
        async with gateway_in(tmp_path / "other", key=SealingKey(b"test", b"o" * 32)) as other:
            _, session = await other.initialize()
    assert (await running.legacy("tools/list", session=session))["status"] == 404


async def test_delete_needs_a_session(running: Running) -> None:
    assert (await running.client.request("DELETE", running.url + "/mcp")).status == 400


@pytest.mark.parametrize("version", ["1999-01-01", "2025-06-17", "0" * 500])
async def test_a_bad_version_header_is_400_and_names_what_is_supported(running: Running, version: str) -> None:
    answer = await running.legacy("tools/list", version=version)
    assert answer["status"] == 400
    assert "2025-11-25, 2025-06-18, 2025-03-26, 2024-11-05" in answer["error"]["message"]
    assert "0" * 41 not in answer["error"]["message"]


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("tools/explode", {}, -32601),
        ("tasks/list", {}, -32601),
        ("resources/subscribe", {"uri": "weather://map"}, -32600),
        ("resources/unsubscribe", {"uri": 5}, -32602),
        ("tools/call", {}, -32602),
        ("tools/call", {"name": 5}, -32602),
        ("tools/call", {"name": "weather_now", "_meta": 5}, -32602),
        ("tools/call", {"name": "nobody_knows"}, -32602),
        ("prompts/get", {"name": "nobody"}, -32602),
        ("resources/read", {"uri": "nobody://x"}, -32002),
        ("completion/complete", {"ref": {"type": "ref/prompt", "name": "x"}}, -32602),
        ("tools/list", {"cursor": "made up"}, -32602),
        ("tools/list", {"cursor": 5}, -32602),
        ("logging/setLevel", {"level": "loud"}, -32602),
        ("logging/setLevel", {}, -32602),
    ],
)
async def test_a_refused_request_is_200_with_the_error(
    running: Running, method: str, params: dict[str, Any], code: int
) -> None:
    answer = await running.legacy(method, params)
    assert (answer["status"], answer["id"], answer["error"]["code"]) == (200, 7, code)


async def test_ping_is_answered_here_with_and_without_a_session(running: Running) -> None:
    _, session = await running.initialize()
    for token in (session, None):
        assert (await running.legacy("ping", session=token, request_id="p"))["result"] == {}


async def test_requests_without_version_or_session_are_served(running: Running) -> None:
    answer = await running.legacy("tools/call", NOW, version=None)
    assert answer["result"]["content"] == [{"type": "text", "text": "rain"}]
    assert not {"resultType", "_meta"} & set(answer["result"])


async def test_notifications_and_replies_are_202(running: Running) -> None:
    _, session = await running.initialize()
    headers = {"mcp-session-id": session, "mcp-protocol-version": "2025-11-25"}
    for message in (
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 99}},
        {"jsonrpc": "2.0", "method": "notifications/cancelled"},
        {"jsonrpc": "2.0", "id": 1, "result": {}},
    ):
        response = await running.post("/mcp", message, headers)
        assert (response.status, response.body) == (202, b"")
    stateless = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}}
    assert (await running.post("/mcp", stateless)).status == 202
    lost = await running.post("/mcp", {"jsonrpc": "2.0", "method": "x"}, {"mcp-session-id": "made-up"})
    assert lost.status == 404


async def test_the_level_a_session_sets_goes_with_its_calls(empty: Running) -> None:
    server = InMemoryServer("talker", era=Era.MODERN)

    @server.tool("talk")
    async def talk(_arguments: dict[str, Any], context: CallContext) -> Any:
        context.log("debug", "quiet")
        context.log("error", "loud")
        return "said"

    await empty.apply({"talker": lambda: InMemoryUpstream("talker", server)})
    _, session = await empty.initialize()
    await empty.listed()
    unset = await empty.legacy("tools/call", {"name": "talker_talk"}, session=session)
    assert [note["params"]["data"] for note in unset["notifications"]] == ["quiet", "loud"]
    assert "notifications" not in await empty.legacy("tools/call", {"name": "talker_talk"})
    assert (await empty.legacy("logging/setLevel", {"level": "error"}, session=session))["result"] == {}
    assert (await empty.legacy("logging/setLevel", {"level": "error"}))["result"] == {}
    answer = await empty.legacy("tools/call", {"name": "talker_talk"}, session=session)
    assert [note["params"]["data"] for note in answer["notifications"]] == ["loud"]


async def test_cancelling_by_notification_ends_the_call_without_an_answer(running: Running) -> None:
    upstream = await held(running)
    _, session = await running.initialize()
    calling = asyncio.create_task(running.legacy("tools/call", NOW, session=session))
    await until(lambda: upstream.in_flight == 1)
    _, other = await running.initialize()
    message = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}}
    await running.post("/mcp", message, {"mcp-session-id": other})
    assert upstream.in_flight == 1  # the id is another session's
    assert (await running.post("/mcp", message, {"mcp-session-id": session})).status == 202
    assert await calling == {"status": 200, "notifications": []}
    assert [call.method for call in upstream.cancelled] == ["tools/call"]
    assert (await running.legacy("ping", session=session))["result"] == {}


async def test_deleting_a_session_ends_its_calls(running: Running) -> None:
    upstream = await held(running)
    _, session = await running.initialize()
    calling = asyncio.create_task(running.legacy("tools/call", NOW, session=session))
    await until(lambda: upstream.in_flight == 1)
    await running.client.request("DELETE", running.url + "/mcp", {"mcp-session-id": session})
    assert await calling == {"status": 200, "notifications": []}
    assert upstream.in_flight == 0


@pytest.mark.parametrize("with_session", [True, False])
async def test_a_disconnect_does_not_cancel_a_legacy_call(running: Running, with_session: bool) -> None:
    upstream = await held(running)
    headers = {"mcp-session-id": (await running.initialize())[1]} if with_session else {}
    before = running.server.connections
    line = await running.line()
    line.post(request_body("tools/call", NOW), headers)
    await until(lambda: upstream.in_flight == 1)
    line.close()
    await until(lambda: running.server.connections == before)
    assert upstream.in_flight == 1
    assert upstream.every_call.wait_for is not None
    upstream.every_call.wait_for.set()
    await until(lambda: upstream.in_flight == 0)
    assert not upstream.cancelled


@pytest.mark.parametrize(
    ("step", "code", "message"),
    [
        (Step(error=ServerUnavailable("weather", "it fell over")), 503, "server 'weather': it fell over"),
        (Step(answer=Failure(-32602, "Resource not found", None, Era.MODERN)), -32602, "Resource not found"),
        (Step(answer=Failure(-32042, "Elicit first", b'{"x":1}', Era.LEGACY)), -32042, "Elicit first"),
    ],
)
async def test_failures_are_200_with_the_error(running: Running, step: Step, code: int, message: str) -> None:
    await running.listed()
    upstream = running.gateway.context.snapshot.servers["weather"].upstream
    assert isinstance(upstream, InMemoryUpstream)
    upstream.order(step)
    answer = await running.legacy("tools/call", NOW)
    assert (answer["status"], answer["error"]["code"], answer["error"]["message"]) == (200, code, message)
    if code == 503:
        assert answer["error"]["data"] == {"reason": "server_unavailable", "server": "weather", "retryable": True}


async def test_a_legacy_servers_result_goes_to_a_legacy_client_as_it_came(running: Running) -> None:
    await running.listed()
    upstream = running.gateway.context.snapshot.servers["weather"].upstream
    assert isinstance(upstream, InMemoryUpstream)
    upstream.order(Step(answer=Result(b'{"content":[],"odd":1}', Era.LEGACY)))
    assert (await running.legacy("tools/call", NOW))["result"] == {"content": [], "odd": 1}


async def test_a_modern_server_that_asks_what_the_client_did_not_declare_is_at_fault(empty: Running) -> None:
    server = InMemoryServer("asker")

    @server.tool("ask")
    async def ask(_arguments: dict[str, Any], _context: CallContext) -> Any:
        return InputRequired({"q": {"method": "elicitation/create", "params": {}}})

    await empty.apply({"asker": lambda: InMemoryUpstream("asker", server)})
    await empty.listed()
    answer = await empty.legacy("tools/call", {"name": "asker_ask"})
    assert answer["status"] == 200
    assert answer["error"]["code"] == 502
    assert "elicitation/create" in answer["error"]["message"]


async def held(running: Running) -> InMemoryUpstream:
    """The gateway's server, whose calls wait from now on."""
    await running.listed()
    upstream = running.gateway.context.snapshot.servers["weather"].upstream
    assert isinstance(upstream, InMemoryUpstream)
    upstream.every_call = Step(wait_for=asyncio.Event())
    return upstream
