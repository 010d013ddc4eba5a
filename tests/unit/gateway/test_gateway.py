"""A new configuration takes the old one's place without dropping a call."""

import asyncio
import logging
from pathlib import Path

import pytest

from penstock.clock import FakeClock
from penstock.errors import ConfigError
from penstock.gateway.admittance import Admittance
from penstock.gateway.edges.head import HeadFacts
from penstock.gateway.gateway import ServerPlan
from penstock.gateway.snapshot import ViewSettings
from penstock.policies.deadline import DeadlineSettings
from penstock.upstreams.in_memory import InMemoryUpstream, Step
from tests.unit.gateway.conftest import Running, gateway_in, plan_of, until, weather_server

NOW = {"name": "weather_now", "arguments": {}}


class Opened:
    """Opens servers and remembers them."""

    def __init__(self) -> None:
        self.all: list[InMemoryUpstream] = []

    def __call__(self) -> InMemoryUpstream:
        self.all.append(InMemoryUpstream("weather", weather_server()))
        return self.all[-1]

    def plan(self, fingerprint: str = "f", idle: float = 60.0) -> dict[str, ServerPlan]:
        settings = {"fingerprint": fingerprint, "deadline": DeadlineSettings(idle)}
        return {"weather": plan_of("weather", self, **settings)}


async def test_what_is_unchanged_is_kept(empty: Running) -> None:
    opened = Opened()
    assert await empty.gateway.apply(opened.plan(), ()) == ["added weather"]
    await empty.listed()
    server = empty.gateway.context.snapshot.servers["weather"]
    assert await empty.gateway.apply(opened.plan(), ()) == []
    assert empty.gateway.context.snapshot.servers["weather"] is server
    assert len(opened.all) == 1


async def test_a_changed_timeout_keeps_the_server_open_and_its_calls_running(empty: Running) -> None:
    opened = Opened()
    await empty.gateway.apply(opened.plan(), ())
    await empty.listed()
    gate = asyncio.Event()
    opened.all[0].order(Step(wait_for=gate))
    calling = asyncio.create_task(empty.modern("tools/call", NOW))
    await until(lambda: empty.gateway.calls_in_flight == 1)
    assert await empty.gateway.apply(opened.plan(idle=5.0), ()) == ["changed weather"]
    server = empty.gateway.context.snapshot.servers["weather"]
    assert (server.upstream, server.settings.deadline.idle_seconds) == (opened.all[0], 5.0)
    assert server.state == "ready"
    assert empty.gateway.calls_in_flight == 1  # the old bound goes on watching its call
    second = await empty.modern("tools/call", NOW)
    assert "result" in second
    gate.set()
    assert "result" in await calling
    await until(lambda: len(empty.gateway._sweep._deadlines) == 1)


async def test_a_changed_target_opens_anew_and_closes_the_old_server_when_it_is_idle(empty: Running) -> None:
    opened = Opened()
    await empty.gateway.apply(opened.plan(), ())
    await empty.listed()
    gate = asyncio.Event()
    opened.all[0].order(Step(wait_for=gate))
    calling = asyncio.create_task(empty.modern("tools/call", NOW))
    await until(lambda: opened.all[0].in_flight == 1)
    assert await empty.gateway.apply(opened.plan("g"), ()) == ["changed weather"]
    await empty.listed()
    assert "result" in await empty.modern("tools/call", NOW)
    assert [len([call for call in one.calls if call.method == "tools/call"]) for one in opened.all] == [1, 1]
    assert not opened.all[0]._is_closed
    gate.set()
    assert "result" in await calling
    await until(lambda: opened.all[0]._is_closed)
    assert not opened.all[1]._is_closed
    await until(lambda: len(empty.gateway._sweep._deadlines) == 1)


