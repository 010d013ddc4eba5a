import asyncio
import json
from typing import Any

import pytest

from penstock.clock import FakeClock
from penstock.errors import NeedsAuthorization, ServerMisbehaved, ServerUnavailable
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Answer, Call, Caller, Failure, Raw, Result
from tests.unit.upstreams.legacy_kit import caller, echo, legacy
from tests.unit.upstreams.scripted_http import (
    LEGACY,
    MODERN,
    SESSIONLESS,
    Asked,
    Line,
    call_of,
    chunk,
    error,
    http,
    initialized,
    is_listening,
    rpc,
    serving,
    stream,
)


async def test_initialize_is_paid_once_and_every_later_request_names_session_and_version() -> None:
    async with serving(legacy(echo)) as (server, upstream):
        for _ in range(3):
            answer = await upstream.call(call_of(LEGACY))
            assert isinstance(answer, Result)
            assert answer.era is Era.LEGACY
        rpcs = [asked.rpc for asked in server.asked]
        assert rpcs == ["server/discover", "initialize", "notifications/initialized", "GET"] + ["tools/call"] * 3
        assert "mcp-session-id" not in server.asked[1].headers
        for asked in server.asked[2:]:
            assert asked.headers["mcp-session-id"] == "s-1"
            assert asked.headers["mcp-protocol-version"] == "2025-11-25"
        assert "_meta" not in server.asked[-1].body["params"]
        assert "mcp-method" not in server.asked[-1].headers


async def test_each_client_session_has_its_own_and_the_rest_share_one() -> None:
    async with serving(legacy(echo)) as (server, upstream):
        equal = Caller(Era.MODERN, "2026-07-28", None, b'{"elicitation": {"form": {}}}', b'{"name":"x"}')
        for who in (caller("a"), caller("b"), MODERN, SESSIONLESS, equal, caller("a"), SESSIONLESS):
            await upstream.call(call_of(who))
        used = [asked.headers["mcp-session-id"] for asked in server.all("tools/call")]
        assert used == ["s-1", "s-2", "s-3", "s-4", "s-3", "s-1", "s-4"]
        told = [asked.body["params"] for asked in server.all("initialize")]
        assert [params["clientInfo"]["name"] for params in told] == ["old", "old", "penstock", "penstock"]
        assert [params["protocolVersion"] for params in told] == ["2025-06-18"] * 2 + ["2025-11-25"] * 2
        assert [params["capabilities"] for params in told] == [{}, {}, {"elicitation": {}}, {}]


async def test_sessions_can_be_shared_by_configuration() -> None:
    async with serving(legacy(echo), sessions="shared") as (server, upstream):
        for who in (caller("a"), caller("b"), SESSIONLESS):
            await upstream.call(call_of(who))
        assert len(server.all("initialize")) == 1


async def test_a_client_that_leaves_while_its_session_is_opened_leaves_none_behind() -> None:
    held = asyncio.Event()
    answer = legacy(echo)

    async def slow(asked: Asked, line: Line) -> bytes | None:
        if asked.rpc == "initialize":
            await held.wait()
        return await answer(asked, line)

    async with serving(slow) as (server, upstream):
        calling = asyncio.create_task(upstream.call(call_of(caller("a"))))
        await server.wait_for("initialize")
        calling.cancel()  # as its client's calls end with its session
        ending = asyncio.create_task(upstream.close_session("a"))
        await asyncio.sleep(0)
        held.set()
        await asyncio.wait((ending, calling))
        assert len(server.all("DELETE")) == len(server.all("initialize"))
        assert upstream.state()["sessions"] == 0


async def test_a_server_without_session_ids_is_initialized_once_more_for_everybody() -> None:
    """What the first client agreed on, an older revision for one, is not what the others get."""
    async with serving(legacy(echo, None)) as (server, upstream):
        for who in (caller("a"), caller("b"), MODERN, SESSIONLESS):
            await upstream.call(call_of(who))
        versions = [asked.body["params"]["protocolVersion"] for asked in server.all("initialize")]
        assert versions == ["2025-06-18", "2025-11-25"]
        assert {asked.headers["mcp-protocol-version"] for asked in server.all("tools/call")} == {"2025-11-25"}
        assert "mcp-session-id" not in server.asked[-1].headers
        assert upstream.state()["issues_session_ids"] is False
        await upstream.close_session("a")
        assert not server.all("DELETE")


