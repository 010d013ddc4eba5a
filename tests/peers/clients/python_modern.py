"""The client of the Python SDK 2.x; mode `auto` probes for 2026-07-28, mode `legacy` does not."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from mcp import Client
from mcp.client.sse import sse_client
from mcp.client.stdio import StdioServerParameters, stdio_client

from tests.peers.clients import driver


class Session:
    def __init__(self, client: Client) -> None:
        self._client = client

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

    async def call(self, tool: str, arguments: dict[str, Any], on_progress: driver.OnProgress | None) -> str:
        async def note(progress: float, total: float | None, message: str | None) -> None:
            if on_progress is not None:
                on_progress()

        result = await self._client.call_tool(tool, arguments, progress_callback=note if on_progress else None)
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


@asynccontextmanager
async def open_session(target: dict[str, Any], mode: str) -> AsyncIterator[Session]:
    where: Any = target.get("url")
    if "command" in target:
        program, *arguments = target["command"]
        where = stdio_client(StdioServerParameters(command=program, args=arguments, env=target.get("env")))
    elif driver.is_sse(where):
        where = sse_client(where)
    async with Client(where, mode=mode) as client:
        yield Session(client)


if __name__ == "__main__":
    driver.main(open_session)
