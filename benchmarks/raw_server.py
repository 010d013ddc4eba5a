"""A server with canned answers, so that what is measured is what stands in front of it: `python -m benchmarks.raw_server ERA`.

Knows: the wire of one era, well enough for a gateway to detect it. Does not know: who measures.
Modern: JSON answers. Legacy: sessions, which it insists on, and each answer as an event stream of one event.
It prints `listening PORT` and serves until SIGTERM.
"""

import argparse
import asyncio
import itertools
from typing import Any, cast

import httptools
import msgspec
import uvloop

from benchmarks.messages import LEGACY_VERSION, MODERN_VERSION, SIZES, Era, compact, result

_INFO = {"serverInfo": {"name": "raw", "version": "1"}, "capabilities": {"tools": {}}}


class _Params(msgspec.Struct):
    name: str = ""


class _Message(msgspec.Struct):
    method: str
    id: msgspec.Raw = msgspec.Raw(b"")
    params: _Params = msgspec.field(default_factory=_Params)


_decode = msgspec.json.Decoder(_Message).decode


class Answers:
    """The canned results of one era."""

    def __init__(self, era: Era) -> None:
        self.era = era
        modern = {"resultType": "complete"} if era == "modern" else {}
        cacheable = {"ttlMs": 60_000, "cacheScope": "public"} if era == "modern" else {}
        tools = [
            {
                "name": name,
                "description": f"Answers with {size} bytes of text.",
                "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}},
            }
            for name, size in SIZES.items()
        ]
        self._results: dict[str, bytes] = {"tools/list": compact({"tools": tools, **modern, **cacheable})}
        if era == "modern":
            self._results["server/discover"] = compact(
                {"supportedVersions": [MODERN_VERSION], **_INFO, **modern, **cacheable}
            )
        else:
            self._results |= {"initialize": compact({"protocolVersion": LEGACY_VERSION, **_INFO}), "ping": b"{}"}
        self._calls = {name: result(era, name) for name in SIZES}

    def __repr__(self) -> str:
        return f"<Answers {self.era}>"

    def to(self, method: str, tool: str) -> bytes | None:
        """The result, or None where there is no such method or tool."""
        return self._calls.get(tool) if method == "tools/call" else self._results.get(method)


class RawServer(asyncio.Protocol):
    """One connection."""

    def __init__(self, answers: Answers, sessions: set[bytes], ids: "itertools.count[int]", delay: float) -> None:
        self._answers, self._sessions, self._ids, self._delay = answers, sessions, ids, delay
        self._is_legacy = answers.era == "legacy"
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._body: list[bytes] = []
        self._session = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            if self._transport:
                self._transport.close()

    def connection_lost(self, _error: Exception | None) -> None:
        self._transport = None

    def on_message_begin(self) -> None:
        self._body.clear()
        self._session = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_legacy and len(name) == 14 and name.lower() == b"mcp-session-id":
            self._session = value

    def on_body(self, data: bytes) -> None:
        self._body.append(data)

    def on_message_complete(self) -> None:
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        out = self._answer(self._parser.get_method(), body)
        if self._delay:
            self._loop.call_later(self._delay, self._write, out)
        else:
            self._write(out)

    def _write(self, out: bytes) -> None:
        if self._transport:
            self._transport.write(out)

    def _answer(self, method: bytes, body: bytes) -> bytes:
        if method == b"DELETE":
            self._sessions.discard(self._session)
            return _plain(b"200 OK")
        if method != b"POST":
            return _plain(b"405 Method Not Allowed")
        message = _decode(body)
        request_id = bytes(message.id)
        if not request_id:
            return _plain(b"202 Accepted")
        if self._is_legacy and message.method != "initialize" and self._session not in self._sessions:
            return _error(
                b"404 Not Found" if self._session else b"400 Bad Request", request_id, -32600, b"no such session"
            )
        found = self._answers.to(message.method, message.params.name)
        if found is None:
            return _error(
                b"200 OK" if self._is_legacy else b"404 Not Found", request_id, -32601, b"no such method or tool"
            )
        if self._is_legacy:
            return self._stream(message.method, b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (request_id, found))
        return _json(b"200 OK", b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (request_id, found))

    def _stream(self, method: str, message: bytes) -> bytes:
        session = b""
        if method == "initialize":
            issued = b"session-%d" % next(self._ids)
            self._sessions.add(issued)
            session = b"mcp-session-id: %b\r\n" % issued
        event = b"event: message\r\ndata: %b\r\n\r\n" % message
        return (
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
            b"%btransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (session, len(event), event)
        )


def _plain(status: bytes) -> bytes:
    return b"HTTP/1.1 %b\r\ncontent-length: 0\r\n\r\n" % status


def _json(status: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)


def _error(status: bytes, request_id: bytes, code: int, message: bytes) -> bytes:
    return _json(status, b'{"jsonrpc":"2.0","id":%b,"error":{"code":%d,"message":"%b"}}' % (request_id, code, message))


async def serve(era: Era, delay: float) -> None:
    """Serve on a free port of the loopback interface until cancelled."""
    answers, sessions, ids = Answers(era), set[bytes](), itertools.count(1)
    server = await asyncio.get_running_loop().create_server(
        lambda: RawServer(answers, sessions, ids, delay), "127.0.0.1", 0, backlog=1024
    )
    print(f"listening {server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.raw_server")
    parser.add_argument("era", choices=("modern", "legacy"))
    parser.add_argument("--delay-ms", type=float, default=0.0, help="wait so long before each answer")
    chosen = parser.parse_args()
    uvloop.run(serve(chosen.era, chosen.delay_ms / 1000))
