"""A client of the bridge on real pipes, a whole gateway behind it, or one that says what a test wants."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.cli.bridge.bridge import Bridge, BridgeSettings
from penstock.cli.bridge.link import GatewayLink
from penstock.clock import Clock, SystemClock
from penstock.http.client import connect, parse_url
from penstock.http.limits import ClientLimits
from penstock.http.messages import Request
from penstock.http.server import EventStream, Exchange, HttpServer
from penstock.protocol.event_stream import encode_event
from penstock.upstreams.in_memory import CallContext, InMemoryServer, InMemoryUpstream
from tests.unit.gateway.conftest import MODERN_META, Running, gateway_in, weather_server

SECONDS = 10.0
"""For anything to come that must."""


class Client:
    """Speaks to one bridge as an MCP client speaks to its child process."""

    def __init__(
        self,
        bridge: Bridge,
        reader: asyncio.StreamReader,
        writer: asyncio.WriteTransport,
        output: asyncio.ReadTransport,
    ) -> None:
        self.bridge, self._reader, self._writer, self.output = bridge, reader, writer, output
        self.stop = asyncio.Event()
        self.task = asyncio.get_running_loop().create_task(bridge.run(self.stop))

    def write(self, raw: bytes) -> None:
        self._writer.write(raw)

    def send(self, message: Any) -> None:
        self.write(msgspec.json.encode(message) + b"\n")

    def request(self, id: Any, method: str, params: dict[str, Any] | None = None) -> None:
        self.send({"jsonrpc": "2.0", "id": id, "method": method, **({} if params is None else {"params": params})})

    def modern(self, id: Any, method: str, params: dict[str, Any] | None = None, **meta: Any) -> None:
        self.request(id, method, {**(params or {}), "_meta": MODERN_META | meta})

    def notify(self, method: str, params: dict[str, Any] | None = None) -> None:
        self.send({"jsonrpc": "2.0", "method": method, **({} if params is None else {"params": params})})

    async def line(self) -> bytes:
        """The next line; empty at the end."""
        async with asyncio.timeout(SECONDS):
            return await self._reader.readline()

    async def message(self) -> Any:
        return msgspec.json.decode(await self.line())

    async def answer(self, id: Any) -> Any:
        """The next answer to that id; what comes before it must be notifications."""
        while True:
            message = await self.message()
            if "method" not in message or "id" in message:
                assert message.get("id") == id, message
                return message

    async def initialize(self, version: str = "2025-11-25") -> Any:
        params = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
        self.request(0, "initialize", params)
        answer = await self.answer(0)
        self.notify("notifications/initialized")
        return answer["result"]

    def close(self) -> None:
        """End its output."""
        self._writer.close()

    async def ended(self) -> None:
        """The bridge has ended by itself."""
        async with asyncio.timeout(SECONDS):
            await self.task

    @property
    def session(self) -> Any:
        return self.bridge._legacy.session


@asynccontextmanager
async def client_of(
    url: str,
    *,
    settings: BridgeSettings | None = None,
    retry_seconds: float = 3.0,
    clock: Clock | None = None,
) -> AsyncIterator[Client]:
    """A client and its bridge to the endpoint at `url`."""
    loop = asyncio.get_running_loop()
    (in_read, in_write), (out_read, out_write) = os.pipe(), os.pipe()
    writer, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(in_write, "wb", 0))
    reader = asyncio.StreamReader(limit=64 * 1024 * 1024)
    output, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(out_read, "rb", 0))
    clock = clock or SystemClock()
    bridge = Bridge(_link_to(url, retry_seconds, clock), (in_read, out_write), clock, settings)
    client = Client(bridge, reader, writer, output)
    try:
        yield client
    finally:
        client.stop.set()
        client.close()
        output.close()
        await asyncio.wait((client.task,), timeout=SECONDS)
        for pipe in (bridge._input, bridge._output):
            await asyncio.to_thread(pipe.thread.join, SECONDS)
        os.close(in_read)
        os.close(out_write)
        client.task.result()


def _link_to(url: str, retry_seconds: float, clock: Clock) -> GatewayLink:
    origin, target, authority = parse_url(url)
    return GatewayLink(
        lambda: connect(origin, limits=ClientLimits()),
        target=target,
        authority=authority,
        url=url,
        clock=clock,
        retry_seconds=retry_seconds,
    )


class ScriptedGateway:
    """Answers as a test says, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.disconnects = 0
        self.answers: dict[str, Callable[[Exchange], None]] = {}
        """By method of the body, or of HTTP where there is none."""
        self.url = ""
        self.server: HttpServer

    def __call__(self, exchange: Exchange) -> None:
        request = exchange.request
        self.asked.append(request)
        exchange.on_disconnect = self._gone
        message = msgspec.json.decode(request.body) if request.body else {}
        if isinstance(message, list):
            key, message = "batch", {}
        else:
            key = message.get("method", "reply") if request.body else request.method.decode()
        answer = self.answers.get(key)
        if answer is not None:
            answer(exchange)
        elif "method" in message and "id" in message:
            exchange.respond(200, msgspec.json.encode({"jsonrpc": "2.0", "id": message["id"], "result": {}}))
        else:
            exchange.respond(202 if request.body else 405)

    def _gone(self) -> None:
        self.disconnects += 1

    def headers(self, method: str) -> list[dict[bytes, bytes]]:
        """Those of all requests of that method."""
        return [request.headers for request in self.asked if method in {_method(request), request.method.decode()}]

    def opens_sessions(self) -> None:
        """Answer `initialize` with sessions s1, s2, …"""
        count = 0

        def initialize(exchange: Exchange) -> None:
            nonlocal count
            count += 1
            asked = msgspec.json.decode(exchange.request.body)
            result = {"protocolVersion": asked["params"]["protocolVersion"], "capabilities": {}}
            body = msgspec.json.encode({"jsonrpc": "2.0", "id": asked["id"], "result": result})
            exchange.respond(200, body, headers=b"mcp-session-id: s%d\r\n" % count)

        self.answers["initialize"] = initialize

    def streams(self, method: str) -> list[EventStream]:
        """Answer that method with event streams; they are returned as they are opened."""
        opened: list[EventStream] = []
        self.answers[method] = lambda exchange: opened.append(exchange.open_stream())
        return opened


def _method(request: Request) -> Any:
    message = msgspec.json.decode(request.body) if request.body else None
    return message.get("method") if isinstance(message, dict) else None


def event(message: Any, *, id: bytes | None = None) -> bytes:
    """A message as an event."""
    return encode_event(msgspec.json.encode(message), id=id)


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedGateway]:
    gateway = ScriptedGateway()
    server = await HttpServer.start(gateway, host="127.0.0.1", port=0)
    gateway.url, gateway.server = "http://{}:{}/mcp".format(*server.addresses[0]), server
    yield gateway
    server.close()


def waiting_server() -> InMemoryServer:
    """The weather server, and a tool that waits for ever once it has said so."""
    server = weather_server()

    @server.tool("wait")
    async def wait(_arguments: dict[str, Any], context: CallContext) -> Any:
        context.progress(1)
        await asyncio.Event().wait()

    return server


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    """A gateway with one server, `weather`."""
    async with gateway_in(tmp_path) as it:
        await it.apply({"weather": lambda: InMemoryUpstream("weather", waiting_server())})
        await it.listed()
        yield it


@pytest.fixture
async def client(running: Running) -> AsyncIterator[Client]:
    """A client before that gateway."""
    async with client_of(f"{running.url}/mcp") as it:
        yield it
