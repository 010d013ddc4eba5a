"""An HTTP server of one era at a time that tells of changes, and can be told to refuse and to forget."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from penstock.clock import FakeClock
from penstock.protocol.subscriptions import LIST_CHANGED
from penstock.protocol.versions import Era
from penstock.upstreams.calls import PENSTOCK, Caller, Raw
from penstock.upstreams.questions import Question
from penstock.upstreams.streamable_http import StreamableHttpUpstream
from tests.unit.upstreams.scripted_http import (
    Asked,
    Line,
    Scripted,
    chunk,
    discovered,
    error,
    http,
    initialized,
    result,
    rpc,
    serving,
    stream,
)
from tests.unit.upstreams.stdio_kit import Notices, until

EVERY_LIST = sorted(LIST_CHANGED.values())
OPEN = stream(end=False)


class Server:
    """A server of one era at a time, which can be told to refuse, to forget, and to say something."""

    def __init__(self, era: Era) -> None:
        self.era = era
        self.sessions: list[str] = []
        self.known: set[str] = set()
        self.lines: list[Line] = []
        """Streams that are open, oldest first."""
        self.streams: dict[str, Line] = {}
        """The latest stream of each session."""
        self.get: bytes | None = None
        """How GET is answered; None: with a stream."""
        self.listen: bytes | None = None
        self.subscribe: bytes | None = None
        self.refuses_resources = False
        self.news: list[bytes] = []
        """What it says in the course of a call, on the call's own stream."""
        self.delay: asyncio.Event | None = None
        """Until then it does not answer the end of a subscription."""
        self.hold: asyncio.Event | None = None
        """Until then it does not say what it speaks, and then it goes away."""
        self.issues_ids = True
        self.is_down = False
        self.heard = Notices()
        self.clock = FakeClock()
        self.upstream: StreamableHttpUpstream
        self.scripted: Scripted

    async def script(self, asked: Asked, line: Line) -> bytes | None:
        if self.is_down:
            line.close()
            return None
        if asked.rpc == "server/discover":
            if self.hold is not None:
                await self.hold.wait()
                line.close()
                return None
            return discovered(asked) if self.era is Era.MODERN else http(400)
        if self.news and asked.rpc == "tools/call":
            return stream(*self.news, rpc(id=asked.id, result={"content": []}))
        if self.era is Era.MODERN:
            return await self._modern(asked, line)
        return await self._legacy(asked, line)

    async def _modern(self, asked: Asked, line: Line) -> bytes | None:
        if asked.headers.get("mcp-protocol-version") != "2026-07-28":
            refusal = {"code": -32022, "message": "no", "data": {"supported": ["2026-07-28"]}}
            return http(400, rpc(id=asked.id, error=refusal))
        if asked.rpc == "subscriptions/listen":
            if self.listen is not None:
                return self.listen
            wanted = asked.body["params"]["notifications"]
            acknowledged = rpc(method="notifications/subscriptions/acknowledged", params={"notifications": wanted})
            return await self._stream(line, stream(acknowledged, end=False))
        return result(asked, content=[], resultType="complete")

    async def _legacy(self, asked: Asked, line: Line) -> bytes | None:
        if asked.rpc == "initialize":
            name = f"s-{len(self.sessions) + 1}" if self.issues_ids else None
            self.sessions.append(str(name))
            self.known.add(str(name))
            return initialized(asked, name, tools={"listChanged": True}, resources={"subscribe": True})
        if self.issues_ids and asked.headers.get("mcp-session-id") not in self.known:
            return http(404)
        if asked.method == "GET":
            if self.get is not None:
                return self.get
            self.streams[asked.headers["mcp-session-id"]] = line
            return await self._stream(line, OPEN)
        if asked.method == "DELETE":
            self.known.discard(asked.headers["mcp-session-id"])
            return http(200)
        if asked.rpc.startswith("notifications/"):
            return http(202)
        if asked.rpc == "resources/unsubscribe" and self.delay is not None:
            await self.delay.wait()
        if asked.rpc == "resources/subscribe":
            if self.refuses_resources:
                return error(asked, 200, -32002, "no such thing")
            if self.subscribe is not None:
                return self.subscribe
        return result(asked, content=[])

    async def _stream(self, line: Line, head: bytes) -> bytes | None:
        await line.write(head)
        self.lines.append(line)
        try:
            await line.until_closed()
        finally:
            if line in self.lines:
                self.lines.remove(line)
        return None

    async def say(self, method: str, **params: Any) -> None:
        await self.lines[-1].write(chunk(b"data: " + rpc(method=method, params=params) + b"\n\n"))

    async def say_in(self, session: str, method: str, **params: Any) -> None:
        """On one session's stream."""
        await self.streams[session].write(chunk(b"data: " + rpc(method=method, params=params) + b"\n\n"))

    def end_stream(self) -> None:
        self.lines.pop().close()

    def forget(self) -> None:
        """All sessions, and their streams, as a server that restarts does."""
        self.known.clear()
        while self.lines:
            self.lines.pop().close()

    def asked(self, rpc_method: str) -> list[Asked]:
        return self.scripted.all(rpc_method)

    @property
    def gets(self) -> list[Asked]:
        return [asked for asked in self.scripted.asked if asked.method == "GET"]

    @property
    def methods(self) -> list[str]:
        return [method for method, _ in self.heard.items]

    async def until(self, condition: Any) -> None:
        """Move time on by tenths of a second until it is so."""

        async def tick() -> None:
            while not condition():
                await self.clock.advance(0.1)
                await asyncio.sleep(0.001)

        await asyncio.wait_for(tick(), 8)

    async def listened(self) -> None:
        await until(lambda: len(self.lines) == 1)

    async def hear(self) -> None:
        await self.upstream.describe(PENSTOCK)
        self.upstream.hear(self.heard)


@asynccontextmanager
async def server_of(era: Era, **settings: Any) -> AsyncIterator[Server]:
    it = Server(era)
    async with serving(it.script, clock=it.clock, **settings) as (it.scripted, it.upstream):
        yield it


@asynccontextmanager
async def heard(era: Era = Era.LEGACY, **settings: Any) -> AsyncIterator[Server]:
    """A server whose changes are heard."""
    async with server_of(era, **settings) as it:
        await it.hear()
        await it.listened()
        yield it


class OwnStream:
    """A legacy client's own stream, and what it has subscribed to."""

    def __init__(self, *uris: str) -> None:
        self.uris, self.apart, self.told = list(uris), set[str](), list[str]()
        self.is_open = True
        self.caller = Caller(Era.LEGACY, "2025-11-25", "own", b"{}", b'{"name":"old","version":"1"}')
        self.caller.sink = self

    def ask(self, question: Question) -> None:
        """Is never asked."""

    def notify(self, method: str, params: dict[str, Raw]) -> None:
        """Takes no logs."""

    def subscriptions(self, server: str) -> list[str]:
        assert server == "peer"
        return self.uris

    def hear_apart(self, uri: str, *, apart: bool) -> None:
        (self.apart.add if apart else self.apart.discard)(uri)

    def updated(self, uri: str) -> bool:
        if uri in self.apart:
            self.told.append(uri)
        return uri in self.apart
