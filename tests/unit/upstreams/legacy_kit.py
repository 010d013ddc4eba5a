"""A scripted legacy server, and its clients."""

from typing import Any

from penstock.protocol.versions import Era
from penstock.upstreams.calls import Caller
from tests.unit.upstreams.scripted_http import (
    Asked,
    Line,
    Script,
    http,
    initialized,
    is_listening,
    rpc,
    stream,
)


def legacy(script: Script, session: str | None = "s", **capabilities: Any) -> Script:
    """A legacy server that issues `session`-1, `session`-2, …, and answers calls by the script."""
    issued = 0

    async def answer(asked: Asked, line: Line) -> bytes | None:
        nonlocal issued
        if asked.rpc == "server/discover":
            return http(400, b"Bad Request: no valid session", "text/plain")
        if asked.rpc == "initialize":
            issued += 1
            name = None if session is None else f"{session}-{issued}"
            return initialized(asked, name, asked.body["params"]["protocolVersion"], **capabilities)
        if asked.rpc.startswith(("notifications/", "-> ", "logging/")):
            return http(202)
        if asked.method == "DELETE":
            return http(200)
        if is_listening(asked):
            return http(405)
        return await script(asked, line)

    return answer


async def echo(asked: Asked, _: Line) -> bytes:
    return stream(rpc(id=asked.id, result={"content": []}))


def caller(session: str) -> Caller:
    return Caller(Era.LEGACY, "2025-06-18", session, b"{}", b'{"name":"old","version":"1"}')
