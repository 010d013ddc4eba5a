import asyncio
import json

import msgspec
import pytest

from penstock.errors import (
    ConfigError,
    NeedsAuthorization,
    ServerBusy,
    ServerError,
    ServerMisbehaved,
    ServerUnavailable,
)
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Call, Failure, Raw, Result
from penstock.upstreams.pool import PoolSettings
from penstock.upstreams.streamable_http import StreamableHttpSettings, StreamableHttpUpstream
from tests.unit.upstreams.scripted_http import (
    LEGACY,
    MODERN,
    Asked,
    Line,
    call_of,
    chunk,
    error,
    http,
    modern,
    result,
    rpc,
    serving,
    stream,
)


async def echo(asked: Asked, _: Line) -> bytes:
    return result(asked, content=[], resultType="complete")


async def test_a_call_is_one_post_that_says_in_its_headers_what_its_body_says() -> None:
    async with serving(modern(echo), headers=(("Authorization", "Bearer x"),)) as (server, upstream):
        call = call_of(MODERN, "naïve", a=1, meta={"traceparent": "00-1"})
        answer = await upstream.call(call)
        assert isinstance(answer, Result)
        assert answer.era is Era.MODERN
        assert json.loads(answer.raw) == {"content": [], "resultType": "complete"}
        asked = server.asked[-1]
        assert asked.method == "POST"
        assert asked.headers["mcp-protocol-version"] == "2026-07-28"
        assert asked.headers["mcp-method"] == "tools/call"
        assert asked.headers["mcp-name"] == "=?base64?bmHDr3Zl?="
        assert asked.headers["authorization"] == "Bearer x"
        assert asked.headers["accept"] == "application/json, text/event-stream"
        assert asked.body["params"] == {
            "name": "naïve",
            "arguments": {"a": 1},
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientInfo": {"name": "new", "version": "1"},
                "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}},
                "traceparent": "00-1",
            },
        }
        assert 0 < call.sent_at <= call.first_byte_at


async def test_connections_are_reused_and_ids_are_not() -> None:
    async with serving(modern(echo)) as (server, upstream):
        for _ in range(3):
            await upstream.call(call_of(MODERN))
        assert server.connections == 1
        assert len({asked.id for asked in server.asked}) == 4
        assert [asked.rpc for asked in server.asked].count("server/discover") == 1


async def test_progress_comes_back_with_the_callers_own_token_and_strangers_do_not() -> None:
    async def script(asked: Asked, _: Line) -> bytes:
        token = asked.body["params"]["_meta"]["progressToken"]
        assert token != "mine"
        return stream(
            rpc(method="notifications/progress", params={"progressToken": token, "progress": 1}),
            rpc(method="notifications/progress", params={"progressToken": "other", "progress": 2}),
            rpc(method="notifications/tools/list_changed"),
            rpc(id=9, method="sampling/createMessage", params={}),
            rpc(method="notifications/message", params={"level": "error", "data": "x"}),
            rpc(id=asked.id, result={"content": []}),
        )

    notes: list[tuple[str, bytes]] = []
    async with serving(modern(script)) as (_, upstream):
        call = call_of(
            MODERN, meta={"progressToken": "mine"}, notify=lambda m, p: notes.append((m, bytes(p["progressToken"])))
        )
        assert isinstance(await upstream.call(call), Result)
        assert notes == [("notifications/progress", b'"mine"')]
        assert call.progress_at > 0
        state = upstream.state()
        assert (state["stray_progress"], state["dropped_requests"]) == (1, 1)
        assert (state["unwanted_logs"], state["other_notifications"]) == (1, 1)


async def test_log_lines_reach_only_a_call_that_asked_for_their_level() -> None:
    async def script(asked: Asked, _: Line) -> bytes:
        logs = [rpc(method="notifications/message", params={"level": level, "data": 1}) for level in ("debug", "error")]
        return stream(*logs, rpc(id=asked.id, result={}))

    notes: list[bytes] = []
    async with serving(modern(script)) as (_, upstream):
        level = {"io.modelcontextprotocol/logLevel": "warning"}
        await upstream.call(call_of(MODERN, meta=level, notify=lambda _, p: notes.append(bytes(p["level"]))))
        assert notes == [b'"error"']


