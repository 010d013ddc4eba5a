import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from penstock.clock import FakeClock
from penstock.errors import NeedsAuthorization, ServerBusy, ServerMisbehaved, ServerUnavailable
from penstock.protocol.client_capabilities import EVERYTHING, declared
from penstock.protocol.versions import Era
from penstock.upstreams.calls import PENSTOCK, Answer, Caller, Failure, Result
from penstock.upstreams.pool import PoolSettings
from penstock.upstreams.questions import Question
from penstock.upstreams.streamable_http import StreamableHttpUpstream
from penstock.upstreams.streamable_http_feed import LegacyFeed
from tests.unit.upstreams.scripted_http import (
    MODERN,
    Asked,
    Line,
    call_of,
    error,
    http,
    initialized,
    result,
    serving,
)
from tests.unit.upstreams.sse_kit import SseScript, Stream, event

ASKED = b'{"elicitation":{}}'


def caller(session: str, capabilities: bytes = b"{}") -> Caller:
    return Caller(Era.LEGACY, "2025-06-18", session, capabilities, b'{"name":"old","version":"1"}')


async def echo(asked: Asked, stream: Stream) -> None:
    if asked.id is not None:
        await stream.say(id=asked.id, result={"content": [], "stream": stream.number})


async def silent(asked: Asked, stream: Stream) -> None:
    """Answers nothing."""


def stream_of(answer: Answer) -> int:
    """On which stream a call was answered."""
    assert isinstance(answer, Result), answer
    return int(json.loads(answer.raw)["stream"])


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.002)


def said_in(script: SseScript, rpc: str, stream: int = 0) -> list[Asked]:
    return [asked for asked in script.streams[stream].messages if asked.rpc == rpc]


class TestWhichServersAreSpokenToSo:
    async def test_one_that_refuses_initialize_and_announces_an_endpoint(self) -> None:
        script = SseScript(echo)
        async with serving(script) as (server, upstream):
            assert stream_of(await upstream.call(call_of(MODERN))) == 1  # the first stream was the question
            assert [asked.rpc for asked in server.asked[:4]] == ["server/discover", "initialize", "GET", "GET"]
            assert {asked.target for asked in server.asked[4:]} == {"/messages?session=1"}
            state = upstream.state()
            assert (state["transport"], state["eras"]) == ("legacy_sse", ["legacy"])
            assert state["spoken_with"] == {"modern": "legacy", "legacy": "legacy"}

    async def test_one_whose_address_ends_in_sse_is_asked_for_its_stream_first(self) -> None:
        async with serving(SseScript(echo), path="/sse") as (server, upstream):
            assert stream_of(await upstream.call(call_of(MODERN))) == 0
            assert [(asked.method, asked.target) for asked in server.asked[:2]] == [
                ("GET", "/sse"),
                ("POST", "/messages?session=0"),
            ]

    async def test_a_later_server_at_such_an_address_is_found_out_all_the_same(self) -> None:
        async def script(asked: Asked, _: Line) -> bytes:
            if asked.method == "GET" or asked.rpc == "server/discover":
                return http(405)
            return initialized(asked, tools={}) if asked.rpc == "initialize" else result(asked, content=[])

        async with serving(script, path="/sse") as (_, upstream):
            assert isinstance(await upstream.call(call_of(MODERN)), Result)
            assert upstream.state()["transport"] == "streamable_http"

    async def test_one_that_is_pinned_to_a_revision(self) -> None:
        script = SseScript(echo)
        async with serving(script, protocol="2024-11-05") as (_, upstream):
            await upstream.call(call_of(caller("a")))
            assert said_in(script, "initialize", 1)[0].body["params"]["protocolVersion"] == "2024-11-05"

    async def test_one_that_speaks_the_later_transport_from_some_day_on(self) -> None:
        old = SseScript(echo)
        is_new = False

        async def script(asked: Asked, line: Line) -> bytes | None:
            if not is_new:
                return await old(asked, line)
            if asked.method == "GET" or asked.rpc == "server/discover":
                return http(404)
            return initialized(asked, tools={}) if asked.rpc == "initialize" else result(asked, content=[])

        async with serving(script, path="/sse") as (_, upstream):
            await upstream.call(call_of(MODERN))
            is_new = True
            old.streams[0].line.close()
            await until(lambda: upstream.state()["sessions"] == 0)
            assert isinstance(await upstream.call(call_of(MODERN)), Result)
            assert upstream.state()["transport"] == "streamable_http"

    async def test_what_refuses_our_credential_is_named(self) -> None:
        async def script(asked: Asked, _: Line) -> bytes:
            return http(401)

        async with serving(script, path="/sse") as (_, upstream):
            with pytest.raises(NeedsAuthorization):
                await upstream.call(call_of(MODERN))


