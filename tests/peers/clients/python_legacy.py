"""The client of the Python SDK 1.x, which knows legacy revisions alone.

That library does not tell a server when a call is given up, so the notification is sent by hand.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from mcp import ClientSession, types
from mcp.client.sse import sse_client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from pydantic import AnyUrl

from tests.peers.clients import driver
from tests.peers.clients.ears import CHANGED_TOOLS, LOGGED, MODEL_SAYS, ROOT, UPDATED, Ears


class Session:
    def __init__(self, session: ClientSession) -> None:
        self._session = session
        self._last_call = 0

    async def describe(self) -> dict[str, Any]:
        return {"tools": await self.tools()}

    async def tools(self) -> list[str]:
        return [tool.name for tool in (await self._session.list_tools()).tools]

    async def call(self, tool: str, arguments: dict[str, Any], on_progress: driver.OnProgress | None) -> str:
        async def note(progress: float, total: float | None, message: str | None) -> None:
            if on_progress is not None:
                on_progress()

        self._last_call = self._session._request_id
        result = await self._session.call_tool(tool, arguments, progress_callback=note if on_progress else None)
        if result.isError:
            raise driver.Failed(str(result.content))
        return "".join(getattr(block, "text", "") for block in result.content)

    async def prompt(self, name: str, arguments: dict[str, str]) -> str:
        result = await self._session.get_prompt(name, arguments)
        return "".join(getattr(message.content, "text", "") for message in result.messages)

    async def read(self, uri: str) -> str:
        return "".join(getattr(part, "text", "") for part in (await self._session.read_resource(AnyUrl(uri))).contents)

    async def cancel(self, scope: anyio.CancelScope) -> None:
        params = types.CancelledNotificationParams(requestId=self._last_call, reason="the matrix gave it up")
        notification = types.CancelledNotification(method="notifications/cancelled", params=params)
        await self._session.send_notification(types.ClientNotification(notification))
        scope.cancel()

    async def logged_call(self, tool: str, arguments: dict[str, Any], level: Any) -> str:
        has = self._session.get_server_capabilities()
        if has is not None and has.logging is not None:
            await self._session.set_logging_level(level)
        return await self.call(tool, arguments, None)

    @asynccontextmanager
    async def watch(self, uri: str | None) -> AsyncIterator[None]:
        if uri:
            await self._session.subscribe_resource(AnyUrl(uri))
        yield
        if uri:
            await self._session.unsubscribe_resource(AnyUrl(uri))


def callbacks(ears: Ears) -> dict[str, Any]:
    """What the client does when it is asked or told something."""

    async def elicit(context: Any, params: Any) -> types.ElicitResult:
        action, content = ears.form(getattr(params, "requestedSchema", None))
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

    async def handle(message: Any) -> None:
        said = message.root if isinstance(message, types.ServerNotification) else None
        if isinstance(said, types.ToolListChangedNotification):
            ears.note(CHANGED_TOOLS)
        elif isinstance(said, types.ResourceUpdatedNotification):
            ears.note(UPDATED, str(said.params.uri))

    return {
        "elicitation_callback": elicit,
        "sampling_callback": sample,
        "list_roots_callback": roots,
        "logging_callback": log,
        "message_handler": handle,
    }


def _transport(target: dict[str, Any]) -> Any:
    if "command" not in target:
        url = target["url"]
        return sse_client(url) if driver.is_sse(url) else streamable_http_client(url)
    program, *arguments = target["command"]
    return stdio_client(StdioServerParameters(command=program, args=arguments, env=target.get("env")))


@asynccontextmanager
async def open_session(target: dict[str, Any], mode: str, ears: Ears) -> AsyncIterator[Session]:
    is_over = False
    try:
        async with _transport(target) as (read, write, *_), ClientSession(read, write, **callbacks(ears)) as session:
            await session.initialize()
            yield Session(session)
            is_over = True
    except anyio.BrokenResourceError:
        if not is_over:  # else something came while it was closed: its stdio transport is not prepared for that
            raise


if __name__ == "__main__":
    driver.main(open_session)
