"""A server under test with a handler that records, and clients that speak bytes over real sockets."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

from penstock.clock import FakeClock
from penstock.http.connection import ServerConnection
from penstock.http.limits import ServerLimits
from penstock.http.server import Exchange, HttpServer, Request

WAIT_SECONDS = 5.0
"""Patience with what must happen; no test takes this long unless it fails."""


GET = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"


def post(body: bytes) -> bytes:
    """A request with this body."""
    return b"POST /mcp HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


class Answer(NamedTuple):
    """One response as it came."""

    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """A client that sends what it is told, byte for byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)

    async def answer(self, *, bodiless: bool = False) -> Answer:
        """Read one response; for a stream, its head only."""
        async with asyncio.timeout(WAIT_SECONDS):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            lines = head.split("\r\n")[:-2]
            headers = dict(line.split(": ", 1) for line in lines[1:])
            length = 0 if bodiless else int(headers.get("content-length", "0"))
            return Answer(int(lines[0].split(" ")[1]), headers, await self.reader.readexactly(length))

    async def rest(self) -> bytes:
        """Everything until the server closes."""
        async with asyncio.timeout(WAIT_SECONDS):
            return await self.reader.read(-1)

    async def until(self, ending: bytes) -> bytes:
        """Everything up to these bytes."""
        async with asyncio.timeout(WAIT_SECONDS):
            return await self.reader.readuntil(ending)

    async def exact(self, count: int) -> bytes:
        """So many bytes."""
        async with asyncio.timeout(WAIT_SECONDS):
            return await self.reader.readexactly(count)

    def close(self) -> None:
        """Hang up."""
        self.writer.close()


class Lane:
    """A running server, its clock, and what its handler has seen."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.seen: list[Request] = []
        self.exchanges: asyncio.Queue[Exchange] = asyncio.Queue()
        self.handle: Callable[[Exchange], object] = echo
        self.clients: list[Client] = []
        self.server: HttpServer

    def on_exchange(self, exchange: Exchange) -> None:
        """Record the exchange, then let the test's handler have it."""
        self.seen.append(exchange.request)
        self.exchanges.put_nowait(exchange)
        self.handle(exchange)

    async def connect(self, *, tls: ssl.SSLContext | None = None, read_limit: int = 1 << 16) -> Client:
        """A new client."""
        host, port = self.server.addresses[0][:2]
        name = "localhost" if tls is not None else None
        reader, writer = await asyncio.open_connection(host, port, ssl=tls, server_hostname=name, limit=read_limit)
        client = Client(reader, writer)
        self.clients.append(client)
        return client

    async def exchange(self) -> Exchange:
        """The next exchange the handler was given."""
        async with asyncio.timeout(WAIT_SECONDS):
            return await self.exchanges.get()

    async def only_connection(self) -> ServerConnection:
        """The server's side of the only connection."""
        await self.until(lambda: self.server.connections == 1)
        return next(iter(self.server.open_connections))

    async def until(self, holds: Callable[[], bool]) -> None:
        """Let the loop turn until this holds."""
        async with asyncio.timeout(WAIT_SECONDS):
            while not holds():  # noqa: ASYNC110  # what is waited for are callbacks of the event loop itself
                await asyncio.sleep(0)

    async def ask(self, data: bytes) -> tuple[int, bytes]:
        """On a connection of its own: send, and read until the server closes; the last status and all bytes."""
        client = await self.connect()
        client.send(data)
        said = await client.rest()
        client.close()
        statuses = re.findall(rb"HTTP/1\.1 (\d{3}) ", said)
        return int(statuses[-1]) if statuses else 0, said


def echo(exchange: Exchange) -> None:
    """Answer with the request's own body."""
    exchange.respond(200, exchange.request.body)


def hold(exchange: Exchange) -> None:
    """Leave the answer to the test."""


@asynccontextmanager
async def serving(
    limits: ServerLimits | None = None,
    *,
    handle: Callable[[Exchange], object] = echo,
    host: str = "127.0.0.1",
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Lane]:
    """A server on a free port for the length of a test; afterwards nothing of it is left."""
    lane = Lane()
    lane.handle = handle
    lane.server = await HttpServer.start(
        lane.on_exchange, host=host, port=0, limits=limits or ServerLimits(), tls=tls, clock=lane.clock
    )
    try:
        yield lane
    finally:
        for client in lane.clients:
            client.close()
        lane.server.close()
        await lane.until(lambda: not lane.server.connections and not lane.server.tasks)
