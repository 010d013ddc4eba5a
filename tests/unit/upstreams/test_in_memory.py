import asyncio
import json
from typing import Any

import msgspec
import pytest

from penstock.clock import FakeClock
from penstock.errors import ServerTimedOut, ServerUnavailable
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Answer, Call, Caller, Failure, Raw, Result
from penstock.upstreams.in_memory import (
    CallContext,
    InMemoryServer,
    InMemoryUpstream,
    InputRequired,
    Refused,
    Step,
    ToolFailed,
)
from penstock.upstreams.in_memory_server import JsonObject
from tests.unit.upstreams.stdio_kit import LEGACY_CALLER, MODERN_CALLER, Notices, failure_of, text_of, tool_call

ANYTHING: JsonObject = {"type": "object"}


def new_server(**settings: Any) -> InMemoryServer:
    server = InMemoryServer("fake", **settings)

    @server.tool("echo", input_schema=ANYTHING)
    async def echo(arguments: JsonObject, _: CallContext) -> str:
        return json.dumps(arguments)

    @server.tool("say", input_schema=ANYTHING)
    async def say(arguments: JsonObject, context: CallContext) -> JsonObject:
        context.progress(1, 2)
        context.log("debug", "small")
        context.log("error", {"big": True}, "here")
        return {"content": [], "_meta": {"x": 1}}

    @server.tool("fail", input_schema=ANYTHING)
    async def fail(arguments: JsonObject, _: CallContext) -> str:
        kind = arguments["kind"]
        raise {"tool": ToolFailed("broken"), "rpc": Refused(-32000, "no", {"a": 1}), "bug": KeyError("oops")}.get(
            kind, ServerUnavailable("fake", "gone")
        )

    @server.tool("ask", input_schema=ANYTHING)
    async def ask(_: JsonObject, context: CallContext) -> Any:
        if context.input_responses is None:
            return InputRequired({"name": {"method": "elicitation/create", "params": {}}}, "state-1")
        return f"{context.request_state} {context.input_responses['name']}"

    @server.prompt("greet", description="Greets.", arguments=[{"name": "who", "required": True}])
    async def greet(arguments: JsonObject, _: CallContext) -> Any:
        if arguments["who"] == "nobody":
            return InputRequired({})
        return [{"role": "assistant", "content": {"type": "text", "text": arguments["who"]}}]

    @server.resource("x://bytes", name="bytes", mime_type="application/octet-stream")
    async def read(_: JsonObject, __: CallContext) -> bytes:
        return b"\x00\x01"

    @server.resource_template("x://{kind}/{id}.txt", name="files")
    async def read_file(variables: JsonObject, _: CallContext) -> Any:
        if variables["kind"] == "ask":
            return InputRequired({})
        return [{"uri": "x://", "text": f"{variables['kind']}+{variables['id']}"}]

    return server


@pytest.fixture
def upstream() -> InMemoryUpstream:
    return InMemoryUpstream("fake", new_server())


async def call(upstream: InMemoryUpstream, method: str, caller: Caller = MODERN_CALLER, **params: Any) -> Answer:
    raw = {key: Raw(msgspec.json.encode(value)) for key, value in params.items()}
    return await upstream.call(Call(method, raw, caller=caller))


async def result(upstream: InMemoryUpstream, method: str, **params: Any) -> dict[str, Any]:
    answer = await call(upstream, method, **params)
    assert isinstance(answer, Result), answer
    found: dict[str, Any] = json.loads(answer.raw)
    return found


async def test_results_have_what_a_modern_result_has(upstream: InMemoryUpstream) -> None:
    read = await result(upstream, "resources/read", uri="x://bytes")
    assert read == {
        "resultType": "complete",
        "ttlMs": 0,
        "cacheScope": "private",
        "contents": [{"uri": "x://bytes", "mimeType": "application/octet-stream", "blob": "AAE="}],
        "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "fake", "version": "1.0.0"}},
    }
    said = await result(upstream, "tools/call", name="say")
    assert "ttlMs" not in said
    assert said["_meta"]["x"] == 1
    discovered = await result(upstream, "server/discover")
    assert discovered["supportedVersions"] == ["2026-07-28"]
    assert set(discovered["capabilities"]) == {"logging", "tools", "prompts", "resources"}


async def test_a_legacy_fake_answers_as_a_legacy_server() -> None:
    upstream = InMemoryUpstream("old", new_server(era=Era.LEGACY))
    assert set(await result(upstream, "tools/list")) == {"tools"}
    assert await result(upstream, "ping") == {}
    assert failure_of(await call(upstream, "server/discover")).code == -32601
    failure = failure_of(await call(upstream, "resources/read", uri="x://none"))
    assert (failure.code, failure.era, json.loads(failure.data or b"")) == (-32002, Era.LEGACY, {"uri": "x://none"})
    assert (await upstream.describe()).versions == ("2025-11-25",)
    notices = Notices()
    await upstream.call(tool_call("say", caller=LEGACY_CALLER, notify=notices))
    assert [method for method, _ in notices.items] == ["notifications/message"] * 2


async def test_lists_come_in_pages() -> None:
    upstream = InMemoryUpstream("fake", new_server(page_size=3))
    first = await result(upstream, "tools/list")
    second = await result(upstream, "tools/list", cursor=first["nextCursor"])
    assert [tool["name"] for tool in first["tools"] + second["tools"]] == ["echo", "say", "fail", "ask"]
    assert "nextCursor" not in second
    assert failure_of(await call(upstream, "tools/list", cursor="x")).code == -32602
    upstream.server.remove_tool("echo")
    assert "nextCursor" not in await result(upstream, "tools/list")


