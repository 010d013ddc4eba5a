"""Clients of both eras that can be asked, listen, lose their connections, and notice every answer that is not their own.

Knows: bytes of MCP over HTTP. Does not know: anything inside the gateway, nor why a test does what it does.
"""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

from penstock.http.client import HttpClient, Response
from penstock.protocol.event_stream import Event
from tests.end_to_end.faults_kit import REVISION, Era

Message = dict[str, Any]
EVERYTHING: Message = {"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {}}
_PREFIX = "io.modelcontextprotocol/"
KEPT_MESSAGES = 1024
_ids = count(1)
"""Of all clients together, so that an answer that strayed is known by its id."""


class Stray(AssertionError):
    """An answer, or something said on the way to it, that belongs to somebody else."""


class Pending:
    """One request under way: what comes on its stream, and its answer."""

    def __init__(self, request_id: int | None) -> None:
        self.id = request_id
        self.messages: deque[Message] = deque(maxlen=KEPT_MESSAGES)
        self.questions: asyncio.Queue[Message] = asyncio.Queue()
        self.last_event_id = ""
        self.task: asyncio.Task[Response] | None = None
        self.hook: Callable[[Message], None] | None = None
        """Told of each message when it comes."""
        self.on_message = asyncio.Event()
        self._answer: Message | None = None

    def __repr__(self) -> str:
        return f"<Pending {self.id} {len(self.messages)} messages{' answered' if self._answer else ''}>"

    def take(self, event: Event) -> bool:
        if event.id is not None:
            self.last_event_id = bytes(event.id).decode()
        if event.data:
            message: Message = json.loads(bytes(event.data))
            if "method" not in message:
                if message.get("id") != self.id:
                    raise Stray(f"expected the answer to {self.id}, got {message}")
                self._answer = message
            elif "id" in message:
                self.questions.put_nowait(message)
            self.messages.append(message)
            if self.hook is not None:
                self.hook(message)
            self.on_message.set()
        return False

    async def answer(self, seconds: float = 15.0) -> Message:
        """Its answer, with its HTTP status; `{"status": …}` when a stream ended without one.

        Raises:
            RequestFailed, TimeoutError: none came.
        """
        assert self.task is not None
        response = await asyncio.wait_for(asyncio.shield(self.task), seconds)
        if self._answer is None and response.body:
            body: Message = json.loads(bytes(response.body))
            if body.get("id", self.id) != self.id:
                raise Stray(f"expected the answer to {self.id}, got {body}")
            self._answer = body
        return {"status": response.status, **(self._answer or {})}

    async def asked(self, seconds: float = 10.0) -> Message:
        """The next thing a legacy client is asked on this stream."""
        return await asyncio.wait_for(self.questions.get(), seconds)

    async def heard(self, method: str, seconds: float = 10.0) -> Message:
        """The first notification of that method, which may have come already."""
        async with asyncio.timeout(seconds):
            while True:
                found = [one for one in self.messages if one.get("method") == method]
                if found:
                    return found[0]
                self.on_message.clear()
                await self.on_message.wait()

    async def vanish(self) -> None:
        """The client's connection ends without a word."""
        assert self.task is not None
        self.task.cancel()
        await asyncio.wait((self.task,))


class AskedClient:
    """One client of one era."""

    def __init__(
        self,
        http: HttpClient,
        url: str,
        era: Era,
        *,
        capabilities: Message = EVERYTHING,
        headers: Mapping[str, str] | None = None,
        seconds: float = 60.0,
    ) -> None:
        self.era: Era = era
        self.url, self.capabilities = url, capabilities
        self.session: str | None = None
        self.log_level: str | None = None
        self._http, self._extra, self._seconds = http, dict(headers or {}), seconds

    def __repr__(self) -> str:
        return f"<AskedClient {self.era} {self.url}>"

    async def open(self) -> "AskedClient":
        """Initialize, where the era has that."""
        if self.era == "legacy":
            params = {
                "protocolVersion": REVISION["legacy"],
                "capabilities": self.capabilities,
                "clientInfo": {"name": "asked", "version": "1"},
            }
            pending = self.begin("initialize", params)
            answer = await pending.answer()
            assert "result" in answer, answer
            assert pending.task is not None
            self.session = pending.task.result().headers[b"mcp-session-id"].decode()
            await self.send({"method": "notifications/initialized"})
        return self

    def begin(self, method: str, params: Message | None = None, meta: Message | None = None) -> Pending:
        """Send a request, and do not wait."""
        pending = Pending(next(_ids))
        params = dict(params or {})
        whole = {**self._meta(), **(meta or {})} if self.era == "modern" else dict(meta or {})
        if whole:
            params["_meta"] = whole
        message = {"jsonrpc": "2.0", "id": pending.id, "method": method, "params": params}
        work = self._http.post(
            self.url, self._headers(method, params), json.dumps(message).encode(), pending.take, timeout=self._seconds
        )
        pending.task = asyncio.ensure_future(work)
        return pending

    def call(self, tool: str, arguments: Message | None = None, *, meta: Message | None = None, **more: Any) -> Pending:
        """Begin a tool call; `more` stands beside its arguments."""
        return self.begin("tools/call", {"name": tool, "arguments": arguments or {}, **more}, meta)

    async def called(self, tool: str, arguments: Message | None = None, seconds: float = 15.0) -> Message:
        """A tool call's answer."""
        return await self.call(tool, arguments).answer(seconds)

    async def send(self, message: Message) -> int:
        """POST what is no request; its HTTP status."""
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        method = str(message.get("method", ""))
        return (await self._http.post(self.url, self._headers(method, {}), body, timeout=15.0)).status

    async def reply(self, question: Message, result: Message) -> int:
        """A legacy client's answer to what it was asked."""
        return await self.send({"id": question["id"], "result": result})

    def listen(self, uris: tuple[str, ...] = ()) -> Pending:
        """Hear of all lists and of these resources; a legacy client subscribes to resources by requests."""
        if self.era == "modern":
            wanted = {"toolsListChanged": True, "resourcesListChanged": True, "resourceSubscriptions": list(uris)}
            return self.begin("subscriptions/listen", {"notifications": wanted})
        return self.stream()

    def stream(self, last_event_id: str = "") -> Pending:
        """GET: a legacy session's own stream, or the rest of one that broke off."""
        pending = Pending(None)
        headers = self._headers("", {}) | {"accept": "text/event-stream"}
        if last_event_id:
            headers["last-event-id"] = last_event_id
        work = self._http.request("GET", self.url, headers, on_event=pending.take, timeout=None)
        pending.task = asyncio.ensure_future(work)
        return pending

    async def end(self) -> int:
        """DELETE the session."""
        return (await self._http.request("DELETE", self.url, self._headers("", {}))).status

    def _meta(self) -> Message:
        level = {f"{_PREFIX}logLevel": self.log_level} if self.log_level is not None else {}
        return {
            f"{_PREFIX}protocolVersion": REVISION["modern"],
            f"{_PREFIX}clientInfo": {"name": "asked", "version": "1"},
            f"{_PREFIX}clientCapabilities": self.capabilities,
            **level,
        }

    def _headers(self, method: str, params: Message) -> dict[str, str]:
        headers = {"content-type": "application/json", "accept": "application/json, text/event-stream", **self._extra}
        if method != "initialize":
            headers["mcp-protocol-version"] = REVISION[self.era]
        if self.session is not None:
            headers["mcp-session-id"] = self.session
        if self.era == "modern" and method:
            headers["mcp-method"] = method
            name = params.get("name", params.get("uri"))
            if name is not None:
                headers["mcp-name"] = name
        return headers


def text_of(answer: Message) -> str:
    """The text of a tool's answer."""
    assert "result" in answer, answer
    return str(answer["result"]["content"][0]["text"])


def reply_for(method: str, secret: str) -> Message:
    """What a client answers, with its own secret in it."""
    if method == "elicitation/create":
        return {"action": "accept", "content": {"secret": secret}}
    if method == "sampling/createMessage":
        return {"role": "assistant", "content": {"type": "text", "text": secret}, "model": "m"}
    return {"roots": [{"uri": f"file:///{secret}", "name": secret}]}
