"""A server made of Python functions: what they may know and say, and what their values become.

Knows: how results are shaped in both eras. Does not know: transports, sessions, upstreams; see `in_memory`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import Any, Final, NamedTuple

import msgspec

from penstock.protocol.errors import INVALID_PARAMS, METHOD_NOT_FOUND, RESOURCE_NOT_FOUND
from penstock.protocol.meta import LOG_LEVEL, LOG_LEVELS, PROGRESS_TOKEN, SERVER_INFO
from penstock.protocol.versions import LATEST_MODERN, Era
from penstock.upstreams.calls import Call, Caller, Raw
from penstock.upstreams.in_memory_schema import first_fault
from penstock.upstreams.in_memory_template import Template
from penstock.upstreams.questions import Question, Reply

JsonObject = dict[str, Any]
_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder().decode
_CACHEABLE: Final = frozenset(
    {"server/discover", "tools/list", "prompts/list", "resources/list", "resources/templates/list", "resources/read"}
)
_LISTS: Final = {
    "tools/list": "tools",
    "prompts/list": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
}
_CALLS_KEPT: Final = 10_000


class ToolFailed(Exception):
    """Raised by a tool: the call has a result, and the result is that it did not work (`isError`)."""


class Refused(Exception):
    """Raised by any function of a server: the call is answered with a JSON-RPC error."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code: Final = code
        self.data: Final = data


class InputRequired(NamedTuple):
    """Returned by a function that needs an answer of the client first; it is called again with it."""

    input_requests: Mapping[str, JsonObject]
    request_state: str | None = None


class CallContext:
    """What a function may know of the call it answers, and say while it works."""

    __slots__ = ("_asks_for_level", "_token", "call", "input_responses", "request_state")

    def __init__(self, call: Call, *, wants_every_log: bool) -> None:
        self.call: Final = call
        meta = call.meta or {}
        self._token = meta.get(PROGRESS_TOKEN)
        level = meta.get(LOG_LEVEL)
        asked = str(_decode(level)) if level is not None else "debug" if wants_every_log else ""
        self._asks_for_level = LOG_LEVELS.index(asked) if asked in LOG_LEVELS else len(LOG_LEVELS)
        responses = call.params.get("inputResponses")
        self.input_responses: JsonObject | None = _decode(responses) if responses is not None else None
        state = call.params.get("requestState")
        self.request_state: str | None = _decode(state) if state is not None else None

    def __repr__(self) -> str:
        return f"<CallContext {self.call!r}>"

    def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        """Tell the caller how far the work is, if it asked."""
        if self._token is None:
            return
        self.call.progress_at = monotonic()
        if self.call.notify is not None:
            said = {"progress": progress, "total": total, "message": message}
            params = {key: Raw(_encode(value)) for key, value in said.items() if value is not None}
            self.call.notify("notifications/progress", {PROGRESS_TOKEN: self._token, **params})

    async def ask(self, method: str, params: JsonObject) -> JsonObject:
        """Ask the client something, as a legacy server does; its result.

        Raises:
            Refused: the client gave an error, or there is none that can be asked.
        """
        if self.call.ask is None:
            raise Refused(METHOD_NOT_FOUND, f"no client is there that can be asked {method!r}")
        answered: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def take(reply: Reply) -> None:
            if not answered.done():  # the function may have been cancelled in this turn of the loop
                answered.set_result(reply)

        question = Question(method, {key: Raw(_encode(value)) for key, value in params.items()}, take)
        self.call.ask(question)
        try:
            reply = await answered
        finally:
            question.withdraw()
        if isinstance(reply, bytes):
            result: JsonObject = _decode(reply)
            return result
        raise Refused(reply.code, reply.message, None if reply.data is None else _decode(reply.data))

    def log(self, level: str, data: Any, logger: str | None = None) -> None:
        """Send a log line, if the caller asked for that level."""
        if self.call.notify is None or LOG_LEVELS.index(level) < self._asks_for_level:
            return
        params = {"level": Raw(_encode(level)), "data": Raw(_encode(data))}
        if logger is not None:
            params["logger"] = Raw(_encode(logger))
        self.call.notify("notifications/message", params)


Handler = Callable[[JsonObject, CallContext], Awaitable[Any]]
"""Takes the arguments (of a tool or prompt; the variables of a template; `{}` for a resource).

A tool returns text, an object (structured content), a whole `{"content": …}` or `{"resultType": …}` result or
`InputRequired`; a prompt returns text or a list of messages; a resource returns text, bytes or a list of contents.
"""
Decorator = Callable[[Handler], Handler]
Completer = Callable[[JsonObject, JsonObject], Awaitable[list[str]]]
"""Takes `ref` and `argument` of `completion/complete`; returns values that begin as the argument does."""


class _Item(NamedTuple):
    definition: JsonObject
    handler: Handler


