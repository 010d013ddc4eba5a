"""Clients of both eras that can be asked something, for tests of what servers ask."""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

from penstock.http.client import Response
from penstock.protocol.event_stream import Event
from penstock.protocol.versions import Era
from penstock.upstreams.in_memory import CallContext, InMemoryServer, InMemoryUpstream
from tests.unit.gateway.conftest import MODERN_META, Running, modern_headers, plan_of, request_body, until

CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
LOG_LEVEL = "io.modelcontextprotocol/logLevel"
EVERYTHING: dict[str, Any] = {
    "elicitation": {"form": {}, "url": {}},
    "sampling": {"tools": {}, "context": {}},
    "roots": {},
}
FORM: dict[str, Any] = {
    "mode": "form",
    "message": "Who?",
    "requestedSchema": {"type": "object", "properties": {"name": {"type": "string"}}},
}
URL: dict[str, Any] = {"mode": "url", "message": "Sign in", "url": "https://x.example/in", "elicitationId": "e-1"}
TALK: dict[str, Any] = {
    "messages": [{"role": "user", "content": {"type": "text", "text": "Hi"}}],
    "maxTokens": 10,
}
ACCEPTED: dict[str, Any] = {"action": "accept", "content": {"name": "Ann"}}
SAID: dict[str, Any] = {"role": "assistant", "content": {"type": "text", "text": "Hello"}, "model": "m"}
ROOTS: dict[str, Any] = {"roots": [{"uri": "file:///home", "name": "home"}]}
KINDS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "form": ("elicitation/create", FORM, ACCEPTED),
    "url": ("elicitation/create", URL, {"action": "accept"}),
    "sampling": ("sampling/createMessage", TALK, SAID),
    "roots": ("roots/list", {}, ROOTS),
}
"""Of each kind of question: its method, its parameters, an answer."""

ROUNDING = 1e-6
"""Seconds: `t + 60 - t` is not always 60, and where a machine's clock stands when a test runs is nobody's choice."""

Tool = Callable[[dict[str, Any], CallContext], Any]


async def with_tool(running: Running, tool: Tool, era: Era = Era.LEGACY, **plan: Any) -> InMemoryUpstream:
    """The gateway gets one server, `desk`, whose one tool is `work`."""
    server = InMemoryServer("desk", era=era)

    @server.tool("work", input_schema={"type": "object"})
    async def work(arguments: dict[str, Any], context: CallContext) -> Any:
        return await tool(arguments, context)

    return await with_server(running, server, **plan)


async def with_server(running: Running, server: InMemoryServer, **plan: Any) -> InMemoryUpstream:
    """The gateway gets that server alone, under the name `desk`."""
    upstream = InMemoryUpstream("desk", server)
    await running.gateway.apply({"desk": plan_of("desk", lambda: upstream, **plan)}, ())
    await running.listed()
    return upstream


def work(**arguments: Any) -> dict[str, Any]:
    """The parameters of a call of that tool."""
    return {"name": "desk_work", "arguments": arguments}


def text_of(answer: Mapping[str, Any]) -> str:
    """The text in a tool's result."""
    return str(answer["result"]["content"][0]["text"])


