"""A legacy HTTP server that asks: what it was told it may ask, whom it asks, how it is answered."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec import Raw

from penstock.errors import ServerError
from penstock.protocol.messages import RpcError
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Answer, Call, Caller, Result
from penstock.upstreams.questions import Question
from penstock.upstreams.streamable_http import StreamableHttpUpstream
from tests.unit.upstreams.scripted_http import (
    Asked,
    Line,
    Script,
    Scripted,
    call_of,
    chunk,
    http,
    initialized,
    result,
    rpc,
    serving,
    stream,
)

EVERYTHING = b'{"elicitation":{"form":{},"url":{}},"sampling":{"tools":{},"context":{}},"roots":{"listChanged":true}}'
FORM: dict[str, Any] = {"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}}
MODERN = Caller(Era.MODERN, "2026-07-28", None, EVERYTHING)
OWN = Caller(Era.LEGACY, "2025-11-25", "session-1", EVERYTHING)
OTHER = Caller(Era.LEGACY, "2025-11-25", "session-2", EVERYTHING)
Tool = Callable[[Asked, Line], Awaitable[bytes | None]]


def server_with(tool: Tool, *, posts: Callable[[Asked], bytes] = lambda _: http(202)) -> Script:
    """A legacy server: calls of `warm` are answered, all others go to the tool; `posts` answers what is told to it."""
    issued = 0

    async def script(asked: Asked, line: Line) -> bytes | None:
        nonlocal issued
        if asked.rpc == "server/discover":
            return http(400, b"no session", "text/plain")
        if asked.rpc == "initialize":
            issued += 1
            return initialized(asked, f"s-{issued}", asked.body["params"]["protocolVersion"])
        if asked.rpc == "tools/call":
            return result(asked, content=[]) if asked.body["params"]["name"] == "warm" else await tool(asked, line)
        if asked.method == "GET":  # a call's stream is taken up again; there is none beside the calls
            return await tool(asked, line) if "last-event-id" in asked.headers else http(405)
        return posts(asked) if asked.method == "POST" else http(200)

    return script


async def say(line: Line, **message: Any) -> None:
    await line.write(chunk(b"data: " + rpc(**message) + b"\n\n"))


async def end(asked: Asked, line: Line, **members: Any) -> None:
    await say(line, id=asked.id, result={"content": [], **members})
    await line.write(b"0\r\n\r\n")


class Sent:
    """A call under way, and what was asked in its course."""

    def __init__(self, caller: Caller, tool: str = "work", *, can_be_asked: bool = True) -> None:
        self.call = call_of(caller, tool)
        self.questions: list[Question] = []
        self.withdrawn: list[Question] = []
        self.lost = asyncio.Event()
        self._came = asyncio.Event()
        if can_be_asked:
            self.call.ask = self._take

    def _take(self, question: Question) -> None:
        question.on_withdrawn = lambda: self._lose(question)
        self.questions.append(question)
        self._came.set()

    def _lose(self, question: Question) -> None:
        self.withdrawn.append(question)
        self.lost.set()

    async def asked(self, count: int = 1) -> Question:
        """The question of that number, once it is there."""
        async with asyncio.timeout(5):
            while len(self.questions) < count:
                self._came.clear()
                await self._came.wait()
        return self.questions[count - 1]

    def begin(self, upstream: StreamableHttpUpstream, *, at_once: bool) -> "asyncio.Future[Answer]":
        """Send it with a task, or without one."""
        if not at_once:
            return asyncio.ensure_future(upstream.call(self.call))
        ended: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def take(outcome: Answer | ServerError | None) -> None:
            if isinstance(outcome, ServerError):
                ended.set_exception(outcome)
            elif outcome is None:
                ended.cancel()
            else:
                ended.set_result(outcome)

        self.call.on_end = take
        self.call.task = upstream.start(self.call)
        assert self.call.task is not None
        return ended


async def warm(upstream: StreamableHttpUpstream, *callers: Caller) -> None:
    """Open the sessions, and a connection."""
    for caller in callers:
        assert isinstance(await upstream.call(call_of(caller, "warm")), Result)


async def until_posted(server: Scripted, name: str, count: int) -> list[Asked]:
    async with asyncio.timeout(5):
        while len(server.all(name)) < count:
            server.came.clear()
            await server.came.wait()
    return server.all(name)


async def answers_at_once(asked: Asked, _line: Line) -> bytes:
    return result(asked, content=[])


ALL: dict[str, Any] = {"elicitation": {"url": {}, "form": {}}, "sampling": {"tools": {}, "context": {}}, "roots": {}}


CHANGING = {"listChanged": True}


@pytest.mark.parametrize(
    ("caller", "protocol", "told"),
    [
        (MODERN, "auto", ALL),
        (Caller(Era.MODERN, "2026-07-28", None, b'{"elicitation":{}}'), "auto", {"elicitation": {}}),
        (Caller(Era.MODERN, "2026-07-28", None, b'{"elicitation":{"url":{}}}'), "auto", {"elicitation": {"url": {}}}),
        (Caller(Era.MODERN, "2026-07-28", None, b'{"elicitation":{"url":{}}}'), "2025-06-18", {}),
        (MODERN, "2025-06-18", {"elicitation": {}, "sampling": {}, "roots": {}}),
        (MODERN, "2025-03-26", {"sampling": {}, "roots": {}}),
        (OWN, "auto", ALL | {"roots": CHANGING}),
        (OWN, "2025-06-18", {"elicitation": {}, "sampling": {}, "roots": CHANGING}),
        (
            Caller(Era.LEGACY, "2025-06-18", "s", EVERYTHING),
            "auto",
            {"elicitation": {}, "sampling": {}, "roots": CHANGING},
        ),
        (
            Caller(Era.LEGACY, "2025-06-18", "s", EVERYTHING),
            "2025-11-25",
            {"elicitation": {}, "sampling": {}, "roots": CHANGING},
        ),
        (Caller(Era.LEGACY, "2025-03-26", "s", EVERYTHING), "auto", {"sampling": {}, "roots": CHANGING}),
        (Caller(Era.LEGACY, "2025-11-25", "s", b'{"tasks":{"list":{}},"odd":{"x":{}}}'), "auto", {}),
        (Caller(Era.LEGACY, "2025-11-25", None), "auto", {}),
    ],
)
async def test_what_a_server_is_told_that_it_may_ask(caller: Caller, protocol: str, told: dict[str, Any]) -> None:
    async with serving(server_with(answers_at_once), protocol=protocol) as (server, upstream):
        await upstream.call(call_of(caller))
        (initialize,) = server.all("initialize")
        assert initialize.body["params"]["capabilities"] == told


async def test_callers_who_can_be_asked_different_things_share_no_session() -> None:
    callers = [Caller(Era.MODERN, "2026-07-28", None, raw) for raw in (b"{}", b'{"roots":{}}', EVERYTHING)]
    async with serving(server_with(answers_at_once)) as (server, upstream):
        for caller in callers * 2:
            await upstream.call(call_of(caller))
        used = [asked.headers["mcp-session-id"] for asked in server.all("tools/call")]
        assert used == ["s-1", "s-2", "s-3"] * 2
        bob = Caller(Era.MODERN, "2026-07-28", None, EVERYTHING, principal="bob")
        await upstream.call(call_of(bob))
        assert server.all("tools/call")[-1].headers["mcp-session-id"] == "s-4"


@pytest.mark.parametrize("at_once", [False, True], ids=["with a task", "at once"])
@pytest.mark.parametrize("caller", [MODERN, OWN], ids=["shared", "own"])
@pytest.mark.parametrize("asked_as", ["q-1", 1, -5, "1"])
async def test_a_question_on_the_calls_stream_is_answered_by_one_post_in_its_session(
    at_once: bool, caller: Caller, asked_as: Any
) -> None:
    async def tool(asked: Asked, line: Line) -> None:
        await line.write(stream(end=False))
        await say(line, id=asked_as, method="elicitation/create", params=FORM)
        await server.wait_for(f"-> {asked_as}")
        await end(asked, line)

    async with serving(server_with(tool)) as (server, upstream):
        await warm(upstream, caller)
        sent = Sent(caller)
        running = sent.begin(upstream, at_once=at_once)
        question = await sent.asked()
        assert question.method == "elicitation/create"
        assert {key: json.loads(bytes(value)) for key, value in question.params.items()} == FORM
        question.answer(b'{"action":"decline"}')
        assert isinstance(await running, Result)
        (reply,) = server.all(f"-> {asked_as}")
        assert reply.body == {"jsonrpc": "2.0", "id": asked_as, "result": {"action": "decline"}}
        assert reply.headers["mcp-session-id"] == server.all("tools/call")[0].headers["mcp-session-id"]
        assert reply.headers["mcp-protocol-version"] == "2025-11-25"
        assert reply.method == "POST"


@pytest.mark.parametrize("status", [202, 200, 400, 404, 500])
async def test_an_answer_is_posted_once_whatever_the_server_says_to_it(status: int) -> None:
    async def tool(asked: Asked, line: Line) -> None:
        await line.write(stream(end=False))
        await say(line, id="q", method="roots/list")
        await server.wait_for("-> q")
        await end(asked, line)

    async with serving(server_with(tool, posts=lambda asked: http(status if "->" in asked.rpc else 202))) as (
        server,
        upstream,
    ):
        sent = Sent(OWN)
        running = sent.begin(upstream, at_once=False)
        question = await sent.asked()
        question.answer(b'{"roots":[]}')
        question.answer(b'{"roots":[1]}')
        assert isinstance(await running, Result)
        await upstream.call(call_of(OWN, "warm"))
        assert len(server.all("-> q")) == 1


async def test_an_error_is_an_answer_too_and_a_ping_is_answered_here() -> None:
    async def tool(asked: Asked, line: Line) -> None:
        await line.write(stream(end=False))
        await say(line, id="p", method="ping")
        await say(line, id="q", method="sampling/createMessage", params={})
        await server.wait_for("-> q")
        await server.wait_for("-> p")
        await end(asked, line)

    async with serving(server_with(tool)) as (server, upstream):
        sent = Sent(OWN)
        running = sent.begin(upstream, at_once=False)
        (await sent.asked()).answer(RpcError(-1, "rejected", b'{"why":1}'))
        assert isinstance(await running, Result)
        assert server.all("-> q")[0].body["error"] == {"code": -1, "message": "rejected", "data": {"why": 1}}
        assert server.all("-> p")[0].body["result"] == {}
        assert len(sent.questions) == 1


@pytest.mark.parametrize(("method", "can_be_asked"), [("roots/list", False), ("tasks/get", True), ("tools/list", True)])
async def test_what_nobody_can_be_asked_is_refused_at_once(method: str, can_be_asked: bool) -> None:
    async def tool(asked: Asked, line: Line) -> None:
        await line.write(stream(end=False))
        await say(line, id="q", method=method, params={})
        await server.wait_for("-> q")
        await end(asked, line)

    async with serving(server_with(tool)) as (server, upstream):
        sent = Sent(OWN, can_be_asked=can_be_asked)
        assert isinstance(await sent.begin(upstream, at_once=False), Result)
        assert server.all("-> q")[0].body["error"]["code"] == -32601
        assert (sent.questions, upstream.state()["refused_requests"]) == ([], 1)


async def test_two_calls_over_one_session_are_asked_each_its_own() -> None:
    async def tool(asked: Asked, line: Line) -> None:
        whose = asked.body["params"]["arguments"]["whose"]
        await line.write(stream(end=False))
        await say(line, id=f"q-{whose}", method="elicitation/create", params=FORM | {"message": whose})
        reply = await server.wait_for(f"-> q-{whose}")
        await end(asked, line, said=reply.body["result"]["said"])

    async with serving(server_with(tool)) as (server, upstream):
        await warm(upstream, OWN)
        both = {whose: Sent(OWN) for whose in ("ann", "bob")}
        running = {}
        for whose, sent in both.items():
            sent.call.params["arguments"] = Raw(json.dumps({"whose": whose}).encode())
            running[whose] = sent.begin(upstream, at_once=False)
        for whose, sent in reversed(both.items()):
            question = await sent.asked()
            assert bytes(question.params["message"]) == json.dumps(whose).encode()
            question.answer(json.dumps({"said": whose}).encode())
        for whose in both:
            answer = await running[whose]
            assert isinstance(answer, Result)
            assert json.loads(answer.raw)["said"] == whose
        assert {asked.headers["mcp-session-id"] for asked in server.all("tools/call")} == {"s-1"}


@pytest.mark.parametrize("at_once", [False, True], ids=["with a task", "at once"])
async def test_what_the_server_withdraws_is_not_answered(at_once: bool) -> None:
    gate = asyncio.Event()

    async def tool(asked: Asked, line: Line) -> None:
        await line.write(stream(end=False))
        for number in (1, 2):
            await say(line, id=number, method="elicitation/create", params=FORM)
        await gate.wait()
        await say(line, method="notifications/cancelled", params={"requestId": 1})
        await server.wait_for("-> 2")
        await end(asked, line)

    async with serving(server_with(tool)) as (server, upstream):
        await warm(upstream, OWN)
        sent = Sent(OWN)
        running = sent.begin(upstream, at_once=at_once)
        second = await sent.asked(2)
        gate.set()
        await asyncio.wait_for(sent.lost.wait(), 5)
        first = sent.questions[0]
        assert sent.withdrawn == [first]
        first.answer(b'{"action":"accept"}')
        second.answer(b'{"action":"cancel"}')
        await running
        assert server.all("-> 1") == []


async def test_progress_goes_to_the_server_with_its_own_token() -> None:
    async def tool(asked: Asked, line: Line) -> None:
        await line.write(stream(end=False))
        params = FORM | {"_meta": {"progressToken": "theirs"}}
        await say(line, id="q", method="elicitation/create", params=params)
        await server.wait_for("notifications/progress")
        await server.wait_for("-> q")
        await end(asked, line)

    async with serving(server_with(tool)) as (server, upstream):
        sent = Sent(OWN)
        running = sent.begin(upstream, at_once=False)
        question = await sent.asked()
        assert question.wants_progress
        assert "_meta" not in question.params
        question.report({"progressToken": Raw(b'"ours"'), "progress": Raw(b"1")})
        (told,) = await until_posted(server, "notifications/progress", 1)
        assert told.body["params"] == {"progressToken": "theirs", "progress": 1}
        assert told.headers["mcp-session-id"] == "s-1"
        question.answer(b"{}")
        await running


async def test_a_lost_session_withdraws_what_was_asked_in_it() -> None:
    lost = asyncio.Event()

    async def tool(asked: Asked, line: Line) -> bytes | None:
        if lost.is_set() and asked.headers["mcp-session-id"] == "s-1":
            return http(404)
        if lost.is_set():
            return result(asked, content=[])
        await line.write(stream(end=False))
        await say(line, id="q", method="roots/list")
        await line.until_closed()
        return None

    async with serving(server_with(tool)) as (server, upstream):
        sent = Sent(OWN)
        running = sent.begin(upstream, at_once=False)
        question = await sent.asked()
        lost.set()
        assert isinstance(await upstream.call(call_of(OWN)), Result)
        assert sent.withdrawn == [question]
        question.answer(b'{"roots":[]}')
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await server.wait_for("notifications/cancelled")
        assert server.all("-> q") == []


@pytest.mark.parametrize("how", ["its session ends", "the server is removed"])
async def test_the_end_of_a_session_withdraws_what_was_asked_in_it_and_in_no_other(how: str) -> None:
    async def tool(_asked: Asked, line: Line) -> None:
        await line.write(stream(end=False))
        await say(line, id="q", method="roots/list")
        await line.until_closed()

    async with serving(server_with(tool)) as (server, upstream):
        both = [Sent(OWN), Sent(OTHER)]
        running = [sent.begin(upstream, at_once=False) for sent in both]
        questions = [await sent.asked() for sent in both]
        if how == "its session ends":
            await upstream.close_session("session-1")
            assert [question.is_open for question in questions] == [False, True]
            assert server.all("DELETE")[0].headers["mcp-session-id"] == "s-1"
        else:
            await upstream.close()
            assert [question.is_open for question in questions] == [False, False]
        questions[0].answer(b"{}")
        for one in running:
            one.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        assert server.all("-> q") == []


async def test_a_question_on_a_stream_that_is_taken_up_again_is_its_calls_too() -> None:
    call_id: list[Any] = []

    async def tool(asked: Asked, line: Line) -> None:
        if asked.method != "GET":
            call_id.append(asked.id)
            await line.write(stream(end=False) + chunk(b"id: e1\nretry: 0\ndata:\n\n") + b"0\r\n\r\n")
            return
        assert asked.headers["last-event-id"] == "e1"
        await line.write(stream(end=False))
        await say(line, id="q", method="roots/list")
        await server.wait_for("-> q")
        await say(line, id=call_id[0], result={"content": []})
        await line.write(b"0\r\n\r\n")

    async with serving(server_with(tool)) as (server, upstream):
        sent = Sent(OWN)
        running = sent.begin(upstream, at_once=False)
        (await sent.asked()).answer(b'{"roots":[]}')
        assert isinstance(await asyncio.wait_for(running, 5), Result)
        assert len(server.all("-> q")) == 1


async def test_a_question_in_a_batch_of_2025_03_26_is_one() -> None:
    async def tool(asked: Asked, line: Line) -> None:
        both = b"[%b,%b]" % (rpc(id="q", method="roots/list"), rpc(id="p", method="ping"))
        await line.write(stream(both, end=False))
        await server.wait_for("-> q")
        await end(asked, line)

    async with serving(server_with(tool)) as (server, upstream):
        sent = Sent(Caller(Era.LEGACY, "2025-03-26", "s", EVERYTHING))
        running = sent.begin(upstream, at_once=False)
        (await sent.asked()).answer(b'{"roots":[]}')
        assert isinstance(await running, Result)
        assert len(await until_posted(server, "-> p", 1)) == 1


async def test_a_cancelled_call_is_cancelled_at_the_server_with_its_question_open() -> None:
    async def tool(_asked: Asked, line: Line) -> None:
        await line.write(stream(end=False))
        await say(line, id="q", method="roots/list")
        await line.until_closed()

    async with serving(server_with(tool)) as (server, upstream):
        sent = Sent(OWN)
        running = sent.begin(upstream, at_once=False)
        await sent.asked()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        cancelled = await server.wait_for("notifications/cancelled")
        assert cancelled.body["params"]["requestId"] == server.all("tools/call")[0].id


async def test_words_of_the_modern_era_and_tasks_do_not_reach_a_legacy_server() -> None:
    async with serving(server_with(answers_at_once)) as (server, upstream):
        for caller, meta in ((MODERN, None), (MODERN, {"progressToken": 1}), (OWN, None)):
            call: Call = call_of(caller, meta=meta)
            call.params |= {"requestState": Raw(b'"s"'), "inputResponses": Raw(b'{"q":{}}'), "task": Raw(b"{}")}
            await upstream.call(call)
            assert set(server.all("tools/call")[-1].body["params"]) - {"_meta"} == {"name", "arguments"}


async def test_a_server_is_told_of_changed_roots_in_the_session_of_that_client_alone() -> None:
    async with serving(server_with(answers_at_once)) as (server, upstream):
        for caller in (OWN, MODERN):
            await upstream.call(call_of(caller))
        upstream.roots_changed(MODERN)
        upstream.roots_changed(OWN)
        told = await server.wait_for("notifications/roots/list_changed")
        own = server.all("tools/call")[0].headers["mcp-session-id"]
        assert told.headers["mcp-session-id"] == own
        assert len(server.all("notifications/roots/list_changed")) == 1
