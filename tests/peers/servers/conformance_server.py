"""A server that holds what the official conformance suite asks for.

    python -m tests.peers.servers.conformance_server dual|modern|legacy [http|stdio|sse]

`dual` speaks every revision the SDK knows; its streams can be resumed. `modern` refuses what is older than 2026-07-28, in the
words of that revision. `legacy` meets requests of 2026-07-28 as a server of 2025-11-25 does, which has never heard of them.

Every tool and prompt that needs something from the client asks in the idiom of the era that is spoken, also those that only the
suite of the other era calls: with `input_required` and `subscriptions/listen` when it is 2026-07-28; else with requests on the
call's own stream, the questions of one step at the same time, and with notifications to the sessions that are open. So a cell
between the eras fails only where the gateway does not translate.
"""

import sys
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import mcp_types as types
from mcp.server.caching import CacheHint
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.models import InitializationOptions
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    PromptsListChanged,
    ResourceUpdated,
    ToolsListChanged,
)
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import TypeAdapter

from tests.peers.servers import conformance_content as content
from tests.peers.servers import conformance_tasks as tasks
from tests.peers.servers.duplex import Gate, serve_stdio, sse_app
from tests.peers.servers.era_gate import (
    any_request,
    only_legacy,
    only_legacy_requests,
    only_modern,
    only_modern_requests,
)
from tests.peers.servers.event_log import EventLog
from tests.peers.servers.live_sessions import LiveSessions
from tests.peers.servers.loopback import serve_until_stdin_closes

NAME = "conformance-fixture"
Context = ServerRequestContext[Any, Any]
Result = dict[str, Any]
Ask = dict[str, dict[str, Any]]

BUS = InMemorySubscriptionBus()
SESSIONS = LiveSessions()
REQUEST = TypeAdapter(types.InputRequest)
RESULT_TYPES = {
    "elicitation/create": types.ElicitResult,
    "sampling/createMessage": types.CreateMessageResult,
    "roots/list": types.ListRootsResult,
}


def is_modern(ctx: Context) -> bool:
    """Whether the client speaks 2026-07-28."""
    return ctx.protocol_version in MODERN_PROTOCOL_VERSIONS


async def answers(ctx: Context, params: Any, requests: Ask) -> dict[str, dict[str, Any]] | None:
    """What the client says to `requests`; None when a modern client has yet to be asked."""
    if is_modern(ctx):
        given = params.input_responses or {}
        if any(key not in given for key in requests):
            return None
        return {key: given[key].model_dump(by_alias=True, mode="json", exclude_none=True) for key in requests}
    return await ask_the_session(ctx, requests)


async def ask_the_session(ctx: Context, requests: Ask) -> dict[str, dict[str, Any]]:
    """Ask a legacy client everything at once, on the call's stream.

    Raises:
        MCPError: the client's first refusal, when every question is settled.
    """
    said: dict[str, dict[str, Any]] = {}
    refusals: list[MCPError] = []

    async def ask(key: str, request: dict[str, Any]) -> None:
        try:
            result = await ctx.session.send_request(
                REQUEST.validate_python(request, by_name=False),
                RESULT_TYPES[request["method"]],
                metadata=ServerMessageMetadata(related_request_id=ctx.request_id),
            )
        except MCPError as refusal:
            refusals.append(refusal)
        else:
            said[key] = result.model_dump(by_alias=True, mode="json", exclude_none=True)

    async with anyio.create_task_group() as group:
        for key, request in requests.items():
            group.start_soon(ask, key, request)
    if refusals:
        raise refusals[0]
    return said


def input_required(requests: Ask, state: str | None = None) -> Result:
    """A result that asks."""
    asks: Result = {"resultType": "input_required", "inputRequests": requests}
    return asks if state is None else asks | {"requestState": state}


def done(*blocks: dict[str, Any], is_error: bool = False) -> Result:
    """A finished tool result."""
    return {"content": list(blocks), "isError": is_error}


async def ask_once(ctx: Context, params: Any, requests: Ask, *, state: str | None = None) -> Result:
    """A tool that says back what the client answered."""
    said = await answers(ctx, params, requests)
    if said is None:
        return input_required(requests, state)
    return done(content.text(f"The client said: {said}"))


