"""Why a tool is where it is."""

import re
from typing import Any

import pytest

from penstock.errors import ServerUnavailable
from penstock.gateway.snapshot import ViewSettings
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Failure
from penstock.upstreams.in_memory import Step
from tests.unit.control.conftest import Chatty, Controlled


async def explain(controlled: Controlled, tool: str) -> tuple[int, Any]:
    return await controlled.get(f"/api/v1/explain?tool={tool}")


async def test_a_tool_is_explained_from_its_name_to_its_costs(controlled: Controlled) -> None:
    await controlled.running.modern("tools/call", {"name": "weather_now", "arguments": {}})
    status, found = await explain(controlled, "weather_now")
    assert status == 200
    assert (found["tool"], found["own_name"], found["server"], found["state"]) == (
        "weather_now",
        "now",
        "weather",
        "ready",
    )
    assert found["endpoints"] == {"/mcp": "weather_now", "/mcp/weather": "now"}
    assert found["deadline"] == {"without_progress_seconds": 60.0, "in_all_seconds": 900.0}
    assert found["eras"] == {"server": ["modern"], "modern_client": "modern", "legacy_client": "modern"}
    assert found["calls"]["outcomes"] == {"ok": 1}
    assert found["calls"]["overhead_ms"]["p50"] > 0
    assert found["list_is_stale"] is False
    assert found["last_error"] == ""


async def test_the_era_spoken_for_each_client_is_told_and_what_is_not_known_yet(controlled: Controlled) -> None:
    class Both(Chatty):
        def state(self) -> dict[str, Any]:
            return super().state() | {
                "eras": ["modern", "legacy"],
                "spoken_with": {"modern": "modern", "legacy": None},
            }

    controlled.upstreams["weather"].__class__ = Both
    _, found = await explain(controlled, "weather_now")
    assert found["eras"] == {
        "server": ["modern", "legacy"],
        "modern_client": "modern",
        "legacy_client": "not known yet: the server is asked at the first such call",
    }


async def test_every_view_that_has_the_tool_is_told(controlled: Controlled) -> None:
    running, (name, upstream) = controlled.running, next(iter(controlled.upstreams.items()))
    views = [ViewSettings("some", (name,), (), ()), ViewSettings("none", (name,), ("*_zzz",), ())]
    await running.apply({name: lambda: upstream}, *views)
    found = (await explain(controlled, "weather_now"))[1]["endpoints"]
    assert found == {"/mcp": "weather_now", "/mcp/weather": "now", "/mcp/some": "weather_now"}


async def test_the_last_error_is_the_listings_or_else_a_calls(controlled: Controlled) -> None:
    upstream, gateway = controlled.upstreams["weather"], controlled.running.gateway
    upstream.order(Step(error=ServerUnavailable("weather", "a call failed")))
    await controlled.running.modern("tools/call", {"name": "weather_now", "arguments": {}})
    said = (await explain(controlled, "weather_now"))[1]["last_error"]
    assert re.fullmatch(r"\d s ago: server 'weather': a call failed", said)
    upstream.every_call = Step(error=ServerUnavailable("weather", "listing failed"))
    server = gateway.context.snapshot.servers["weather"]
    await gateway.catalogue.refresh(server)
    server.is_stale = True
    _, found = await explain(controlled, "weather_now")
    assert (found["last_error"], found["state"], found["list_is_stale"]) == (
        "server 'weather': listing failed",
        "failed",
        True,
    )


async def test_a_bare_name_will_do_when_it_is_unique(controlled: Controlled) -> None:
    status, refused = await explain(controlled, "now")
    assert (status, refused["error"]) == (404, "no tool is named 'now'; near: weather_now, second_now")
    controlled.upstreams["second"].server.remove_tool("now")
    gateway = controlled.running.gateway
    await gateway.catalogue.refresh(gateway.context.snapshot.servers["second"])
    gateway.settle()
    assert (await explain(controlled, "now"))[1]["tool"] == "weather_now"


@pytest.mark.parametrize(
    ("tool", "error"),
    [
        ("", "no tool is named ''"),
        ("xyz", "no tool is named 'xyz'"),
        ("weather_nwo", "no tool is named 'weather_nwo'; near: weather_now, weather_forecast"),
    ],
)
async def test_an_unknown_tool_is_said_to_be_one(controlled: Controlled, tool: str, error: str) -> None:
    assert await explain(controlled, tool) == (404, {"error": error})


async def test_a_tool_that_a_server_may_have_which_is_down_is_said_to_be_that(controlled: Controlled) -> None:
    server = controlled.running.gateway.context.snapshot.servers["weather"]
    assert "is failed" not in (await explain(controlled, "weather_zzz"))[1]["error"]
    server.failure, server.listing = ServerUnavailable("weather", "it is down"), None
    status, found = await explain(controlled, "weather_zzz")
    assert status == 404
    assert "server 'weather' is failed: it is down" in found["error"]
    assert "weather" not in (await explain(controlled, "other_zzz"))[1]["error"]


async def test_an_error_of_the_servers_own_is_a_last_error_too_and_is_cut(controlled: Controlled) -> None:
    controlled.upstreams["weather"].order(Step(answer=Failure(-32000, "x" * 9000, None, Era.MODERN)))
    await controlled.running.modern("tools/call", {"name": "weather_now", "arguments": {}})
    said = (await explain(controlled, "weather_now"))[1]["last_error"]
    assert re.fullmatch(r"\d s ago: x{500}", said)


async def test_an_error_of_a_server_is_told_with_its_age(controlled: Controlled) -> None:
    class Mended(Chatty):
        def state(self) -> dict[str, Any]:
            now = controlled.running.gateway.context.clock.wall()
            return super().state() | {"last_error": "cannot connect", "last_error_at": now - 90}

    controlled.upstreams["weather"].__class__ = Mended
    assert (await explain(controlled, "weather_now"))[1]["last_error"] == "90 s ago: cannot connect"
