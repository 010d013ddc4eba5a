"""How large, how slow and how many requests that hop may be."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from penstock.clock import FakeClock
from penstock.gateway import hops
from penstock.http.limits import ClientLimits
from penstock.http.server import Exchange, HttpServer
from penstock.protocol.envelopes import encode_result
from penstock.protocol.subscriptions import list_changed, updated
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


@asynccontextmanager
async def notice() -> AsyncIterator[Exchange]:
    """Something for all workers, as it came from a client."""
    exchanges: list[Exchange] = []
    probe = await HttpServer.start(exchanges.append, host="127.0.0.1", port=0)
    line = Line(*await asyncio.open_connection(*probe.addresses[0]))
    line.post({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {}})
    await until(lambda: exchanges)
    try:
        yield exchanges[0]
    finally:
        line.close()
        probe.close()


async def test_who_floods_the_others_with_messages_loses_its_own_alone(tmp_path: Path) -> None:
    async with (
        workers_in(tmp_path, telling=hops.Telling(of_one=8), count=3, limits=SHORT) as (first, second, third),
        notice() as exchange,
    ):
        third.leave()
        told = [first.hops.tell_others(exchange, "flood") for _ in range(20)]
        assert told == [True] * 8 + [False] * 12
        assert first.hops.tell_others(exchange, "another")
        await first.hops.others_told(exchange)  # who waits for it is bounded by waiting
        await until(lambda: second.heard("cancelled") == 10)
        await until(lambda: "[0 told]" in repr(first.hops))
        assert third.knocks == []
        assert first.hops.tell_others(exchange, "flood")
        await until(lambda: "[0 told]" in repr(first.hops))


@pytest.mark.parametrize("bounds", [hops.Telling(max_bytes=700), hops.Telling(of_all=4)], ids=["bytes", "number"])
async def test_messages_for_others_are_bounded_whosever_they_are(bounds: hops.Telling, tmp_path: Path) -> None:
    async with workers_in(tmp_path, limits=SHORT, telling=bounds) as (first, second), notice() as exchange:
        second.leave()
        told = [first.hops.tell_others(exchange, number) for number in range(9)]
        assert told == sorted(told, reverse=True)
        assert 2 <= sum(told) <= 4, "the head counts as well"
        await until(lambda: "[0 told]" in repr(first.hops))
        assert first.hops.tell_others(exchange, 9)
        await until(lambda: "[0 told]" in repr(first.hops))


async def test_a_client_whose_flood_is_not_handed_on_is_told_so_and_heard_here(tmp_path: Path) -> None:
    async with workers_in(tmp_path, desk, telling=hops.Telling(of_one=0)) as (first, _second):
        client = await LegacyClient.open(first.running)
        talk = client.call(work(do="never"), request_id=77)
        await until(lambda: first.running.gateway.calls_in_flight)
        assert await client.notify("notifications/cancelled", requestId=77) == 503
        assert await talk.answer() == {}
        assert await client.notify("notifications/initialized") == 202


class Passed:
    """A passage that takes nobody, and remembers whom it was to take."""

    def __init__(self) -> None:
        self.offered: list[bytes] = []

    def give(self, _number: int, request: bytes, _descriptor: int, _ahead: bytes, _moves: int) -> bool:
        self.offered.append(request)
        return False


async def test_clients_are_passed_only_to_who_has_just_answered(tmp_path: Path) -> None:
    async with workers_in(tmp_path, desk, binds=True) as (first, second):
        passed: Any = Passed()
        second.hops._passage = passed
        clock = second.hops._clock = FakeClock()
        client = await LegacyClient.open(first.running)
        for offered in (0, 1):  # the first request has to show that somebody is there
            await at(second, client).call().answer()
            assert len(passed.offered) == offered
        await clock.advance(hops.RECENTLY_SECONDS)
        first.leave()
        said = await at(second, client).call().answer()
        assert said["error"]["data"]["reason"] == "worker_away"
        assert len(passed.offered) == 1


async def test_a_client_whose_header_block_has_grown_stays(tmp_path: Path) -> None:
    async with workers_in(tmp_path, desk, binds=True) as (first, second):
        passed: Any = Passed()
        second.hops._passage = passed
        client = await LegacyClient.open(first.running)
        await at(second, client).call().answer()
        await at(second, client).call().answer()
        assert len(passed.offered) == 1
        second.hops._header_bytes = passed.offered[0].index(b"\r\n\r\n")  # less than the whole block
        assert text_of(await at(second, client).call().answer()) == "by 0"
        assert len(passed.offered) == 1


def test_a_reader_that_is_too_slow_loses_changes_too() -> None:
    """Whoever listens through another worker is no better off than who listens at home."""
    for event in (
        list_changed("tools", None),
        list_changed("resources", b"1"),
        updated("a:b", None),
        updated("a:b", b"1"),
    ):
        assert event.startswith(hops._DROPPABLE), event
    assert not encode_result(b"1", b"{}").startswith(hops._DROPPABLE)


async def test_connections_that_rest_are_closed(tmp_path: Path) -> None:
    async with workers_in(tmp_path, desk, binds=True) as (first, second):
        client = await LegacyClient.open(first.running)
        await at(second, client).call().answer()
        assert "[0 busy 1 idle" in repr(second.hops)
        clock = second.hops._clock
        second.hops.sweep()
        assert "[0 busy 1 idle" in repr(second.hops)
        for pool in second.hops._pools:
            pool._now = lambda: clock.now() + hops.CONNECTIONS.idle_seconds + 1
        second.hops.sweep()
        assert "1 idle" not in repr(second.hops)
