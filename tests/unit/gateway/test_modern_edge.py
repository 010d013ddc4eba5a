"""Modern clients of a whole gateway."""

from typing import Any

import msgspec
import pytest

from tests.unit.gateway.conftest import MODERN_META, Running, request_body


async def test_a_call_reaches_the_server_under_its_own_name(running: Running) -> None:
    answer = await running.modern("tools/call", {"name": "weather_now", "arguments": {}})
    assert answer["status"] == 200
    assert answer["id"] == 7
    assert answer["result"]["content"][0]["text"] == "rain"
    assert answer["result"]["resultType"] == "complete"


async def test_progress_comes_on_the_calls_stream_with_the_clients_token(running: Running) -> None:
    answer = await running.modern(
        "tools/call", {"name": "weather_forecast", "arguments": {"city": "Oslo"}}, meta={"progressToken": "mine"}
    )
    assert [note["params"]["progressToken"] for note in answer["notifications"]] == ["mine", "mine"]
    assert answer["result"]["content"][0]["text"] == "sunny in Oslo"


async def test_the_aggregated_list_has_prefixes_and_the_own_view_has_none(running: Running) -> None:
    everything = await running.modern("tools/list")
    assert [tool["name"] for tool in everything["result"]["tools"]] == ["weather_forecast", "weather_now"]
    own = await running.modern("tools/list", path="/mcp/weather")
    assert [tool["name"] for tool in own["result"]["tools"]] == ["forecast", "now"]
    assert own["result"]["cacheScope"] in {"public", "private"}
    assert isinstance(own["result"]["ttlMs"], int)


async def test_discover_names_penstock_or_in_its_own_view_the_server(running: Running) -> None:
    info = "io.modelcontextprotocol/serverInfo"
    everything = (await running.modern("server/discover"))["result"]
    assert everything["_meta"][info]["name"] == "penstock"
    assert "# weather\n\nAsk about the weather." in everything["instructions"]
    assert set(everything["capabilities"]) >= {"tools", "prompts", "resources"}
    own = (await running.modern("server/discover", path="/mcp/weather/"))["result"]
    assert own["_meta"][info]["name"] == "weather"
    assert own["supportedVersions"][0] == "2026-07-28"


@pytest.mark.parametrize(
    ("uri", "text"), [("weather://map", "a map"), ("weather://city/Oslo", "city")], ids=["listed", "by template"]
)
async def test_a_resource_goes_to_the_server_that_listed_it_or_its_template(
    running: Running, uri: str, text: str
) -> None:
    answer = await running.modern("resources/read", {"uri": uri})
    assert text in answer["result"]["contents"][0]["text"]


async def test_a_prompt_is_found_by_its_prefixed_name(running: Running) -> None:
    answer = await running.modern("prompts/get", {"name": "weather_ask"})
    assert "weather" in str(answer["result"]["messages"])


@pytest.mark.parametrize(
    ("method", "params", "message"),
    [
        ("tools/call", {"name": "nobody_knows", "arguments": {}}, "Unknown tool: nobody_knows"),
        ("prompts/get", {"name": "nobody"}, "Unknown prompt: nobody"),
        ("resources/read", {"uri": "nobody://x"}, "Unknown resource: nobody://x"),
        ("tools/list", {"cursor": "made up"}, "cursor"),
        ("tools/list", {"cursor": 5}, "cursor"),
        ("completion/complete", {"ref": {"type": "ref/prompt", "name": "x"}, "argument": {}}, "refers to no"),
    ],
)
async def test_what_is_not_there_is_invalid_params(
    running: Running, method: str, params: dict[str, Any], message: str
) -> None:
    answer = await running.modern(method, params)
    assert (answer["status"], answer["error"]["code"]) == (200, -32602)
    assert message in answer["error"]["message"]


@pytest.mark.parametrize(
    ("headers", "meta", "status", "code"),
    [
        ({"mcp-method": "tools/list"}, MODERN_META, 400, -32020),
        ({"mcp-name": "weather_forecast"}, MODERN_META, 400, -32020),
        ({"mcp-protocol-version": "2025-11-25"}, MODERN_META, 400, -32020),
        ({}, {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}, 400, -32602),
        (
            {"mcp-protocol-version": "2030-01-01"},
            MODERN_META | {"io.modelcontextprotocol/protocolVersion": "2030-01-01"},
            400,
            -32022,
        ),
    ],
    ids=["method differs", "name differs", "version differs", "meta incomplete", "unknown version"],
)
async def test_a_request_that_contradicts_itself_reaches_no_server(
    running: Running, headers: dict[str, str], meta: dict[str, Any], status: int, code: int
) -> None:
    sent = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "weather_now"} | headers
    body = request_body("tools/call", {"name": "weather_now", "arguments": {}, "_meta": meta})
    for _ in range(2):  # the second time the caller may be known already
        response = await running.post("/mcp", body, sent)
        error = msgspec.json.decode(response.body)["error"]
        assert (response.status, error["code"]) == (status, code)
    if code == -32022:
        assert error["data"] == {"supported": error["data"]["supported"], "requested": "2030-01-01"}
    assert all(not cell.outcomes["ok"] for cell in running.gateway.cells if cell.method == "tools/call")


async def test_an_unknown_method_is_404(running: Running) -> None:
    answer = await running.modern("tools/explode")
    assert (answer["status"], answer["error"]["code"]) == (404, -32601)


@pytest.mark.parametrize(
    "body",
    [
        b"nonsense",
        b"[]",
        b'{"jsonrpc":"2.0","id":null,"method":"x"}',
        b'{"jsonrpc":"2.0","id":1.5,"method":"x"}',
        b"[" * 70,
    ],
)
async def test_what_is_no_message_is_400_and_the_connection_stays(running: Running, body: bytes) -> None:
    response = await running.post("/mcp", body, {"mcp-protocol-version": "2026-07-28"})
    assert response.status == 400
    assert msgspec.json.decode(response.body)["error"]["code"] < 0 or body[:2] == b"[["
    assert (await running.modern("tools/list"))["status"] == 200


async def test_timings_come_when_asked_for(running: Running) -> None:
    body = request_body("tools/call", {"name": "weather_now", "arguments": {}, "_meta": MODERN_META})
    headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "weather_now"}
    plain = await running.post("/mcp", body, headers)
    assert b"server-timing" not in plain.headers
    timed = await running.post("/mcp", body, headers | {"penstock-timing": "1"})
    assert timed.headers[b"server-timing"].startswith(b"auth;dur=0, route;dur=")


async def test_each_call_is_counted_by_outcome(running: Running) -> None:
    await running.modern("tools/call", {"name": "weather_now", "arguments": {}})
    await running.modern("tools/call", {"name": "weather_made_up", "arguments": {}})
    counted = {(cell.tool, name) for cell in running.gateway.cells for name, count in cell.outcomes.items() if count}
    assert ("now", "ok") in counted
    assert any(tool == "(unlisted)" for tool, _ in counted)
