"""What operators ask of a running gateway."""

import json
import re
from typing import Any

import pytest

from penstock.control.worker_pages import Refusal
from penstock.errors import NeedsAuthorization, ServerUnavailable
from penstock.upstreams.in_memory import CallContext, Step
from tests.unit.control.conftest import Controlled


async def test_servers_are_shown_with_state_counts_and_eras(controlled: Controlled) -> None:
    status, answer = await controlled.get("/api/v1/servers")
    assert status == 200
    assert [row["name"] for row in answer["servers"]] == ["weather", "second", "off"]
    row = answer["servers"][0]
    listed_at = row.pop("listed_at")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", listed_at)
    assert row == {
        "name": "weather",
        "state": "ready",
        "transport": "built-in",
        "target": "weather",
        "eras": ["modern"],
        "tools": 2,
        "prompts": 1,
        "resources": 1,
        "templates": 1,
        "error": None,
        "stale": False,
        "detail": controlled.upstreams["weather"].state(),
    }
    assert answer["servers"][2]["state"] == "disabled"
    assert answer["servers"][2]["target"] == "http://off/"
    assert set(answer["servers"][2]) == {*row, "listed_at"}
    assert answer["duplicates"] == [
        "resources 'weather://map': 'weather' is used, 'second' is not",
        "resourceTemplates 'weather://city/{name}': 'weather' is used, 'second' is not",
    ]
    assert answer["generation"] == controlled.running.gateway.context.snapshot.generation


async def test_a_server_that_fails_shows_why(controlled: Controlled) -> None:
    gateway = controlled.running.gateway
    controlled.upstreams["weather"].every_call = Step(error=NeedsAuthorization("weather", "answered 401"))
    await gateway.catalogue.refresh(gateway.context.snapshot.servers["weather"])
    _, answer = await controlled.get("/api/v1/servers")
    row = answer["servers"][0]
    assert (row["state"], row["error"], row["tools"]) == ("needs authorization", "server 'weather': answered 401", 2)
    assert (await controlled.get("/health/detailed"))[1]["status"] == "degraded"


async def test_whoever_looks_at_servers_that_failed_has_them_asked_again_but_not_at_once(
    controlled: Controlled,
) -> None:
    gateway, upstream = controlled.running.gateway, controlled.upstreams["weather"]
    host = gateway.context.snapshot.servers["weather"]
    upstream.every_call = Step(error=ServerUnavailable("weather", "it is down"))
    await gateway.catalogue.refresh(host)
    upstream.every_call = Step()
    host.attempts_failed = len(
        gateway.catalogue.RETRY_SECONDS
    )  # the gateway itself asks again in a minute, and not meanwhile
    _, answer = await controlled.get("/api/v1/servers?ask_failed=1")
    assert answer["servers"][0]["state"] == "failed", "it was asked a moment ago"
    host.checked_at -= 2.0
    assert (await controlled.get("/api/v1/servers"))[1]["servers"][0]["state"] == "failed", "nobody wants to know"
    _, answer = await controlled.get("/api/v1/servers?ask_failed=1")
    assert (answer["servers"][0]["state"], answer["servers"][0]["error"]) == ("ready", None)


async def test_a_configuration_that_was_refused_is_shown_until_one_is_taken_up(controlled: Controlled) -> None:
    controlled.refused = Refusal("penstock.toml:3: odd", 0.0)
    wanted = {"taken_up": False, "refused_at": "1970-01-01T00:00:00+00:00", "error": "penstock.toml:3: odd"}
    assert (await controlled.get("/api/v1/servers"))[1]["configuration"] == wanted
    health = (await controlled.get("/health/detailed"))[1]
    assert (health["status"], health["configuration"]) == ("degraded", wanted)
    controlled.refused = None
    assert (await controlled.get("/api/v1/servers"))[1]["configuration"] == {"taken_up": True}


async def test_a_server_never_listed_has_no_counts_and_no_tools(controlled: Controlled) -> None:
    controlled.running.gateway.context.snapshot.servers["weather"].listing = None
    _, answer = await controlled.get("/api/v1/servers")
    assert (answer["servers"][0]["listed_at"], answer["servers"][0]["tools"]) == (None, 0)
    _, answer = await controlled.get("/api/v1/tools")
    shown = {tool["name"]: tool["description"] for tool in answer["tools"]}
    assert (shown["weather_now"], shown["second_now"]) == (None, "The weather now")


@pytest.mark.parametrize(
    ("query", "lines", "cursor"),
    [
        ("", ["line 1", "line 2", "line 3", "line 4", "line 5"], 5),
        ("?lines=2", ["line 4", "line 5"], 5),
        ("?lines=0", [], 5),
        ("?after=3", ["line 4", "line 5"], 5),
        ("?after=5", [], 5),
        ("?after=9&lines=2", [], 5),
    ],
)
async def test_a_log_is_read_from_its_end_or_after_a_cursor(
    controlled: Controlled, query: str, lines: list[str], cursor: int
) -> None:
    wanted = {"lines": lines, "cursor": cursor, "transport": "built-in"}
    assert await controlled.get(f"/api/v1/servers/weather/log{query}") == (200, wanted)