async def test_a_removed_server_is_closed_even_if_a_call_never_ends(tmp_path: Path) -> None:
    clock = FakeClock()
    async with gateway_in(tmp_path, clock=clock) as it:
        opened = Opened()
        await it.gateway.apply(opened.plan(), ())
        await it.listed()
        gate = asyncio.Event()
        opened.all[0].order(Step(wait_for=gate))
        calling = asyncio.create_task(it.modern("tools/call", NOW))
        await until(lambda: opened.all[0].in_flight == 1)
        assert await it.gateway.apply({}, ()) == ["removed weather"]
        assert (await it.modern("tools/call", NOW))["error"]["message"] == "Unknown tool: weather_now"
        assert (await it.post("/mcp/weather", {})).status == 404
        await clock.advance(29.0)
        assert not opened.all[0]._is_closed
        await clock.advance(2.0)
        await until(lambda: opened.all[0]._is_closed)
        gate.set()
        assert "result" in await calling


async def test_a_call_begun_under_an_earlier_timeout_is_waited_for_when_its_server_is_removed(empty: Running) -> None:
    opened = Opened()
    await empty.gateway.apply(opened.plan(), ())
    await empty.listed()
    gate = asyncio.Event()
    opened.all[0].order(Step(wait_for=gate))
    calling = asyncio.create_task(empty.modern("tools/call", NOW))
    await until(lambda: empty.gateway.calls_in_flight == 1)
    for idle in (5.0, 6.0, 7.0):
        await empty.gateway.apply(opened.plan(idle=idle), ())
    assert empty.gateway.context.snapshot.servers["weather"].in_flight == 1
    await empty.gateway.apply({}, ())
    await asyncio.gather(*(asyncio.sleep(0) for _ in range(10)))
    assert not opened.all[0]._is_closed
    gate.set()
    assert "result" in await calling
    await until(lambda: opened.all[0]._is_closed)
    await until(lambda: not empty.gateway._sweep._deadlines)


async def test_when_one_server_cannot_be_opened_nothing_changes(empty: Running) -> None:
    opened, other = Opened(), Opened()

    def refuse() -> InMemoryUpstream:
        raise ConfigError("odd", key="servers.last.url")

    await empty.gateway.apply(opened.plan(), ())
    await empty.listed()
    server = empty.gateway.context.snapshot.servers["weather"]
    plans = {**opened.plan(idle=5.0), "new": plan_of("new", other), "last": plan_of("last", refuse)}
    with pytest.raises(ConfigError, match=r"servers\.last\.url: odd"):
        await empty.gateway.apply(plans, ())
    assert dict(empty.gateway.context.snapshot.servers) == {"weather": server}
    assert len(empty.gateway._sweep._deadlines) == 1
    await until(lambda: other.all[0]._is_closed)
    assert not opened.all[0]._is_closed
    assert "result" in await empty.modern("tools/call", NOW)


async def test_views_come_and_go(running: Running) -> None:
    assert (await running.post("/mcp/some", {})).status == 404
    plans = {"weather": plan_of("weather", lambda: InMemoryUpstream("weather", weather_server()))}
    views = [ViewSettings("some", ("weather",))]
    assert await running.gateway.apply(plans, views) == ["views changed"]
    generation = running.gateway.context.snapshot.generation
    assert (await running.modern("tools/list", path="/mcp/some"))["status"] == 200
    assert await running.gateway.apply(plans, []) == ["views changed"]
    assert (await running.post("/mcp/some", {})).status == 404
    assert running.gateway.context.snapshot.generation > generation