class TestConversations:
    async def test_each_client_session_has_its_own_and_equal_callers_share(self) -> None:
        script = SseScript(echo)
        other = Caller(Era.MODERN, "2026-07-28", None, ASKED)
        async with serving(script, path="/sse") as (_, upstream):
            callers = [caller("a", ASKED), caller("b"), MODERN, other, Caller(Era.MODERN, "2026-07-28", None), MODERN]
            streams = [stream_of(await upstream.call(call_of(one))) for one in callers]
            assert streams == [0, 1, 2, 2, 3, 2]
            asked = [said_in(script, "initialize", number)[0].body["params"] for number in range(4)]
            assert [sorted(params["capabilities"]) for params in asked] == [["elicitation"], [], ["elicitation"], []]
            assert [params["protocolVersion"] for params in asked] == ["2025-06-18"] * 2 + ["2025-11-25"] * 2
            assert [params["clientInfo"]["name"] for params in asked] == ["old"] * 2 + ["penstock"] * 2

    async def test_all_share_where_the_configuration_says_so(self) -> None:
        async with serving(SseScript(echo), path="/sse", sessions="shared") as (_, upstream):
            assert [stream_of(await upstream.call(call_of(caller(name)))) for name in "ab"] == [0, 0]

    async def test_one_ends_with_its_client_session(self) -> None:
        script = SseScript(echo)
        async with serving(script, path="/sse") as (_, upstream):
            await upstream.call(call_of(caller("a")))
            await upstream.close_session("a")
            async with asyncio.timeout(5):
                await script.streams[0].ended.wait()
            assert stream_of(await upstream.call(call_of(caller("a")))) == 1

    async def test_beyond_the_most_the_longest_unused_one_is_ended(self) -> None:
        script = SseScript(echo)
        async with serving(script, path="/sse", max_sessions=2) as (_, upstream):
            for name in "abc":
                await upstream.call(call_of(caller(name)))
            async with asyncio.timeout(5):
                await script.streams[0].ended.wait()
            assert upstream.state()["sessions"] == 2

    async def test_one_that_rests_for_long_is_ended(self) -> None:
        clock, script = FakeClock(), SseScript(echo)
        async with serving(script, path="/sse", clock=clock, session_idle_seconds=60) as (_, upstream):
            await upstream.call(call_of(caller("a")))
            await clock.advance(62)
            assert upstream.state()["sessions"] == 0
            async with asyncio.timeout(5):
                await script.streams[0].ended.wait()

    async def test_a_message_that_is_none_is_told_behind_the_request_it_is_about(self) -> None:
        script = SseScript(silent)
        async with serving(script, path="/sse") as (server, upstream):
            task = asyncio.create_task(upstream.call(call_of(caller("a"))))
            await server.wait_for("tools/call")
            task.cancel()
            await server.wait_for("notifications/cancelled")
            request, cancelled = script.streams[0].messages[-2:]
            assert cancelled.body["params"]["requestId"] == request.id

    async def test_what_a_client_may_pass_on_goes_with_its_message(self) -> None:
        script = SseScript(echo)
        async with serving(script, path="/sse", headers=(("authorization", "mine"),)) as (_, upstream):
            call = call_of(MODERN)
            call.headers = ((b"x-tenant", b"7"), (b"mcp-param-region", b"eu"))
            await upstream.call(call)
            headers = said_in(script, "tools/call")[0].headers
            assert (headers["x-tenant"], headers["authorization"]) == ("7", "mine")
            assert "mcp-param-region" not in headers
            assert script.streams[0].asked.headers["authorization"] == "mine"