async def test_the_end_of_a_client_session_ends_its_own_at_the_server() -> None:
    async with serving(legacy(echo)) as (server, upstream):
        await upstream.call(call_of(caller("a")))
        await upstream.call(call_of(caller("b")))
        await upstream.close_session("a")
        await upstream.close_session("a")
        await upstream.close_session("unknown")
        assert [asked.headers["mcp-session-id"] for asked in server.all("DELETE")] == ["s-1"]
        await upstream.close()
        assert [asked.headers["mcp-session-id"] for asked in server.all("DELETE")] == ["s-1", "s-2"]


async def test_sessions_of_clients_are_bounded_and_idle_ones_end() -> None:
    clock = FakeClock()
    async with serving(legacy(echo), max_sessions=2, session_idle_seconds=60, clock=clock) as (server, upstream):
        for name in "abc":
            await upstream.call(call_of(caller(name)))
            await clock.advance(0.1)
        assert (await server.wait_for("DELETE")).headers["mcp-session-id"] == "s-1"
        assert upstream.state()["sessions"] == 2
        await clock.advance(70)
        async with asyncio.timeout(5):
            while len(server.all("DELETE")) < 3:
                server.came.clear()
                await server.came.wait()
        assert upstream.state()["sessions"] == 0


async def test_many_callers_wait_for_one_initialize_and_a_cancelled_one_does_not_end_it() -> None:
    may_answer = asyncio.Event()
    plain = legacy(echo)

    async def script(asked: Asked, line: Line) -> bytes | None:
        if asked.rpc == "initialize":
            await may_answer.wait()
        return await plain(asked, line)

    async with serving(script) as (server, upstream):
        tasks = [asyncio.create_task(upstream.call(call_of(LEGACY))) for _ in range(5)]
        await server.wait_for("initialize")
        tasks[0].cancel()
        may_answer.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(answers[0], asyncio.CancelledError)
        assert all(isinstance(answer, Result) for answer in answers[1:])
        assert len(server.all("initialize")) == 1


@pytest.mark.parametrize(
    "lost",
    [
        http(404, rpc(id="server-error", error={"code": -32600, "message": "Session not found"})),
        http(404),
        http(400, rpc(id=None, error={"code": -32000, "message": "Bad Request: No valid session ID provided"})),
    ],
)
async def test_a_lost_session_is_replaced_and_the_call_sent_again_once(lost: bytes) -> None:
    async def script(asked: Asked, line: Line) -> bytes:
        return lost if asked.headers["mcp-session-id"] == "s-1" else await echo(asked, line)

    async with serving(legacy(script)) as (server, upstream):
        assert isinstance(await upstream.call(call_of(LEGACY)), Result)
        assert len(server.all("initialize")) == 2
        assert len(server.all("tools/call")) == 2
        assert upstream.state()["lost_sessions"] == 1


async def test_a_server_that_loses_every_session_is_not_asked_for_ever() -> None:
    async def script(_: Asked, __: Line) -> bytes:
        return http(404)

    async with serving(legacy(script)) as (server, upstream):
        with pytest.raises(ServerMisbehaved, match="forgot a session it had just opened"):
            await upstream.call(call_of(LEGACY))
        assert len(server.all("tools/call")) == 2


async def test_cancelling_tells_the_server_and_leaves_the_stream_to_end_by_itself() -> None:
    may_end = asyncio.Event()

    async def script(asked: Asked, line: Line) -> bytes | None:
        await line.write(stream(rpc(method="notifications/x"), end=False))
        await may_end.wait()
        return chunk(b"data: " + rpc(id=asked.id, result={}) + b"\n\n") + b"0\r\n\r\n"

    async with serving(legacy(script)) as (server, upstream):
        task = asyncio.create_task(upstream.call(call_of(LEGACY)))
        asked = await server.wait_for("tools/call")
        task.cancel()
        cancelled = await server.wait_for("notifications/cancelled")
        assert cancelled.body["params"]["requestId"] == asked.id
        assert cancelled.headers["mcp-session-id"] == "s-1"
        with pytest.raises(asyncio.CancelledError):
            await task
        assert upstream.state()["connections"]["busy"] >= 1
        may_end.set()
        async with asyncio.timeout(2):
            while upstream.state()["connections"]["busy"]:  # noqa: ASYNC110 - the connection tells the pool, not us
                await asyncio.sleep(0)
        assert server.connections == 3, "one more was to listen on"
        assert upstream.state()["connections"]["idle"] == 2
        assert upstream.state()["connections"]["closed"] == 0


