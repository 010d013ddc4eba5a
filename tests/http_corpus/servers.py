"""The servers that are compared, each with an application that echoes and keeps account of what it saw.

Knows: how each is started on a free port, what its application is told. Does not know: messages, verdicts.
"""

import asyncio
import logging
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, cast

import uvicorn
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from penstock.http.connection import ServerConnection
from penstock.http.server import Exchange, HttpServer
from tests.http_corpus.corpus import describe

PROBE_FIELD: Final = "x-probe"
MAX_BODY_BYTES: Final = 4 << 20
_URL_START: Final = re.compile(r"[A-Za-z]+://[^/?]*")


class Ledger:
    """What the application of one server saw, by the client's port."""

    def __init__(self) -> None:
        self.seen: dict[int, list[str]] = {}

    def __repr__(self) -> str:
        return f"<Ledger {sum(map(len, self.seen.values()))} requests of {len(self.seen)} clients>"

    def note(self, port: int, method: str, target: str, probes: list[str], body: bytes) -> str:
        """Write a request down, and return how it was written; of a URL as target, what follows the host."""
        path = _URL_START.sub("", target)
        if path != target:
            target = path if path[:1] == "/" else "/" + path
        line = describe(method, target, body, ", ".join(probes) if probes else None)
        self.seen.setdefault(port, []).append(line)
        return line


class Server:
    """One running server."""

    def __init__(self, name: str, port: int, ledger: Ledger) -> None:
        self.name = name
        self.port = port
        self.ledger = ledger

    def __repr__(self) -> str:
        return f"<Server {self.name} :{self.port} {self.ledger!r}>"


def listening_socket() -> socket.socket:
    """On loopback, on a port the system chose."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", 0))
    sock.listen(512)
    sock.setblocking(False)
    return sock


@asynccontextmanager
async def penstock() -> AsyncIterator[Server]:
    """Our lane, with its limits as they ship."""
    ledger = Ledger()

    def echo(exchange: Exchange) -> None:
        request = exchange.request
        connection = cast(ServerConnection, exchange._link)
        port = connection._transport.get_extra_info("peername")[1]
        target = request.path + ("?" + request.query.decode("latin-1") if request.query else "")
        probe = request.headers.get(PROBE_FIELD.encode())
        probes = [] if probe is None else [probe.decode("latin-1")]
        line = ledger.note(port, request.method.decode(), target, probes, request.body)
        exchange.respond(200, request.body, b"text/plain", b"x-seen: %b\r\n" % line.encode())

    server = await HttpServer.start(echo, host="127.0.0.1", port=0)
    try:
        yield Server("penstock", server.addresses[0][1], ledger)
    finally:
        await server.drain(0)


@asynccontextmanager
async def uvicorn_server(implementation: str) -> AsyncIterator[Server]:
    """uvicorn with one of its two parsers."""
    ledger = Ledger()

    async def echo(scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            event = await receive()
            if event["type"] == "http.disconnect":
                return
            body += event.get("body", b"")
            if not event.get("more_body"):
                break
        raw = scope.get("raw_path") or scope["path"].encode("latin-1", "replace")
        target = raw.decode("latin-1") + (
            "?" + scope["query_string"].decode("latin-1") if scope["query_string"] else ""
        )
        probes = [value.decode("latin-1") for name, value in scope["headers"] if name == PROBE_FIELD.encode()]
        line = ledger.note(scope["client"][1], scope["method"], target, probes, body)
        headers = [(b"content-length", b"%d" % len(body)), (b"x-seen", line.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    sock = listening_socket()
    config = uvicorn.Config(
        echo,
        http=cast(Any, implementation),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        timeout_keep_alive=60,
        timeout_graceful_shutdown=0,
    )
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL + 1)
    server = uvicorn.Server(config)
    task = asyncio.get_running_loop().create_task(server._serve([sock]))  # `serve` would take over the signals
    while not server.started:  # noqa: ASYNC110  # uvicorn says it in no other way
        await asyncio.sleep(0.01)
    try:
        yield Server(f"uvicorn-{implementation}", sock.getsockname()[1], ledger)
    finally:
        server.should_exit = server.force_exit = True
        await task


@asynccontextmanager
async def aiohttp_server() -> AsyncIterator[Server]:
    """aiohttp's server; a middleware answers everything, so that its router refuses nothing."""
    ledger = Ledger()

    @web.middleware
    async def echo(request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            body = await request.read()
        except web.HTTPException:
            raise
        except HttpProcessingError as error:
            raise web.HTTPBadRequest from error
        probes = [_latin_1(value) for value in request.headers.getall(PROBE_FIELD, [])]
        transport = request.transport
        if transport is None:
            raise web.HTTPBadRequest
        port = transport.get_extra_info("peername")[1]
        line = ledger.note(port, request.method, _latin_1(request._message.path), probes, body)
        return web.Response(body=body, headers={"x-seen": line})

    for name in ("aiohttp.server", "aiohttp.web", "aiohttp.access"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    application = web.Application(middlewares=[echo], client_max_size=MAX_BODY_BYTES)
    runner = web.AppRunner(application, access_log=None, keepalive_timeout=60, shutdown_timeout=0)
    await runner.setup()
    sock = listening_socket()
    await web.SockSite(runner, sock).start()
    try:
        yield Server("aiohttp", sock.getsockname()[1], ledger)
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                await runner.cleanup()


def _latin_1(text: str) -> str:
    """aiohttp decodes as UTF-8 what it can; back to one character a byte."""
    return text.encode("utf-8", "surrogateescape").decode("latin-1")
