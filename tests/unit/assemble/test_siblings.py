"""Workers among themselves: metrics, reloads, what is let in at the inner door, and how it is closed."""

import asyncio
import json
import os
import re
import socket
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

import pytest

from penstock.assemble.conversions import door_limits, server_limits, sibling_limits
from penstock.assemble.siblings import Siblings
from penstock.clock import SystemClock
from penstock.config.settings import LimitsSettings
from penstock.control.admin import Admin, Reloaded
from penstock.control.supervisor import WorkerPlace
from penstock.control.worker_pages import METRICS, Refusal
from penstock.errors import ConfigError, ServerUnavailable
from penstock.gateway.admittance import Admittance
from penstock.gateway.hops import CONNECTIONS
from penstock.http.client_connect import connect_unix
from penstock.http.limits import KIB, MIB
from penstock.http.server import HttpServer
from penstock.protocol.versions import Era
from penstock.telemetry.exposition import Gauge
from penstock.upstreams.in_memory import InMemoryServer
from tests.unit.gateway.asking import LegacyClient, text_of, work
from tests.unit.gateway.conftest import Running, gateway_in, plan_of, until
from tests.unit.gateway.joined import Bound, desk

LIMITS = LimitsSettings(connect=0.3)


class One:
    """One worker of several."""

    def __init__(self, running: Running, others_live: BinaryIO, place: WorkerPlace) -> None:
        self.running, self.others_live, self.place = running, others_live, place
        self.reloads = 0
        self.refusal = ""
        self.siblings = Siblings(place, running.gateway, LIMITS, SystemClock())
        self.admin = Admin(
            running.gateway,
            admittance=Admittance(),
            reload=self.reload,
            disabled=dict,
            gauges=(Gauge("penstock_sessions", "Sessions.", lambda: [("", place.index + 1)]),),
            refusal=lambda: Refusal(self.refusal, 0.0) if self.refusal else None,
            siblings=self.siblings,
        )
        self.door: HttpServer | None = None

    async def reload(self) -> Reloaded:
        self.reloads += 1
        if self.refusal:
            raise ConfigError(self.refusal)
        return Reloaded(1, [])

    async def open(self) -> None:
        self.door = await self.siblings.listen(self.admin, self.reload)

    def leave(self) -> None:
        if self.door is not None:
            self.door.close()

    async def get(self, path: str) -> tuple[int, bytes]:
        """What the inner door says."""
        connection = await connect_unix(self.place.siblings[self.place.index], limits=sibling_limits(LIMITS))
        response = await connection.request(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        connection.close()
        return response.status, bytes(response.body)


def desk_of(index: int) -> Bound:
    server = InMemoryServer("desk", era=Era.LEGACY)
    desk(server, index)
    return Bound("desk", server)


@asynccontextmanager
async def several(folder: Path, count: int = 2) -> AsyncIterator[list[One]]:
    """Workers, each with a server that keeps something for each session."""
    async with AsyncExitStack() as stack:
        sockets = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="door-")))
        paths = tuple(sockets / f"{index}.sock" for index in range(count))
        gone, others = os.pipe()
        stack.callback(os.close, gone)
        others_live = stack.enter_context(os.fdopen(others, "wb"))
        found = []
        for index, path in enumerate(paths):
            running = await stack.enter_async_context(gateway_in(folder / str(index), worker=index))
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(path))
            listener.listen()
            listener.setblocking(False)
            one = One(
                running, others_live, WorkerPlace(index, count, listener.dup(), paths, alive=-1, others_gone=gone)
            )
            await running.gateway.apply({"desk": plan_of("desk", partial(desk_of, index))}, ())
            await running.listed()
            await one.open()
            stack.callback(one.leave)
            stack.push_async_callback(one.siblings.close)
            found.append(one)
        yield found


async def test_metrics_are_those_of_all(tmp_path: Path) -> None:
    async with several(tmp_path, 3) as (first, second, third):
        for one in (first, second, third):
            await (await LegacyClient.open(one.running)).call().answer()
        page = await outside(first, "/metrics")
        assert b"penstock_sessions 6.0" in page
        line = next(line for line in page.splitlines() if line.startswith(b"penstock_calls_total{"))
        assert line.endswith(b" 3.0")


async def test_metrics_of_the_others_are_there_while_one_is_away(tmp_path: Path) -> None:
    async with several(tmp_path, 3) as (first, second, third):
        second.leave()
        assert await first.siblings.ask(METRICS) == [third.admin.own_page(METRICS, "")]


async def outside(one: One, path: str) -> bytes:
    """What the admin port says."""
    server = await HttpServer.start(one.admin, host="127.0.0.1", port=0)
    try:
        response = await one.running.client.get("http://{}:{}".format(*server.addresses[0]) + path)
        assert response.status == 200
        return bytes(response.body)
    finally:
        server.close()


