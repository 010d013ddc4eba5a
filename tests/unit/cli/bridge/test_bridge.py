"""A client on pipes speaks to a whole gateway, in either era, and neither notices the other's transport."""

from pathlib import Path
from typing import Any

import pytest

from penstock.cli.bridge.bridge import BridgeSettings
from penstock.upstreams.in_memory import InMemoryUpstream
from tests.unit.cli.bridge.conftest import Client, client_of
from tests.unit.gateway.conftest import Running, until

FORECAST = {"name": "weather_forecast", "arguments": {"city": "Oslo"}}
NOW: dict[str, Any] = {"name": "weather_now", "arguments": {}}
WAIT: dict[str, Any] = {"name": "weather_wait", "arguments": {}}


def upstream_of(running: Running) -> InMemoryUpstream:
    upstream = running.gateway.context.snapshot.servers["weather"].upstream
    assert isinstance(upstream, InMemoryUpstream)
    return upstream


async def test_a_legacy_client_lists_and_calls_over_one_session(client: Client, running: Running) -> None:
    result = await client.initialize()
    assert result["protocolVersion"] == "2025-11-25"
    client.request("a", "tools/list")
    assert len((await client.answer("a"))["result"]["tools"]) == 3
    client.request(2, "tools/call", NOW)
    assert (await client.answer(2))["result"]["content"] == [{"type": "text", "text": "rain"}]
    client.request(3, "ping")
    assert (await client.answer(3))["result"] == {}
    assert len(running.gateway.context.sessions) == 1


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
async def test_every_legacy_revision_is_spoken(client: Client, version: str) -> None:
    assert (await client.initialize(version))["protocolVersion"] == version
    client.request(2, "tools/call", NOW)
    assert (await client.answer(2))["result"]["content"] == [{"type": "text", "text": "rain"}]
    assert client.session.version == version


async def test_a_modern_client_discovers_lists_and_calls(client: Client) -> None:
    client.modern("d", "server/discover")
    assert "2026-07-28" in (await client.answer("d"))["result"]["supportedVersions"]
    client.modern(1, "tools/list")
    assert len((await client.answer(1))["result"]["tools"]) == 3
    client.modern(2, "resources/read", {"uri": "weather://map"})
    assert (await client.answer(2))["result"]["contents"][0]["text"] == "a map"
    client.modern(3, "prompts/get", {"name": "weather_ask"})
    assert (await client.answer(3))["result"]["messages"]
    assert client.session is None


async def test_both_eras_may_be_spoken_on_one_pipe(client: Client) -> None:
    await client.initialize()
    client.modern(1, "tools/call", NOW)
    assert (await client.answer(1))["result"]["resultType"] == "complete"
    client.request(2, "tools/call", NOW)
    assert "resultType" not in (await client.answer(2))["result"]


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_progress_comes_before_the_answer(client: Client, era: str) -> None:
    if era == "legacy":
        await client.initialize()
        client.request(5, "tools/call", FORECAST | {"_meta": {"progressToken": "p"}})
    else:
        client.modern(5, "tools/call", FORECAST, progressToken="p")
    messages = [await client.message() for _ in range(3)]
    assert [message["params"]["progress"] for message in messages[:2]] == [1, 2]
    assert {message["params"]["progressToken"] for message in messages[:2]} == {"p"}
    assert messages[2]["result"]["content"][0]["text"] == "sunny in Oslo"


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_a_cancelled_call_is_cancelled_at_the_server_and_has_no_answer(
    client: Client, running: Running, era: str
) -> None:
    upstream = upstream_of(running)
    if era == "legacy":
        await client.initialize()
        client.request(5, "tools/call", WAIT | {"_meta": {"progressToken": 1}})
    else:
        client.modern(5, "tools/call", WAIT, progressToken=1)
    assert (await client.message())["method"] == "notifications/progress"
    client.notify("notifications/cancelled", {"requestId": 5, "reason": "enough"})
    await until(lambda: upstream.in_flight == 0)
    assert [call.method for call in upstream.cancelled] == ["tools/call"]
    client.modern(6, "tools/list")
    assert (await client.answer(6))["result"]["tools"]
    await until(lambda: not client.bridge._flights)


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_a_call_cancelled_in_the_same_breath_is_cancelled(client: Client, running: Running, era: str) -> None:
    upstream = upstream_of(running)
    if era == "legacy":
        await client.initialize()
    for number in range(1, 30):
        if era == "legacy":
            client.request(number, "tools/call", WAIT)
        else:
            client.modern(number, "tools/call", WAIT)
        client.notify("notifications/cancelled", {"requestId": number})
    await until(lambda: not client.bridge._flights)
    await until(lambda: upstream.in_flight == 0)


async def test_what_is_no_message_is_answered_with_an_error_and_the_rest_goes_on(client: Client) -> None:
    for junk in (b"{nonsense", b"\xff\xfe", b"17", b'"text"', b'{"jsonrpc":"2.0"}', b'{"id":4,"method":"ping"}'):
        client.write(junk + b"\n")
    answers = [await client.message() for _ in range(6)]
    assert [answer["error"]["code"] for answer in answers] == [-32700, -32700, -32600, -32600, -32600, -32600]
    assert [answer["id"] for answer in answers] == [None, None, None, None, None, 4]
    client.write(b"\n  \r\n")
    client.modern(1, "tools/list")
    assert (await client.answer(1))["result"]["tools"]