async def test_a_servers_requests_are_answered_on_posts_of_their_own() -> None:
    async def script(asked: Asked, line: Line) -> bytes | None:
        asks = [rpc(id="p", method="ping"), rpc(id="r", method="roots/list")]
        await line.write(stream(*asks, end=False))
        await server.wait_for("-> p")
        await server.wait_for("-> r")
        return chunk(b"data: " + rpc(id=asked.id, result={}) + b"\n\n") + b"0\r\n\r\n"

    async with serving(legacy(script)) as (server, upstream):
        assert isinstance(await upstream.call(call_of(LEGACY)), Result)
        assert server.all("-> p")[0].body["result"] == {}
        assert server.all("-> r")[0].body["error"]["code"] == -32601
        assert server.all("-> r")[0].headers["mcp-session-id"] == "s-1"


async def test_progress_carries_the_callers_token_and_the_log_level_is_set_once() -> None:
    async def script(asked: Asked, _: Line) -> bytes:
        assert "io.modelcontextprotocol/logLevel" not in asked.body["params"]["_meta"]
        token = asked.body["params"]["_meta"]["progressToken"]
        return stream(
            rpc(method="notifications/progress", params={"progressToken": token, "progress": 1}),
            rpc(method="notifications/message", params={"level": "info", "data": 1}),
            rpc(id=asked.id, result={}),
        )

    notes: list[dict[str, Raw]] = []
    async with serving(legacy(script, logging={})) as (server, upstream):
        meta = {"progressToken": 7, "io.modelcontextprotocol/logLevel": "info"}
        for _ in range(2):
            await upstream.call(call_of(MODERN, meta=meta, notify=lambda _, params: notes.append(params)))
        assert [bytes(note.get("progressToken", b"")) for note in notes] == [b"7", b"", b"7", b""]
        assert [asked.body["params"]["level"] for asked in server.all("logging/setLevel")] == ["info"]


async def test_batches_are_taken_in_answers() -> None:
    async def script(asked: Asked, _: Line) -> bytes:
        note = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": 1}}
        reply = {"jsonrpc": "2.0", "id": asked.id, "result": {}}
        return http(200, json.dumps([note, reply]).encode())

    notes: list[str] = []
    async with serving(legacy(script)) as (_, upstream):
        answer = await upstream.call(call_of(LEGACY, notify=lambda method, _: notes.append(method)))
        assert isinstance(answer, Result)
        assert notes == ["notifications/message"]


async def test_two_answers_to_one_request_are_refused() -> None:
    async def script(asked: Asked, _: Line) -> bytes:
        reply = {"jsonrpc": "2.0", "id": asked.id, "result": {}}
        return http(200, json.dumps([reply, reply]).encode())

    async with serving(legacy(script)) as (_, upstream):
        with pytest.raises(ServerMisbehaved, match="two answers"):
            await upstream.call(call_of(LEGACY))


EVENT_ONE = chunk(b"id: e1\nretry: 2000\ndata:\n\n")
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


async def advance_until_done(clock: FakeClock, task: asyncio.Task[Answer], step: float = 0.5) -> None:
    async with asyncio.timeout(5):
        while not task.done():
            await clock.advance(step)