class ModernClient:
    """A client of 2026-07-28."""

    def __init__(self, running: Running, capabilities: dict[str, Any] | None = None) -> None:
        self.running = running
        self.capabilities = EVERYTHING if capabilities is None else capabilities
        self._last_id = 0

    async def call(
        self,
        params: dict[str, Any] | None = None,
        *,
        method: str = "tools/call",
        meta: dict[str, Any] | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        """One request; its answer, with `status`, and what came before it under `notifications`."""
        request, headers = self._request(method, (params or work()) | more, meta)
        events: list[Event] = []
        response = await post(self.running, request, headers, events.append)
        return decoded(response, events, request["id"])

    async def resume(
        self,
        asked: Mapping[str, Any],
        responses: dict[str, Any] | None = None,
        params: dict[str, Any] | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        """The retry of a request that was answered with `input_required`."""
        state = {"requestState": asked["result"]["requestState"]} if "requestState" in asked["result"] else {}
        answers = {} if responses is None else {"inputResponses": responses}
        return await self.call((params or work()) | state | answers, **more)

    async def begin(self, params: dict[str, Any] | None = None, meta: dict[str, Any] | None = None) -> Any:
        """Send a request over a connection that can be closed, and do not wait."""
        request, headers = self._request("tools/call", params or work(), meta)
        line = await self.running.line()
        line.post(request, headers)
        return line

    def _request(
        self, method: str, params: dict[str, Any], meta: dict[str, Any] | None
    ) -> tuple[dict[str, Any], dict[str, str]]:
        self._last_id += 1
        whole = MODERN_META | {CAPABILITIES: self.capabilities} | (meta or {})
        return request_body(method, params | {"_meta": whole}, self._last_id), modern_headers(method, params)


class Conversation:
    """A legacy client's call under way: what comes on its stream, and its end."""

    def __init__(self, request_id: Any) -> None:
        self.id = request_id
        self.messages: list[dict[str, Any]] = []
        self.task: asyncio.Task[Response] | None = None
        self._taken = 0

    def take(self, event: Event) -> bool:
        if event.data:
            self.messages.append(json.loads(bytes(event.data)))
        return False

    @property
    def requests(self) -> list[dict[str, Any]]:
        """What the client was asked so far."""
        return [message for message in self.messages if "id" in message and "method" in message]

    def notes(self, method: str) -> list[dict[str, Any]]:
        """The parameters of the notifications of one method."""
        return [message["params"] for message in self.messages if "id" not in message and message["method"] == method]

    async def asked(self) -> dict[str, Any]:
        """The next thing the client is asked."""
        await until(lambda: len(self.requests) > self._taken)
        self._taken += 1
        return self.requests[self._taken - 1]

    async def answer(self) -> dict[str, Any]:
        """The call's answer; `{}` when its stream ended without one."""
        assert self.task is not None
        response = await asyncio.wait_for(self.task, 10)
        if response.body:
            body: dict[str, Any] = json.loads(bytes(response.body))
            return body
        answers = [one for one in self.messages if one.get("id") == self.id and "method" not in one]
        return answers[0] if answers else {}


class LegacyClient:
    """A client of one legacy revision, with a session."""

    def __init__(self, running: Running, headers: dict[str, str]) -> None:
        self.running, self.headers = running, headers
        self._last_id = 0

    @classmethod
    async def open(
        cls, running: Running, capabilities: dict[str, Any] | None = None, revision: str = "2025-11-25"
    ) -> "LegacyClient":
        """Open a session."""
        params = {
            "protocolVersion": revision,
            "capabilities": EVERYTHING if capabilities is None else capabilities,
            "clientInfo": {"name": "test", "version": "1"},
        }
        response = await running.post("/mcp", request_body("initialize", params))
        session = response.headers[b"mcp-session-id"].decode()
        return cls(running, {"mcp-session-id": session, "mcp-protocol-version": revision})

    def call(
        self,
        params: dict[str, Any] | None = None,
        *,
        method: str = "tools/call",
        request_id: Any = None,
        accept: str = "application/json, text/event-stream",
        meta: dict[str, Any] | None = None,
    ) -> Conversation:
        """Begin a call."""
        self._last_id += 1
        conversation = Conversation(self._last_id if request_id is None else request_id)
        whole = (params or work()) | ({} if meta is None else {"_meta": meta})
        body, headers = request_body(method, whole, conversation.id), self.headers | {"accept": accept}
        conversation.task = asyncio.get_running_loop().create_task(post(self.running, body, headers, conversation.take))
        return conversation

    async def answer(self, question: Mapping[str, Any], result: dict[str, Any]) -> int:
        """Answer what was asked; the HTTP status."""
        return await self.send({"id": question["id"], "result": result})

    async def refuse(self, question: Mapping[str, Any], code: int = -1, message: str = "User rejected") -> int:
        """Answer with an error."""
        return await self.send({"id": question["id"], "error": {"code": code, "message": message}})

    async def notify(self, method: str, **params: Any) -> int:
        """Send a notification."""
        return await self.send({"method": method, "params": params})

    async def send(self, message: dict[str, Any] | bytes) -> int:
        """POST a message that is no request."""
        whole = message if isinstance(message, bytes) else {"jsonrpc": "2.0", **message}
        return (await self.running.post("/mcp", whole, self.headers)).status


async def post(
    running: Running, body: dict[str, Any], headers: Mapping[str, str], on_event: Callable[[Event], Any]
) -> Response:
    """POST a request; each event of a stream goes to `on_event` when it comes."""

    def take(event: Event) -> bool:
        on_event(event)
        return False

    sent = {"content-type": "application/json", "accept": "application/json, text/event-stream", **headers}
    return await running.client.post(running.url + "/mcp", sent, json.dumps(body).encode(), take, timeout=20)


def decoded(response: Response, events: list[Event], request_id: Any) -> dict[str, Any]:
    """The answer, wherever it stands."""
    messages = [json.loads(bytes(event.data)) for event in events if event.data]
    notes = [message for message in messages if "method" in message]
    answers = [message for message in messages if "method" not in message]
    answer = answers[0] if answers else json.loads(bytes(response.body)) if response.body else {}
    assert answer.get("id", request_id) == request_id, "somebody else's answer"
    return {"status": response.status, "notifications": notes, **answer}
