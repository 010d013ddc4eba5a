"""The gateway itself ends and starts again under its clients."""

import asyncio
import json
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from penstock.http.client import ConnectionLost, HttpClient, RequestFailed
from tests.end_to_end.faults_kit import (
    ERAS,
    STDIO_SERVER,
    Gateway,
    HttpServerProcess,
    McpClient,
    children,
    http_server,
    is_alive,
    server_tables,
    stdio_servers,
    until,
)

DRAIN = '[limits]\ndrain = "5s"\n'


@contextmanager
def behind(folder: Path, *words: str) -> Iterator[tuple[Gateway, HttpServerProcess]]:
    """A gateway before an HTTP server that knows sessions alone, and a stdio server with `words` as arguments."""
    with ExitStack() as stack:
        web = stack.enter_context(http_server(folder / "web", era="legacy"))
        gateway = Gateway(folder, server_tables({"web": web.url, "child": [*STDIO_SERVER, *words]}) + DRAIN)
        stack.callback(gateway.end)
        until(lambda: stdio_servers(gateway.pid), 10, "the child ran")
        yield gateway, web


async def session_of(client: McpClient) -> dict[str, object]:
    """What the server says of the session our call came over."""
    found: dict[str, object] = json.loads((await client.call("web_session")).text)
    return found


async def test_legacy_sessions_go_on_without_a_new_initialize(tmp_path: Path) -> None:
    with behind(tmp_path) as (gateway, _web):
        async with HttpClient() as http:
            clients = [McpClient(http, gateway.url, "legacy") for _ in range(3)]
            before = [await session_of(client) for client in clients]
            assert len({str(said["session"]) for said in before}) == 3
            assert [(await session_of(client))["calls"] for client in clients] == [2, 2, 2]
        address = gateway.address
        gateway.signal(signal.SIGTERM)
        assert await asyncio.to_thread(gateway.wait, 10) == 0
        with Gateway(tmp_path, listen=address) as again:
            assert again.url == gateway.url
            async with HttpClient() as http:
                same = [McpClient(http, again.url, "legacy", session=client.session) for client in clients]
                after = [await session_of(client) for client in same]
                assert {str(said["session"]) for said in after}.isdisjoint({str(said["session"]) for said in before})
                assert (
                    len({str(said["session"]) for said in after}) == 3
                )  # one at the server for each of ours, as before
                assert [(await session_of(client))["calls"] for client in same] == [2, 2, 2]
                assert [(await client.call("child_echo", {"text": "x"})).text for client in same] == ["x"] * 3
                assert sum(client.initializations for client in same) == 0


async def test_a_session_that_was_ended_or_forged_is_told_to_initialize_again(tmp_path: Path) -> None:
    with behind(tmp_path) as (gateway, _web):
        async with HttpClient() as http:
            client = McpClient(http, gateway.url, "legacy")
            await client.initialize()
            for wrong in ("forged", f"{client.session}x"):
                said = await McpClient(http, gateway.url, "legacy", session=wrong).call("web_session")
                assert (said.status, said.error["message"]) == (404, "Session not found: initialize again")


async def test_calls_under_way_end_before_the_gateway_does(tmp_path: Path) -> None:
    with behind(tmp_path) as (gateway, _web):
        async with HttpClient() as http:
            clients = [McpClient(http, gateway.url, era) for era in ERAS]
            for client in clients:
                await client.call("web_session")
            slow = [
                asyncio.create_task(client.call(f"{server}_slow", {"seconds": 1.0}))
                for client in clients
                for server in ("web", "child")
            ]
            await until_in_flight(gateway, http, len(slow))
            started = time.monotonic()
            gateway.signal(signal.SIGTERM)
            assert [said.text for said in await asyncio.gather(*slow)] == ["slept"] * 4
            assert await asyncio.to_thread(gateway.wait, 10) == 0
            assert time.monotonic() - started < 4.0


async def test_nobody_is_let_in_while_calls_end(tmp_path: Path) -> None:
    with behind(tmp_path) as (gateway, _web):
        async with HttpClient() as http:
            client = McpClient(http, gateway.url, "modern")
            slow = asyncio.create_task(client.call("child_slow", {"seconds": 1.0}))
            await until_in_flight(gateway, http, 1)
            gateway.signal(signal.SIGTERM)
            refused = 0
            while not slow.done():
                try:
                    await McpClient(http, gateway.url, "modern").call("child_echo")
                except ConnectionLost as error:
                    refused += error.unprocessed
                await asyncio.sleep(0.02)
            assert slow.result().text == "slept"
            assert refused


async def test_calls_that_do_not_end_are_cut_when_the_drain_is_over(tmp_path: Path) -> None:
    with behind(tmp_path) as (gateway, _web):
        gateway.end()
        gateway.write(gateway.config.read_text().replace('"5s"', '"1s"'))
        with Gateway(tmp_path) as short:
            async with HttpClient() as http:
                never = asyncio.create_task(McpClient(http, short.url, "modern").call("child_never"))
                await until_in_flight(short, http, 1)
                started = time.monotonic()
                short.signal(signal.SIGTERM)
                await asyncio.wait((never,))
                assert isinstance(never.exception(), RequestFailed)
                assert await asyncio.to_thread(short.wait, 10) == 0
                assert 0.9 < time.monotonic() - started < 5.0
        assert "1 s" in short.err


@pytest.mark.parametrize("words", [(), ("stubborn",)], ids=["meek child", "stubborn child"])
async def test_a_second_signal_ends_at_once(words: tuple[str, ...], tmp_path: Path) -> None:
    with behind(tmp_path, *words) as (gateway, _web):
        async with HttpClient() as http:
            never = asyncio.create_task(McpClient(http, gateway.url, "modern").call("child_never"))
            await until_in_flight(gateway, http, 1)
            family = children(gateway.pid)
            gateway.signal(signal.SIGTERM)
            await asyncio.to_thread(until, lambda: "stopping" in gateway.err, 5, "the drain began")
            started = time.monotonic()
            gateway.signal(signal.SIGTERM)
            await asyncio.wait((never,))
            assert isinstance(never.exception(), RequestFailed)
            await asyncio.to_thread(gateway.wait, 10)
            assert time.monotonic() - started < 2.0
        until(lambda: not any(map(is_alive, family)), 3, "the children ended")
        assert "a second signal: ending at once" in gateway.err


async def test_kill_9_of_the_gateway_leaves_no_children_and_the_next_one_starts(tmp_path: Path) -> None:
    with behind(tmp_path, "stubborn") as (gateway, _web):
        family = children(gateway.pid)
        assert len(family) == 2  # the server, and the guard that ends it now
        address = gateway.address
        async with HttpClient() as http:
            client = McpClient(http, gateway.url, "legacy")
            assert (await client.call("child_echo", {"text": "x"})).text == "x"
        gateway.signal(signal.SIGKILL)
        gateway.wait(5)
        until(lambda: not any(map(is_alive, family)), 5, "the children ended")
        gateway.write(gateway.config.read_text().replace(', "stubborn"', ""))
        with Gateway(tmp_path, listen=address) as again:
            async with HttpClient() as http:
                same = McpClient(http, again.url, "legacy", session=client.session)
                assert (await same.call("child_echo", {"text": "y"})).text == "y"


async def until_in_flight(gateway: Gateway, http: HttpClient, wanted: int) -> None:
    """Calls have reached their servers, as far as the gateway knows."""
    async with asyncio.timeout(10):
        while True:
            answer = await http.get(f"{gateway.admin}/health/detailed")
            if json.loads(answer.body)["calls_in_flight"] == wanted:
                return
            await asyncio.sleep(0.02)
