"""Servers that say exactly what a test wrote down, and a transport without a socket."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from penstock.http.client_connect import connect
from penstock.http.client_connection import ClientConnection
from penstock.http.client_url import Origin
from penstock.http.limits import ClientLimits

GET = b"GET /mcp HTTP/1.1\r\nhost: test\r\n\r\n"
ORIGIN = Origin("http", "127.0.0.1", 8080)

Answer = Callable[["Peer"], Awaitable[None]]


class Peer:
    """The server's side of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def read_request(self) -> bytes:
        """Head and body of the next request; empty at the end of the connection."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""
        _, _, rest = head.lower().partition(b"\r\ncontent-length:")
        length = int(rest.split(b"\r\n", 1)[0]) if rest else 0
        return head + await self.reader.readexactly(length)

    async def send(self, *pieces: bytes) -> None:
        """Each piece in a write of its own, with turns of the loop between them."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0)

    async def closed_by_client(self) -> bool:
        """Wait for the client to end the connection."""
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionError:
            pass
        return True


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[Origin]:
    """A server that runs `answer` for each connection, then closes it."""
    tasks: set[asyncio.Task[Any]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await answer(Peer(reader, writer))
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield Origin("http", "127.0.0.1", server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


@asynccontextmanager
async def connected(answer: Answer, limits: ClientLimits | None = None) -> AsyncIterator[ClientConnection]:
    """A connection to a server that runs `answer`."""
    async with serving(answer) as origin:
        connection = await connect(origin, limits=limits or ClientLimits())
        try:
            yield connection
        finally:
            connection.close()


def closing(connection: ClientConnection) -> asyncio.Event:
    """Set when the connection is gone."""
    gone = asyncio.Event()
    connection.on_closed = lambda _: gone.set()
    return gone


def says(*pieces: bytes) -> Answer:
    """Answer every request with these pieces."""

    async def answer(peer: Peer) -> None:
        while await peer.read_request():
            await peer.send(*pieces)

    return answer


class ScriptedTransport(asyncio.Transport):
    """A transport whose other end is the test."""

    def __init__(self, protocol: ClientConnection, *, dies_on_write: bool = False) -> None:
        super().__init__()
        self.protocol = protocol
        self.written: list[bytes] = []
        self.dies_on_write = dies_on_write
        self.ended = ""
        protocol.connection_made(self)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))
        if self.dies_on_write:
            self.ended = "died"

    def is_closing(self) -> bool:
        return bool(self.ended)

    def close(self) -> None:
        self.ended = self.ended or "closed"

    def abort(self) -> None:
        self.ended = "aborted"

    def lose(self, error: Exception | None = None) -> None:
        """What the loop does at the end of a connection."""
        self.ended = self.ended or "lost"
        self.protocol.connection_lost(error)


def scripted(limits: ClientLimits | None = None, *, dies_on_write: bool = False) -> ScriptedTransport:
    """A new connection on a scripted transport; needs a running loop."""
    connection = ClientConnection(ORIGIN, limits or ClientLimits(), asyncio.get_running_loop())
    return ScriptedTransport(connection, dies_on_write=dies_on_write)


async def feed(
    transport: ScriptedTransport, request: Awaitable[Any], pieces: Iterable[bytes], *, eof: bool = False
) -> Any:
    """Start the request, hand it the pieces one by one, return what it returns."""
    task = asyncio.ensure_future(request)
    await asyncio.sleep(0)
    for piece in pieces:
        if not transport.is_closing():
            transport.protocol.data_received(piece)
    if eof and not transport.is_closing():
        transport.protocol.eof_received()
    transport_left = not task.done() and transport.is_closing()
    await asyncio.sleep(0)
    if transport_left and not task.done():
        transport.lose()
    return await asyncio.wait_for(task, 5)
