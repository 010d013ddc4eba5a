"""The legacy side before a gateway that does what ours need not: streams of its own, lost sessions, requests to the client."""

import asyncio

import msgspec
import pytest

from penstock.http.server import Exchange
from tests.unit.cli.bridge.conftest import Client, ScriptedGateway, client_of, event
from tests.unit.gateway.conftest import until

ASKED = {"jsonrpc": "2.0", "id": 1, "method": "roots/list"}
CHANGED = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}


def knows_only(scripted: ScriptedGateway, token: bytes) -> None:
    """From now on every other session is lost."""

    def answer(exchange: Exchange) -> None:
        if exchange.request.headers.get(b"mcp-session-id") != token:
            exchange.respond(404, b'{"jsonrpc":"2.0","error":{"code":-32600,"message":"Session not found"}}')
        elif exchange.request.body:
            asked = msgspec.json.decode(exchange.request.body)
            exchange.respond(200, msgspec.json.encode({"jsonrpc": "2.0", "id": asked["id"], "result": {}}))
        else:
            exchange.respond(405)

    for method in ("tools/call", "tools/list", "logging/setLevel", "resources/subscribe", "GET"):
        scripted.answers[method] = answer


async def test_headers_say_session_and_revision_once_they_are_known(scripted: ScriptedGateway) -> None:
    scripted.opens_sessions()
    async with client_of(scripted.url) as client:
        client.request(1, "ping")
        await client.answer(1)
        await client.initialize("2025-06-18")
        client.request(2, "ping")
        await client.answer(2)
    first, second = scripted.headers("ping")
    assert b"mcp-session-id" not in first
    assert b"mcp-protocol-version" not in first
    assert b"mcp-protocol-version" not in scripted.headers("initialize")[0]
    for headers in (second, *scripted.headers("notifications/initialized"), *scripted.headers("DELETE")):
        assert (headers[b"mcp-session-id"], headers[b"mcp-protocol-version"]) == (b"s1", b"2025-06-18")
    assert b"text/event-stream" in second[b"accept"]


async def test_the_stream_is_passed_on_and_followed_where_it_ends(scripted: ScriptedGateway) -> None:
    scripted.opens_sessions()
    streams = scripted.streams("GET")
    async with client_of(scripted.url) as client:
        await client.initialize()
        await until(lambda: streams)
        streams[0].send(event(CHANGED, id=b"e1"))
        assert await client.message() == CHANGED
        streams[0].send(b"id: e2\nretry: 1\ndata:\n\n")
        streams[0].finish()
        await until(lambda: len(streams) == 2)
        assert scripted.headers("GET")[1][b"last-event-id"] == b"e2"
        streams[1].send(event(ASKED))
        assert await client.message() == ASKED
        client.send({"jsonrpc": "2.0", "id": 1, "result": {"roots": []}})
        await until(lambda: any(b'"roots":[]' in one.body for one in scripted.asked))
        assert scripted.asked[-1].headers[b"mcp-session-id"] == b"s1"
    assert scripted.disconnects == 1


async def test_a_gateway_without_that_stream_is_done_without(scripted: ScriptedGateway) -> None:
    scripted.opens_sessions()
    async with client_of(scripted.url) as client:
        await client.initialize()
        await until(lambda: scripted.headers("GET"))
        client.request(1, "ping")
        await client.answer(1)
        task = client.bridge._legacy._listening
        assert task is not None
        await until(task.done)
    assert len(scripted.headers("GET")) == 1


async def test_the_stream_is_tried_again_after_a_failure(scripted: ScriptedGateway) -> None:
    scripted.opens_sessions()
    scripted.answers["GET"] = lambda exchange: exchange.respond(503)
    async with client_of(scripted.url, clock=Hasty()) as client:
        await client.initialize()
        await until(lambda: len(scripted.headers("GET")) > 3)
        streams = scripted.streams("GET")
        await until(lambda: streams)
        streams[0].send(event(CHANGED))
        assert await client.message() == CHANGED


class Hasty:
    """A clock on which nobody waits long."""

    def now(self) -> float:
        return 0.0

    def wall(self) -> float:
        return 0.0

    async def sleep(self, _seconds: float) -> None:
        await asyncio.sleep(0)


