"""A client that listens: its stream taken apart to messages as they come."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec

from penstock.protocol.event_stream import Event, EventParser
from tests.unit.gateway.conftest import MODERN_META, Running, request_body

SUBSCRIPTION: Final = "io.modelcontextprotocol/subscriptionId"
ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"
UPDATED: Final = "notifications/resources/updated"
EVERYTHING: Final = {"toolsListChanged": True, "promptsListChanged": True, "resourcesListChanged": True}


class Ear:
    """One connection with a stream on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._parser = EventParser(1 << 20)
        self._events: list[Event] = []
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body: Any = None
        """Of an answer that is no stream."""
        self.is_over = False
        """The stream has ended in good order."""

    @classmethod
    async def open(
        cls, running: Running, method: str, path: str, headers: Mapping[str, str], body: bytes = b""
    ) -> "Ear":
        """Send a request; returns once the head of the answer, and a body that is no stream, is there."""
        line = await running.line()
        ear = cls(line.reader, line.writer)
        await ear.send(method, path, headers, body)
        await ear.read_head()
        return ear

    async def send(self, method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> None:
        sent = {"host": "localhost", "content-length": str(len(body)), **headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
        self._writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
        await self._writer.drain()

    async def read_head(self) -> None:
        async with asyncio.timeout(5):
            first, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().splitlines()
        self.status = int(first.split(" ")[1])
        self.headers = {name: value for name, _, value in (line.partition(": ") for line in lines if line)}
        if self.headers.get("content-type") != "text/event-stream":
            raw = await self._reader.readexactly(int(self.headers.get("content-length", "0")))
            self.body = msgspec.json.decode(raw) if raw else None

    @property
    def code(self) -> int:
        """Of the error that came instead of a stream."""
        return int(self.body["error"]["code"])

    async def message(self) -> Any:
        """The next message."""
        async with asyncio.timeout(5):
            while not self._events:
                line = await self._reader.readuntil(b"\r\n")
                chunk = await self._reader.readexactly(int(line, 16) + 2)
                if len(chunk) == 2:
                    self.is_over = True
                    raise EOFError
                found = self._parser.feed(chunk[:-2])
                self._events += [event for event in found if event.data]  # some only say where to resume
        return msgspec.json.decode(self._events.pop(0).data)

    async def changed(self) -> str:
        """What the next message is about: the method's list, or the resource."""
        message = await self.message()
        if message["method"] == UPDATED:
            return str(message["params"]["uri"])
        return str(message["method"]).removeprefix("notifications/").removesuffix("/list_changed")

    async def rest(self) -> list[Any]:
        """All messages until the stream has ended in good order."""
        messages = []
        while True:
            try:
                messages.append(await self.message())
            except EOFError:
                return messages

    def close(self) -> None:
        self._writer.close()


def listen_body(notifications: Any, identity: Any = 7, meta: Mapping[str, Any] = MODERN_META) -> bytes:
    """A `subscriptions/listen`; None leaves the filter out."""
    params = {"_meta": meta} | ({} if notifications is None else {"notifications": notifications})
    return msgspec.json.encode(request_body("subscriptions/listen", params, identity))


def listen_headers(accept: str = "application/json, text/event-stream") -> dict[str, str]:
    return {
        "content-type": "application/json",
        "accept": accept,
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": "subscriptions/listen",
    }


async def asked_to_listen(
    running: Running,
    notifications: Any = EVERYTHING,
    identity: Any = 7,
    *,
    path: str = "/mcp",
    accept: str = "application/json, text/event-stream",
    meta: Mapping[str, Any] = MODERN_META,
) -> Ear:
    """Send a `subscriptions/listen`, whatever becomes of it."""
    return await Ear.open(running, "POST", path, listen_headers(accept), listen_body(notifications, identity, meta))


@asynccontextmanager
async def listening(
    running: Running, notifications: Any = EVERYTHING, identity: Any = 7, *, path: str = "/mcp"
) -> AsyncIterator[Ear]:
    """A listener that was acknowledged, and leaves with the block."""
    ear = await asked_to_listen(running, notifications, identity, path=path)
    try:
        assert ear.status == 200, ear.body
        assert (await ear.message())["method"] == ACKNOWLEDGED
        yield ear
    finally:
        ear.close()


@asynccontextmanager
async def session_stream(running: Running, session: str, *, path: str = "/mcp") -> AsyncIterator[Ear]:
    """The GET stream of a legacy session."""
    ear = await asked_for_stream(running, session, path=path)
    try:
        assert ear.status == 200, ear.body
        yield ear
    finally:
        ear.close()


async def asked_for_stream(
    running: Running,
    session: str | None,
    *,
    path: str = "/mcp",
    accept: str = "text/event-stream",
    version: str = "2025-11-25",
) -> Ear:
    """A GET, whatever becomes of it."""
    headers = {"accept": accept, "mcp-protocol-version": version}
    if session is not None:
        headers["mcp-session-id"] = session
    return await Ear.open(running, "GET", path, headers)