async def test_a_long_log_goes_on_after_its_cursor(controlled: Controlled) -> None:
    upstream = controlled.upstreams["weather"]
    upstream.written = [f"line {number}" for number in range(5_000)]
    _, answer = await controlled.get("/api/v1/servers/weather/log?lines=5000")
    assert (len(answer["lines"]), answer["cursor"]) == (1_000, 5_000)
    upstream.written.append("the newest")
    _, answer = await controlled.get("/api/v1/servers/weather/log?after=5000")
    assert (answer["lines"], answer["cursor"]) == (["the newest"], 5_001)
    upstream.counts = False
    _, answer = await controlled.get("/api/v1/servers/weather/log?lines=1")
    assert (answer["lines"], answer["cursor"]) == (["the newest"], 1_000)


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/api/v1/servers/nobody/log", 404, "there is no server 'nobody'; 'penstock list' shows those there are"),
        ("/api/v1/servers/off/log", 404, "server 'off' is disabled; 'penstock enable off' switches it on"),
        ("/api/v1/servers/%C3%A9/log", 404, "there is no server 'é'; 'penstock list' shows those there are"),
        ("/api/v1/servers/weather/log?after=x", 400, "a query parameter is no number"),
        ("/api/v1/servers/weather/log?lines=x", 400, "a query parameter is no number"),
        ("/api/v1/servers/weather", 404, "not found"),
        ("/", 404, "not found"),
    ],
)
async def test_what_is_not_there_or_malformed_says_so(
    controlled: Controlled, path: str, status: int, error: str
) -> None:
    answered, body = await controlled.get(path)
    assert answered == status
    assert body["error"].startswith(error)


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", ["weather_forecast", "weather_now", "second_forecast", "second_now"]),
        ("?q=FORECAST", ["weather_forecast", "second_forecast"]),
        ("?q=weather%20now", ["weather_now", "second_now"]),
        ("?q=second_", ["second_forecast", "second_now"]),
        ("?q=nothing", []),
    ],
)
async def test_tools_are_found_by_all_words_of_a_query(controlled: Controlled, query: str, names: list[str]) -> None:
    status, answer = await controlled.get(f"/api/v1/tools{query}")
    assert (status, [tool["name"] for tool in answer["tools"]]) == (200, names)


async def test_a_tool_is_shown_with_its_schema_and_own_name(controlled: Controlled) -> None:
    _, answer = await controlled.get("/api/v1/tools?q=weather_forecast")
    assert answer["tools"] == [
        {
            "name": "weather_forecast",
            "server": "weather",
            "own_name": "forecast",
            "title": None,
            "description": "The forecast",
            "input_schema": {"type": "object"},
        }
    ]


async def test_a_reload_tells_what_it_did(controlled: Controlled) -> None:
    response = await controlled.ask("POST", "/api/v1/reload", b"{}", content_type="application/json")
    assert (response.status, json.loads(response.body)) == (200, {"generation": 8, "changes": ["added new"]})
    controlled.refusal = "servers.x.url: odd"
    response = await controlled.ask("POST", "/api/v1/reload", b"{}", content_type="application/json; charset=utf-8")
    assert (response.status, json.loads(response.body)) == (422, {"error": "penstock.toml:3: servers.x.url: odd"})


@pytest.mark.parametrize(
    ("method", "content_type"),
    [("GET", "application/json"), ("POST", "text/plain"), ("POST", "application/x-www-form-urlencoded")],
)
async def test_no_page_can_reload_behind_a_users_back(controlled: Controlled, method: str, content_type: str) -> None:
    response = await controlled.ask(method, "/api/v1/reload", b"{}", content_type=content_type)
    assert response.status == 405
    foreign = await controlled.ask(
        "POST", "/api/v1/reload", b"{}", content_type="application/json", origin="https://evil.example"
    )
    assert foreign.status == 403
    assert controlled.reloads == 0


async def test_only_reading_is_allowed_elsewhere_and_only_to_known_hosts(controlled: Controlled) -> None:
    assert (await controlled.ask("POST", "/api/v1/servers")).status == 405
    assert (await controlled.ask("HEAD", "/health/detailed")).status == 200
    line_host = Controlled(controlled.running, controlled.upstreams).admin
    assert repr(line_host).startswith("<Admin of <Gateway ")
    assert line_host._admittance.refusal({b"host": b"evil.example"}) is not None
    assert line_host._admittance.refusal({b"host": b"admin.example"}) is None


async def test_health_is_told_in_detail(controlled: Controlled) -> None:
    _, answer = await controlled.get("/health/detailed")
    generation = controlled.running.gateway.context.snapshot.generation
    assert answer == {
        "status": "ok",
        "generation": generation,
        "configuration": {"taken_up": True},
        "workers": {"configured": 1, "answering": 1},
        "servers": {"weather": "ready", "second": "ready"},
        "calls_in_flight": 0,
        "sessions": 0,
    }


async def test_metrics_name_at_most_a_thousand_tools(controlled: Controlled) -> None:
    running, server = controlled.running, controlled.upstreams["weather"].server

    def add(number: int) -> None:
        @server.tool(f"tool{number}", input_schema={"type": "object"})
        async def answer(_arguments: dict[str, Any], _context: CallContext) -> str:
            return "x"

    for number in range(1_005):
        add(number)
    await running.gateway.catalogue.refresh(running.gateway.context.snapshot.servers["weather"])
    running.gateway.settle()
    for number in (0, 1_003, 1_004):
        answer = await running.modern("tools/call", {"name": f"weather_tool{number}", "arguments": {}})
        assert "result" in answer
    await running.modern("tools/call", {"name": "weather_made_up", "arguments": {}})
    response = await controlled.ask("GET", "/metrics")
    assert response.headers[b"content-type"].startswith(b"text/plain; version=0.0.4")
    page = response.body.decode()
    counted = dict(re.findall(r'penstock_calls_total\{.*outcome="ok".*tool="([^"]*)"\} (\S+)', page))
    assert counted == {"tool0": "1.0", "other": "2.0"}
    assert "made_up" not in page
    assert "penstock_generation 7.0" in page