async def test_notifications_carry_the_callers_token_and_level(upstream: InMemoryUpstream) -> None:
    notices = Notices()
    meta = {"progressToken": 7, "io.modelcontextprotocol/logLevel": "warning"}
    told = tool_call("say", meta=meta, notify=notices)
    await upstream.call(told)
    assert notices.items == [
        ("notifications/progress", {"progressToken": 7, "progress": 1, "total": 2}),
        ("notifications/message", {"level": "error", "data": {"big": True}, "logger": "here"}),
    ]
    assert told.progress_at > 0
    quiet = Notices()
    await upstream.call(tool_call("say", notify=quiet))
    assert quiet.items == []
    await upstream.call(tool_call("say", meta=meta))


@pytest.mark.parametrize(("kind", "code"), [("rpc", -32000), ("bug", -32603)])
async def test_what_a_function_raises_is_its_answer(upstream: InMemoryUpstream, kind: str, code: int) -> None:
    assert failure_of(await upstream.call(tool_call("fail", {"kind": kind}))).code == code


async def test_a_tool_that_fails_has_a_result(upstream: InMemoryUpstream) -> None:
    answer = await upstream.call(tool_call("fail", {"kind": "tool"}))
    assert isinstance(answer, Result)
    assert json.loads(answer.raw)["isError"] is True


async def test_a_server_error_of_a_function_passes(upstream: InMemoryUpstream) -> None:
    with pytest.raises(ServerUnavailable, match="gone"):
        await upstream.call(tool_call("fail", {"kind": "server"}))
    assert "gone" in upstream.state()["last_error"]


async def test_input_can_be_required_and_given(upstream: InMemoryUpstream) -> None:
    first = await result(upstream, "tools/call", name="ask")
    assert (first["resultType"], first["requestState"], set(first["inputRequests"])) == (
        "input_required",
        "state-1",
        {"name"},
    )
    given = {"inputResponses": {"name": "Ada"}, "requestState": "state-1"}
    assert (await result(upstream, "tools/call", name="ask", **given))["content"][0]["text"] == "state-1 Ada"
    assert "requestState" not in await result(upstream, "prompts/get", name="greet", arguments={"who": "nobody"})
    asked = await result(upstream, "resources/read", uri="x://ask/1.txt")
    assert (asked["resultType"], "ttlMs" in asked) == ("input_required", False)


async def test_prompts_and_templates(upstream: InMemoryUpstream) -> None:
    got = await result(upstream, "prompts/get", name="greet", arguments={"who": "Ada"})
    assert (got["description"], got["messages"][0]["content"]["text"]) == ("Greets.", "Ada")
    assert (await result(upstream, "resources/read", uri="x://a/b.txt"))["contents"][0]["text"] == "a+b"


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("tools/call", {"name": "none"}, -32602),
        ("prompts/get", {"name": "none"}, -32602),
        ("prompts/get", {"name": "greet"}, -32602),
        ("resources/read", {"uri": "x://none"}, -32602),
        ("completion/complete", {}, -32601),
        ("no/such", {}, -32601),
        ("ping", {}, -32601),
    ],
)
async def test_what_is_not_there_is_refused(
    upstream: InMemoryUpstream, method: str, params: dict[str, Any], code: int
) -> None:
    assert failure_of(await call(upstream, method, **params)).code == code


async def test_faults_can_be_ordered() -> None:
    clock = FakeClock()
    upstream = InMemoryUpstream("fake", new_server(), clock=clock)
    mine = Failure(1, "mine", None, Era.MODERN)
    upstream.order(Step(error=ServerTimedOut("fake")), Step(answer=mine), Step(delay_seconds=5))
    with pytest.raises(ServerTimedOut):
        await upstream.call(tool_call("echo"))
    assert await upstream.call(tool_call("echo")) is mine
    slow = asyncio.create_task(upstream.call(tool_call("echo")))
    await asyncio.sleep(0)
    assert (upstream.in_flight, slow.done()) == (1, False)
    await clock.advance(5)
    assert text_of(await slow) == "{}"
    upstream.every_call = Step(error=ServerUnavailable("fake"))
    with pytest.raises(ServerUnavailable):
        await upstream.call(tool_call("echo"))
    with pytest.raises(ServerUnavailable):
        await upstream.describe()


async def test_a_cancelled_call_is_recorded(upstream: InMemoryUpstream) -> None:
    upstream.order(Step(wait_for=asyncio.Event()))
    cancelled = tool_call("echo")
    task = asyncio.create_task(upstream.call(cancelled))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list(upstream.cancelled) == [cancelled]
    assert list(upstream.calls) == [cancelled]
    assert upstream.in_flight == 0


async def test_sessions_state_and_the_end(upstream: InMemoryUpstream) -> None:
    await upstream.close_session("s")
    assert upstream.closed_sessions == ["s"]
    assert upstream.state() == {
        "transport": "in_memory",
        "eras": ["modern"],
        "spoken_with": {"modern": "modern", "legacy": "modern"},
        "in_flight": 0,
        "last_error": "",
    }
    assert upstream.recent_log(5) == []
    assert upstream.name == "fake"
    assert repr(upstream) == "<InMemoryUpstream fake | calls 0 in flight 0>"
    assert repr(upstream.server) == "<InMemoryServer fake modern | 4 tools 1 prompts 1 resources>"
    assert "tools/call" in repr(CallContext(tool_call("x"), wants_every_log=False))
    await upstream.close()
    with pytest.raises(ServerUnavailable, match="being stopped"):
        await upstream.call(tool_call("echo"))
