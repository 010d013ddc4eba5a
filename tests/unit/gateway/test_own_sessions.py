"""Legacy clients of servers that keep something for each session: updates are told in the session that has subscribed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.unit.gateway.conftest import Running
from tests.unit.gateway.listening_kit import UPDATED, listening, session_stream
from tests.unit.gateway.test_listening import released
from tests.unit.upstreams.scripted_http import Asked, Line, chunk, http, initialized, result, rpc, serving, stream
from tests.unit.upstreams.stdio_kit import until

README = "peers://readme"


class Server:
    """Tells of updates in the sessions that have subscribed: in that alone in which they were made, or in all of them."""

    def __init__(self, *, tells_all: bool) -> None:
        self.tells_all = tells_all
        self.streams: dict[str, Line] = {}
        self.watched: dict[str, set[str]] = {}

    async def __call__(self, asked: Asked, line: Line) -> bytes | None:
        if asked.rpc == "server/discover":
            return http(400)
        if asked.rpc == "initialize":
            session = f"s-{len(self.watched) + 1}"
            self.watched[session] = set()
            return initialized(asked, session, tools={}, resources={"subscribe": True})
        session = asked.headers["mcp-session-id"]
        if asked.method == "GET":
            self.streams[session] = line
            await line.write(stream(end=False))
            await line.until_closed()
            return None
        if asked.method == "DELETE":
            self.watched[session].clear()
        return await self._answer(asked, session) if "id" in asked.body else http(202)

    async def _answer(self, asked: Asked, session: str) -> bytes:
        params = asked.body.get("params", {})
        lists: dict[str, dict[str, Any]] = {
            "tools/list": {"tools": [{"name": "touch", "inputSchema": {"type": "object"}}]},
            "resources/list": {"resources": [{"uri": README, "name": "readme"}]},
            "resources/templates/list": {"resourceTemplates": []},
        }
        if asked.rpc == "resources/subscribe":
            self.watched[session].add(params["uri"])
        elif asked.rpc == "resources/unsubscribe":
            self.watched[session].discard(params["uri"])
        elif asked.rpc == "tools/call":
            await self._touch(session)
        return result(asked, **lists.get(asked.rpc, {"content": []}))

    async def _touch(self, made_in: str) -> None:
        message = chunk(b"data: " + rpc(method=UPDATED, params={"uri": README}) + b"\n\n")
        for session, uris in self.watched.items():
            if README in uris and (self.tells_all or session == made_in):
                await self.streams[session].write(message)


@asynccontextmanager
async def behind(running: Running, server: Server) -> AsyncIterator[None]:
    async with serving(server) as (_, upstream):
        await running.apply({"peer": lambda: upstream})
        await running.listed()
        yield
        await running.apply({})


async def touch(running: Running, session: str) -> None:
    answer = await running.legacy("tools/call", {"name": "peer_touch", "arguments": {}}, session=session)
    assert "result" in answer


async def end(running: Running, session: str) -> None:
    response = await running.client.request("DELETE", running.url + "/mcp", {"mcp-session-id": session})
    assert response.status == 204


async def subscribe(running: Running, session: str) -> None:
    assert (await running.legacy("resources/subscribe", {"uri": README}, session=session))["result"] == {}


@pytest.mark.parametrize("tells_all", [False, True], ids=["the session it was made in", "every session"])
async def test_a_client_hears_once_of_each_update_whomever_the_server_tells(empty: Running, tells_all: bool) -> None:
    server = Server(tells_all=tells_all)
    async with behind(empty, server):
        session = (await empty.initialize())[1]
        everybody = listening(empty, {"resourceSubscriptions": [README]})
        async with everybody as modern, session_stream(empty, session) as ear:
            await subscribe(empty, session)
            assert [uris for uris in server.watched.values() if uris] == [{README}] * 2
            for _ in range(3):
                await touch(empty, session)
            if tells_all:
                assert await modern.changed() == README
                await until(lambda: not empty.gateway.listeners._is_telling_updates)
            assert [await ear.changed() for _ in range(3)] == [README] * 3
            await end(empty, session)
            assert await ear.rest() == []


async def test_what_one_client_changes_is_not_told_twice_to_another(empty: Running) -> None:
    server = Server(tells_all=True)
    async with behind(empty, server):
        sessions = [(await empty.initialize())[1] for _ in range(2)]
        everybody = listening(empty, {"resourceSubscriptions": [README]})
        async with (
            everybody as modern,
            session_stream(empty, sessions[0]) as one,
            session_stream(empty, sessions[1]) as other,
        ):
            for session in sessions:
                await subscribe(empty, session)
            await touch(empty, sessions[0])
            assert await modern.changed() == README
            for ear, session in zip((one, other), sessions, strict=True):
                assert await ear.changed() == README
                await end(empty, session)
                assert await ear.rest() == []


async def test_unsubscribing_ends_it_in_both_sessions(empty: Running) -> None:
    server = Server(tells_all=False)
    async with behind(empty, server):
        session = (await empty.initialize())[1]
        await subscribe(empty, session)
        assert (await empty.legacy("resources/unsubscribe", {"uri": README}, session=session))["result"] == {}
        await until(lambda: released(empty) and not any(server.watched.values()))


async def test_a_session_that_ends_leaves_no_subscription(empty: Running) -> None:
    server = Server(tells_all=False)
    async with behind(empty, server):
        session = (await empty.initialize())[1]
        await subscribe(empty, session)
        await end(empty, session)
        await until(lambda: released(empty) and not any(server.watched.values()))
