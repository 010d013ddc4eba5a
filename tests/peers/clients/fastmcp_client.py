"""FastMCP's client."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from fastmcp import Client

from tests.peers.clients import driver


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


@asynccontextmanager
async def open_session(target: dict[str, Any], mode: str) -> AsyncIterator[Session]:
    async with Client(target["url"], mode=mode) as client:
        yield Session(client)


if __name__ == "__main__":
    driver.main(open_session)
