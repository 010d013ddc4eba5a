"""A server of HTTP+SSE that says what a test wrote down: a script of `scripted_http` that keeps streams."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from tests.unit.upstreams.scripted_http import INFO, Asked, Line, chunk, http, rpc

HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def event(data: bytes, name: bytes = b"message") -> bytes:
    """One event, as a chunk."""
    return chunk(b"event: %b\r\ndata: %b\r\n\r\n" % (name, data))


class Stream:
    """One client's stream."""

    def __init__(self, number: int, asked: Asked, line: Line) -> None:
        self.number, self.asked, self.line = number, asked, line
        self.messages: list[Asked] = []
        self.answers: dict[Any, asyncio.Future[dict[str, Any]]] = {}
        self.ended = asyncio.Event()
        """The client has closed it."""

    async def say(self, **members: Any) -> None:
        """Send a JSON-RPC message."""
        await self.line.write(event(rpc(**members)))

    async def ask(self, id: Any, method: str, **params: Any) -> dict[str, Any]:
        """Ask the client something; returns its whole answer."""
        self.answers[id] = asyncio.get_running_loop().create_future()
        await self.say(id=id, method=method, params=params)
        async with asyncio.timeout(5):
            return await self.answers[id]


OnMessage = Callable[[Asked, Stream], Awaitable[None]]


class SseScript:
    """Announces where to POST to, answers `initialize`, and hands the rest to the test."""

    def __init__(
        self, on_message: OnMessage, *, endpoint: str | None = "/messages?session={}", version: str = "2024-11-05"
    ) -> None:
        self.on_message, self.endpoint, self.version = on_message, endpoint, version
        self.capabilities: dict[str, Any] = {"tools": {}}
        self.streams: list[Stream] = []
        self.opened = asyncio.Event()
        self.forgotten: set[int] = set()
        """Numbers of streams whose messages are answered with 404."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, asked: Asked, line: Line) -> bytes | None:
        if asked.method == "GET":
            await self._stream(asked, line)
            return None
        if not asked.target.startswith("/messages?session="):
            return http(405)
        number = int(asked.target.rpartition("=")[2])
        stream = self.streams[number]
        stream.messages.append(asked)
        if number in self.forgotten:
            return http(404, b"Could not find session", "text/plain")
        if "method" not in asked.body:
            stream.answers[asked.id].set_result(asked.body)
        else:
            task = asyncio.get_running_loop().create_task(self._take(asked, stream))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return http(202, b"Accepted", "text/plain")

    async def _stream(self, asked: Asked, line: Line) -> None:
        stream = Stream(len(self.streams), asked, line)
        self.streams.append(stream)
        await line.write(HEAD)
        if self.endpoint is not None:
            await line.write(event(self.endpoint.format(stream.number).encode(), b"endpoint"))
        self.opened.set()
        await line.until_closed()
        stream.ended.set()
        line.close()

    async def _take(self, asked: Asked, stream: Stream) -> None:
        if asked.rpc == "initialize":
            result = {"protocolVersion": self.version, "capabilities": self.capabilities, "serverInfo": INFO}
            await stream.say(id=asked.id, result=result)
        else:
            await self.on_message(asked, stream)
