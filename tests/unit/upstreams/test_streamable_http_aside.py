"""What legacy HTTP servers say on a session's own stream: whom it reaches."""

import asyncio
from typing import Any

import msgspec

from penstock.protocol.versions import Era
from penstock.upstreams.calls import Call, Caller, Raw
from penstock.upstreams.questions import Question
from penstock.upstreams.streamable_http import StreamableHttpUpstream
from tests.unit.upstreams.scripted_http import (
    MODERN,
    SESSIONLESS,
    Asked,
    Line,
    Script,
    Scripted,
    call_of,
    chunk,
    http,
    initialized,
    rpc,
    serving,
    stream,
)

FORM = rpc(id="q", method="elicitation/create", params={"message": "who?"})
LOG = rpc(method="notifications/message", params={"level": "info", "data": "x"})
CHANGED = rpc(method="notifications/tools/list_changed")


class Server:
    """Keeps the streams of its sessions open, and its calls waiting until it is told to answer them."""

    def __init__(self, *, holds: bool = False) -> None:
        self.streams: dict[str, Line] = {}
        self.opened = asyncio.Event()
        self.may_answer = asyncio.Event()
        if not holds:
            self.may_answer.set()
        self._sessions = 0

    def script(self) -> Script:
        async def answer(asked: Asked, line: Line) -> bytes | None:
            if asked.rpc == "server/discover":
                return http(400, b"no session", "text/plain")
            if asked.rpc == "initialize":
                self._sessions += 1
                return initialized(asked, f"s-{self._sessions}", asked.body["params"]["protocolVersion"])
            if asked.method == "GET":
                self.streams[asked.headers["mcp-session-id"]] = line
                await line.write(stream(end=False))
                self.opened.set()
                await line.until_closed()
                return None
            if asked.rpc == "tools/call":
                await self.may_answer.wait()
                return stream(rpc(id=asked.id, result={"content": []}))
            return http(202)

        return answer

    async def say(self, session: str, message: bytes) -> None:
        await self.streams[session].write(chunk(b"data: " + message + b"\n\n"))


class ClientStream:
    """A legacy client's own stream."""

    def __init__(self, *, is_open: bool = True) -> None:
        self.is_open = is_open
        self.heard: list[Any] = []

    def ask(self, question: Question) -> None:
        self.heard.append(question.method)
        question.answer(b'{"action":"accept"}')

    def notify(self, method: str, params: dict[str, Raw]) -> None:
        self.heard.append(method)

    def subscriptions(self, server: str) -> list[str]:
        return []

    def hear_apart(self, uri: str, *, apart: bool) -> None:
        """Subscribes to nothing."""

    def updated(self, uri: str) -> bool:
        return False


def with_stream(sink: ClientStream, name: str = "a") -> Caller:
    caller = Caller(Era.LEGACY, "2025-11-25", name, b'{"elicitation":{}}', b'{"name":"old","version":"1"}')
    caller.sink = sink
    return caller


def asked_call(caller: Caller, answers: list[str], **more: Any) -> Call:
    call = call_of(caller, **more)

    def ask(question: Question) -> None:
        answers.append(question.method)
        question.answer(b'{"action":"decline"}')

    call.ask = ask
    return call


async def under_way(server: Scripted, upstream: StreamableHttpUpstream, *calls: Call) -> list[asyncio.Task[Any]]:
    """The calls, once they have reached the server."""
    tasks = [asyncio.create_task(upstream.call(call)) for call in calls]
    async with asyncio.timeout(5):
        while len(server.all("tools/call")) < len(calls):
            server.came.clear()
            await server.came.wait()
    return tasks


async def test_a_session_is_listened_to_before_its_first_call_is_sent() -> None:
    them = Server()
    async with serving(them.script()) as (server, upstream):
        await upstream.call(call_of(with_stream(ClientStream())))
        assert [asked.rpc for asked in server.asked][-2:] == ["GET", "tools/call"]
        assert upstream.state()["streams"] == 1
        await upstream.close_session("a")
        assert server.all("DELETE")
        async with asyncio.timeout(5):
            while upstream.state()["streams"]:  # noqa: ASYNC110 - a connection's end tells nobody
                await asyncio.sleep(0)


async def test_what_a_server_asks_there_goes_to_its_clients_own_stream() -> None:
    them, sink, answers = Server(holds=True), ClientStream(), list[str]()
    async with serving(them.script()) as (server, upstream):
        (task,) = await under_way(server, upstream, asked_call(with_stream(sink), answers))
        await them.say("s-1", FORM)
        reply = await server.wait_for("-> q")
        assert reply.body["result"] == {"action": "accept"}
        assert (sink.heard, answers) == (["elicitation/create"], [])
        await them.say("s-1", LOG)
        them.may_answer.set()
        await task
    assert sink.heard == ["elicitation/create", "notifications/message"]


