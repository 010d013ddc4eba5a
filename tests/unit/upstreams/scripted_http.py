"""An HTTP server that says what a test wrote down, and remembers what it was asked."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import msgspec

from penstock.protocol.versions import Era
from penstock.upstreams.calls import Call, Caller, Notify
from penstock.upstreams.streamable_http import StreamableHttpSettings, StreamableHttpUpstream

INFO = {"name": "scripted", "version": "1"}
MODERN = Caller(Era.MODERN, "2026-07-28", None, b'{"elicitation":{}}', b'{"name":"new","version":"1"}')
LEGACY = Caller(Era.LEGACY, "2025-11-25", "session-1", b"{}", b'{"name":"old","version":"1"}')
SESSIONLESS = Caller(Era.LEGACY, "2025-11-25", None)


class Asked(NamedTuple):
    """One request that came."""

    method: str
    headers: dict[str, str]
    body: dict[str, Any]
    target: str = ""

    @property
    def id(self) -> Any:
        return self.body.get("id")

    @property
    def rpc(self) -> str:
        """The JSON-RPC method; `-> id` for an answer."""
        return str(self.body.get("method", f"-> {self.id}" if self.body else self.method))


class Line:
    """The connection on which a request came, for answers that come in pieces."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def write(self, raw: bytes) -> None:
        self.writer.write(raw)
        await self.writer.drain()

    async def until_closed(self) -> None:
        """Wait until the client ends the connection."""
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionError:
            pass

    def close(self) -> None:
        self.writer.close()


Script = Callable[[Asked, Line], Awaitable[bytes | None]]


class Scripted:
    """Answers by a script: what it returns is written; None means that it wrote by itself."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.asked: list[Asked] = []
        self.came = asyncio.Event()
        self.port = 0
        self.connections = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def all(self, rpc: str) -> list[Asked]:
        """The requests of one JSON-RPC method."""
        return [asked for asked in self.asked if asked.rpc == rpc]

    async def wait_for(self, rpc: str) -> Asked:
        """The first request of that JSON-RPC method."""
        async with asyncio.timeout(5):
            while not (found := self.all(rpc)):
                self.came.clear()
                await self.came.wait()
        return found[0]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        line = Line(reader, writer)
        try:
            while not writer.is_closing():
                asked = await self._read(reader)
                self.asked.append(asked)
                self.came.set()
                answer = await self.script(asked, line)
                if answer is not None:
                    await line.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Asked:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        method, target, _ = head[0].split(" ")
        return Asked(method, headers, json.loads(body) if body else {}, target)

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def serving(script: Script, **settings: Any) -> AsyncIterator[tuple[Scripted, StreamableHttpUpstream]]:
    """A scripted server and the upstream that speaks to it."""
    scripted = Scripted(script)
    server = await asyncio.start_server(scripted.serve, "127.0.0.1", 0)
    scripted.port = server.sockets[0].getsockname()[1]
    clock = settings.pop("clock", None)
    remembered = settings.pop("remembered", None)
    url = f"http://127.0.0.1:{scripted.port}{settings.pop('path', '/mcp')}"
    upstream = StreamableHttpUpstream(
        "peer", StreamableHttpSettings(url=url, **settings), clock=clock, remembered=remembered
    )
    try:
        yield scripted, upstream
    finally:
        await upstream.close()
        server.close()
        await scripted.stop()


def is_listening(asked: Asked) -> bool:
    """Whether a session's own stream is to be opened, not one of a call resumed."""
    return asked.method == "GET" and "last-event-id" not in asked.headers


def http(status: int, body: bytes = b"", content_type: str = "application/json", headers: str = "") -> bytes:
    """A whole HTTP answer."""
    kind = f"content-type: {content_type}\r\n" if body else ""
    return f"HTTP/1.1 {status} X\r\n{kind}{headers}content-length: {len(body)}\r\n\r\n".encode() + body


def rpc(**members: Any) -> bytes:
    """A JSON-RPC message."""
    return json.dumps({"jsonrpc": "2.0", **members}).encode()


def result(asked: Asked, headers: str = "", **members: Any) -> bytes:
    """A JSON answer that carries a result."""
    return http(200, rpc(id=asked.id, result=members), headers=headers)


def error(asked: Asked, status: int, code: int, message: str = "no", **more: Any) -> bytes:
    """A JSON answer that carries an error, with a status."""
    return http(status, rpc(id=asked.id, error={"code": code, "message": message, **more}))


def stream(*messages: bytes, end: bool = True) -> bytes:
    """An event stream of those messages; without `end` it stays open."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return (
        head + b"".join(chunk(b"data: " + message + b"\n\n") for message in messages) + (b"0\r\n\r\n" if end else b"")
    )


def chunk(raw: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(raw), raw)


def discovered(asked: Asked, *versions: str) -> bytes:
    """The answer to `server/discover`."""
    return result(
        asked, supportedVersions=list(versions or ("2026-07-28",)), capabilities={"tools": {}}, resultType="complete"
    )


def initialized(asked: Asked, session: str | None = "abc", version: str = "2025-11-25", **capabilities: Any) -> bytes:
    """The answer to `initialize`."""
    headers = "" if session is None else f"mcp-session-id: {session}\r\n"
    return result(asked, headers, protocolVersion=version, capabilities=capabilities, serverInfo=INFO)


def call_of(
    caller: Caller,
    tool: str = "add",
    *,
    meta: dict[str, Any] | None = None,
    notify: Notify | None = None,
    **arguments: Any,
) -> Call:
    """A `tools/call`."""
    params = {"name": msgspec.Raw(json.dumps(tool).encode()), "arguments": msgspec.Raw(json.dumps(arguments).encode())}
    raw = None if meta is None else {key: msgspec.Raw(json.dumps(value).encode()) for key, value in meta.items()}
    return Call("tools/call", params, caller=caller, name=tool, meta=raw, notify=notify)


def modern(script: Script) -> Script:
    """A modern server: describes itself, and answers all else by the script."""

    async def answer(asked: Asked, line: Line) -> bytes | None:
        if asked.rpc == "server/discover":
            return discovered(asked)
        if asked.rpc == "initialize":
            return error(asked, 404, -32601)
        return await script(asked, line)

    return answer