async def test_a_lost_session_is_opened_again_once_with_all_that_was_said_in_it(scripted: ScriptedGateway) -> None:
    scripted.opens_sessions()
    async with client_of(scripted.url) as client:
        await client.initialize("2025-06-18")
        for number, method, params in (
            (1, "logging/setLevel", {"level": "error"}),
            (2, "resources/subscribe", {"uri": "a:b"}),
            (3, "resources/subscribe", {"uri": "c:d"}),
            (4, "resources/unsubscribe", {"uri": "c:d"}),
        ):
            client.request(number, method, params)
            await client.answer(number)
        knows_only(scripted, b"s2")
        before = len(scripted.asked)
        client.request(5, "tools/call", {"name": "a"})
        client.request(6, "tools/call", {"name": "b"})
        assert sorted([(await client.message())["id"], (await client.message())["id"]]) == [5, 6]
        said = [msgspec.json.decode(one.body) for one in scripted.asked[before:] if one.body]
        opening = next(one for one in said if one["method"] == "initialize")
        assert opening["params"]["clientInfo"]["name"] == "test"
        methods = [one["method"] for one in said if one["method"] != "tools/call"]
        assert methods == ["initialize", "notifications/initialized", "logging/setLevel", "resources/subscribe"]
        assert [one["params"].get("uri") for one in said if one["method"] == "resources/subscribe"] == ["a:b"]
        assert client.session.headers.endswith(b"mcp-session-id: s2\r\n")
    assert [headers[b"mcp-session-id"] for headers in scripted.headers("DELETE")] == [b"s2"]


async def test_the_streams_404_opens_the_session_again_too(scripted: ScriptedGateway) -> None:
    scripted.opens_sessions()
    streams = scripted.streams("GET")
    async with client_of(scripted.url) as client:
        await client.initialize()
        await until(lambda: streams)
        knows_only(scripted, b"s2")
        streams[0].send(b"retry: 1\ndata:\n\n")
        streams[0].finish()
        await until(lambda: client.session.headers.endswith(b"s2\r\n"))
        client.request(1, "tools/list")
        assert (await client.answer(1))["result"] == {}


async def test_a_gateway_that_was_away_is_told_again_what_lasts(scripted: ScriptedGateway) -> None:
    scripted.opens_sessions()
    streams = scripted.streams("GET")
    async with client_of(scripted.url, clock=Hasty()) as client:
        await client.initialize()
        client.request(1, "logging/setLevel", {"level": "error"})
        await client.answer(1)
        client.request(2, "resources/subscribe", {"uri": "a:b"})
        await client.answer(2)
        await until(lambda: streams)
        before = len(scripted.asked)
        for connection in list(scripted.server.open_connections):
            connection.cut()
        await until(lambda: len(streams) == 2)
        methods = [msgspec.json.decode(one.body)["method"] for one in scripted.asked[before:] if one.body]
        assert methods == ["logging/setLevel", "resources/subscribe"]


async def test_a_session_that_cannot_be_opened_again_is_an_error_of_each_request(scripted: ScriptedGateway) -> None:
    scripted.opens_sessions()
    async with client_of(scripted.url) as client:
        await client.initialize()
        knows_only(scripted, b"none")
        scripted.answers["initialize"] = lambda exchange: exchange.respond(500, b"broken")
        client.request(1, "tools/call", {"name": "a"})
        assert (await client.answer(1))["error"] == {"code": -32600, "message": "Session not found"}
        scripted.opens_sessions()
        knows_only(scripted, b"s1")
        client.request(2, "tools/call", {"name": "a"})
        assert (await client.answer(2))["result"] == {}


async def test_a_session_lost_twice_in_a_row_ends_in_an_error(scripted: ScriptedGateway) -> None:
    scripted.opens_sessions()
    async with client_of(scripted.url) as client:
        await client.initialize()
        knows_only(scripted, b"none")
        client.request(1, "tools/call", {"name": "a"})
        assert (await client.answer(1))["error"]["message"] == "Session not found"
        assert len(scripted.headers("initialize")) <= 4


async def test_a_client_may_begin_anew(scripted: ScriptedGateway) -> None:
    scripted.opens_sessions()
    async with client_of(scripted.url) as client:
        await client.initialize()
        await client.initialize("2025-03-26")
        assert client.session.version == "2025-03-26"
    assert [headers[b"mcp-session-id"] for headers in scripted.headers("DELETE")] == [b"s1", b"s2"]


async def test_requests_of_the_server_on_a_calls_stream_are_passed_on_and_do_not_end_it(
    scripted: ScriptedGateway,
) -> None:
    scripted.opens_sessions()
    streams = scripted.streams("tools/call")
    async with client_of(scripted.url) as client:
        await client.initialize()
        client.request(1, "tools/call", {"name": "a"})
        await until(lambda: streams)
        streams[0].send(event(ASKED) + b"data: no message\n\n")  # the same id, but the server's own
        assert await client.message() == ASKED
        client.send({"jsonrpc": "2.0", "id": 1, "error": {"code": -1, "message": "no roots"}})
        await until(lambda: any(b"no roots" in one.body for one in scripted.asked))
        streams[0].finish(event({"jsonrpc": "2.0", "id": 1, "result": {"content": []}}))
        assert (await client.message())["result"] == {"content": []}