async def multi_round(ctx: Context, params: Any) -> Result:
    """Asks twice, the second time when the first is answered; the state says how far we are."""
    if not is_modern(ctx):
        rounds = [await ask_the_session(ctx, {key: request}) for key, request in content.ROUNDS]
        return done(content.text(f"The client said: {rounds}"))
    asked = int(params.request_state or 0)
    if asked and content.ROUNDS[asked - 1][0] not in (params.input_responses or {}):
        asked -= 1
    if asked == len(content.ROUNDS):
        return done(content.text("Both rounds are done"))
    key, request = content.ROUNDS[asked]
    return input_required({key: request}, str(asked + 1))


async def by_capabilities(ctx: Context, params: Any) -> Result:
    """Asks only what the client declared it can answer."""
    has = ctx.session.client_capabilities or types.ClientCapabilities()
    requests: Ask = {}
    if has.elicitation is not None:
        requests["user_name"] = content.NAME_FORM
    if has.sampling is not None:
        requests["greeting"] = content.sample("Generate a greeting")
    return await ask_once(ctx, params, requests) if requests else done(content.text("Nothing can be asked"))


async def missing_capability(ctx: Context, params: Any) -> Result:
    """Needs a client that can sample: by its declaration; a legacy one is simply asked, and what it refuses is the error."""
    if not is_modern(ctx):
        return await ask_once(ctx, params, {"greeting": content.sample("Generate a greeting")})
    has = ctx.session.client_capabilities
    if has is not None and has.sampling is not None:
        return done(content.text("The client can sample"))
    needed = {"requiredCapabilities": {"sampling": {}}}
    raise MCPError(types.MISSING_REQUIRED_CLIENT_CAPABILITY, "This tool needs the sampling capability", needed)


async def with_progress(ctx: Context, params: Any) -> Result:
    """Reports thrice."""
    for step in (0, 50, 100):
        await ctx.session.report_progress(step, 100, f"Completed step {step} of 100")
    return done(content.text("Tool with progress finished"))


async def with_logging(ctx: Context, params: Any) -> Result:
    """Logs thrice."""
    for line in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await ctx.session.send_log_message("info", line, "fixture", ctx.request_id)
    return done(content.text("Tool with logging finished"))


async def reconnection(ctx: Context, params: Any) -> Result:
    """Closes the call's stream while it works, where the client can resume it."""
    if ctx.close_sse_stream is not None:
        await ctx.close_sse_stream()
        await anyio.sleep(0.1)  # longer than it takes to notice that the stream ended
    return done(content.text("Tool with reconnection finished"))


async def change_tools(ctx: Context, params: Any) -> Result:
    """Tells subscribers that the tools changed."""
    await BUS.publish(ToolsListChanged())
    await SESSIONS.tools_changed()
    return done(content.text("tools changed"))


async def change_prompts(ctx: Context, params: Any) -> Result:
    """Tells subscribers that the prompts changed."""
    await BUS.publish(PromptsListChanged())
    await SESSIONS.prompts_changed()
    return done(content.text("prompts changed"))


async def update_resource(ctx: Context, params: Any) -> Result:
    """Tells subscribers that the watched resource changed."""
    await BUS.publish(ResourceUpdated(uri=content.WATCHED))
    await SESSIONS.resource_updated(content.WATCHED)
    return done(content.text("resource updated"))


async def fail(ctx: Context, params: Any) -> Result:
    """Fails, as a tool does."""
    return done(content.text("This tool intentionally returns an error for testing"), is_error=True)


async def echo(ctx: Context, params: Any) -> Result:
    """Says its arguments back."""
    return done(content.text(f"Called with {params.arguments}"))


Tool = Callable[[Context, Any], Awaitable[Result]]
TOOLS: dict[str, tuple[str, dict[str, Any], Tool]] = {
    "test_error_handling": ("Always fails", content.NO_ARGUMENTS, fail),
    "test_tool_with_progress": ("Reports progress", content.NO_ARGUMENTS, with_progress),
    "test_tool_with_logging": ("Logs", content.NO_ARGUMENTS, with_logging),
    "test_logging_tool": ("Logs, to who asked for it", content.NO_ARGUMENTS, with_logging),
    "test_reconnection": ("Closes its stream while it works", content.NO_ARGUMENTS, reconnection),
    "test_missing_capability": ("Needs a client that can sample", content.NO_ARGUMENTS, missing_capability),
    "test_trigger_tool_change": ("Changes the list of tools", content.NO_ARGUMENTS, change_tools),
    "test_trigger_prompt_change": ("Changes the list of prompts", content.NO_ARGUMENTS, change_prompts),
    "test_trigger_resource_update": ("Changes the watched resource", content.NO_ARGUMENTS, update_resource),
    "test_input_required_result_capabilities": ("Asks what can be asked", content.NO_ARGUMENTS, by_capabilities),
    "test_input_required_result_multi_round": ("Asks twice", content.NO_ARGUMENTS, multi_round),
    "test_x_mcp_header": ("Has an argument that is a header too", content.HEADER_ARGUMENT, echo),
    "json_schema_2020_12_tool": ("Uses the whole of JSON Schema", content.JSON_SCHEMA_2020_12, echo),
}