class InMemoryServer:
    """Tools, prompts, resources and templates as functions."""

    def __init__(
        self,
        name: str,
        *,
        version: str = "1.0.0",
        instructions: str = "",
        era: Era = Era.MODERN,
        page_size: int | None = None,
        ttl_ms: int = 0,
        cache_scope: str = "private",
    ) -> None:
        self.name = name
        self.instructions = instructions
        self.era = era
        self.page_size = page_size
        """Items of one page of a list; None for all at once."""
        self.ttl_ms = ttl_ms
        self.cache_scope = cache_scope
        self.info: JsonObject = {"name": name, "version": version}
        self._tools: dict[str, _Item] = {}
        self._prompts: dict[str, _Item] = {}
        self._resources: dict[str, _Item] = {}
        self._templates: list[tuple[Template, _Item]] = []
        self._completer: Completer | None = None
        self._methods: dict[str, Handler] = {}
        self.more_capabilities: JsonObject = {}
        """What it declares beside what it has, such as `extensions`."""

    def __repr__(self) -> str:
        counts = f"{len(self._tools)} tools {len(self._prompts)} prompts {len(self._resources)} resources"
        return f"<InMemoryServer {self.name} {self.era.value} | {counts}>"

    # registration

    def tool(
        self, name: str, *, description: str = "", input_schema: JsonObject | None = None, **more: Any
    ) -> Decorator:
        """Register a function as a tool; `more` are further members of its definition, such as `outputSchema`."""
        schema = input_schema or {"type": "object", "additionalProperties": False}
        definition = {"name": name, "description": description, "inputSchema": schema, **more}

        def register(handler: Handler) -> Handler:
            self._tools[name] = _Item(definition, handler)
            return handler

        return register

    def prompt(
        self, name: str, *, description: str = "", arguments: list[JsonObject] | None = None, **more: Any
    ) -> Decorator:
        """Register a function as a prompt."""
        definition = {"name": name, "description": description, "arguments": arguments or [], **more}

        def register(handler: Handler) -> Handler:
            self._prompts[name] = _Item(definition, handler)
            return handler

        return register

    def resource(self, uri: str, *, name: str, mime_type: str = "text/plain", **more: Any) -> Decorator:
        """Register a function as a resource."""
        definition = {"uri": uri, "name": name, "mimeType": mime_type, **more}

        def register(handler: Handler) -> Handler:
            self._resources[uri] = _Item(definition, handler)
            return handler

        return register

    def resource_template(self, template: str, *, name: str, mime_type: str = "text/plain", **more: Any) -> Decorator:
        """Register a function as the reader of all resources whose URI fits; `{name}` stands for anything but a slash."""
        definition = {"uriTemplate": template, "name": name, "mimeType": mime_type, **more}

        def register(handler: Handler) -> Handler:
            self._templates.append((Template(template), _Item(definition, handler)))
            return handler

        return register

    def completion(self, completer: Completer) -> Completer:
        """Register the function that completes arguments."""
        self._completer = completer
        return completer

    def method(self, name: str) -> Decorator:
        """Register a function that answers a method of an extension, by the request's params."""

        def register(handler: Handler) -> Handler:
            self._methods[name] = handler
            return handler

        return register

    def remove_tool(self, name: str) -> None:
        """Take a tool away, as a server that changes its mind does."""
        del self._tools[name]

    # answering

    @property
    def capabilities(self) -> JsonObject:
        """What there is, in the protocol's words."""
        present: JsonObject = {"logging": {}}
        if self._tools:
            present["tools"] = {"listChanged": True}
        if self._prompts:
            present["prompts"] = {"listChanged": True}
        if self._resources or self._templates:
            present["resources"] = {"listChanged": True, "subscribe": True}
        if self._completer is not None:
            present["completions"] = {}
        return present | self.more_capabilities

    async def answer(self, call: Call) -> JsonObject:
        """The result of a call, in this server's era.

        Raises:
            Refused: the call deserves a JSON-RPC error.
        """
        params = {key: _decode(value) for key, value in call.params.items()}
        context = CallContext(call, wants_every_log=self._logs_all_for(call.caller))
        result = await self._answer(call.method, params, context)
        if self.era is Era.LEGACY:
            return result
        head: JsonObject = {"resultType": result.get("resultType", "complete")}
        if call.method in _CACHEABLE and head["resultType"] == "complete":
            head |= {"ttlMs": self.ttl_ms, "cacheScope": self.cache_scope}
        return head | result | {"_meta": {SERVER_INFO: self.info} | result.get("_meta", {})}

    def _logs_all_for(self, caller: Caller) -> bool:
        """Whether a caller that sets no level is told every line."""
        return caller.hears_every_log or (self.era is Era.LEGACY and caller.era is Era.LEGACY)

    async def _answer(self, method: str, params: JsonObject, context: CallContext) -> JsonObject:
        if method in self._methods:
            answer: JsonObject = await self._methods[method](params, context)
            return answer
        if method in _LISTS:
            return self._list(_LISTS[method], params.get("cursor"))
        match method:
            case "tools/call":
                return await self._call_tool(params, context)
            case "prompts/get":
                return await self._get_prompt(params, context)
            case "resources/read":
                return await self._read_resource(str(params.get("uri", "")), context)
            case "completion/complete" if self._completer is not None:
                values = await self._completer(params.get("ref", {}), params.get("argument", {}))
                return {"completion": {"values": values[:100], "total": len(values), "hasMore": len(values) > 100}}
            case "server/discover" if self.era is Era.MODERN:
                return self._discover()
            case "ping" | "logging/setLevel" if self.era is Era.LEGACY:
                return {}
        raise Refused(METHOD_NOT_FOUND, f"Method not found: {method}")

    def _discover(self) -> JsonObject:
        found = {"supportedVersions": [LATEST_MODERN], "capabilities": self.capabilities}
        return found | ({"instructions": self.instructions} if self.instructions else {})

    def _list(self, key: str, cursor: Any) -> JsonObject:
        items = {
            "tools": self._tools.values(),
            "prompts": self._prompts.values(),
            "resources": self._resources.values(),
            "resourceTemplates": [item for _, item in self._templates],
        }[key]
        definitions = [item.definition for item in items]
        if cursor is not None and not (isinstance(cursor, str) and cursor.isdigit()):
            raise Refused(INVALID_PARAMS, f"unknown cursor {cursor!r}")
        start = int(cursor or 0)
        if self.page_size is None or start + self.page_size >= len(definitions):
            return {key: definitions[start:]}
        end = start + self.page_size
        return {key: definitions[start:end], "nextCursor": str(end)}

    async def _call_tool(self, params: JsonObject, context: CallContext) -> JsonObject:
        item = self._tools.get(str(params.get("name")))
        if item is None:
            raise Refused(INVALID_PARAMS, f"unknown tool {params.get('name')!r}")
        arguments = params.get("arguments", {})
        try:
            fault = first_fault(arguments, item.definition["inputSchema"])
            if fault:
                raise ToolFailed(fault)
            return self._tool_result(await item.handler(arguments, context))
        except ToolFailed as error:
            return {"content": [_text(str(error))], "isError": True}

    def _tool_result(self, value: Any) -> JsonObject:
        if isinstance(value, InputRequired):
            return _input_required(value)
        if isinstance(value, dict) and ("content" in value or "resultType" in value):
            return value
        if isinstance(value, str):
            return {"content": [_text(value)]}
        return {"content": [_text(_encode(value).decode())], "structuredContent": value}

    async def _get_prompt(self, params: JsonObject, context: CallContext) -> JsonObject:
        item = self._prompts.get(str(params.get("name")))
        if item is None:
            raise Refused(INVALID_PARAMS, f"unknown prompt {params.get('name')!r}")
        arguments = params.get("arguments", {})
        for argument in item.definition["arguments"]:
            if argument.get("required") and argument["name"] not in arguments:
                raise Refused(INVALID_PARAMS, f"argument '{argument['name']}' is required")
        value = await item.handler(arguments, context)
        if isinstance(value, InputRequired):
            return _input_required(value)
        messages = [{"role": "user", "content": _text(value)}] if isinstance(value, str) else value
        return {"description": item.definition["description"], "messages": messages}

    async def _read_resource(self, uri: str, context: CallContext) -> JsonObject:
        item, variables = self.find_resource(uri)
        value = await item.handler(variables, context)
        if isinstance(value, InputRequired):
            return _input_required(value)
        if isinstance(value, list):
            return {"contents": value}
        content = {"uri": uri, "mimeType": item.definition["mimeType"]}
        return {"contents": [content | ({"blob": value} if isinstance(value, bytes) else {"text": value})]}

    def find_resource(self, uri: str) -> tuple[_Item, JsonObject]:
        """Who reads it, and the variables of its URI.

        Raises:
            Refused: nobody does.
        """
        if uri in self._resources:
            return self._resources[uri], {}
        for template, item in self._templates:
            variables = template.match(uri)
            if variables is not None:
                return item, variables
        code = INVALID_PARAMS if self.era is Era.MODERN else RESOURCE_NOT_FOUND
        raise Refused(code, f"Resource not found: {uri}", {"uri": uri})


def _text(text: str) -> JsonObject:
    return {"type": "text", "text": text}


def _input_required(value: InputRequired) -> JsonObject:
    state = {} if value.request_state is None else {"requestState": value.request_state}
    return {"resultType": "input_required", "inputRequests": dict(value.input_requests), **state}
