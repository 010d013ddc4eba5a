"""FastMCP's client; mode `auto` probes for 2026-07-28, mode `legacy` does not.

It has no call to subscribe with. It asks for logs of any level by itself where they are asked for with each request.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import mcp_types as types
from fastmcp import Client
from fastmcp.client.elicitation import ElicitResult

from tests.peers.clients import driver
from tests.peers.clients.ears import LOGGED, MODEL_SAYS, ROOT, Ears
from tests.peers.clients.python_modern import message_handler


class Session:
    def __init__(self, client: Any) -> None:
        self._client = client

    async def describe(self) -> dict[str, Any]:
        return {"tools": await self.tools()}

    async def tools(self) -> list[str]:
        return [tool.name for tool in await self._client.list_tools()]

    async def call(self, tool: str, arguments: dict[str, Any], on_progress: driver.OnProgress | None) -> str:
        async def note(progress: float, total: float | None, message: str | None) -> None:
            if on_progress is not None:
                on_progress()

        result = await self._client.call_tool(tool, arguments, progress_handler=note)
        return "".join(getattr(block, "text", "") for block in result.content)

    async def prompt(self, name: str, arguments: dict[str, str]) -> str:
        result = await self._client.get_prompt(name, arguments)
        return "".join(getattr(message.content, "text", "") for message in result.messages)

    async def read(self, uri: str) -> str:
        return "".join(getattr(part, "text", "") for part in await self._client.read_resource(uri))

    async def cancel(self, scope: anyio.CancelScope) -> None:
        scope.cancel()

    async def logged_call(self, tool: str, arguments: dict[str, Any], level: str) -> str:
        opened = self._client.initialize_result
        if opened is not None and opened.capabilities.logging is not None:
            await self._client.set_logging_level(level)
        return await self.call(tool, arguments, None)

    @asynccontextmanager
    async def watch(self, uri: str | None) -> AsyncIterator[None]:
        yield


def handlers(ears: Ears) -> dict[str, Any]:
    """What the client does when it is asked or told something."""

    async def elicit(message: str, kind: Any, params: Any, context: Any) -> ElicitResult[Any]:
        action, content = ears.form(getattr(params, "requested_schema", None))
        return ElicitResult(action=action, content=content)

    async def sample(messages: Any, params: Any, context: Any) -> str:
        ears.note("sampling/createMessage")
        return MODEL_SAYS

    async def roots(context: Any) -> list[str]:
        ears.note("roots/list")
        return [ROOT]

    async def log(message: types.LoggingMessageNotificationParams) -> None:
        ears.note(LOGGED, str(message.data))

    return {
        "elicitation_handler": elicit,
        "sampling_handler": sample,
        "roots": roots,
        "log_handler": log,
        "message_handler": message_handler(ears),
    }


@asynccontextmanager
async def open_session(target: dict[str, Any], mode: str, ears: Ears) -> AsyncIterator[Session]:
    async with Client(target["url"], mode=mode, **handlers(ears)) as client:
        yield Session(client)


if __name__ == "__main__":
    driver.main(open_session)
