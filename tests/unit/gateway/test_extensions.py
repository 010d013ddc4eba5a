"""Extensions the gateway knows nothing of, and MCP Apps: what either side declares and says of them reaches the other."""

from typing import Any

import pytest
from msgspec import json

from penstock.protocol.client_capabilities import declared
from penstock.protocol.versions import LATEST_LEGACY, Era
from penstock.upstreams.in_memory import CallContext, InMemoryServer, InMemoryUpstream
from tests.unit.gateway.asking import CAPABILITIES
from tests.unit.gateway.conftest import Running, request_body

APPS = "io.modelcontextprotocol/ui"
CLIENT: dict[str, Any] = {
    "extensions": {APPS: {"mimeTypes": ["text/html;profile=mcp-app"]}, "com.example/x": {"a": [1]}}
}
SERVER: dict[str, Any] = {"extensions": {APPS: {}, "com.example/y": {"b": None}}}
UI: dict[str, Any] = {"ui": {"resourceUri": "ui://it/view", "visibility": ["model"]}, "com.example/z": 1}
TRACE: dict[str, Any] = {
    "traceparent": "00-0af7-b7ad-01",
    "tracestate": "v=1",
    "baggage": "k=v",
    "com.example/w": {"c": 2},
}
CELLS = [(client, server) for client in Era for server in Era]


async def with_apps(running: Running, era: Era, capabilities: dict[str, Any] = SERVER) -> InMemoryUpstream:
    server = InMemoryServer("it", era=era)
    server.more_capabilities = capabilities

    @server.tool("show", input_schema={"type": "object"}, _meta=UI)
    async def show(_arguments: dict[str, Any], _context: CallContext) -> Any:
        return {"content": [{"type": "text", "text": "shown"}], "_meta": {"com.example/z": [1]}}

    @server.resource("ui://it/view", name="view", mime_type="text/html;profile=mcp-app", _meta=UI)
    async def view(_arguments: dict[str, Any], _context: CallContext) -> Any:
        return "<p>"

    upstream = InMemoryUpstream("it", server)
    await running.apply({"it": lambda: upstream})
    await running.listed()
    return upstream


async def asked(running: Running, era: Era, method: str, params: dict[str, Any], path: str = "/mcp") -> Any:
    """The result of a request of a client that declares its extensions."""
    if era is Era.MODERN:
        meta = {CAPABILITIES: CLIENT} | params.pop("_meta", {})
        answer = await running.modern(method, params, meta=meta, path=path)
    else:
        start = {"protocolVersion": LATEST_LEGACY, "capabilities": CLIENT, "clientInfo": {"name": "t", "version": "1"}}
        opened = await running.post(path, request_body("initialize", start))
        session = opened.headers[b"mcp-session-id"].decode()
        if method == "initialize":
            return json.decode(opened.body)["result"]
        answer = await running.legacy(method, params, session=session, path=path)
    return answer["result"]


@pytest.mark.parametrize(("client", "server"), CELLS)
async def test_apps_pass_whole(empty: Running, client: Era, server: Era) -> None:
    await with_apps(empty, server)
    (tool,) = (await asked(empty, client, "tools/list", {}))["tools"]
    assert (tool["name"], tool["_meta"]) == ("it_show", UI)
    (listed,) = (await asked(empty, client, "resources/list", {}))["resources"]
    assert (listed["uri"], listed["_meta"]) == ("ui://it/view", UI)
    (read,) = (await asked(empty, client, "resources/read", {"uri": "ui://it/view"}))["contents"]
    assert (read["text"], read["mimeType"]) == ("<p>", "text/html;profile=mcp-app")


@pytest.mark.parametrize(("client", "server"), CELLS)
async def test_what_the_server_declares_is_told(empty: Running, client: Era, server: Era) -> None:
    await with_apps(empty, server)
    method = "server/discover" if client is Era.MODERN else "initialize"
    own = await asked(empty, client, method, {}, path="/mcp/it")
    assert own["capabilities"]["extensions"] == SERVER["extensions"]
    joint = await asked(empty, client, method, {})
    assert joint["capabilities"]["extensions"] == {APPS: {}}, "others may need methods that no shared view can route"


@pytest.mark.parametrize(("client", "server"), CELLS)
async def test_what_the_server_does_not_declare_is_not_told(empty: Running, client: Era, server: Era) -> None:
    await with_apps(empty, server, {})
    method = "server/discover" if client is Era.MODERN else "initialize"
    for path in ("/mcp", "/mcp/it"):
        assert "extensions" not in (await asked(empty, client, method, {}, path=path))["capabilities"]
    assert (await asked(empty, client, "tools/list", {}))["tools"][0]["_meta"] == UI, "that is the client's to ignore"


@pytest.mark.parametrize(("client", "server"), CELLS)
async def test_what_the_client_declares_and_says_reaches_the_server_and_back(
    empty: Running, client: Era, server: Era
) -> None:
    upstream = await with_apps(empty, server)
    call = {"name": "it_show", "arguments": {}, "_meta": dict(TRACE)}
    found = await asked(empty, client, "tools/call", call)
    assert found["_meta"]["com.example/z"] == [1]
    sent = upstream.calls[-1]
    assert sent.meta is not None
    assert {key: json.decode(value) for key, value in sent.meta.items()} == TRACE
    told = sent.caller.modern_capabilities if server is Era.MODERN else declared(sent.caller.askable, LATEST_LEGACY)
    assert json.decode(told)["extensions"] == CLIENT["extensions"]