async def test_an_error_of_the_server_passes_through_whatever_its_status() -> None:
    async def script(asked: Asked, _: Line) -> bytes:
        status = asked.body["params"]["arguments"]["status"]
        return error(asked, status, -32602, "no such tool", data={"x": 1})

    async with serving(modern(script)) as (_, upstream):
        for status in (200, 400, 404, 500):
            answer = await upstream.call(call_of(MODERN, status=status))
            assert isinstance(answer, Failure)
            assert (answer.code, answer.message, answer.data) == (-32602, "no such tool", b'{"x": 1}')


@pytest.mark.parametrize(
    ("raw", "kind", "words"),
    [
        (http(200, rpc(id="other", result={})), ServerMisbehaved, 'answered id "other"'),
        (http(200, rpc(id=7000, result={})), ServerMisbehaved, "where id 2 was asked"),
        (http(200, b"{not json"), ServerMisbehaved, "no JSON-RPC message"),
        (http(200, b"[]"), ServerMisbehaved, "no JSON-RPC message"),
        (http(200, b"<html>", "text/html"), ServerMisbehaved, "HTTP 200 with text/html"),
        (http(202), ServerMisbehaved, "did not answer it"),
        (http(307, headers="location: /other?key=secret\r\n"), ServerMisbehaved, r"use this URL .*/other$"),
        (http(301), ServerMisbehaved, "without saying where to"),
        (http(301, headers="location: http://[\r\n"), ServerMisbehaved, "no URL"),
        (http(401), NeedsAuthorization, "HTTP 401.*credential"),
        (http(403, b"go away", "text/plain"), NeedsAuthorization, r"HTTP 403 \(go away\)"),
        (http(429, headers="retry-after: 7\r\n"), ServerBusy, "try again after 7 s"),
        (http(500, rpc(id=None, error={"code": 1, "message": "boom"})), ServerMisbehaved, r"HTTP 500 \(boom\)"),
        (http(503), ServerUnavailable, "HTTP 503"),
        (stream(), ServerMisbehaved, "ended the event stream without an answer"),
        (stream(rpc(id=77, result={})), ServerMisbehaved, "where id 2 was asked"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nshort", ServerUnavailable, "before its answer was complete"),
        (b"nonsense\r\n\r\n", ServerMisbehaved, "not valid HTTP"),
        (http(200, b'"' + b"x" * 5000 + b'"'), ServerMisbehaved, "raise 'limits.response_bytes'"),
    ],
)
async def test_a_faulty_answer_says_what_happened_and_what_to_do(
    raw: bytes, kind: type[ServerError], words: str
) -> None:
    async def script(_: Asked, line: Line) -> bytes:
        await line.write(raw)
        line.close()
        return b""

    settings = StreamableHttpSettings(url="http://x")
    limits = type(settings.limits)(response_bytes=4000)
    async with serving(modern(script), limits=limits) as (_, upstream):
        with pytest.raises(kind, match=words) as caught:
            await upstream.call(call_of(MODERN))
        assert caught.value.server == "peer"
        assert "secret" not in str(caught.value)
        assert upstream.state()["last_error"] == caught.value.message
        assert upstream.state()["last_error_at"] > 0
        assert upstream.state()["connections"]["busy"] == 0


async def test_a_server_that_is_not_there_is_named_with_the_reason() -> None:
    upstream = StreamableHttpUpstream("peer", StreamableHttpSettings(url="http://127.0.0.1:1/mcp"))
    with pytest.raises(ServerUnavailable, match=r"nothing listens there .* check that it runs"):
        await upstream.call(call_of(MODERN))
    await upstream.close()
    with pytest.raises(ServerUnavailable, match="shutting down"):
        await upstream.describe()


async def test_cancelling_closes_the_connection_at_once() -> None:
    closed = asyncio.Event()

    async def script(asked: Asked, line: Line) -> bytes | None:
        await line.write(stream(rpc(method="notifications/x"), end=False))
        await line.until_closed()
        closed.set()
        return b""

    async with serving(modern(script)) as (server, upstream):
        task = asyncio.create_task(upstream.call(call_of(MODERN)))
        await server.wait_for("tools/call")
        task.cancel()
        async with asyncio.timeout(2):
            await closed.wait()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert upstream.state()["connections"]["busy"] == 0
        assert len(server.asked) == 2


async def test_an_answer_is_returned_before_its_stream_ends_and_the_connection_comes_back() -> None:
    may_end = asyncio.Event()

    async def script(asked: Asked, line: Line) -> bytes | None:
        await line.write(stream(rpc(id=asked.id, result={}), end=False))
        await may_end.wait()
        return chunk(b": bye\n") + b"0\r\n\r\n"

    async with serving(modern(script)) as (_, upstream):
        assert isinstance(await upstream.call(call_of(MODERN)), Result)
        assert upstream.state()["connections"]["busy"] == 1
        may_end.set()
        async with asyncio.timeout(2):
            while upstream.state()["connections"]["busy"]:  # noqa: ASYNC110 - the connection tells the pool, not us
                await asyncio.sleep(0)
        assert upstream.state()["connections"]["idle"] == 1


async def test_a_kept_connection_that_the_server_closed_is_replaced() -> None:
    async def script(asked: Asked, line: Line) -> bytes:
        return result(asked, "connection: close\r\n" if asked.body["params"]["name"] == "last" else "")

    async with serving(modern(script)) as (server, upstream):
        await upstream.call(call_of(MODERN, "last"))
        await upstream.call(call_of(MODERN))
        assert server.connections == 2


async def test_more_calls_than_connections_wait_their_turn() -> None:
    async with serving(modern(echo), connections=PoolSettings(max_size=2)) as (server, upstream):
        answers = await asyncio.gather(*(upstream.call(call_of(MODERN)) for _ in range(20)))
        assert all(isinstance(answer, Result) for answer in answers)
        assert server.connections <= 2


async def test_arguments_are_mirrored_for_legacy_callers_by_rules_learnt_from_the_list() -> None:
    schema = {"properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}
    wrong = {"properties": {"region": {"type": "number", "x-mcp-header": "Region"}}}
    async with serving(modern(echo)) as (server, upstream):
        tools = [(name, Raw(msgspec.json.encode(made))) for name, made in (("add", schema), ("bad", wrong))]
        invalid = upstream.learn_tools(tools)
        assert list(invalid) == ["bad"]
        await upstream.call(call_of(LEGACY, region="eu"))
        assert server.asked[-1].headers["mcp-param-region"] == "eu"
        await upstream.call(call_of(LEGACY, "other", region="eu"))
        assert "mcp-param-region" not in server.asked[-1].headers
        call = call_of(MODERN, region="eu")
        call.headers = ((b"mcp-param-region", b"us"), (b"x-trace", b"1"), (b"x-bad", b"a\r\nb: c"))
        await upstream.call(call)
        assert server.asked[-1].headers["mcp-param-region"] == "us"
        assert server.asked[-1].headers["x-trace"] == "1"
        assert "b" not in server.asked[-1].headers


async def test_rules_that_changed_are_learnt_again_when_the_server_misses_a_header() -> None:
    annotated = {"type": "string", "x-mcp-header": "Region"}

    async def script(asked: Asked, _: Line) -> bytes:
        if asked.rpc == "tools/list":
            if "cursor" not in asked.body["params"]:
                return result(asked, tools=[{"name": "other", "inputSchema": {}}], nextCursor="2")
            return result(asked, tools=[{"name": "add", "inputSchema": {"properties": {"region": annotated}}}])
        if "mcp-param-region" not in asked.headers:
            return error(asked, 400, -32020, "Mcp-Param-Region is missing")
        return result(asked)

    async with serving(modern(script)) as (server, upstream):
        refused = await upstream.call(call_of(MODERN, region="eu"))
        assert isinstance(refused, Failure)
        assert refused.code == -32020
        assert not server.all("tools/list")
        assert isinstance(await upstream.call(call_of(LEGACY, region="eu")), Result)
        assert len(server.all("tools/list")) == 2
        assert isinstance(await upstream.call(call_of(LEGACY, "other")), Failure)
        assert len(server.all("tools/call")) == 4


async def test_a_method_without_name_has_no_name_header() -> None:
    async with serving(modern(echo)) as (server, upstream):
        await upstream.call(Call("tools/list", {}, caller=MODERN))
        assert "mcp-name" not in server.asked[-1].headers


@pytest.mark.parametrize(
    ("url", "headers", "words"),
    [
        ("ftp://x", (), "servers.peer.url: 'ftp' is not http or https"),
        ("http://x", (("Host", "y"),), "Penstock writes this header itself"),
        ("http://x", (("A B", "y"),), "not a header's name"),
        ("http://x", (("A", "y\r\nB: c"),), "must be one line"),
    ],
)
def test_unusable_settings_are_refused_by_key(url: str, headers: tuple[tuple[str, str], ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        StreamableHttpUpstream("peer", StreamableHttpSettings(url=url, headers=headers))
    assert "secret" not in repr(StreamableHttpSettings(url="http://x/mcp?key=secret", headers=(("A", "secret"),)))
