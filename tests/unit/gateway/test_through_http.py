"""Calls from a client's socket to a server's and back: what is sent on must be what was sent, and nothing must stay behind."""

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from penstock.gateway.edges.calling import RunningCall
from penstock.gateway.known_call import KnownCall
from penstock.http.server import Exchange
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Call
from penstock.upstreams.streamable_http_flight import Flight
from tests.unit.gateway.conftest import MODERN_META, Running, modern_headers, request_body
from tests.unit.upstreams.scripted_http import Asked, Line, chunk, discovered, http, initialized, rpc, serving

TEXTS = {
    "small": "x" * 100,
    "large": 'a line that says "nothing"\n' * 4000,
    "large and not ASCII": "Straße, 雨 ☂ " * 8000,
}
PEERS = [(client, server) for client in Era for server in Era]
LEVEL = "io.modelcontextprotocol/logLevel"
FRAMINGS = ["json", "stream", "json in two parts", "stream in two parts"]


class Server:
    """A server of one era with one tool, whose answers the test words."""

    def __init__(self, era: Era) -> None:
        self.era = era
        self.framing = "json"
        self.called: list[str] = []
        self.asked: list[dict[str, Any]] = []
        """Parameters of each call."""
        self.spoil: Callable[[bytes], bytes] = bytes

    async def __call__(self, asked: Asked, line: Line) -> bytes | None:
        if asked.rpc == "tools/call":
            return await self._tool(asked, line)
        if asked.rpc == "tools/list":
            tool = {"name": "say", "inputSchema": {"type": "object"}}
            more = {"resultType": "complete", "ttlMs": 60_000, "cacheScope": "public"} if self.era is Era.MODERN else {}
            return http(200, rpc(id=asked.id, result={"tools": [tool], **more}))
        if asked.rpc == "server/discover" and self.era is Era.MODERN:
            return discovered(asked)
        if asked.rpc == "initialize" and self.era is Era.LEGACY:
            return initialized(asked, tools={})
        return http(202) if asked.rpc.startswith("notifications/") or asked.method == "DELETE" else http(400)

    async def _tool(self, asked: Asked, line: Line) -> bytes | None:
        self.called.append(asked.body["params"]["name"])
        self.asked.append(asked.body["params"])
        text = asked.body["params"]["arguments"]["text"]
        members: dict[str, Any] = {"content": [{"type": "text", "text": TEXTS[text]}], "isError": False}
        if self.era is Era.MODERN:
            members["resultType"] = "complete"
        message = {"jsonrpc": "2.0", "id": asked.id, "result": members}
        body = self.spoil(json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode())
        if self.framing == "none":
            line.close()
            return None
        if self.framing.startswith("json"):
            answer = http(200, body)
        else:
            head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            answer = head + chunk(b"event: message\r\ndata: %b\r\n\r\n" % body) + b"0\r\n\r\n"
            if self.framing == "progress":
                token = asked.body["params"]["_meta"]["progressToken"]
                note = rpc(method="notifications/progress", params={"progressToken": token, "progress": 1})
                answer = head + chunk(b"data: %b\n\n" % note) + answer.removeprefix(head)
        if "parts" in self.framing:
            await line.write(answer[: len(answer) // 2])
            answer = answer[len(answer) // 2 :]
        return answer


@asynccontextmanager
async def behind(running: Running, era: Era) -> AsyncIterator[Server]:
    """A server of that era behind the gateway, as `peer`."""
    server = Server(era)
    async with serving(server) as (_, upstream):
        await running.apply({"peer": lambda: upstream})
        await running.listed()
        yield server


async def call(running: Running, client: Era, text: str, session: str | None, **more: Any) -> Any:
    params = {"name": "say", "arguments": {"text": text}}
    if client is Era.MODERN:
        return await running.modern("tools/call", params, path="/mcp/peer", **more)
    return await running.legacy("tools/call", params, path="/mcp/peer", session=session, **more)


async def session_of(running: Running, client: Era) -> str | None:
    return (await running.initialize(path="/mcp/peer"))[1] if client is Era.LEGACY else None


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize(("client", "server"), PEERS)
async def test_results_of_every_size_arrive_in_the_clients_words(
    empty: Running, client: Era, server: Era, framing: str
) -> None:
    async with behind(empty, server) as peer:
        peer.framing = framing
        session = await session_of(empty, client)
        for text in [*TEXTS, *TEXTS, *reversed(TEXTS)]:  # the heads are known by then, the lengths are others
            answer = await call(empty, client, text, session)
            assert answer["result"]["content"] == [{"type": "text", "text": TEXTS[text]}]
            assert answer["result"].get("resultType") == ("complete" if client is Era.MODERN else None)
            assert (answer["status"], answer["id"], answer["result"]["isError"]) == (200, 7, False)


@pytest.mark.parametrize(
    ("found", "put"),
    [
        (b'"isError":false', b'"isError":false},"error":{"code":1,"message":"smuggled"}'),
        (b'"isError":false', b'"isError":false},"id":8,"result":{"x":1'),
        (b'"isError":false', b'"isError":fals'),
        (b'"type":"text"', b'"type":"te\nxt"'),
        (b'"type":"text"', b'"type":"\xff"'),
        (b'"type":"text"', b'"type":"text'),
        (b'"jsonrpc":"2.0"', b'"jsonrpc":"1.0"'),
    ],
)
@pytest.mark.parametrize("framing", ["json", "stream"])
@pytest.mark.parametrize("text", ["small", "large"])
async def test_an_answer_that_is_no_message_is_an_error_that_names_the_server_whatever_its_size(
    empty: Running, text: str, framing: str, found: bytes, put: bytes
) -> None:
    async with behind(empty, Era.MODERN) as peer:
        peer.framing = framing
        for _ in range(2):
            assert "result" in await call(empty, Era.MODERN, text, None)
        peer.spoil = lambda body: body.replace(found, put, 1)
        answer = await call(empty, Era.MODERN, text, None)
        if b'"result":{"x"' in put:  # the last of two members of one name counts
            assert answer["id"] == 7
        assert "peer" in answer["error"]["message"]
        peer.spoil = bytes
        assert "result" in await call(empty, Era.MODERN, text, None)


async def test_a_known_header_block_lets_no_other_body_pass(empty: Running) -> None:
    params = {"name": "say", "arguments": {"text": "small"}}
    headers = modern_headers("tools/call", params)
    async with behind(empty, Era.MODERN):
        for _ in range(3):
            assert (await call(empty, Era.MODERN, "small", None))["status"] == 200
        for change, code in (
            ({"name": "sai"}, -32020),
            ({"_meta": MODERN_META | {"io.modelcontextprotocol/protocolVersion": "2026-07-29"}}, -32020),
            ({"_meta": {}}, -32602),
            ({"name": 3}, -32020),
        ):
            body = request_body("tools/call", params | {"_meta": MODERN_META} | change)
            answer = empty.decoded(await empty.post("/mcp/peer", body, headers))
            assert (answer["status"], answer["error"]["code"]) == (400, code)
        other = request_body("prompts/get", params | {"_meta": MODERN_META})
        assert empty.decoded(await empty.post("/mcp/peer", other, headers))["error"]["code"] == -32020
        assert (await call(empty, Era.MODERN, "small", None))["status"] == 200


async def test_a_call_that_repeats_another_goes_where_that_one_went(empty: Running) -> None:
    async with behind(empty, Era.MODERN) as peer:
        known = empty.gateway.context.snapshot.endpoints["/mcp/peer"].known
        for text in TEXTS:
            assert (await call(empty, Era.MODERN, text, None))["status"] == 200
        ((facts, found),) = known.items()
        other = empty.gateway.context.snapshot.endpoints["/mcp/peer"].find("tools/call", "other")
        assert other is not None
        known[facts] = KnownCall(  # so that the way it takes can be seen
            other, found.caller, found.method, found.meta, found.name_field, found.name, found.headers
        )
        await call(empty, Era.MODERN, "small", None)
        assert peer.called == ["say"] * len(TEXTS) + ["other"]


async def test_legacy_calls_by_one_header_block_go_where_each_of_them_says(empty: Running) -> None:
    names = ["say", "say", "say", "other", "say", "other", "other", "other", "say"]
    async with behind(empty, Era.MODERN) as peer:
        session = await session_of(empty, Era.LEGACY)
        for name in names:
            params = {"name": name, "arguments": {"text": "small"}}
            answer = await empty.legacy("tools/call", params, path="/mcp/peer", session=session)
            assert "result" in answer
            assert "resultType" not in answer["result"]
        assert peer.called == names
        known = empty.gateway.context.snapshot.endpoints["/mcp/peer"].known
        assert [bytes(one.name) for one in known.values()] == [b'"say"']
        prompt = await empty.legacy("prompts/get", {"name": "say"}, path="/mcp/peer", session=session)
        assert "error" in prompt
        headers = {"mcp-session-id": session or "", "mcp-protocol-version": "2025-11-25"}
        assert (await empty.client.request("DELETE", empty.url + "/mcp/peer", headers)).status == 204
        gone = await empty.legacy("tools/call", {"name": "say", "arguments": {}}, path="/mcp/peer", session=session)
        assert gone["status"] == 404


async def test_a_legacy_call_like_those_before_is_judged_where_it_says_more_than_they_did(empty: Running) -> None:
    async with behind(empty, Era.MODERN) as peer:
        session = await session_of(empty, Era.LEGACY)
        plain = {"name": "say", "arguments": {"text": "small"}}

        async def ask(method: str = "tools/call", **more: Any) -> Any:
            params = plain | more if method == "tools/call" else more
            assert "result" in await empty.legacy(method, params, path="/mcp/peer", session=session)
            return peer.asked[-1]

        for _ in range(3):
            assert (await ask()).keys() == {"name", "arguments", "_meta"}
        assert len(empty.gateway.context.snapshot.endpoints["/mcp/peer"].known) == 1
        assert "progressToken" in (await ask(_meta={"progressToken": 7}))["_meta"]
        tool = "tools/call"
        for word in ("requestState", "inputResponses"):
            assert (await ask(tool, **{word: {}})).keys() == {"name", "arguments", "_meta"}
        assert (await ask())["_meta"][LEVEL] == "debug"
        await ask("logging/setLevel", level="info")
        assert (await ask())["_meta"][LEVEL] == "info"


async def test_progress_comes_to_every_call_that_repeats_its_token(empty: Running) -> None:
    async with behind(empty, Era.MODERN) as peer:
        peer.framing = "progress"
        for _ in range(4):
            answer = await call(empty, Era.MODERN, "small", None, meta={"progressToken": "mine"})
            assert [note["params"]["progressToken"] for note in answer["notifications"]] == ["mine"]
            assert "result" in answer


async def test_what_was_known_of_a_server_goes_with_it(empty: Running) -> None:
    async with behind(empty, Era.MODERN):
        for _ in range(2):
            assert (await call(empty, Era.MODERN, "small", None))["status"] == 200
    await empty.apply({})
    assert (await call(empty, Era.MODERN, "small", None))["status"] == 404
    async with behind(empty, Era.LEGACY):
        assert "result" in await call(empty, Era.MODERN, "small", None)


@pytest.mark.parametrize("framing", ["json", "stream"])
@pytest.mark.parametrize(("client", "server"), PEERS)
async def test_a_call_leaves_nothing_for_the_collector(empty: Running, client: Era, server: Era, framing: str) -> None:
    """A cycle would keep large answers until the collector comes by, and cost every call its warm memory."""
    async with behind(empty, server) as peer:
        peer.framing = framing
        session = await session_of(empty, client)
        async with nothing_stays():
            for _ in range(3):
                assert "result" in await call(empty, client, "large", session)


@pytest.mark.parametrize("framing", ["none", "json", "stream"])
@pytest.mark.parametrize(("client", "server"), PEERS)
async def test_a_call_that_fails_leaves_nothing_either(empty: Running, client: Era, server: Era, framing: str) -> None:
    """Nor may a server that is down fill the memory with the requests it refused."""
    async with behind(empty, server) as peer:
        session = await session_of(empty, client)
        await call(empty, client, "large", session)
        peer.framing = framing
        peer.spoil = lambda body: body[:-2]
        async with nothing_stays():
            for _ in range(3):
                assert "peer" in (await call(empty, client, "large", session))["error"]["message"]


@asynccontextmanager
async def nothing_stays() -> AsyncIterator[None]:
    """What calls are made of goes when they end, without the collector."""
    await asyncio.sleep(0)
    gc.collect()
    gc.freeze()  # what is there already is not looked at
    gc.disable()
    try:
        yield
        for _ in range(5):  # tasks end a turn after what they did
            await asyncio.sleep(0)
        left = [repr(one) for one in held()]
    finally:
        gc.enable()
        gc.unfreeze()
    assert left == []


def held() -> list[object]:
    """What calls consist of, as far as it is still there."""
    return [one for one in gc.get_objects() if isinstance(one, Call | RunningCall | Flight | Exchange)]