async def test_where_the_client_does_not_listen_it_goes_to_the_only_call() -> None:
    them, answers, notes = Server(holds=True), list[str](), list[str]()
    async with serving(them.script()) as (server, upstream):
        caller = with_stream(ClientStream(is_open=False))
        call = asked_call(caller, answers, notify=lambda method, _: notes.append(method))
        (task,) = await under_way(server, upstream, call)
        await them.say("s-1", FORM)
        assert (await server.wait_for("-> q")).body["result"] == {"action": "decline"}
        await them.say("s-1", LOG)
        await them.say("s-1", rpc(id="p", method="ping"))
        assert (await server.wait_for("-> p")).body["result"] == {}
        them.may_answer.set()
        await task
    assert (answers, notes) == (["elicitation/create"], ["notifications/message"])


async def test_what_could_be_about_several_calls_reaches_none_of_them() -> None:
    them, answers, notes = Server(holds=True), list[str](), list[str]()
    async with serving(them.script()) as (server, upstream):
        caller = with_stream(ClientStream(is_open=False))
        calls = [asked_call(caller, answers, notify=lambda method, _: notes.append(method)) for _ in range(2)]
        tasks = await under_way(server, upstream, *calls)
        await them.say("s-1", LOG)
        await them.say("s-1", FORM)
        assert (await server.wait_for("-> q")).body["error"]["code"] == -32601
        them.may_answer.set()
        await asyncio.gather(*tasks)
        assert upstream.state()["unwanted_logs"] == 1
    assert (answers, notes) == ([], [])


async def test_callers_that_can_be_asked_have_a_session_to_themselves_for_each_call() -> None:
    them, answers = Server(holds=True), list[str]()
    async with serving(them.script()) as (server, upstream):
        tasks = await under_way(server, upstream, *(asked_call(MODERN, answers) for _ in range(3)))
        used = {asked.headers["mcp-session-id"] for asked in server.all("tools/call")}
        assert len(used) == 3
        await them.say(min(used), FORM)
        assert (await server.wait_for("-> q")).headers["mcp-session-id"] == min(used)
        them.may_answer.set()
        await asyncio.gather(*tasks)
        for _ in range(4):
            await upstream.call(call_of(MODERN))
        assert len(server.all("initialize")) == 3, "they are used again"
    assert answers == ["elicitation/create"]


async def test_callers_that_cannot_be_asked_share_one_that_is_not_listened_to() -> None:
    them = Server(holds=True)
    async with serving(them.script()) as (server, upstream):
        tasks = await under_way(server, upstream, *(call_of(SESSIONLESS) for _ in range(3)))
        assert len(server.all("initialize")) == 1
        assert not server.all("GET")
        them.may_answer.set()
        await asyncio.gather(*tasks)


async def test_progress_there_finds_its_call_by_our_token() -> None:
    them, notes = Server(holds=True), list[Any]()
    async with serving(them.script()) as (server, upstream):
        call = call_of(
            with_stream(ClientStream()),
            meta={"progressToken": "mine"},
            notify=lambda _, params: notes.append(msgspec.json.decode(params["progressToken"])),
        )
        (task,) = await under_way(server, upstream, call)
        token = server.all("tools/call")[0].body["params"]["_meta"]["progressToken"]
        for said in ("nobody's", token):
            await them.say("s-1", rpc(method="notifications/progress", params={"progressToken": said, "progress": 1}))
        await them.say("s-1", rpc(id="p", method="ping"))
        await server.wait_for("-> p")
        them.may_answer.set()
        await task
        assert upstream.state()["stray_progress"] == 1
    assert notes == ["mine"]


async def test_changed_lists_are_heard_from_every_session() -> None:
    them, heard = Server(), list[str]()
    async with serving(them.script()) as (server, upstream):
        await upstream.describe()
        upstream.hear(lambda method, _: heard.append(method))
        await upstream.call(call_of(with_stream(ClientStream())))
        session = server.all("tools/call")[0].headers["mcp-session-id"]
        await them.say(session, CHANGED)
        await them.say(session, rpc(method="notifications/odd"))
        await them.say(session, rpc(id="p", method="ping"))
        await server.wait_for("-> p")
        assert heard == ["notifications/tools/list_changed"]


async def test_a_question_taken_back_there_is_withdrawn() -> None:
    them = Server(holds=True)
    async with serving(them.script()) as (server, upstream):
        kept: list[Question] = []
        call = call_of(with_stream(ClientStream(is_open=False)))
        call.ask = kept.append
        (task,) = await under_way(server, upstream, call)
        await them.say("s-1", FORM)
        await them.say("s-1", rpc(method="notifications/cancelled", params={"requestId": "q"}))
        await them.say("s-1", rpc(id="p", method="ping"))
        await server.wait_for("-> p")
        assert not kept[0].is_open
        them.may_answer.set()
        await task


async def test_a_server_whose_stream_does_not_begin_is_called_all_the_same() -> None:
    async def script(asked: Asked, line: Line) -> bytes | None:
        if asked.method == "GET":
            await line.until_closed()
            return None
        return await Server().script()(asked, line)

    async with serving(script, stream_seconds=0.05) as (server, upstream):
        await upstream.call(call_of(with_stream(ClientStream())))
        assert server.all("tools/call")


async def test_streams_are_bounded() -> None:
    them = Server()
    async with serving(them.script(), max_streams=1) as (server, upstream):
        for name in "ab":
            await upstream.call(call_of(with_stream(ClientStream(), name)))
        assert len(them.streams) == 1
        assert len(server.all("tools/call")) == 2