async def test_lines_may_end_with_cr_lf_and_messages_may_be_spread_over_reads(client: Client) -> None:
    client.write(b'{"jsonrpc":"2.0","id":1,')
    await until(lambda: client.bridge._lines._partial)
    client.write(b'"method":"ping"}\r\n')
    assert (await client.answer(1))["result"] == {}


async def test_a_batch_is_passed_on_where_the_revision_has_batches(client: Client) -> None:
    await client.initialize("2025-03-26")
    batch = [
        {"jsonrpc": "2.0", "id": 1, "method": "ping"},
        {"jsonrpc": "2.0", "method": "notifications/roots/list_changed"},
        {"jsonrpc": "2.0", "id": "b", "method": "tools/call", "params": NOW},
    ]
    client.send(batch)
    assert [answer["id"] for answer in await client.message()] == [1, "b"]
    client.send(batch[1:2])
    client.request(9, "ping")
    assert (await client.answer(9))["result"] == {}


async def test_a_batch_is_refused_where_the_revision_has_none(client: Client) -> None:
    await client.initialize("2025-06-18")
    client.send([{"jsonrpc": "2.0", "id": 1, "method": "ping"}])
    assert (await client.message())["error"]["message"].endswith("batches are not part of this revision")
    client.send([])
    assert (await client.message())["error"]["code"] == -32600


async def test_a_line_beyond_the_bound_is_refused_under_its_id_and_not_kept(running: Running) -> None:
    async with client_of(f"{running.url}/mcp", settings=BridgeSettings(line_bytes=1000)) as client:
        for _ in range(20):
            client.write(b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":"' + b"x" * 100_000)
            await until(lambda: client.bridge._lines._head is not None)
        assert len(client.bridge._lines._partial) == 0
        client.write(b'"}\n')
        refused = await client.message()
        assert (refused["id"], refused["error"]["code"]) == (7, 413)
        assert "1000 bytes" in refused["error"]["message"]
        client.modern(8, "tools/list")
        assert (await client.answer(8))["result"]["tools"]


async def test_more_requests_than_may_be_under_way_are_refused(running: Running) -> None:
    upstream = upstream_of(running)
    async with client_of(f"{running.url}/mcp", settings=BridgeSettings(requests=3)) as client:
        for number in range(3):
            client.modern(number, "tools/call", WAIT)
        await until(lambda: upstream.in_flight == 3)
        client.modern(3, "tools/list")
        refused = await client.answer(3)
        assert (refused["error"]["code"], refused["error"]["data"]["reason"]) == (429, "too_many_requests")
        client.notify("notifications/cancelled", {"requestId": 0})
        await until(lambda: upstream.in_flight == 2)
        client.modern(4, "tools/list")
        assert (await client.answer(4))["result"]["tools"]


async def test_a_version_nobody_has_is_told_so_whatever_it_holds(client: Client) -> None:
    for version in ("2099-01-01", "2026-07-28\r\nx-evil: 1", "ä", ""):
        meta: dict[str, Any] = {
            "io.modelcontextprotocol/protocolVersion": version,
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        client.request(1, "tools/list", {"_meta": meta})
        error = (await client.answer(1))["error"]
        assert (error["code"], error["data"]["requested"]) == (-32022, version)


async def test_names_that_no_header_can_carry_arrive(client: Client) -> None:
    client.modern(1, "tools/call", {"name": "nøthing\n", "arguments": {}})
    assert "nøthing" in (await client.answer(1))["error"]["message"]


async def test_an_unknown_view_is_named_in_the_error(running: Running) -> None:
    async with client_of(f"{running.url}/mcp/nowhere") as client:
        client.modern(1, "tools/list")
        error = (await client.answer(1))["error"]
        assert error["code"] == 404
        assert "/mcp/nowhere" in error["message"]
        assert "--view" in error["message"]
        assert (await _failed_initialize(client))["error"]["code"] == 404


async def _failed_initialize(client: Client) -> Any:
    client.request("i", "initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {}})
    return await client.answer("i")


async def test_what_comes_in_one_breath_with_initialize_waits_for_its_answer(client: Client) -> None:
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "hasty", "version": "1"}}
    client.request(0, "initialize", params)
    client.notify("notifications/initialized")
    client.request(1, "logging/setLevel", {"level": "error"})
    client.request(2, "tools/list")
    ids = [(await client.message())["id"] for _ in range(3)]
    assert ids[0] == 0
    assert sorted(ids) == [0, 1, 2]
    assert client.session.has_id


async def test_a_session_lost_by_the_gateway_is_opened_again_and_the_request_repeated(
    running: Running, tmp_path: Path
) -> None:
    async with client_of(f"{running.url}/mcp") as client:
        await client.initialize()
        lost = client.session
        running.gateway.context.sessions.end(running.gateway.context.sessions.find("", _token(lost)) or _unfound())
        for number in range(10):
            client.request(number, "tools/call", NOW)
        answers = [await client.message() for _ in range(10)]
        assert sorted(answer["id"] for answer in answers) == list(range(10))
        assert {answer["result"]["content"][0]["text"] for answer in answers} == {"rain"}
        assert client.session is not lost


def _token(session: Any) -> bytes:
    value: bytes = session.headers.split(b"mcp-session-id: ")[1].strip()
    return value


def _unfound() -> Any:
    raise AssertionError("the session is not known")
