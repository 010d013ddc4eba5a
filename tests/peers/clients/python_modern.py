"""The client of the Python SDK 2.x; mode `auto` probes for 2026-07-28, mode `legacy` does not."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import mcp_types as types
from mcp import Client
from mcp.client.sse import sse_client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.shared.subscriptions import ResourceUpdated
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from tests.peers.clients import driver
from tests.peers.clients.ears import CHANGED_TOOLS, LOGGED, MODEL_SAYS, ROOT, UPDATED, Ears


class Session:
    def __init__(self, client: Client, ears: Ears) -> None:
        self._client = client
        self._ears = ears

    async def describe(self) -> dict[str, Any]:
        client = self._client
        has = client.server_capabilities
        return {
            "revision": client.protocol_version,
            "tools": [tool.name for tool in (await client.list_tools()).tools],
            "prompts": [prompt.name for prompt in (await client.list_prompts()).prompts] if has.prompts else [],
            "resources": [str(one.uri) for one in (await client.list_resources()).resources] if has.resources else [],
        }

    async def tools(self) -> list[str]:
        return [tool.name for tool in (await self._client.list_tools(cache_mode="refresh")).tools]

    async def call(
        self, tool: str, arguments: dict[str, Any], on_progress: driver.OnProgress | None, meta: Any = None
    ) -> str:
        async def note(progress: float, total: float | None, message: str | None) -> None:
            if on_progress is not None:
                on_progress()

        result = await self._client.call_tool(
            tool, arguments, progress_callback=note if on_progress else None, meta=meta
        )
        if result.is_error:
            raise driver.Failed(str(result.content))
        return "".join(getattr(block, "text", "") for block in result.content)

    async def prompt(self, name: str, arguments: dict[str, str]) -> str:
        result = await self._client.get_prompt(name, arguments)
        return "".join(getattr(message.content, "text", "") for message in result.messages)

    async def read(self, uri: str) -> str:
        return "".join(getattr(part, "text", "") for part in (await self._client.read_resource(uri)).contents)

    async def cancel(self, scope: anyio.CancelScope) -> None:
        scope.cancel()

    async def logged_call(self, tool: str, arguments: dict[str, Any], level: str) -> str:
        if self._client.protocol_version in MODERN_PROTOCOL_VERSIONS:
            return await self.call(tool, arguments, None, {types.LOG_LEVEL_META_KEY: level})
        if self._client.server_capabilities.logging is not None:
            await self._client.set_logging_level(level)
        return await self.call(tool, arguments, None)

    @asynccontextmanager
    async def watch(self, uri: str | None) -> AsyncIterator[None]:
        if self._client.protocol_version in MODERN_PROTOCOL_VERSIONS:
            wanted: dict[str, Any] = {"resource_subscriptions": [uri]} if uri else {"tools_list_changed": True}
            async with self._client.listen(**wanted) as events, anyio.create_task_group() as group:
                group.start_soon(self._pass_on, events)
                yield
                group.cancel_scope.cancel()
            return
        if uri:
            await self._client.subscribe_resource(uri)
        yield
        if uri:
            await self._client.unsubscribe_resource(uri)

    async def _pass_on(self, events: Any) -> None:
        async for event in events:
            if isinstance(event, ResourceUpdated):
                self._ears.note(UPDATED, event.uri)
            else:
                self._ears.note(CHANGED_TOOLS)


def callbacks(ears: Ears) -> dict[str, Any]:
    """What the client does when it is asked or told something."""

    async def elicit(context: Any, params: Any) -> types.ElicitResult:
        action, content = ears.form(getattr(params, "requested_schema", None))
        return types.ElicitResult(action=action, content=content)

    async def sample(context: Any, params: Any) -> types.CreateMessageResult:
        ears.note("sampling/createMessage")
        said = types.TextContent(type="text", text=MODEL_SAYS)
        return types.CreateMessageResult(role="assistant", content=said, model="none")

    async def roots(context: Any) -> types.ListRootsResult:
        ears.note("roots/list")
        return types.ListRootsResult(roots=[types.Root(uri=ROOT)])

    async def log(params: Any) -> None:
        ears.note(LOGGED, str(params.data))

    return {
        "elicitation_callback": elicit,
        "sampling_callback": sample,
        "list_roots_callback": roots,
        "logging_callback": log,
        "message_handler": message_handler(ears),
    }


def message_handler(ears: Ears) -> Any:
    """Notes what is told without being asked for in a call."""

    async def handle(message: Any) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            ears.note(CHANGED_TOOLS)
        elif isinstance(message, types.ResourceUpdatedNotification):
            ears.note(UPDATED, str(message.params.uri))

    return handle


@asynccontextmanager
async def open_session(target: dict[str, Any], mode: str, ears: Ears) -> AsyncIterator[Session]:
    where: Any = target.get("url")
    if "command" in target:
        program, *arguments = target["command"]
        where = stdio_client(StdioServerParameters(command=program, args=arguments, env=target.get("env")))
    elif driver.is_sse(where):
        where = sse_client(where)
    async with Client(where, mode=mode, **callbacks(ears)) as client:
        yield Session(client, ears)


if __name__ == "__main__":
    driver.main(open_session)
