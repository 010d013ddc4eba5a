"""A plain MCP client over streamable HTTP, of either era: what a scenario needs, by the letter, and nothing clever.

Knows: the wire. Does not know: scenarios, gateways.
Answers whatever it is asked: forms with their defaults, samples with a word, roots with none.
"""

import base64
import http.client
import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

SECONDS: Final = 8.0
RECONNECTIONS: Final = 10
"""How long an answer may take; the slowest scenario wants a pause of 0.5 s."""
MODERN: Final = "2026-07-28"
IDENTITY: Final = {"name": "plain-client", "version": "1.0.0"}
CAPABILITIES: Final[dict[str, Any]] = {"elicitation": {}, "sampling": {}, "roots": {}}
NAMED_BY: Final = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"} | dict.fromkeys(
    ("tasks/get", "tasks/update", "tasks/cancel"), "taskId"
)
MOST_ROUNDS: Final = 5

Json = dict[str, Any]
Meanwhile = Callable[[], object]
"""What is done between a question and its answer."""


class RefusedError(Exception):
    """The answer was an error."""


def answer(question: Mapping[str, Any]) -> Json:
    """What the person behind this client says."""
    match question["method"]:
        case "elicitation/create":
            properties = question["params"].get("requestedSchema", {}).get("properties", {})
            return {"action": "accept", "content": {name: _value(schema) for name, schema in properties.items()}}
        case "sampling/createMessage":
            return {"role": "assistant", "content": {"type": "text", "text": "Hello"}, "model": "none"}
        case _:
            return {"roots": []}


def arguments_for(tool: Mapping[str, Any]) -> Json:
    """Some arguments that a tool takes."""
    schema = tool["inputSchema"]
    return {name: _value(schema["properties"][name]) for name in schema.get("required", [])}


def _value(schema: Mapping[str, Any]) -> Any:
    samples = {"string": "value", "integer": 1, "number": 1.5, "boolean": True, "array": [], "object": {}}
    return schema.get("default", samples.get(str(schema.get("type"))))


class PlainClient:
    """What the two eras have in common."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._path = parts.netloc, parts.path or "/"
        self._last_id = 0

    def request(self, method: str, meanwhile: Meanwhile | None = None, /, **params: Any) -> Json:
        """Send a request, answer what is asked on the way, and return the result.

        Raises:
            RefusedError: the answer was an error.
        """
        raise NotImplementedError

    def tools(self) -> dict[str, Json]:
        """The tools by name."""
        return {tool["name"]: tool for tool in self.request("tools/list")["tools"]}

    def call(self, name: str, arguments: Json, meanwhile: Meanwhile | None = None) -> Json:
        """Call a tool."""
        return self.request("tools/call", meanwhile, name=name, arguments=arguments)

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def _post(
        self, message: Json, headers: Mapping[str, str], place: "Place | None" = None
    ) -> tuple[http.client.HTTPResponse, Iterator[Json]]:
        """The answer's head, and the messages it holds, as they come."""
        connection = http.client.HTTPConnection(self._host, timeout=SECONDS)
        fixed = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        connection.request("POST", self._path, body, {**fixed, **headers})
        response = connection.getresponse()
        return response, _messages(response, place)


class Place:
    """Where an event stream was when it ended."""

    def __init__(self) -> None:
        self.event_id = ""
        self.retry_ms = 0.0


def _messages(response: http.client.HTTPResponse, place: Place | None = None) -> Iterator[Json]:
    if not str(response.headers["content-type"]).startswith("text/event-stream"):
        if body := response.read():
            yield json.loads(body)
        return
    for line in response:
        field, _, value = line.decode().rstrip("\r\n").partition(":")
        if field == "id" and place is not None:
            place.event_id = value.strip()
        elif field == "retry" and place is not None:
            place.retry_ms = float(value)
        elif field == "data" and value.strip():
            yield json.loads(value)


def _result(message: Json) -> Json:
    if "error" in message:
        raise RefusedError(json.dumps(message["error"]))
    result: Json = message["result"]
    return result