@pytest.mark.parametrize("cut", [b"0\r\n\r\n", b""])
async def test_a_stream_closed_after_an_event_id_is_resumed_where_it_ended(cut: bytes) -> None:
    call_id: list[Any] = []
    gets = 0

    async def script(asked: Asked, line: Line) -> bytes | None:
        nonlocal gets
        if asked.method == "GET":
            gets += 1
            assert asked.headers["last-event-id"] == ("e1" if gets == 1 else "e2")
            assert asked.headers["mcp-session-id"] == "s-1"
            if gets == 1:
                return HEAD + chunk(b"id: e2\ndata:\n\n") + b"0\r\n\r\n"
            return stream(rpc(id=call_id[0], result={"content": []}))
        call_id.append(asked.id)
        await line.write(HEAD + EVENT_ONE + cut)
        if not cut:
            line.close()
        return b""

    clock = FakeClock()
    async with serving(legacy(script), clock=clock) as (server, upstream):
        task = asyncio.create_task(upstream.call(call_of(LEGACY)))
        await server.wait_for("tools/call")
        await advance_until_done(clock, task)
        assert isinstance(await task, Result)
        assert gets == 2
        assert len(server.all("tools/call")) == 1


async def test_a_stream_that_brings_nothing_is_not_resumed_for_ever() -> None:
    async def script(asked: Asked, _: Line) -> bytes:
        return HEAD + (EVENT_ONE if asked.method == "POST" else b"") + b"0\r\n\r\n"

    clock = FakeClock()
    async with serving(legacy(script), clock=clock, resume_tries=3) as (server, upstream):
        task = asyncio.create_task(upstream.call(call_of(LEGACY)))
        await advance_until_done(clock, task)
        with pytest.raises(ServerUnavailable, match="3 reconnections brought nothing"):
            await task
        assert len([asked for asked in server.all("GET") if not is_listening(asked)]) == 3


async def test_a_server_that_refuses_to_resume_is_named() -> None:
    async def script(asked: Asked, _: Line) -> bytes:
        return http(405) if asked.method == "GET" else HEAD + EVENT_ONE + b"0\r\n\r\n"

    clock = FakeClock()
    async with serving(legacy(script), clock=clock) as (_, upstream):
        task = asyncio.create_task(upstream.call(call_of(LEGACY)))
        await advance_until_done(clock, task)
        with pytest.raises(ServerUnavailable, match=r"refused to resume it \(HTTP 405"):
            await task


@pytest.mark.parametrize(
    ("raw", "kind", "words"),
    [
        (stream(), ServerMisbehaved, "without an answer"),
        (http(401), NeedsAuthorization, "HTTP 401"),
        (http(500), ServerMisbehaved, "HTTP 500"),
        (http(200, b"{"), ServerMisbehaved, "no JSON-RPC message"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nshort", ServerUnavailable, "before its answer was complete"),
    ],
)
async def test_a_faulty_answer_says_what_happened(raw: bytes, kind: type[Exception], words: str) -> None:
    async def script(_: Asked, line: Line) -> bytes:
        await line.write(raw)
        line.close()
        return b""

    async with serving(legacy(script)) as (_, upstream):
        with pytest.raises(kind, match=words):
            await upstream.call(call_of(LEGACY))
        assert upstream.state()["connections"]["busy"] == 0


async def test_a_servers_own_error_passes_through() -> None:
    async def script(asked: Asked, _: Line) -> bytes:
        return error(asked, 200, -32002, "no such resource")

    async with serving(legacy(script)) as (_, upstream):
        answer = await upstream.call(Call("resources/read", {}, caller=LEGACY))
        assert isinstance(answer, Failure)
        assert (answer.code, answer.era) == (-32002, Era.LEGACY)


async def test_an_older_revision_than_asked_for_is_accepted_and_sends_no_version_header() -> None:
    plain = legacy(echo)

    async def script(asked: Asked, line: Line) -> bytes | None:
        if asked.rpc == "initialize":
            return initialized(asked, "old", "2025-03-26")
        return await plain(asked, line)

    async with serving(script) as (server, upstream):
        await upstream.call(call_of(LEGACY))
        assert "mcp-protocol-version" not in server.asked[-1].headers
        description = await upstream.describe(LEGACY)
        assert description.versions == ("2025-03-26",)
        assert description.eras == (Era.LEGACY,)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"session": "with space"}, "no header can carry"),
        ({"version": "1999-01-01"}, "revision '1999-01-01'"),
    ],
)
async def test_a_handshake_nobody_can_use_is_refused(answer: dict[str, Any], words: str) -> None:
    plain = legacy(echo)

    async def script(asked: Asked, line: Line) -> bytes | None:
        return initialized(asked, **answer) if asked.rpc == "initialize" else await plain(asked, line)

    async with serving(script) as (_, upstream):
        with pytest.raises(ServerMisbehaved, match=words):
            await upstream.call(call_of(LEGACY))


