"""What the gateway says by itself reaches a client on stdio, and so does what servers ask."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from penstock.protocol.versions import Era
from penstock.upstreams.in_memory import CallContext, InMemoryServer, InMemoryUpstream
from tests.unit.cli.bridge.conftest import Client, client_of
from tests.unit.gateway.conftest import Running, gateway_in, until

ALL_LISTS = {"notifications": {"toolsListChanged": True}}
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"


def asking_server() -> InMemoryServer:
    """A legacy server that asks its client for a name before it greets."""
    server = InMemoryServer("old", era=Era.LEGACY)

    @server.tool("greet")
    async def greet(_arguments: dict[str, Any], context: CallContext) -> Any:
        schema = {"type": "object", "properties": {"name": {"type": "string"}}}
        answer = await context.ask("elicitation/create", {"message": "Who?", "requestedSchema": schema})
        return f"hello {answer['content']['name']}"

    return server


@pytest.fixture
async def old(tmp_path: Path) -> AsyncIterator[Running]:
    async with gateway_in(tmp_path) as it:
        await it.apply({"old": lambda: InMemoryUpstream("old", asking_server())})
        await it.listed()
        yield it


def change(running: Running, name: str) -> None:
    """The server has another tool, and says so."""
    (server,) = running.gateway.context.snapshot.servers.values()
    upstream = server.upstream
    assert isinstance(upstream, InMemoryUpstream)

    @upstream.server.tool(name)
    async def added(_arguments: dict[str, Any], _context: CallContext) -> Any:
        return "new"

    upstream.announce("notifications/tools/list_changed")


async def test_a_legacy_client_hears_of_changed_lists(client: Client, running: Running) -> None:
    result = await client.initialize()
    assert result["capabilities"]["tools"] == {"listChanged": True}
    await until(lambda: _listening(running))
    change(running, "more")
    assert (await client.message())["method"] == "notifications/tools/list_changed"
    client.request(1, "tools/list")
    assert "weather_more" in {tool["name"] for tool in (await client.answer(1))["result"]["tools"]}


async def test_a_modern_client_hears_of_what_it_subscribed_to_until_it_cancels(
    client: Client, running: Running
) -> None:
    client.modern("s", "subscriptions/listen", ALL_LISTS)
    acknowledged = await client.message()
    assert acknowledged["method"] == "notifications/subscriptions/acknowledged"
    assert acknowledged["params"]["_meta"][SUBSCRIPTION] == "s"
    change(running, "more")
    changed = await client.message()
    assert changed["method"] == "notifications/tools/list_changed"
    assert changed["params"]["_meta"][SUBSCRIPTION] == "s"
    client.notify("notifications/cancelled", {"requestId": "s"})
    await until(lambda: not _listening(running))
    change(running, "again")
    client.modern(1, "tools/list")
    assert (await client.answer(1))["result"]["tools"]


async def test_a_legacy_client_answers_what_a_server_asks_it(old: Running) -> None:
    async with client_of(f"{old.url}/mcp") as client:
        params = {
            "protocolVersion": "2025-11-25",
            "capabilities": {"elicitation": {}},
            "clientInfo": {"name": "test", "version": "1"},
        }
        client.request(0, "initialize", params)
        await client.answer(0)
        client.notify("notifications/initialized")
        client.request(1, "tools/call", {"name": "old_greet", "arguments": {}})
        asked = await client.message()
        assert (asked["method"], asked["params"]["message"]) == ("elicitation/create", "Who?")
        client.send({"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "accept", "content": {"name": "Ada"}}})
        assert (await client.answer(1))["result"]["content"][0]["text"] == "hello Ada"


async def test_a_modern_client_is_asked_by_input_required_and_retries(old: Running) -> None:
    capabilities: dict[str, Any] = {"io.modelcontextprotocol/clientCapabilities": {"elicitation": {"form": {}}}}
    call: dict[str, Any] = {"name": "old_greet", "arguments": {}}
    async with client_of(f"{old.url}/mcp") as client:
        client.modern(1, "tools/call", call, **capabilities)
        result = (await client.answer(1))["result"]
        assert result["resultType"] == "input_required"
        (key,) = result["inputRequests"]
        answers = {key: {"action": "accept", "content": {"name": "Ada"}}}
        again = call | {"inputResponses": answers, "requestState": result["requestState"]}
        client.modern(2, "tools/call", again, **capabilities)
        assert (await client.answer(2))["result"]["content"][0]["text"] == "hello Ada"


def _listening(running: Running) -> bool:
    return len(running.gateway.context.listeners) > 0
