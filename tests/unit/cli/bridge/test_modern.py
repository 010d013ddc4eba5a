"""The modern side: headers from bodies, schemas from lists, streams that last."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.http.server import Exchange
from penstock.protocol.versions import Era
from penstock.upstreams.in_memory import CallContext, InMemoryServer, InMemoryUpstream
from tests.unit.cli.bridge.conftest import Client, ScriptedGateway, client_of, event
from tests.unit.gateway.conftest import MODERN_META, Running, gateway_in, until

SCHEMA = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}
CALL = {"name": "it_query", "arguments": {"region": "nørth"}}
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"


def annotated() -> InMemoryServer:
    """A tool whose argument is mirrored in a header; in memory, the gateway itself checks that it is."""
    server = InMemoryServer("it", era=Era.MODERN)

    @server.tool("query", input_schema=SCHEMA)
    async def query(arguments: dict[str, Any], _context: CallContext) -> Any:
        return str(arguments["region"])

    return server


@pytest.fixture
async def mirrored(tmp_path: Path) -> AsyncIterator[Running]:
    async with gateway_in(tmp_path) as it:
        await it.apply({"it": lambda: InMemoryUpstream("it", annotated())})
        await it.listed()
        yield it


@pytest.mark.parametrize("lists_first", [True, False], ids=["after a list", "without a list"])
async def test_mirrored_arguments_get_their_headers(mirrored: Running, lists_first: bool) -> None:
    async with client_of(f"{mirrored.url}/mcp") as client:
        if lists_first:
            client.modern(1, "tools/list")
            await client.answer(1)
            assert set(client.bridge._modern._mirrored) == {"it_query"}
        client.modern(2, "tools/call", CALL, progressToken=1)
        assert (await client.answer(2))["result"]["content"][0]["text"] == "nørth"
        assert set(client.bridge._modern._mirrored) == {"it_query"}


async def test_a_list_that_changes_nothing_leaves_the_error_as_it_is(scripted: ScriptedGateway) -> None:
    refused = b'{"jsonrpc":"2.0","id":1,"error":{"code":-32020,"message":"Header mismatch: so it is"}}'
    scripted.answers["tools/call"] = lambda exchange: exchange.respond(400, refused)
    async with client_of(scripted.url) as client:
        client.modern(1, "tools/call", CALL)
        assert (await client.answer(1))["error"]["message"] == "Header mismatch: so it is"
    assert len(scripted.headers("tools/call")) == 1
    assert len(scripted.headers("tools/list")) == 1


async def test_the_list_asked_for_again_is_read_to_its_end(scripted: ScriptedGateway) -> None:
    def page(exchange: Exchange) -> None:
        asked = msgspec.json.decode(exchange.request.body)
        assert "progressToken" not in asked["params"]["_meta"]
        result: dict[str, Any] = {"tools": [{"name": "other"}], "nextCursor": "more"}
        if "cursor" in asked["params"]:
            result = {"tools": [{"name": "it_query", "inputSchema": SCHEMA}]}
        exchange.respond(200, msgspec.json.encode({"jsonrpc": "2.0", "id": asked["id"], "result": result}))

    def call(exchange: Exchange) -> None:
        if exchange.request.headers.get(b"mcp-param-region") is None:
            exchange.respond(400, b'{"jsonrpc":"2.0","id":1,"error":{"code":-32020,"message":"missing"}}')
        else:
            exchange.respond(200, b'{"jsonrpc":"2.0","id":1,"result":{"content":[]}}')

    scripted.answers |= {"tools/list": page, "tools/call": call}
    async with client_of(scripted.url) as client:
        client.modern(1, "tools/call", CALL, progressToken="p")
        assert (await client.answer(1))["result"] == {"content": []}
    assert len(scripted.headers("tools/list")) == 2
    assert scripted.headers("tools/call")[1][b"mcp-param-region"] == b"=?base64?bsO4cnRo?="


async def test_a_tool_that_wants_nothing_mirrored_any_more_is_forgotten(scripted: ScriptedGateway) -> None:
    tools: list[dict[str, Any]] = [{"name": "it_query", "inputSchema": SCHEMA}]

    def listed(exchange: Exchange) -> None:
        result = {"tools": tools}
        exchange.respond(200, msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "result": result}))

    scripted.answers["tools/list"] = listed
    async with client_of(scripted.url) as client:
        for wants in (True, False):
            client.modern(1, "tools/list")
            await client.answer(1)
            assert bool(client.bridge._modern._mirrored) is wants
            tools[:] = [{"name": "it_query"}]


async def test_the_standard_headers_mirror_the_body(scripted: ScriptedGateway) -> None:
    async with client_of(scripted.url) as client:
        client.modern(1, "tools/call", {"name": "a b", "arguments": {}})
        client.modern(2, "resources/read", {"uri": "x://ü"})
        client.modern(3, "server/discover")
        for _ in range(3):
            await client.message()
    said = {headers[b"mcp-method"]: headers for request in scripted.asked if (headers := request.headers)}
    assert {headers[b"mcp-protocol-version"] for headers in said.values()} == {b"2026-07-28"}
    assert said[b"tools/call"][b"mcp-name"] == b"a b"
    assert said[b"resources/read"][b"mcp-name"] == b"=?base64?eDovL8O8?="
    assert b"mcp-name" not in said[b"server/discover"]
    assert all(b"mcp-session-id" not in headers for headers in said.values())


async def test_a_subscription_lasts_until_it_is_cancelled(scripted: ScriptedGateway) -> None:
    streams = scripted.streams("subscriptions/listen")
    async with client_of(scripted.url) as client:
        client.modern(9, "subscriptions/listen", {"notifications": {"toolsListChanged": True}})
        await until(lambda: streams)
        for method in ("notifications/subscriptions/acknowledged", "notifications/tools/list_changed"):
            note = {"jsonrpc": "2.0", "method": method, "params": {"_meta": {SUBSCRIPTION: 9}}}
            streams[0].send(event(note))
            assert await client.message() == note
        client.modern(10, "tools/list")
        await client.answer(10)
        client.notify("notifications/cancelled", {"requestId": 9})
        await until(lambda: scripted.disconnects == 1)
        await until(lambda: not client.bridge._flights)
    assert not scripted.headers("notifications/cancelled")


async def test_a_subscription_that_the_gateway_ends_is_answered(scripted: ScriptedGateway) -> None:
    streams = scripted.streams("subscriptions/listen")
    async with client_of(scripted.url) as client:
        for number in (1, 2):
            client.modern(number, "subscriptions/listen", {"notifications": {}})
        await until(lambda: len(streams) == 2)
        streams[0].finish(event({"jsonrpc": "2.0", "id": 1, "result": {"resultType": "complete"}}))
        assert (await client.answer(1))["result"] == {"resultType": "complete"}
        streams[1].finish()  # without a word, as when a gateway is killed
        assert (await client.answer(2))["error"]["code"] == 502


async def test_notifications_go_where_their_era_is(scripted: ScriptedGateway) -> None:
    async with client_of(scripted.url) as client:
        client.notify("notifications/early")
        client.modern(1, "tools/list")
        await client.answer(1)
        client.notify("notifications/late")
        client.notify("notifications/other", {"_meta": MODERN_META})
        client.notify("notifications/cancelled", {"requestId": 1})
        client.notify("notifications/cancelled")
        client.modern(2, "tools/list")
        await client.answer(2)
        await _quiet(client)
    assert b"mcp-protocol-version" not in scripted.headers("notifications/early")[0]
    assert scripted.headers("notifications/late")[0][b"mcp-method"] == b"notifications/late"
    assert scripted.headers("notifications/other")[0][b"mcp-protocol-version"] == b"2026-07-28"
    assert not scripted.headers("notifications/cancelled")


async def _quiet(client: Client) -> None:
    await until(lambda: not client.bridge._flights)
