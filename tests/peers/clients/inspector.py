"""The MCP Inspector's command line: a process for each operation, which connects, does one thing and ends.

Mode `legacy` is what it speaks by itself; `auto` probes for 2026-07-28. With no terminal it cancels whatever it is asked.
"""

import json
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from tests.peers.clients import driver
from tests.peers.clients.ears import Ears

LAUNCHER = ("@modelcontextprotocol", "inspector", "clients", "launcher", "build", "index.js")


class Session:
    def __init__(self, url: str, mode: str) -> None:
        launcher = Path(os.environ["PEERS_NODE"]).joinpath(*LAUNCHER)
        self._command = ["node", str(launcher), "--cli", "--server-url", url, "--transport", "http"]
        self._command += ["--protocol-era", mode, "--format", "json", "--quiet"]

    async def describe(self) -> dict[str, Any]:
        return {"tools": await self.tools()}

    async def tools(self) -> list[str]:
        return [tool["name"] for tool in (await self._ask("tools/list"))["tools"]]

    async def call(self, tool: str, arguments: dict[str, Any], on_progress: driver.OnProgress | None) -> str:
        words = ["--tool-name", tool, "--tool-args-json", json.dumps(arguments)]
        return _text((await self._ask("tools/call", *words))["content"])

    async def prompt(self, name: str, arguments: dict[str, str]) -> str:
        pairs = [f"{key}={value}" for key, value in arguments.items()]
        result = await self._ask("prompts/get", "--prompt-name", name, "--prompt-args", *pairs)
        return _text([message["content"] for message in result["messages"]])

    async def read(self, uri: str) -> str:
        return _text((await self._ask("resources/read", "--uri", uri))["contents"])

    async def cancel(self, scope: anyio.CancelScope) -> None:
        raise NotImplementedError

    async def logged_call(self, tool: str, arguments: dict[str, Any], level: str) -> str:
        raise NotImplementedError

    @asynccontextmanager
    async def watch(self, uri: str | None) -> AsyncIterator[None]:
        raise NotImplementedError
        yield

    async def _ask(self, method: str, *words: str) -> Any:
        command = [*self._command, "--method", method, *words]
        done = await anyio.run_process(command, check=False, stdin=subprocess.DEVNULL)
        if done.returncode:
            said = (done.stderr or done.stdout).decode(errors="replace")
            raise driver.Failed(f"exit code {done.returncode}: {said[-300:]}")
        return json.loads(done.stdout)["result"]


def _text(blocks: list[dict[str, Any]]) -> str:
    return "".join(block.get("text", "") for block in blocks)


@asynccontextmanager
async def open_session(target: dict[str, Any], mode: str, ears: Ears) -> AsyncIterator[Session]:
    yield Session(target["url"], mode)


if __name__ == "__main__":
    driver.main(open_session)
