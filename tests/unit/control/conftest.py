"""An admin port before a gateway with two servers."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.control.admin import Admin, Reloaded
from penstock.control.worker_pages import Refusal
from penstock.errors import ConfigError
from penstock.gateway.admittance import Admittance
from penstock.http.client import Response
from penstock.http.server import HttpServer
from penstock.telemetry.exposition import Gauge
from penstock.upstreams.in_memory import InMemoryUpstream
from tests.unit.gateway.conftest import Running, gateway_in, weather_server


class Chatty(InMemoryUpstream):
    """Has a log, as a stdio server has."""

    def __init__(self, name: str) -> None:
        super().__init__(name, weather_server())
        self.written = [f"line {number}" for number in range(1, 6)]
        self.counts = True

    def recent_log(self, lines: int) -> list[str]:
        return self.written[-lines:] if lines > 0 else []

    def state(self) -> dict[str, Any]:
        return super().state() | ({"stderr_lines": len(self.written)} if self.counts else {})


class Controlled:
    """What tests need of it."""

    def __init__(self, running: Running, upstreams: dict[str, Chatty]) -> None:
        self.running, self.upstreams = running, upstreams
        self.url = ""
        self.refusal = ""
        self.refused: Refusal | None = None
        self.reloads = 0
        self.admin = Admin(
            running.gateway,
            admittance=Admittance(["admin.example"]),
            reload=self._reload,
            disabled=lambda: {"off": "http://off/"},
            refusal=lambda: self.refused,
            gauges=(Gauge("penstock_generation", "Number of the snapshot.", lambda: [("", 7)]),),
        )

    async def _reload(self) -> Reloaded:
        await asyncio.sleep(0)
        self.reloads += 1
        if self.refusal:
            raise ConfigError(self.refusal, file="penstock.toml", line=3)
        return Reloaded(8, ["added new"])

    async def get(self, path: str) -> tuple[int, Any]:
        response = await self.ask("GET", path)
        return response.status, msgspec.json.decode(response.body)

    async def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Response:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.running.client.request(method, self.url + path, sent, body)


@pytest.fixture
async def controlled(tmp_path: Path) -> AsyncIterator[Controlled]:
    async with gateway_in(tmp_path) as running:
        upstreams = {name: Chatty(name) for name in ("weather", "second")}
        await running.apply({name: lambda name=name: upstreams[name] for name in upstreams})  # type: ignore[misc]
        await running.listed()
        it = Controlled(running, upstreams)
        server = await HttpServer.start(it.admin, host="127.0.0.1", port=0)
        it.url = "http://{}:{}".format(*server.addresses[0])
        yield it
        server.close()
