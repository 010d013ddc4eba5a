import asyncio
import json
from typing import Any

import msgspec
import pytest

from penstock.clock import FakeClock
from penstock.upstreams.calls import Call, Raw, Result
from penstock.upstreams.demo import demo_upstream
from penstock.upstreams.in_memory import InMemoryUpstream
from tests.unit.upstreams.stdio_kit import MODERN_CALLER, Notices, tool_call


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(wall=1_800_000_000.0)


@pytest.fixture
def demo(clock: FakeClock) -> InMemoryUpstream:
    return demo_upstream(clock=clock)


async def ask(upstream: InMemoryUpstream, method: str, **params: Any) -> dict[str, Any]:
    raw = {key: Raw(msgspec.json.encode(value)) for key, value in params.items()}
    answer = await upstream.call(Call(method, raw, caller=MODERN_CALLER))
    assert isinstance(answer, Result), answer
    found: dict[str, Any] = json.loads(answer.raw)
    return found


async def use(upstream: InMemoryUpstream, tool: str, **arguments: Any) -> dict[str, Any]:
    return await ask(upstream, "tools/call", name=tool, arguments=arguments)


async def test_every_tool_says_what_it_does_and_what_it_takes(demo: InMemoryUpstream) -> None:
    tools = (await ask(demo, "tools/list"))["tools"]
    assert [tool["name"] for tool in tools] == ["echo", "add", "text_statistics", "current_time", "count_down"]
    for tool in tools:
        assert tool["title"]
        assert len(tool["description"]) > 20
        assert tool["inputSchema"]["additionalProperties"] is False
        assert all(known["description"] for known in tool["inputSchema"]["properties"].values())


async def test_echo_add_and_statistics(demo: InMemoryUpstream) -> None:
    assert (await use(demo, "echo", text="hé\n"))["content"] == [{"type": "text", "text": "hé\n"}]
    added = await use(demo, "add", a=2, b=0.5)
    assert added["structuredContent"] == {"sum": 2.5}
    assert added["content"][0]["text"] == '{"sum":2.5}'
    counted = await use(demo, "text_statistics", text="one two\nthree")
    assert counted["structuredContent"] == {"characters": 13, "words": 3, "lines": 2}


async def test_the_time_is_told_in_any_zone(demo: InMemoryUpstream) -> None:
    assert (await use(demo, "current_time"))["structuredContent"] == {
        "time": "2027-01-15T08:00:00+00:00",
        "timezone": "UTC",
        "weekday": "Friday",
    }
    assert (await use(demo, "current_time", timezone="Asia/Tokyo"))["structuredContent"]["time"].endswith("+09:00")


@pytest.mark.parametrize(
    ("zone", "words"),
    [
        ("Europe/Pariss", "did you mean 'Europe/Paris'?"),
        ("???", "use an IANA name"),
        ("../../etc/passwd", "no time zone"),
    ],
)
async def test_an_unknown_zone_is_named_with_a_hint(demo: InMemoryUpstream, zone: str, words: str) -> None:
    result = await use(demo, "current_time", timezone=zone)
    assert result["isError"] is True
    assert words in result["content"][0]["text"]


async def test_count_down_reports_each_step(demo: InMemoryUpstream, clock: FakeClock) -> None:
    notices = Notices()
    call = tool_call("count_down", {"start": 3, "interval_ms": 500}, meta={"progressToken": "t"}, notify=notices)
    task = asyncio.create_task(demo.call(call))
    await asyncio.sleep(0)
    await clock.advance(1.0)
    assert [params["progress"] for _, params in notices.items] == [1, 2]
    assert notices.items[0][1] == {"progressToken": "t", "progress": 1, "total": 3, "message": "2 to go"}
    await clock.advance(0.5)
    assert b"Lift-off" in getattr(await task, "raw", b"")


async def test_bad_arguments_are_refused_in_words(demo: InMemoryUpstream) -> None:
    for arguments, words in (({}, "'text' is missing"), ({"text": 1}, "'text': expected string, got integer")):
        result = await use(demo, "echo", **arguments)
        assert result["isError"] is True
        assert words in result["content"][0]["text"]


async def test_prompt_resource_template_and_completion(demo: InMemoryUpstream) -> None:
    prompt = await ask(demo, "prompts/get", name="haiku", arguments={"topic": "rain"})
    assert prompt["messages"][0]["content"]["text"] == "Write a haiku about rain in English."
    assert "demo server" in (await ask(demo, "resources/read", uri="demo://about"))["contents"][0]["text"]
    greeting = await ask(demo, "resources/read", uri="demo://greeting/Ada")
    assert greeting["contents"] == [{"uri": "demo://greeting/Ada", "mimeType": "text/plain", "text": "Hello, Ada!"}]
    ref = {"type": "ref/prompt", "name": "haiku"}
    found = await ask(demo, "completion/complete", ref=ref, argument={"name": "language", "value": "g"})
    assert found["completion"]["values"] == ["German"]
    found = await ask(demo, "completion/complete", ref=ref, argument={"name": "topic", "value": "g"})
    assert found["completion"]["values"] == []


async def test_lists_may_be_cached_by_everybody(demo: InMemoryUpstream) -> None:
    listed = await ask(demo, "prompts/list")
    assert (listed["ttlMs"], listed["cacheScope"], listed["resultType"]) == (3_600_000, "public", "complete")
    assert len((await ask(demo, "resources/templates/list"))["resourceTemplates"]) == 1
    description = await demo.describe()
    assert json.loads(bytes(description.server_info))["name"] == "penstock-demo"
