"""How large, how slow and how many requests that hop may be."""

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from penstock.http.limits import ClientLimits
from penstock.http.server import Exchange, HttpServer
from tests.unit.gateway.asking import LegacyClient, text_of, work
from tests.unit.gateway.conftest import Line, request_body, until
from tests.unit.gateway.joined import at, desk, workers_in

SHORT = ClientLimits(connect_seconds=0.2)


def posted(body: dict[str, Any], headers: dict[str, str]) -> bytes:
    """A request byte for byte."""
    raw = json.dumps(body).encode()
    lines = headers | {"host": "localhost", "content-type": "application/json", "content-length": str(len(raw))}
    lines["accept"] = "application/json, text/event-stream"
    return b"POST /mcp HTTP/1.1\r\n%b\r\n%b" % ("".join(f"{k}: {v}\r\n" for k, v in lines.items()).encode(), raw)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_large_answers_come_through_whole(stream: bool, tmp_path: Path) -> None:
    async with workers_in(tmp_path, desk, binds=True) as (first, second):
        client = await LegacyClient.open(first.running)
        params = work(do="large", size=3_000_000, stream=stream)
        said = await at(second, client).call(params, meta={"progressToken": 1} if stream else None).answer()
        assert text_of(said) == "0" * 3_000_000


async def test_large_requests_come_through_whole(tmp_path: Path) -> None:
    async with workers_in(tmp_path, desk, binds=True) as (first, second):
        client = await LegacyClient.open(first.running)
        said = await at(second, client).call(work(filler="x" * 3_000_000)).answer()
        assert text_of(said) == "by 0"
        assert len(first.knocks[0].request.body) > 3_000_000


async def test_a_reader_that_is_too_slow_loses_progress_first(tmp_path: Path) -> None:
    async with workers_in(tmp_path, desk, binds=True) as (first, second):
        client = await LegacyClient.open(first.running)
        loop = asyncio.get_running_loop()
        with socket.socket() as slow:
            slow.setblocking(False)
            await loop.sock_connect(slow, second.running.server.addresses[0])
            params = work(do="count", to=3_000, size=6_000) | {"_meta": {"progressToken": 1}}
            await loop.sock_sendall(slow, posted(request_body("tools/call", params), client.headers))
            await until(lambda: first.knocks and not first.running.gateway.calls_in_flight)
            await until(lambda: not second.running.server.tasks)
            raw = b""
            async with asyncio.timeout(10):
                while not raw.endswith(b"0\r\n\r\n"):
                    piece = await loop.sock_recv(slow, 1 << 20)
                    assert piece, "the answer is never lost"
                    raw += piece
        assert b"by 0" in raw[-400:]
        assert 0 < raw.count(b'"progress":') < 3_000


async def test_messages_for_all_reach_the_others_while_one_does_not_listen(tmp_path: Path) -> None:
    async with workers_in(tmp_path, desk, count=3, limits=SHORT) as (first, second, third):
        client = await LegacyClient.open(first.running)
        third.leave()
        for number in range(60):
            assert await client.notify("notifications/cancelled", requestId=number) == 202
        await until(lambda: second.heard("notifications/cancelled") == 60)


async def test_no_more_than_so_many_messages_wait_for_a_worker(tmp_path: Path) -> None:
    async with workers_in(tmp_path, count=3, max_told=8, limits=SHORT) as (first, second, third):
        third.leave()
        exchanges: list[Exchange] = []
        probe = await HttpServer.start(exchanges.append, host="127.0.0.1", port=0)
        line = Line(*await asyncio.open_connection(*probe.addresses[0]))
        line.post({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {}})
        await until(lambda: exchanges)
        for _ in range(20):
            first.hops.tell_others(exchanges[0])
        await until(lambda: second.heard("cancelled"))
        await until(lambda: "[0 told]" in repr(first.hops))
        assert (second.heard("cancelled"), third.knocks) == (8, [])
        line.close()
        probe.close()