class TestQuestions:
    async def test_a_server_hears_at_once_that_we_are_there(self) -> None:
        script = SseScript(echo)
        async with serving(script, path="/sse") as (_, upstream):
            await upstream.call(call_of(MODERN))
            assert (await script.streams[0].ask("p", "ping"))["result"] == {}

    @pytest.mark.parametrize(("who", "at_a_time"), [(caller("a", ASKED), 2), (MODERN, 1)])
    async def test_one_clients_own_conversation_is_not_held_up_by_a_question_a_shared_one_is(
        self, who: Caller, at_a_time: int
    ) -> None:
        working, most = 0, 0
        asked: list[Question] = []

        async def ask(asked: Asked, stream: Stream) -> None:
            nonlocal working, most
            if asked.rpc != "tools/call":
                return
            working += 1
            most = max(most, working)
            answer = await stream.ask(f"q{asked.id}", "elicitation/create", message="who?")
            working -= 1
            await stream.say(id=asked.id, result={"content": [], "said": answer["result"]})

        def answer_later(question: Question) -> None:
            asked.append(question)

        async with serving(SseScript(ask), path="/sse") as (_, upstream):
            call = call_of(who)
            call.ask = lambda question: question.answer(b'{"action":"accept"}')
            answer = await upstream.call(call)  # from now on it is known to ask
            assert isinstance(answer, Result)
            assert json.loads(answer.raw)["said"] == {"action": "accept"}
            calls = [call_of(who), call_of(who)]
            for one in calls:
                one.ask = answer_later
            tasks = [asyncio.create_task(upstream.call(one)) for one in calls]
            for _ in range(2 // at_a_time):
                await until(lambda: len(asked) >= at_a_time)
                while asked:
                    asked.pop().answer(b'{"action":"decline"}')
            await asyncio.gather(*tasks)
            assert most == at_a_time

    async def test_a_call_that_waits_too_long_for_its_turn_says_who_need_not_wait(self) -> None:
        async def ask(asked: Asked, stream: Stream) -> None:
            if asked.rpc == "tools/call":
                await stream.say(id="q", method="elicitation/create", params={"message": "who?"})

        pool = PoolSettings(max_size=8, wait_seconds=0.05)
        async with serving(SseScript(ask), path="/sse", connections=pool) as (_, upstream):
            asked = asyncio.Event()
            first = call_of(MODERN)

            def accept(question: Question) -> None:
                question.answer(b'{"action":"accept"}')
                asked.set()

            first.ask = accept
            task = asyncio.create_task(upstream.call(first))
            async with asyncio.timeout(5):
                await asked.wait()
            with pytest.raises(ServerBusy, match=r"one call at a time.*keep a session are not held up"):
                await upstream.call(call_of(MODERN))
            task.cancel()

    async def test_what_a_server_says_outside_any_call_reaches_the_client_whose_conversation_it_is(self) -> None:
        script = SseScript(echo)
        mine, shared = caller("a", ASKED), Caller(Era.MODERN, "2026-07-28", None, ASKED)
        own = mine.sink = Aside()
        async with serving(script, path="/sse") as (_, upstream):
            for one in (mine, shared):
                await upstream.call(call_of(one))
            for stream in script.streams:
                await stream.say(method="notifications/message", params={"level": "info", "data": "aside"})
            said = [await stream.ask("q", "elicitation/create", message="who?") for stream in script.streams]
            assert said[0]["result"] == {"action": "accept"}
            assert said[1]["error"]["code"] == -32601
            assert [method for method, _ in own.heard] == ["notifications/message"]
            assert upstream.state()["stray_logs"] == 1

    async def test_changed_roots_are_told_in_the_clients_own_conversation_alone(self) -> None:
        script = SseScript(echo)
        roots = b'{"roots":{"listChanged":true}}'
        mine, shared = caller("a", roots), Caller(Era.MODERN, "2026-07-28", None, roots)
        async with serving(script, path="/sse") as (server, upstream):
            for one in (mine, shared):
                await upstream.call(call_of(one))
            assert (upstream.binds(mine), upstream.binds(shared)) == (True, False)
            upstream.roots_changed(caller("unknown"))
            upstream.roots_changed(mine)
            await server.wait_for("notifications/roots/list_changed")
            assert len(said_in(script, "notifications/roots/list_changed")) == 1
            declared = [said_in(script, "initialize", number)[0].body["params"]["capabilities"] for number in range(2)]
            assert declared == [{"roots": {"listChanged": True}}, {"roots": {}}]


class Aside:
    """A client's own stream."""

    is_open = True

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []

    def ask(self, question: Question) -> None:
        question.answer(b'{"action":"accept"}')

    def notify(self, method: str, params: Any) -> None:
        self.heard.append((method, params))

    def subscriptions(self, server: str) -> list[str]:
        return []

    def hear_apart(self, uri: str, *, apart: bool) -> None:
        """Subscribes to nothing."""

    def updated(self, uri: str) -> bool:
        return False


class TestFaults:
    async def test_a_stream_that_ends_in_a_call_fails_it_and_the_next_call_opens_another(self) -> None:
        async def hang_up_once(asked: Asked, stream: Stream) -> None:
            if stream.number == 0 and asked.rpc == "tools/call":
                stream.line.close()
            else:
                await echo(asked, stream)

        async with serving(SseScript(hang_up_once), path="/sse") as (_, upstream):
            calls = [upstream.call(call_of(MODERN)) for _ in range(3)]
            for outcome in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(outcome, ServerUnavailable)
                assert "closed the connection before its answer was complete" in outcome.message
            assert stream_of(await upstream.call(call_of(MODERN))) == 1

    async def test_messages_are_never_sent_to_another_origin(self) -> None:
        script = SseScript(echo, endpoint="http://localhost:1/messages?session={}")
        async with serving(script, path="/sse") as (server, upstream):
            with pytest.raises(ServerMisbehaved, match=r"endpoint at http://localhost:1, .* its URL is at http://127"):
                await upstream.call(call_of(MODERN))
            assert all(asked.method == "GET" for asked in server.asked)
            async with asyncio.timeout(5):
                await script.streams[0].ended.wait()

    @pytest.mark.parametrize(
        ("endpoint", "words"),
        [
            ("http://[", "cannot be used"),
            ("ftp://127.0.0.1/x", "cannot be used"),
            ("/" + "x" * 9000, "more than 8192 bytes"),
        ],
    )
    async def test_an_endpoint_that_is_none_is_named(self, endpoint: str, words: str) -> None:
        async with serving(SseScript(echo, endpoint=endpoint), path="/sse") as (_, upstream):
            with pytest.raises(ServerMisbehaved, match=words):
                await upstream.call(call_of(MODERN))

    async def test_a_whole_url_of_the_same_origin_is_an_endpoint(self) -> None:
        async with serving(SseScript(echo), path="/sse") as (server, upstream):
            script = server.script
            assert isinstance(script, SseScript)
            script.endpoint = f"http://127.0.0.1:{server.port}/messages?session={{}}"
            assert stream_of(await upstream.call(call_of(MODERN))) == 0

    async def test_a_server_that_announces_nothing_is_waited_for_a_bounded_time(self) -> None:
        async with serving(SseScript(echo, endpoint=None), path="/sse", handshake_seconds=0.1) as (_, upstream):
            with pytest.raises(ServerMisbehaved, match=r"did not announce in 0\.1 s where to POST to"):
                await upstream.call(call_of(MODERN))

    async def test_one_that_does_not_answer_initialize_is_waited_for_a_bounded_time(self) -> None:
        class Mute(SseScript):
            async def _take(self, asked: Asked, stream: Stream) -> None:
                return

        async with serving(Mute(silent), path="/sse", handshake_seconds=0.1) as (_, upstream):
            with pytest.raises(ServerUnavailable, match=r"did not answer initialize within 0\.1 s"):
                await upstream.call(call_of(MODERN))

    async def test_junk_is_counted_and_much_of_it_ends_the_conversation(self) -> None:
        async def junk(asked: Asked, stream: Stream) -> None:
            if asked.rpc != "tools/call":
                return
            await stream.line.write(event(b"?") * asked.body["params"]["arguments"]["n"])
            await stream.line.write(event(b"x", b"ping") + event(b"/elsewhere", b"endpoint"))
            await echo(asked, stream)

        async with serving(SseScript(junk), path="/sse") as (_, upstream):
            await upstream.call(call_of(MODERN, n=7))
            assert upstream.state()["junk_lines"] == 7
            with pytest.raises(ServerMisbehaved, match="1001 events that are no messages; its event stream was ended"):
                await upstream.call(call_of(MODERN, n=1100))
            assert stream_of(await upstream.call(call_of(MODERN, n=0))) == 1

    async def test_a_call_is_sent_again_when_the_server_had_forgotten_the_conversation(self) -> None:
        script = SseScript(echo)
        async with serving(script, path="/sse") as (_, upstream):
            await upstream.call(call_of(MODERN))
            script.forgotten.add(0)
            assert stream_of(await upstream.call(call_of(MODERN))) == 1
            assert upstream.state()["lost_sessions"] == 1

    async def test_a_message_that_is_refused_fails_its_call_alone(self) -> None:
        class Full(SseScript):
            async def __call__(self, asked: Asked, line: Line) -> bytes | None:
                if asked.rpc == "tools/call" and asked.body["params"]["name"] == "big":
                    return error(asked, 413, -32600, "too large")
                return await super().__call__(asked, line)

        async with serving(Full(echo), path="/sse") as (_, upstream):
            with pytest.raises(ServerMisbehaved, match=r"HTTP 413 \(too large\)"):
                await upstream.call(call_of(MODERN, "big"))
            assert stream_of(await upstream.call(call_of(MODERN))) == 0

    async def test_a_server_that_hangs_up_again_and_again_is_left_alone_for_longer_and_longer(self) -> None:
        clock = FakeClock()

        async def hang_up(asked: Asked, stream: Stream) -> None:
            if asked.rpc == "tools/call":
                stream.line.close()

        async with serving(SseScript(hang_up), path="/sse", clock=clock) as (server, upstream):
            waited = 0.0
            for _ in range(12):
                task = asyncio.create_task(upstream.call(call_of(MODERN)))
                while not (await asyncio.wait((task,), timeout=0.05))[0]:
                    await clock.advance(0.1)
                    waited += 0.1
                with pytest.raises(ServerUnavailable):
                    task.result()
            assert 1 < waited < 60
            assert len(server.all("GET")) < 12
            with pytest.raises(ServerUnavailable, match="it is tried again in"):
                await upstream.call(call_of(MODERN))


class TestChanges:
    async def test_they_are_heard_and_subscriptions_outlive_the_stream(self) -> None:
        clock, script = FakeClock(), SseScript(echo)
        script.capabilities = {"tools": {"listChanged": True}, "resources": {"subscribe": True}}
        heard: list[tuple[str, Any]] = []

        async with serving(script, path="/sse", clock=clock) as (server, upstream):
            await upstream.describe()
            upstream.hear(lambda method, params: heard.append((method, params.get("uri"))))
            assert await upstream.subscribe("x://1") is None
            ours = next(one for one in script.streams if any(m.rpc == "resources/subscribe" for m in one.messages))
            await upstream.call(call_of(caller("own")))
            await until(lambda: _is_listening(upstream))
            for stream in script.streams:
                await stream.say(method="notifications/tools/list_changed")
            await ours.say(method="notifications/resources/updated", params={"uri": "x://1"})
            await until(lambda: len(heard) == len(script.streams) + 1)
            said = [method.rpartition("/")[2] for method, _ in heard]
            assert sorted(said) == [*["list_changed"] * len(script.streams), "updated"], "by each in which it is said"
            heard.clear()
            ours.line.close()
            await until(lambda: upstream.state()["sessions"] == 2)
            await until(lambda: not _is_listening(upstream))
            await clock.advance(1.5)
            await until(lambda: len(server.all("resources/subscribe")) == 2)
            await until(lambda: _is_listening(upstream))
            await until(lambda: len(heard) >= 3 + 1)  # every list may be another one, and so may the resource
            assert len(heard) == 3 + 1
            await upstream.unsubscribe("x://1")
            assert len(server.all("resources/unsubscribe")) == 1

    async def test_the_conversation_that_lists_declares_all_there_is_and_refuses_what_it_is_asked(self) -> None:
        script = SseScript(echo)
        async with serving(script, path="/sse") as (_, upstream):
            assert stream_of(await upstream.call(call_of(PENSTOCK))) == 0
            (asked,) = said_in(script, "initialize")
            assert asked.body["params"]["capabilities"] == json.loads(declared(EVERYTHING, "2025-11-25"))
            script.on_message = silent
            task = asyncio.create_task(upstream.call(call_of(PENSTOCK)))
            for at_work in (False, True):
                refused = await script.streams[0].ask(f"q-{at_work}", "roots/list")
                assert refused["error"]["code"] == -32601
                await until(lambda: len(said_in(script, "tools/call")) == 2)
            task.cancel()
            await asyncio.wait((task,))

    async def test_what_is_asked_where_it_is_listed_makes_nobody_wait_for_a_turn(self) -> None:
        script = SseScript(silent)
        async with serving(script, path="/sse") as (_, upstream):
            tasks = [asyncio.create_task(upstream.call(call_of(PENSTOCK)))]
            await until(lambda: script.streams and said_in(script, "tools/call"))
            await script.streams[0].ask("q", "roots/list")
            tasks += [asyncio.create_task(upstream.call(call_of(MODERN))) for _ in range(2)]
            await until(lambda: len(script.streams) == 2 and len(said_in(script, "tools/call", 1)) == 2)
            for task in tasks:
                task.cancel()

    async def test_a_resource_that_cannot_be_subscribed_to_is_refused_in_the_servers_words(self) -> None:
        async def refuse(asked: Asked, stream: Stream) -> None:
            if asked.id is not None:
                await stream.say(id=asked.id, error={"code": -32002, "message": "no such resource"})

        async with serving(SseScript(refuse), path="/sse") as (_, upstream):
            await upstream.describe()
            upstream.hear(lambda *_: None)
            refused = await upstream.subscribe("x://1")
            assert isinstance(refused, Failure)
            assert refused.message == "no such resource"


def _is_listening(upstream: StreamableHttpUpstream) -> bool:
    return isinstance(upstream._feed, LegacyFeed) and upstream._feed.is_listening