class ModernClient(PlainClient):
    """2026-07-28: each request says everything, and a question is a result."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._tools: dict[str, Json] = {}

    def tools(self) -> dict[str, Json]:
        """The tools by name; remembered for their headers."""
        self._tools = super().tools()
        return self._tools

    def request(self, method: str, meanwhile: Meanwhile | None = None, /, **params: Any) -> Json:
        """Send a request, and again with the answers as long as it asks."""
        again: Json = {}
        for _ in range(MOST_ROUNDS):
            result = self._once(method, {**params, **again})
            if result.get("resultType") != "input_required":
                return result
            if meanwhile is not None:
                meanwhile()
            questions = result.get("inputRequests", {})
            again = {"inputResponses": {key: answer(question) for key, question in questions.items()}}
            if "requestState" in result:
                again["requestState"] = result["requestState"]
        raise RefusedError(f"{method} still asks after {MOST_ROUNDS} rounds")

    def _once(self, method: str, params: Json) -> Json:
        meta = {
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientInfo": IDENTITY,
            "io.modelcontextprotocol/clientCapabilities": CAPABILITIES,
        }
        headers = {"mcp-protocol-version": MODERN, "mcp-method": method}
        if method in NAMED_BY:
            headers["mcp-name"] = params[NAMED_BY[method]]
        if method == "tools/call":
            headers |= _argument_headers(self._tools.get(params["name"], {}), params["arguments"])
        message = {"id": self._next_id(), "method": method, "params": {**params, "_meta": meta}}
        _, messages = self._post(message, headers)
        for arrived in messages:
            if "method" not in arrived:
                return _result(arrived)
        raise RefusedError(f"{method} got no answer")


def _argument_headers(tool: Json, arguments: Json) -> dict[str, str]:
    """The arguments that a tool's schema marks with `x-mcp-header`, as headers."""
    found = {}
    for name, schema in tool.get("inputSchema", {}).get("properties", {}).items():
        value = arguments.get(name)
        if "x-mcp-header" in schema and value is not None:
            text = value if isinstance(value, str) else json.dumps(value)
            plain = text == text.strip() and text.isascii() and (text.isprintable() or not text)
            coded = f"=?base64?{base64.b64encode(text.encode()).decode()}?="
            found[f"mcp-param-{schema['x-mcp-header']}"] = text if plain else coded
    return found


class LegacyClient(PlainClient):
    """2025-11-25: a session, and questions on the stream of the call."""

    def __init__(self, url: str, revision: str) -> None:
        super().__init__(url)
        self._headers: dict[str, str] = {}
        opened = {"protocolVersion": revision, "capabilities": CAPABILITIES, "clientInfo": IDENTITY}
        response, messages = self._post({"id": self._next_id(), "method": "initialize", "params": opened}, {})
        self._headers["mcp-protocol-version"] = _result(next(messages))["protocolVersion"]
        if session := response.headers["mcp-session-id"]:
            self._headers["mcp-session-id"] = session
        self._say({"method": "notifications/initialized"})

    def request(self, method: str, meanwhile: Meanwhile | None = None, /, **params: Any) -> Json:
        """Send a request; answer the questions that arrive before its result."""
        place = Place()
        message = {"id": self._next_id(), "method": method, "params": params}
        _, messages = self._post(message, self._headers, place)
        for _ in range(RECONNECTIONS):
            for arrived in messages:
                if "method" not in arrived:
                    return _result(arrived)
                if "id" in arrived:
                    if meanwhile is not None:
                        meanwhile()
                    self._say({"id": arrived["id"], "result": answer(arrived)})
            if not place.event_id:
                break
            time.sleep(place.retry_ms / 1000)
            messages = self._rest(place)
        raise RefusedError(f"{method} got no answer")

    def _rest(self, place: Place) -> Iterator[Json]:
        """What a stream that ended early still has to say."""
        connection = http.client.HTTPConnection(self._host, timeout=SECONDS)
        resumes = {"accept": "text/event-stream", "last-event-id": place.event_id}
        connection.request("GET", self._path, headers={**self._headers, **resumes})
        return _messages(connection.getresponse(), place)

    def _say(self, message: Json) -> None:
        response, messages = self._post(message, self._headers)
        if response.status != 202:
            raise RefusedError(f"{response.status} for {message}: {list(messages)}")
        response.close()
