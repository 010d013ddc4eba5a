"""How it ends, and what happens while one of the two sides is away or does not read."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from penstock.cli.bridge.bridge import OUTPUT_BYTES, BridgeSettings
from penstock.http.server import EventStream, Exchange, HttpServer
from penstock.identity.seal import SealingKey
from penstock.upstreams.in_memory import CallContext, InMemoryUpstream
from tests.unit.cli.bridge.conftest import ScriptedGateway, client_of, event, waiting_server
from tests.unit.gateway.conftest import KEY, Running, gateway_in, until

NOW = {"name": "weather_now", "arguments": {}}
WAIT = {"name": "weather_wait", "arguments": {}}
SHORT = BridgeSettings(grace_seconds=0.2, hurry_seconds=0.2)


async def test_the_end_of_input_lets_calls_end_then_ends_the_session(scripted: ScriptedGateway) -> None:
    scripted.opens_sessions()
    streams = scripted.streams("tools/call")
    async with client_of(scripted.url) as client:
        await client.initialize()
        client.request(1, "tools/call", {"name": "a"})
        client.write(b'{"jsonrpc":"2.0","id":2,"method":"ping"}')  # a last line without its end
        client.close()
        await until(lambda: streams)
        assert (await client.answer(2))["result"] == {}
        assert not scripted.headers("DELETE")
        streams[0].finish(event({"jsonrpc": "2.0", "id": 1, "result": {}}))
        assert (await client.answer(1))["result"] == {}
        await client.ended()
    assert [headers[b"mcp-session-id"] for headers in scripted.headers("DELETE")] == [b"s1"]


@pytest.mark.parametrize("how", ["end of input", "signal"])
async def test_calls_that_do_not_end_are_cut_answered_and_cancelled(running: Running, how: str) -> None:
    upstream = running.gateway.context.snapshot.servers["weather"].upstream
    assert isinstance(upstream, InMemoryUpstream)
    async with client_of(f"{running.url}/mcp", settings=SHORT) as client:
        await client.initialize()
        client.request(1, "tools/call", WAIT)
        client.modern(2, "tools/call", WAIT)
        await until(lambda: upstream.in_flight == 2)
        client.close() if how == "end of input" else client.stop.set()
        refused = [await client.message(), await client.message()]
        assert sorted(one["id"] for one in refused) == [1, 2]
        assert {one["error"]["data"]["reason"] for one in refused} == {"stopped"}
        await client.ended()
        await until(lambda: upstream.in_flight == 0)


async def test_a_signal_cuts_short_what_the_end_of_input_lets_end(running: Running) -> None:
    async with client_of(
        f"{running.url}/mcp", settings=BridgeSettings(grace_seconds=60.0, hurry_seconds=0.1)
    ) as client:
        client.modern(2, "tools/call", WAIT)
        await until(lambda: client.bridge._flights)
        client.close()
        client.stop.set()
        assert (await client.answer(2))["error"]["code"] == 503
        await client.ended()


async def test_subscriptions_do_not_hold_up_the_end(scripted: ScriptedGateway) -> None:
    scripted.streams("subscriptions/listen")
    async with client_of(scripted.url, settings=BridgeSettings(grace_seconds=60.0)) as client:
        client.modern(1, "subscriptions/listen", {"notifications": {}})
        await until(lambda: scripted.asked)
        client.close()
        await client.ended()
    assert scripted.disconnects == 1


async def test_it_ends_quietly_when_nobody_reads_its_output_any_more(client_url: str) -> None:
    async with client_of(client_url, settings=BridgeSettings(grace_seconds=60.0)) as client:
        client.output.close()
        client.modern(1, "tools/list")
        await client.ended()


@pytest.fixture
def client_url(running: Running) -> str:
    return f"{running.url}/mcp"


async def test_a_client_that_does_not_read_stops_the_gateways_stream(scripted: ScriptedGateway) -> None:
    """What waits for it is bounded, at the bridge by its own bound, then in the kernel's buffers, then at the gateway."""
    streams: list[EventStream] = scripted.streams("tools/call")
    async with client_of(scripted.url) as client:
        client.output.pause_reading()
        client.modern(1, "tools/call", {"name": "a"})
        await until(lambda: streams)
        note = event({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": "x" * 10_000}})
        sent = 0
        async with asyncio.timeout(10):
            while not streams[0]._paused:
                streams[0].send(note)
                sent += 1
                await asyncio.sleep(0)
        output = client.bridge._output
        assert output.is_full
        assert output._waiting_bytes < 2 * OUTPUT_BYTES
        client.modern(2, "tools/list")  # not even taken
        assert "paused" in repr(client.bridge._link)
        streams[0].finish(event({"jsonrpc": "2.0", "id": 1, "result": {}}))
        assert len(scripted.asked) == 1
        client.output.resume_reading()
        messages = [await client.message() for _ in range(sent + 2)]
        assert {message["id"] for message in messages if "id" in message} == {1, 2}
        assert [message for message in messages if "id" in message and "result" not in message] == []
        assert not output.is_full


async def test_a_gateway_that_restarts_with_its_keys_keeps_the_session(tmp_path: Path) -> None:
    port = _free_port()
    async with client_of(f"http://127.0.0.1:{port}/mcp") as client:
        async with _weather_at(tmp_path, port):
            await client.initialize()
            session = client.session
            client.request(1, "tools/call", NOW)
            assert (await client.answer(1))["result"]
        client.request(2, "tools/call", NOW)
        client.request(3, "tools/list")
        async with _weather_at(tmp_path, port):
            assert {(await client.message())["id"] for _ in range(2)} == {2, 3}
            assert client.session is session


async def test_a_gateway_that_restarts_with_other_keys_gets_a_new_session(tmp_path: Path) -> None:
    port = _free_port()
    async with client_of(f"http://127.0.0.1:{port}/mcp") as client:
        async with _weather_at(tmp_path, port):
            await client.initialize()
            session = client.session
        client.request(2, "tools/call", NOW)
        async with _weather_at(tmp_path, port, SealingKey(b"other", b"o" * 32)):
            assert (await client.answer(2))["result"]["content"][0]["text"] == "rain"
            assert client.session is not session


async def test_a_gateway_that_stays_away_is_an_error_of_each_request_and_may_come_back(tmp_path: Path) -> None:
    port = _free_port()
    async with client_of(f"http://127.0.0.1:{port}/mcp", retry_seconds=0.2) as client:
        client.modern(1, "tools/call", NOW)
        client.modern(2, "tools/list")
        client.notify("notifications/other")
        for number in (1, 2):
            error = (await client.answer(number))["error"]
            assert (error["code"], error["data"]["reason"]) == (503, "gateway_unavailable")
            assert "connection refused" in error["message"]
            assert "penstock serve" in error["message"]
        assert "away" in repr(client.bridge)
        async with _weather_at(tmp_path, port):
            client.modern(3, "tools/call", NOW)
            assert (await client.answer(3))["result"]["content"]
            assert "away" not in repr(client.bridge._link)


def cut(exchange: Exchange) -> None:
    """Hang up without an answer."""
    exchange.open_stream()
    exchange.failed(None)


async def test_a_gateway_that_dies_in_the_middle_is_asked_again_only_what_changes_nothing(
    scripted: ScriptedGateway,
) -> None:
    times = 0

    def dies_twice(exchange: Exchange) -> None:
        nonlocal times
        times += 1
        if times <= 2:
            cut(exchange)
        else:
            exchange.respond(200, b'{"jsonrpc":"2.0","id":1,"result":{"tools":[]}}')

    scripted.answers |= {"tools/list": dies_twice, "tools/call": cut}
    async with client_of(scripted.url) as client:
        client.modern(1, "tools/list")
        assert (await client.answer(1))["result"] == {"tools": []}
        client.modern(2, "tools/call", NOW)
        error = (await client.answer(2))["error"]
        assert error["data"]["reason"] == "gateway_lost"
        assert "not known" in error["message"]
    assert len(scripted.headers("tools/call")) == 1


async def test_an_answer_that_is_too_large_is_an_error(scripted: ScriptedGateway) -> None:
    scripted.answers["tools/call"] = lambda exchange: exchange.respond(200, b'{"a":"' + b"x" * 70_000_000 + b'"}')
    async with client_of(scripted.url) as client:
        client.modern(1, "tools/call", NOW)
        assert (await client.answer(1))["error"]["data"]["reason"] == "answer_too_large"


async def test_connections_that_the_gateway_closed_are_not_used_again_and_few_are_kept(tmp_path: Path) -> None:
    async with gateway_in(tmp_path) as gateway:
        upstream = InMemoryUpstream("weather", waiting_server())
        await gateway.apply({"weather": lambda: upstream})
        await gateway.listed()
        async with client_of(f"{gateway.url}/mcp") as client:
            for number in range(20):
                client.modern(number, "tools/call", WAIT)
            await until(lambda: upstream.in_flight == 20)
            assert gateway.server.connections == 20
            upstream.server.tool("wait")(_answers)
            for number in range(20, 40):
                client.modern(number, "tools/call", WAIT)
            assert {(await client.message())["id"] for _ in range(20)} == set(range(20, 40))
            await until(lambda: gateway.server.connections <= 28)
            for connection in list(gateway.server.open_connections):
                connection.close_when_idle()
            client.modern(41, "tools/list")
            assert (await client.answer(41))["result"]["tools"]
            for number in range(20):
                client.notify("notifications/cancelled", {"requestId": number})
            await until(lambda: upstream.in_flight == 0)


async def _answers(_arguments: dict[str, Any], _context: CallContext) -> Any:
    return "at once"


async def test_what_is_no_mcp_is_an_error_that_shows_it(scripted: ScriptedGateway) -> None:
    scripted.answers["tools/call"] = lambda exchange: exchange.respond(500, b"<h1>broken\x1b</h1>", b"text/html")
    scripted.answers["tools/list"] = lambda exchange: exchange.respond(202)
    async with client_of(scripted.url) as client:
        client.modern(1, "tools/call", NOW)
        error = (await client.answer(1))["error"]
        assert error["code"] == 500
        assert "<h1>broken </h1>" in error["message"]
        client.modern(2, "tools/list")
        assert (await client.answer(2))["error"]["data"]["reason"] == "bad_answer"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@asynccontextmanager
async def _weather_at(folder: Path, port: int, key: SealingKey = KEY) -> AsyncIterator[None]:
    """A gateway with one server that listens on that port."""
    async with gateway_in(folder, key=key) as gateway:
        await gateway.apply({"weather": lambda: InMemoryUpstream("weather", waiting_server())})
        await gateway.listed()
        server = await HttpServer.start(gateway.worker, host="127.0.0.1", port=port)
        try:
            yield
        finally:
            server.close()
