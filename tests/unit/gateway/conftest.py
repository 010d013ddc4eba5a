"""A whole gateway in the test's own process: real sockets, in-memory servers."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.clock import Clock, SystemClock
from penstock.gateway.admittance import Admittance
from penstock.gateway.gateway import Gateway, GatewaySettings, ServerPlan
from penstock.gateway.hosting import HostSettings
from penstock.gateway.known_lists import KnownLists
from penstock.gateway.snapshot import ViewSettings
from penstock.gateway.worker import Worker
from penstock.http.client import HttpClient, Response
from penstock.http.server import HttpServer
from penstock.identity.seal import Sealer, SealingKey
from penstock.protocol.event_stream import Event
from penstock.telemetry.cells import CellRegistry
from penstock.upstreams.in_memory import CallContext, InMemoryServer, InMemoryUpstream
from penstock.upstreams.interface import Upstream

KEY = SealingKey(b"test", b"k" * 32)
MODERN_META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


def weather_server() -> InMemoryServer:
    """Two tools, a prompt, a resource and a template."""
    server = InMemoryServer("weather", version="1.0", instructions="Ask about the weather.")

    @server.tool("forecast", description="The forecast", input_schema={"type": "object"})
    async def forecast(arguments: dict[str, Any], context: CallContext) -> Any:
        context.progress(1, 2)
        context.progress(2, 2)
        return f"sunny in {arguments.get('city', 'town')}"

    @server.tool("now", description="The weather now")
    async def now(_arguments: dict[str, Any], _context: CallContext) -> Any:
        return "rain"

    @server.prompt("ask")
    async def ask(_arguments: dict[str, Any], _context: CallContext) -> Any:
        return "How is the weather?"

    @server.resource("weather://map", name="map")
    async def weather_map(_arguments: dict[str, Any], _context: CallContext) -> Any:
        return "a map"

    @server.resource_template("weather://city/{name}", name="city")
    async def city(arguments: dict[str, Any], _context: CallContext) -> Any:
        return f"city {arguments}"

    return server


class Running:
    """A gateway that listens, and a client for it."""

    def __init__(self, gateway: Gateway, worker: Worker, server: HttpServer, client: HttpClient) -> None:
        self.gateway, self.worker, self.server, self.client = gateway, worker, server, client
        host, port = server.addresses[0]
        self.url = f"http://{host}:{port}"
        self.events: list[Event] = []
        self.lines: list[Line] = []
        """Closed with the gateway."""

    async def apply(self, upstreams: Mapping[str, Callable[[], Upstream]], *views: ViewSettings) -> list[str]:
        plans = {name: plan_of(name, open_it) for name, open_it in upstreams.items()}
        return await self.gateway.apply(plans, views)

    async def listed(self) -> None:
        """Wait until each server was listed, or failed to be, and the snapshot says so."""
        for server in list(self.gateway.context.snapshot.servers.values()):
            async with asyncio.timeout(5):
                await server.first_attempt.wait()
        self.gateway.settle()

    async def line(self) -> "Line":
        """A connection of a client that sends bytes."""
        self.lines.append(Line(*await asyncio.open_connection(*self.server.addresses[0])))
        return self.lines[-1]

    async def post(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> Response:
        """POST as it is; events of a stream are kept in `events`."""

        def keep(event: Event) -> bool:
            self.events.append(event)
            return False

        raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
        sent = {"content-type": "application/json", "accept": "application/json, text/event-stream", **(headers or {})}
        return await self.client.post(self.url + path, sent, raw, keep, timeout=10)

    async def modern(
        self,
        method: str,
        params: dict[str, Any] | None = None,
        *,
        path: str = "/mcp",
        meta: dict[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """A well-formed modern request; returns the decoded answer with its HTTP status under `status`."""
        params = dict(params or {})
        sent = modern_headers(method, params) | dict(headers or {})
        params["_meta"] = MODERN_META | (meta or {})
        return self.decoded(await self.post(path, request_body(method, params), sent))

    async def legacy(
        self,
        method: str,
        params: dict[str, Any] | None = None,
        *,
        path: str = "/mcp",
        version: str | None = "2025-11-25",
        session: str | None = None,
        request_id: Any = 7,
    ) -> Any:
        """A legacy request; returns the decoded answer with its HTTP status under `status`."""
        headers = {}
        if version is not None:
            headers["mcp-protocol-version"] = version
        if session is not None:
            headers["mcp-session-id"] = session
        return self.decoded(await self.post(path, request_body(method, params, request_id), headers))

    async def initialize(self, *, path: str = "/mcp", version: str = "2025-11-25") -> tuple[Any, str]:
        """Open a legacy session: the result and the session id."""
        params = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
        response = await self.post(path, request_body("initialize", params))
        return msgspec.json.decode(response.body)["result"], response.headers[b"mcp-session-id"].decode()

    def decoded(self, response: Response) -> Any:
        """An answer as a dict, with its HTTP status under `status` and notifications under `notifications`."""
        events, self.events = self.events, []
        if response.headers.get(b"content-type", b"").startswith(b"text/event-stream"):
            messages = [msgspec.json.decode(event.data) for event in events if event.data]
            answers = [message for message in messages if "id" in message]
            notes = [message for message in messages if "id" not in message]
            return {"status": response.status, "notifications": notes, **(answers[0] if answers else {})}
        return {"status": response.status, **(msgspec.json.decode(response.body) if response.body else {})}


class Line:
    """A client's connection, byte for byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def post(self, body: Any, headers: Mapping[str, str] | None = None, path: str = "/mcp") -> None:
        """Send a POST and do not wait."""
        raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
        sent = {
            "host": "localhost",
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "content-length": str(len(raw)),
            **(headers or {}),
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
        self.writer.write(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + raw)

    async def until(self, ending: bytes) -> bytes:
        async with asyncio.timeout(5):
            return await self.reader.readuntil(ending)

    async def answer(self) -> tuple[int, Any]:
        """Status and decoded body of a plain answer."""
        head = (await self.until(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0] or 0)
        body = await self.reader.readexactly(length)
        return int(head[9:12]), msgspec.json.decode(body) if body else None

    def close(self) -> None:
        self.writer.close()


def plan_of(name: str, open_it: Callable[[], Upstream], **settings: Any) -> ServerPlan:
    """How a server of that name is to be there."""
    fingerprint = settings.pop("fingerprint", f"{name} of the test")
    return ServerPlan(HostSettings(name, "built-in", name, fingerprint, **settings), open_it)


def modern_headers(method: str, params: Mapping[str, Any]) -> dict[str, str]:
    """The standard headers of a modern request."""
    headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": method}
    name = params.get("name", params.get("uri", params.get("taskId")))
    if name is not None and (method in {"tools/call", "prompts/get", "resources/read"} or method.startswith("tasks/")):
        headers["mcp-name"] = name
    return headers


async def until(condition: Callable[[], object]) -> None:
    """Give the loop its turns until something has happened elsewhere."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.002)


def request_body(method: str, params: dict[str, Any] | None = None, request_id: Any = 7) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params or {}}


@asynccontextmanager
async def gateway_in(
    folder: Path, *, clock: Clock | None = None, key: SealingKey = KEY, worker: int = 0
) -> AsyncIterator[Running]:
    """A gateway without servers, whose state is kept in `folder`."""
    clock = clock or SystemClock()
    gateway = Gateway(
        GatewaySettings(b'{"name":"penstock","version":"test"}', worker=worker),
        sealer=Sealer([key]),
        known=KnownLists(folder / "lists"),
        clock=clock,
        cells=CellRegistry(),
    )
    serving = Worker(gateway.context, Admittance())
    server = await HttpServer.start(serving, host="127.0.0.1", port=0)
    try:
        async with HttpClient() as client:
            running = Running(gateway, serving, server, client)
            try:
                yield running
            finally:
                for line in running.lines:
                    line.close()
    finally:
        server.close()
        await gateway.close()


@pytest.fixture
async def empty(tmp_path: Path) -> AsyncIterator[Running]:
    """A gateway without servers."""
    async with gateway_in(tmp_path) as it:
        yield it


@pytest.fixture
async def running(empty: Running) -> Running:
    """A gateway with one server, `weather`."""
    await empty.apply({"weather": lambda: InMemoryUpstream("weather", weather_server())})
    return empty