async def test_a_refused_initialized_notification_fails_the_call() -> None:
    plain = legacy(echo)

    async def script(asked: Asked, line: Line) -> bytes | None:
        return http(500) if asked.rpc == "notifications/initialized" else await plain(asked, line)

    async with serving(script) as (_, upstream):
        with pytest.raises(ServerMisbehaved, match="HTTP 500"):
            await upstream.call(call_of(LEGACY))


async def test_what_is_forwarded_reaches_the_server_but_no_mirrored_arguments() -> None:
    async with serving(legacy(echo)) as (server, upstream):
        call = call_of(LEGACY)
        call.headers = ((b"x-trace", b"1"), (b"mcp-param-region", b"eu"))
        await upstream.call(call)
        assert server.asked[-1].headers["x-trace"] == "1"
        assert "mcp-param-region" not in server.asked[-1].headers


@pytest.mark.parametrize("lost", ["initialize", "notifications/initialized"])
async def test_a_connection_lost_in_the_handshake_fails_the_call_and_the_next_one_tries_anew(lost: str) -> None:
    plain, losses = legacy(echo), 1

    async def script(asked: Asked, line: Line) -> bytes | None:
        nonlocal losses
        if asked.rpc == lost and losses:
            losses -= 1
            line.close()
            return None
        return await plain(asked, line)

    async with serving(script) as (_, upstream):
        with pytest.raises(ServerUnavailable, match="closed the connection before it answered"):
            await upstream.call(call_of(LEGACY))
        assert isinstance(await upstream.call(call_of(LEGACY)), Result)


async def test_a_handshake_that_needs_authorization_says_so() -> None:
    async def script(asked: Asked, _: Line) -> bytes:
        return http(400) if asked.rpc == "server/discover" else http(401)

    async with serving(script) as (_, upstream):
        with pytest.raises(NeedsAuthorization):
            await upstream.call(call_of(LEGACY))


async def test_a_reconnection_that_fails_is_tried_again() -> None:
    call_id: list[Any] = []

    async def script(asked: Asked, line: Line) -> bytes | None:
        if asked.method == "POST":
            call_id.append(asked.id)
            return HEAD + EVENT_ONE + b"0\r\n\r\n"
        if len(server.all("GET")) < 4:
            line.close()
            return None
        return stream(rpc(id=call_id[0], result={}))

    clock = FakeClock()
    async with serving(legacy(script), clock=clock) as (server, upstream):
        task = asyncio.create_task(upstream.call(call_of(LEGACY)))
        await advance_until_done(clock, task)
        assert isinstance(await task, Result)
        assert upstream.state()["resumed_streams"] == 3


async def test_no_more_is_told_in_the_background_than_allowed() -> None:
    async def script(asked: Asked, _: Line) -> bytes:
        return stream(rpc(id="p", method="ping"), rpc(id=asked.id, result={}))

    async with serving(legacy(script), max_background=0) as (server, upstream):
        assert isinstance(await upstream.call(call_of(LEGACY)), Result)
        assert upstream.state()["background_dropped"] == 1
        assert not server.all("-> p")


async def test_no_log_level_is_set_at_a_server_without_logging() -> None:
    async with serving(legacy(echo)) as (server, upstream):
        await upstream.call(call_of(MODERN, meta={"io.modelcontextprotocol/logLevel": "info"}))
        assert not server.all("logging/setLevel")
        assert "_meta" not in server.asked[-1].body["params"]


async def test_a_server_that_does_not_answer_the_end_of_a_session_is_not_waited_for() -> None:
    plain = legacy(echo)

    async def script(asked: Asked, line: Line) -> bytes | None:
        if asked.method == "DELETE":
            await line.until_closed()
            return None
        return await plain(asked, line)

    async with serving(script, close_seconds=0.05) as (server, upstream):
        await upstream.call(call_of(caller("a")))
        await upstream.call(call_of(caller("b")))
        await upstream.close_session("a")
        async with asyncio.timeout(2):
            await upstream.close()
        assert len(server.all("DELETE")) == 2