async def test_an_answer_nobody_asked_for_goes_nowhere_without_a_session(scripted: ScriptedGateway) -> None:
    async with client_of(scripted.url) as client:
        client.send({"jsonrpc": "2.0", "id": 1, "result": {}})
        client.request(2, "ping")
        await client.answer(2)
    assert [one.method for one in scripted.asked] == [b"POST"]


async def test_a_batch_may_be_answered_on_a_stream(scripted: ScriptedGateway) -> None:
    streams = scripted.streams("batch")
    async with client_of(scripted.url) as client:
        client.send([{"jsonrpc": "2.0", "id": one, "method": "ping"} for one in (1, 2, 3)])
        await until(lambda: streams)
        streams[0].send(event({"jsonrpc": "2.0", "id": 2, "result": {}}))
        assert (await client.message())["id"] == 2
        streams[0].finish(event([{"jsonrpc": "2.0", "id": one, "result": {}} for one in (1, 3)]))
        assert [one["id"] for one in await client.message()] == [1, 3]
        await until(lambda: not client.bridge._flights)


async def test_a_stream_that_ends_without_the_answer_is_an_error(scripted: ScriptedGateway) -> None:
    streams = scripted.streams("tools/call")
    async with client_of(scripted.url) as client:
        client.request(1, "tools/call", {"name": "a"})
        await until(lambda: streams)
        streams[0].finish(event(CHANGED))
        assert await client.message() == CHANGED
        assert (await client.answer(1))["error"]["data"]["reason"] == "bad_answer"


async def test_what_is_not_taken_is_not_told_to_the_client(scripted: ScriptedGateway) -> None:
    scripted.opens_sessions()
    scripted.answers["notifications/roots/list_changed"] = lambda exchange: exchange.respond(400)
    async with client_of(scripted.url) as client:
        await client.initialize()
        client.notify("notifications/roots/list_changed")
        await _quiet(client)
        client.request(1, "ping")
        assert (await client.answer(1))["result"] == {}


@pytest.mark.parametrize(
    "answer",
    [
        b'{"jsonrpc":"2.0","id":0,"error":{"code":-32602,"message":"no"}}',
        b'{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":7}}',
        b'{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-11-25\\r\\nx: y"}}',
    ],
)
async def test_an_initialize_that_fails_opens_no_session(scripted: ScriptedGateway, answer: bytes) -> None:
    scripted.answers["initialize"] = lambda exchange: exchange.respond(200, answer, headers=b"mcp-session-id: s\r\n")
    async with client_of(scripted.url) as client:
        client.request(0, "initialize", {"protocolVersion": "2025-11-25"})
        assert await client.message() == msgspec.json.decode(answer)
        assert client.session is None
        client.request(1, "ping")
        await client.answer(1)
    assert b"mcp-session-id" not in scripted.asked[-1].headers
    assert [one.method for one in scripted.asked] == [b"POST"] * 2


async def test_a_gateway_without_sessions_is_told_the_revision_alone(scripted: ScriptedGateway) -> None:
    result = b'{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-06-18"}}'
    scripted.answers["initialize"] = lambda exchange: exchange.respond(200, result)
    async with client_of(scripted.url) as client:
        await client.initialize()
        client.request(1, "ping")
        await client.answer(1)
        assert "2025-06-18" in repr(client.bridge)
    assert scripted.headers("ping")[0][b"mcp-protocol-version"] == b"2025-06-18"
    assert b"mcp-session-id" not in scripted.headers("ping")[0]
    assert not scripted.headers("GET")
    assert not scripted.headers("DELETE")


async def test_an_initialize_may_be_answered_on_a_stream(scripted: ScriptedGateway) -> None:
    def answer(exchange: Exchange) -> None:
        result = {"protocolVersion": "2025-06-18", "capabilities": {}}
        stream = exchange.open_stream(b"mcp-session-id: s1\r\n")
        stream.finish(event({"jsonrpc": "2.0", "id": 0, "result": result}))

    scripted.answers["initialize"] = answer
    async with client_of(scripted.url) as client:
        await client.initialize()
        assert client.session.has_id


async def _quiet(client: Client) -> None:
    await until(lambda: not client.bridge._flights)
