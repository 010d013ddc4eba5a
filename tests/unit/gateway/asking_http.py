"""A legacy server behind the gateway that asks over HTTP, as a test wrote it down."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from tests.unit.gateway.conftest import Running, plan_of
from tests.unit.upstreams.scripted_http import (
    Asked,
    Line,
    Scripted,
    chunk,
    http,
    initialized,
    result,
    rpc,
    serving,
    stream,
)

Talk = Callable[["Server", Asked, Line], Awaitable[None]]


class Server:
    """A legacy server whose one tool says what a test wrote down."""

    def __init__(self, talk: Talk) -> None:
        self.talk = talk
        self.scripted: Scripted | None = None

    async def script(self, asked: Asked, line: Line) -> bytes | None:
        if asked.rpc == "server/discover":
            return http(400, b"no session", "text/plain")
        if asked.rpc == "initialize":
            return initialized(asked, "s", asked.body["params"]["protocolVersion"], tools={}, logging={})
        if asked.rpc == "tools/list":
            return result(asked, tools=[{"name": "work", "inputSchema": {"type": "object"}}])
        if asked.rpc != "tools/call":
            return http(202) if asked.id is None or "method" not in asked.body else result(asked)
        await line.write(stream(end=False))
        await self.talk(self, asked, line)
        return None

    async def heard(self, rpc_name: str) -> dict[str, Any]:
        """What the gateway POSTed."""
        assert self.scripted is not None
        return (await self.scripted.wait_for(rpc_name)).body


@asynccontextmanager
async def desk(running: Running, talk: Talk) -> AsyncIterator[Server]:
    server = Server(talk)
    async with serving(server.script) as (scripted, upstream):
        server.scripted = scripted
        await running.gateway.apply({"desk": plan_of("desk", lambda: upstream)}, ())
        await running.listed()
        yield server


async def say(line: Line, **message: Any) -> None:
    await line.write(chunk(b"data: " + rpc(**message) + b"\n\n"))


async def end(asked: Asked, line: Line, text: str = "done") -> None:
    await say(line, id=asked.id, result={"content": [{"type": "text", "text": text}]})
    await line.write(b"0\r\n\r\n")