async def test_after_a_restart_lists_are_there_at_once_though_the_server_is_not(tmp_path: Path) -> None:
    opened = Opened()
    async with gateway_in(tmp_path) as first:
        await first.gateway.apply(opened.plan(), ())
        await first.listed()
        await until(lambda: not first.gateway.catalogue._tasks)
    slow = InMemoryUpstream("weather", weather_server())
    slow.every_call = Step(wait_for=asyncio.Event())
    async with gateway_in(tmp_path) as second:
        await second.gateway.apply({"weather": plan_of("weather", lambda: slow, fingerprint="f")}, ())
        answer = await asyncio.wait_for(second.modern("tools/list"), 2)
        assert len(answer["result"]["tools"]) == 2
        assert second.gateway.context.snapshot.servers["weather"].is_stale
    async with gateway_in(tmp_path) as third:
        await third.gateway.apply({"weather": plan_of("weather", lambda: slow, fingerprint="other")}, ())
        assert third.gateway.context.snapshot.servers["weather"].listing is None


async def test_a_list_grows_old_and_its_ttl_goes_down(tmp_path: Path) -> None:
    clock = FakeClock()
    async with gateway_in(tmp_path, clock=clock) as it:
        server = weather_server()
        server.ttl_ms = 60_000
        await it.apply({"weather": lambda: InMemoryUpstream("weather", server)})
        await it.listed()
        ttls = []
        for seconds in (0.0, 20.0, 39.0):
            await clock.advance(seconds)
            ttls.append((await it.modern("tools/list"))["result"]["ttlMs"])
        assert ttls == [60_000, 40_000, 1_000]
        await clock.advance(2.0)
        assert (await it.modern("tools/list"))["result"]["ttlMs"] == 0
        await until(lambda: it.gateway.context.snapshot.servers["weather"].refreshing is None)
        assert (await it.modern("tools/list"))["result"]["ttlMs"] == 60_000


async def test_many_changes_of_one_moment_make_one_snapshot(empty: Running) -> None:
    await empty.apply({})
    generation = empty.gateway.context.snapshot.generation
    for _ in range(3):
        empty.gateway._mark_dirty()
    await asyncio.sleep(0)
    assert empty.gateway.context.snapshot.generation == generation + 1
    empty.gateway.settle()
    assert empty.gateway.context.snapshot.generation == generation + 1


async def test_work_behind_the_calls_that_fails_is_reported(empty: Running, caplog: pytest.LogCaptureFixture) -> None:
    async def fails() -> None:
        raise OSError("odd")

    caplog.set_level(logging.WARNING)
    empty.gateway.in_background(fails())
    await until(lambda: "work in the background failed: odd" in caplog.text)
    assert repr(empty.gateway).startswith("<Gateway <Snapshot ")
    assert repr(empty.gateway.context).startswith("<GatewayContext <Snapshot ")


async def test_a_call_over_its_time_is_refused_and_its_server_told_to_stop(empty: Running) -> None:
    opened = Opened()
    await empty.gateway.apply(opened.plan(idle=0.01), ())
    await empty.listed()
    opened.all[0].every_call = Step(wait_for=asyncio.Event())
    modern, legacy = await asyncio.gather(empty.modern("tools/call", NOW), empty.legacy("tools/call", NOW))
    assert (modern["status"], legacy["status"]) == (504, 200)
    for answer in (modern, legacy):
        assert answer["error"]["code"] == 504
        assert "raise servers.weather.timeout" in answer["error"]["message"]
        assert answer["error"]["data"]["reason"] == "deadline_exceeded"
    assert len(opened.all[0].cancelled) == 2


async def test_repr_shows_what_there_is(running: Running) -> None:
    await running.listed()
    view = running.gateway.context.snapshot.endpoints["/mcp"]
    assert repr(view) == ("<View (all) 1 servers | 0 completion/complete 2 tools/call 1 prompts/get 1 resources/read>")
    assert repr(view.routes["tools/call"]["weather_now"]) == "<Route tools/call weather now>"
    assert repr(view.lists["tools/list"]) == "<PreparedList all tools/list 2 items>"
    assert repr(running.worker).startswith("<Worker <Snapshot ")
    assert repr(HeadFacts({}, Admittance())) == "<HeadFacts no version>"
    assert repr(running.worker._legacy).startswith("<LegacyEdge <Sessions ")