async def test_health_is_that_of_all_and_of_each_server_the_worst(tmp_path: Path) -> None:
    async with several(tmp_path, 3) as (first, second, third):
        for one in (first, second, third):
            await LegacyClient.open(one.running)
        said = json.loads(await outside(first, "/health/detailed"))
        assert (said["status"], said["sessions"], said["servers"]) == ("ok", 3, {"desk": "ready"})
        assert said["workers"] == {"configured": 3, "answering": 3}
        assert said["configuration"] == {"taken_up": True}
        server = third.running.gateway.context.snapshot.servers["desk"]
        server.failure = ServerUnavailable("desk", "it is down")
        said = json.loads(await outside(first, "/health/detailed"))
        assert (said["status"], said["servers"]) == ("degraded", {"desk": "failed"})
        server.failure = None
        second.refusal = "penstock.toml:3: odd"
        said = json.loads(await outside(first, "/health/detailed"))
        assert (said["status"], said["configuration"]["error"]) == ("degraded", "penstock.toml:3: odd")
        second.leave()
        said = json.loads(await outside(first, "/health/detailed"))
        assert (said["status"], said["workers"]) == ("degraded", {"configured": 3, "answering": 2})


async def test_a_tool_is_explained_with_the_calls_of_all(tmp_path: Path) -> None:
    async with several(tmp_path, 3) as (first, second, third):
        for one in (second, second, third):
            await (await LegacyClient.open(one.running)).call().answer()
        third.running.gateway.cells.cell("desk", "tools/call", "work").last_failure = (time.monotonic() - 7, "too late")
        said = json.loads(await outside(first, "/api/v1/explain?tool=desk_work"))
        assert said["calls"]["outcomes"] == {"ok": 3}
        assert said["calls"]["upstream_ms"]["p50"] > 0
        assert re.fullmatch(r"\d+ s ago: too late", said["last_error"])


async def test_a_reload_reaches_all_and_one_that_refuses_costs_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with several(tmp_path, 3) as (first, second, third):
        second.refusal = "penstock.toml: not good"
        await first.siblings.reload()
        assert (first.reloads, second.reloads, third.reloads) == (0, 1, 1)
        assert "configuration not taken up, the old one stays: penstock.toml: not good" in caplog.text


async def test_the_door_leads_to_views_and_to_what_workers_ask(tmp_path: Path) -> None:
    async with several(tmp_path) as (first, _second):
        status, page = await first.get("/-/metrics")
        assert (status, b"penstock_calls_total" in page) == (200, True)
        assert (await first.get("/-/nothing"))[0] == 404
        assert await first.get("/health") == (200, b'{"status":"ok"}')
        assert repr(first.siblings) == "<Siblings of worker 0 of 2>"


async def test_the_largest_request_of_a_client_is_not_too_large_for_the_next_worker(tmp_path: Path) -> None:
    async with several(tmp_path) as (first, second):
        client = await LegacyClient.open(first.running)
        body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"desk_work","arguments":{"x":"%b"}}}'
        body %= b"x" * (4 * MIB - len(body) + 2)
        lines = client.headers | {"host": "localhost", "accept": "application/json", "content-length": str(len(body))}
        head = "POST /mcp HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        filler = "x" * (16 * KIB - len(head) - len("x: \r\n\r\n"))
        line = await second.running.line()
        line.writer.write(f"{head}x: {filler}\r\n\r\n".encode() + body)
        status, said = await line.answer()
        assert (status, text_of(said)) == (200, "by 0")


def test_its_limits_are_never_below_those_of_clients() -> None:
    limits = LimitsSettings(idle=1.0, event_bytes=100, response_bytes=1000)
    door, outside = door_limits(limits), server_limits(limits)
    assert door.header_bytes > outside.header_bytes
    assert door.body_bytes > outside.body_bytes
    assert CONNECTIONS.idle_seconds is not None
    assert door.idle_seconds > CONNECTIONS.idle_seconds
    assert sibling_limits(limits).event_bytes == sibling_limits(limits).response_bytes > 1000


# --- the end ---


async def drained(one: One, seconds: float, hurry: asyncio.Event | None = None) -> bool:
    return await one.siblings.drain(SystemClock().now() + seconds, hurry or asyncio.Event())


async def test_calls_of_others_end_before_the_door_is_closed(tmp_path: Path) -> None:
    async with several(tmp_path) as (first, second):
        client = await LegacyClient.open(second.running)
        talk = LegacyClient(first.running, client.headers).call(work(do="ask"))
        question = await talk.asked()
        draining = asyncio.create_task(drained(second, 5.0))
        await until(lambda: second.door is not None and second.door.is_draining)
        assert await client.answer(question, {"action": "accept", "content": {"name": "Ann"}}) == 202
        assert text_of(await talk.answer()) == "Ann by 1"
        assert await draining


async def test_calls_of_others_are_cut_when_the_time_is_over(tmp_path: Path) -> None:
    async with several(tmp_path) as (first, second):
        client = await LegacyClient.open(second.running)
        talk = LegacyClient(first.running, client.headers).call(work(do="never"))
        await until(lambda: second.running.gateway.calls_in_flight)
        assert not await drained(second, 0.1)
        said = await talk.answer()
        assert said["error"]["data"]["reason"] == "worker_away"


async def test_the_first_stays_until_the_others_are_gone(tmp_path: Path) -> None:
    async with several(tmp_path) as (first, _second):
        draining = asyncio.create_task(drained(first, 5.0))
        assert (await first.get("/health"))[0] == 200
        assert not draining.done()
        first.others_live.close()
        assert await asyncio.wait_for(draining, 5)


@pytest.mark.parametrize("why", ["a second signal", "its time is over"])
async def test_the_first_does_not_wait_for_ever(why: str, tmp_path: Path) -> None:
    async with several(tmp_path) as (first, _second):
        hurry = asyncio.Event()
        if why == "a second signal":
            hurry.set()
        assert await drained(first, -4.9 if why == "its time is over" else 5.0, hurry)
