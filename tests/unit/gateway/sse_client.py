"""A client over HTTP+SSE: one stream, and POSTs to where it says."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from penstock.http.client import HttpClient, RequestFailed, Response
from penstock.protocol.event_stream import Event
from tests.unit.gateway.conftest import Running


class SseClient:
    """One stream of one view."""

    def __init__(self, running: Running, path: str) -> None:
        self._running, self._path = running, path
        self.post_to = running
        """Which worker of several its messages reach."""
        self._http = HttpClient()
        self.endpoint = ""
        self.messages: list[dict[str, Any]] = []
        """All that came."""
        self._news = asyncio.Event()
        self.over: asyncio.Task[Response | None] | None = None
        """Done when the stream has ended: None when it was cut."""
        self._last_id = 0

    async def open(self, headers: Mapping[str, str] | None = None) -> None:
        """Open the stream and wait for the endpoint, or its refusal."""
        over = self.over = asyncio.create_task(self._listen({"accept": "text/event-stream", **(headers or {})}))
        await self._wait_for(lambda: self.endpoint or over.done())

    async def close(self) -> None:
        """Go away without a word."""
        await self._http.aclose()
        if self.over is not None:
            await self.over

    async def post(self, message: Any, headers: Mapping[str, str] | None = None) -> Response:
        """POST something to the endpoint."""
        return await self.post_to.post(self.endpoint, message, headers)

    async def ask(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send a request, and wait for its answer on the stream."""
        request_id = await self.send(method, params)
        return await self.answer(request_id)

    async def send(self, method: str, params: dict[str, Any] | None = None) -> int:
        """Send a request; returns its id."""
        self._last_id += 1
        request_id = self._last_id
        message = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params or {}}
        response = await self.post(message)
        assert (response.status, response.body) == (202, b"Accepted")
        return request_id

    async def notify(self, method: str, params: dict[str, Any] | None = None) -> None:
        """Send a notification."""
        assert (await self.post({"jsonrpc": "2.0", "method": method, "params": params or {}})).status == 202

    async def answer(self, request_id: Any) -> dict[str, Any]:
        """The answer to a request."""
        return await self.message(lambda message: message.get("id") == request_id and "method" not in message)

    async def message(self, fits: Any) -> dict[str, Any]:
        """The first message that fits, whenever it came."""
        await self._wait_for(lambda: any(fits(message) for message in self.messages))
        return next(message for message in self.messages if fits(message))

    def all(self, method: str) -> list[dict[str, Any]]:
        """What came of that method."""
        return [message for message in self.messages if message.get("method") == method]

    async def initialize(
        self, version: str = "2025-11-25", capabilities: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """The whole handshake; returns the result of `initialize`."""
        params = {"protocolVersion": version, "capabilities": capabilities or {}, "clientInfo": {"name": "t"}}
        said = await self.ask("initialize", params)
        await self.notify("notifications/initialized")
        result: dict[str, Any] = said["result"]
        return result

    async def ended(self) -> Response | None:
        """How the stream ended."""
        assert self.over is not None
        async with asyncio.timeout(5):
            return await self.over

    async def _listen(self, headers: Mapping[str, str]) -> Response | None:
        url = self._running.url + self._path
        try:
            return await self._http.request("GET", url, headers, on_event=self._on_event, timeout=None)
        except RequestFailed:
            return None
        finally:
            self._news.set()

    def _on_event(self, event: Event) -> bool:
        if event.event == b"endpoint":
            self.endpoint = bytes(event.data).decode()
        else:
            assert event.event == b"message"
            self.messages.append(msgspec.json.decode(event.data))
        self._news.set()
        return False

    async def _wait_for(self, condition: Any) -> None:
        async with asyncio.timeout(5):
            while not condition():
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def sse_client(running: Running, path: str = "/sse") -> AsyncIterator[SseClient]:
    """An open stream."""
    client = SseClient(running, path)
    try:
        await client.open()
        yield client
    finally:
        await client.close()