def _register_tables() -> None:
    def fixed(blocks: list[dict[str, Any]]) -> Tool:
        async def tool(ctx: Context, params: Any) -> Result:
            return done(*blocks)

        return tool

    def asking(requests: Ask, with_state: bool) -> Tool:
        async def tool(ctx: Context, params: Any) -> Result:
            return await ask_once(ctx, params, requests, state="asked" if with_state else None)

        return tool

    def free_form(name: str, argument: str) -> Tool:
        async def tool(ctx: Context, params: Any) -> Result:
            value = str((params.arguments or {}).get(argument, ""))
            request = (
                content.sample(value)
                if name == "test_sampling"
                else content.form(value, {"username": content.STRING, "email": content.STRING}, "username", "email")
            )
            return await ask_once(ctx, params, {"it": request})

        return tool

    TOOLS.update(tasks.TOOLS)
    for name, (says, blocks) in content.FIXED_TOOLS.items():
        TOOLS[name] = (says, content.NO_ARGUMENTS, fixed(blocks))
    for name, (says, requests, with_state) in content.ASKING_TOOLS.items():
        TOOLS[name] = (says, content.NO_ARGUMENTS, asking(requests, with_state))
    for name, (says, argument) in content.FREE_FORM_TOOLS.items():
        schema = {"type": "object", "properties": {argument: content.STRING}, "required": [argument]}
        TOOLS[name] = (says, schema, free_form(name, argument))


async def list_tools(ctx: Context, params: Any) -> Result:
    """All tools on one page."""
    return {"tools": [{"name": n, "description": says, "inputSchema": s} for n, (says, s, _) in TOOLS.items()]}


async def call_tool(ctx: Context, params: types.CallToolRequestParams) -> Result:
    """Call one."""
    if params.name not in TOOLS:
        raise MCPError(types.INVALID_PARAMS, f"Unknown tool: {params.name}")
    return await TOOLS[params.name][2](ctx, params)


async def list_prompts(ctx: Context, params: Any) -> Result:
    """All prompts on one page."""
    return {
        "prompts": [
            {
                "name": name,
                "description": f"The prompt {name}",
                "arguments": [{"name": argument, "description": argument, "required": True} for argument in arguments],
            }
            for name, arguments in content.PROMPTS.items()
        ]
    }


async def get_prompt(ctx: Context, params: types.GetPromptRequestParams) -> Result:
    """One prompt; one of them asks first."""
    if params.name == "test_input_required_result_prompt":
        said = await answers(ctx, params, {"user_context": content.CONTEXT_FORM})
        if said is None:
            return input_required({"user_context": content.CONTEXT_FORM})
        return {"messages": [{"role": "user", "content": content.text(f"The client said: {said}")}]}
    messages = content.prompt_messages(params.name, params.arguments or {})
    if messages is None:
        raise MCPError(types.INVALID_PARAMS, f"Unknown prompt: {params.name}")
    return {"messages": messages}


async def list_resources(ctx: Context, params: Any) -> Result:
    """All resources on one page."""
    return {
        "resources": [
            {"uri": uri, "name": uri.removeprefix("test://"), "mimeType": resource["mimeType"]}
            for uri, resource in content.RESOURCES.items()
        ]
    }


async def list_templates(ctx: Context, params: Any) -> Result:
    """The one template."""
    return {
        "resourceTemplates": [{"uriTemplate": content.TEMPLATE, "name": "template", "mimeType": "application/json"}]
    }


async def read_resource(ctx: Context, params: types.ReadResourceRequestParams) -> Result:
    """A resource that is listed, or one that fits the template."""
    uri = str(params.uri)
    if uri in content.RESOURCES:
        return {"contents": [{"uri": uri, **content.RESOURCES[uri]}]}
    head, tail = content.TEMPLATE.split("{id}")
    if uri.startswith(head) and uri.endswith(tail) and len(uri) > len(head) + len(tail):
        key = uri[len(head) : -len(tail)]
        body = f'{{"id": "{key}", "templateTest": true, "data": "Data for ID: {key}"}}'
        return {"contents": [{"uri": uri, "mimeType": "application/json", "text": body}]}
    raise MCPError(types.INVALID_PARAMS if is_modern(ctx) else -32002, "Resource not found", {"uri": uri})


async def complete(ctx: Context, params: types.CompleteRequestParams) -> Result:
    """Three words that begin like what was typed."""
    values = [word for word in ("paris", "park", "party", "test") if word.startswith(params.argument.value)]
    return {"completion": {"values": values, "total": len(values), "hasMore": False}}


async def nothing(ctx: Context, params: Any) -> types.EmptyResult:
    """Takes note and answers with nothing."""
    return types.EmptyResult()


def typed(result_type: type[types.Result], handler: Callable[[Context, Any], Awaitable[Result]]) -> Any:
    """A handler whose results the SDK writes in the way of the client's revision."""

    async def handle(ctx: Context, params: Any) -> types.Result | Result:
        result = await handler(ctx, params)
        if result.get("resultType") == "task":
            return result
        shape = types.InputRequiredResult if result.get("resultType") == "input_required" else result_type
        return shape.model_validate(result, by_name=False)

    return handle


class Fixture(Server[Any]):
    """A server that says to legacy clients too that its lists change."""

    def create_initialization_options(
        self, notification_options: NotificationOptions | None = None, *rest: Any, **named: Any
    ) -> InitializationOptions:
        """What `initialize` is answered with."""
        changes = NotificationOptions(prompts_changed=True, resources_changed=True, tools_changed=True)
        return super().create_initialization_options(notification_options or changes, *rest, **named)


def make_server() -> Server[Any]:
    """The server, of both eras."""
    _register_tables()
    server = Fixture(
        NAME,
        version="1.0.0",
        instructions="Holds what the conformance suite asks for.",
        cache_hints=dict.fromkeys(
            ("tools/list", "prompts/list", "resources/list", "resources/templates/list", "server/discover"),
            CacheHint(ttl_ms=60_000, scope="public"),
        ),
        on_list_tools=typed(types.ListToolsResult, list_tools),
        on_call_tool=typed(types.CallToolResult, call_tool),
        on_list_resources=typed(types.ListResourcesResult, list_resources),
        on_list_resource_templates=typed(types.ListResourceTemplatesResult, list_templates),
        on_read_resource=typed(types.ReadResourceResult, read_resource),
        on_subscribe_resource=SESSIONS.watch,
        on_unsubscribe_resource=SESSIONS.stop_watching,
        on_subscriptions_listen=ListenHandler(BUS),
        on_list_prompts=typed(types.ListPromptsResult, list_prompts),
        on_get_prompt=typed(types.GetPromptResult, get_prompt),
        on_completion=typed(types.CompleteResult, complete),
    )
    server.add_request_handler("logging/setLevel", types.SetLevelRequestParams, nothing)
    tasks.add_tasks(server)
    server.add_notification_handler("notifications/initialized", types.NotificationParams, SESSIONS.opened)
    server.middleware.append(RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience=NAME))
    return server


def resumable(server: Server[Any]) -> Any:
    """Over HTTP, with streams that legacy clients can resume."""
    return server.streamable_http_app(event_store=EventLog(), retry_interval=50)


KINDS: dict[str, tuple[Callable[[Server[Any]], Any], Gate]] = {
    "dual": (resumable, any_request),
    "modern": (lambda server: only_modern(server.streamable_http_app()), only_modern_requests),
    "legacy": (lambda server: only_legacy(server.streamable_http_app()), only_legacy_requests),
}
"""What each is over HTTP, and what holds it to its era on a stream."""


def main() -> None:
    """Serve until standard input closes."""
    match sys.argv[1:]:
        case [kind] | [kind, "http"] if kind in KINDS:
            serve_until_stdin_closes(KINDS[kind][0](make_server()))
        case [kind, "stdio"] if kind in KINDS:
            anyio.run(serve_stdio, make_server(), KINDS[kind][1])
        case [("dual" | "legacy") as kind, "sse"]:
            serve_until_stdin_closes(sse_app(make_server(), KINDS[kind][1]), "/sse")
        case _:
            sys.exit("usage: conformance_server dual|modern|legacy [http|stdio], or dual|legacy sse")


if __name__ == "__main__":
    main()
