"""`penstock call`, against a gateway that answers as told."""

import io
import json
import sys
from typing import Any

import pytest

from tests.unit.cli.conftest import Run
from tests.unit.cli.fake_gateway import FakeGateway

FORECAST = {
    "name": "web_forecast",
    "inputSchema": {
        "type": "object",
        "properties": {
            "city": {"type": "string", "x-mcp-header": "city"},
            "days": {"type": "integer"},
            "tags": {"type": "array", "items": {"type": "integer"}},
        },
        "additionalProperties": False,
    },
}


def text(*lines: str, **more: Any) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": line} for line in lines], "resultType": "complete", **more}


@pytest.fixture
def forecast(gateway: FakeGateway) -> FakeGateway:
    gateway.tools = [FORECAST, {"name": "a_ping"}, {"name": "b_ping"}, {"name": "b_nested_name"}]
    return gateway


def test_a_call_prints_the_text(forecast: FakeGateway, run: Run) -> None:
    forecast.results = [text("sunny", "warm")]
    assert run("call", "web_forecast", "city=Oslo", "days=3") == (0, "sunny\nwarm\n", "")
    headers, body = forecast.calls[0]
    assert body["params"]["name"] == "web_forecast"
    assert body["params"]["arguments"] == {"city": "Oslo", "days": 3}
    assert (headers["mcp-method"], headers["mcp-name"], headers["mcp-param-city"]) == (
        "tools/call",
        "web_forecast",
        "Oslo",
    )
    assert headers["mcp-protocol-version"] == "2026-07-28"


def test_a_bare_name_is_enough_when_only_one_server_has_it(forecast: FakeGateway, run: Run) -> None:
    forecast.results = [text("x"), text("y")]
    assert run("call", "forecast").code == 0
    assert run("call", "nested_name").code == 0
    assert [body["params"]["name"] for _, body in forecast.calls] == ["web_forecast", "b_nested_name"]


USAGE = [
    (("ping",), "several servers have a tool 'ping'; name one: a_ping, b_ping"),
    (("forcast",), "there is no tool 'forcast'; did you mean 'forecast'?"),
    (("zzz",), "there is no tool 'zzz'; 'penstock tools' lists them"),
    (("forecast", "days=x"), "argument 'days' expects a whole number, got 'x'"),
    (("forecast", "dais=1"), "the tool has no argument 'dais'; did you mean 'days'?"),
    (("forecast", "oops"), "expected key=value or key:=JSON, got 'oops'"),
    (("forecast", "days:={"), "argument 'days' expects JSON behind ':=', got '{'"),
    (("forecast", "days=1", "days=2"), "'days' is given twice"),
    (("forecast", "--arguments", "{"), "the arguments are not JSON: "),
    (("forecast", "--arguments", "[]"), "expected the arguments as a JSON object"),
    (("forecast", "-", "--json", "{}"), "expected arguments from stdin or from --json, got both"),
]


def test_a_server_that_is_down_is_named_when_its_tool_is_called(forecast: FakeGateway, run: Run) -> None:
    rows = [{"name": "web", "state": "ready"}, {"name": "down", "state": "failed", "error": "server 'down': it ended"}]
    forecast.answers["/api/v1/servers"] = (200, {"servers": rows})
    said = run("call", "down_forecast")
    assert (said.code, said.err) == (2, "penstock: there is no tool 'down_forecast' now; down: failed: it ended\n")
    assert run("call", "web_forcast").err.endswith("did you mean 'web_forecast'?\n")
    del forecast.answers["/api/v1/servers"]
    assert run("call", "down_forecast").err.startswith("penstock: there is no tool 'down_forecast'; did you mean")


@pytest.mark.parametrize(("words", "message"), USAGE)
def test_usage_errors_end_with_2(words: tuple[str, ...], message: str, forecast: FakeGateway, run: Run) -> None:
    said = run("call", *words)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(f"penstock: {message}")
    assert forecast.calls == []


@pytest.mark.parametrize(
    "words",
    [("--json", '{"days": 2}'), ('--json={"days": 2}',), ("days:=2",), ("days=2",), ("-",), ("--json", "{}", "days=2")],
)
def test_arguments_come_in_every_form(
    words: tuple[str, ...], forecast: FakeGateway, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"days": 2}'))
    forecast.results = [text("x")]
    assert run("call", "forecast", *words).code == 0
    assert forecast.calls[0][1]["params"]["arguments"] == {"days": 2}


def test_json_alone_prints_the_raw_result(forecast: FakeGateway, run: Run) -> None:
    forecast.results = [text("x", _meta={"k": 1})]
    assert json.loads(run("call", "forecast", "tags=1", "tags=2", "--json").out)["_meta"] == {"k": 1}
    assert forecast.calls[0][1]["params"]["arguments"] == {"tags": [1, 2]}


def test_a_failing_tool_ends_with_1(forecast: FakeGateway, run: Run) -> None:
    forecast.results = [text("no such city", isError=True)]
    assert run("call", "forecast") == (1, "no such city\n", "")


def test_a_refusal_ends_with_3(forecast: FakeGateway, run: Run) -> None:
    forecast.results = [{"error": {"code": 503, "message": "server 'web': it cannot be reached"}}]
    assert run("call", "forecast") == (3, "", "penstock: server 'web': it cannot be reached\n")


def test_without_a_gateway_it_ends_with_4(run: Run) -> None:
    said = run("call", "x")
    assert said == (4, "", "penstock: No running gateway was found; start one with 'penstock serve'.\n")


def test_a_gateway_that_does_not_answer_ends_with_4(gateway: FakeGateway, run: Run) -> None:
    gateway.close()
    said = run("call", "x")
    assert said.code == 4
    assert "does not answer" in said.err


def test_what_is_no_mcp_endpoint_is_said_to_be_none(gateway: FakeGateway, run: Run) -> None:
    said = run("call", "x", "--gateway", f"{gateway.url}/elsewhere")
    assert said.code == 3
    assert "is not an MCP endpoint" in said.err


def test_progress_goes_to_stderr(forecast: FakeGateway, run: Run) -> None:
    forecast.notifications = [
        {
            "method": "notifications/progress",
            "params": {"progressToken": 1, "progress": 1, "total": 2, "message": "half"},
        },
        {"method": "notifications/progress", "params": {"progressToken": 1, "progress": 2}},
        {"method": "notifications/message", "params": {"level": "info", "data": "x"}},
    ]
    forecast.results = [text("done")]
    assert run("call", "forecast") == (0, "done\n", "1/2 half\n2\n")


def test_content_that_is_no_text_is_described(forecast: FakeGateway, run: Run) -> None:
    content = [
        {"type": "image", "mimeType": "image/png", "data": "AAAA"},
        {"type": "audio", "mimeType": "audio/wav", "data": "A" * 40_000},
        {"type": "resource_link", "uri": "a://b", "name": "n"},
        {"type": "resource", "resource": {"uri": "a://c", "text": "inside"}},
        {"type": "resource", "resource": {"uri": "a://d", "mimeType": "x/y", "blob": "AAAA"}},
        {"type": "new"},
    ]
    forecast.results = [{"content": content}, {"structuredContent": {"a": 1}, "content": []}]
    assert run("call", "forecast").out.splitlines() == [
        "[image image/png, 3 bytes]",
        "[audio audio/wav, 29 KiB]",
        "[link a://b n]",
        "inside",
        "[resource a://d x/y, 3 bytes]",
        "[new]",
    ]
    assert json.loads(run("call", "forecast").out) == {"a": 1}


ASKING = {
    "resultType": "input_required",
    "requestState": "s1",
    "inputRequests": {"q": {"method": "elicitation/create", "params": {"message": "Sure?", "requestedSchema": {}}}},
}


def test_without_a_terminal_a_question_is_refused(forecast: FakeGateway, run: Run) -> None:
    forecast.results = [ASKING]
    assert run("call", "forecast") == (
        3,
        "",
        "penstock: the tool asks: Sure?; run the command in a terminal to answer\n",
    )
    assert forecast.calls[0][1]["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] == {}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_a_question_is_asked_and_the_call_goes_on(
    forecast: FakeGateway, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    monkeypatch.setattr(sys, "stderr", Terminal())
    forecast.results = [ASKING, {"resultType": "input_required", "requestState": "s2"}, text("done")]
    assert run("call", "forecast").out == "done\n"
    second, third = forecast.calls[1][1]["params"], forecast.calls[2][1]["params"]
    assert (second["requestState"], second["inputResponses"]) == ("s1", {"q": {"action": "accept", "content": {}}})
    assert third["requestState"] == "s2"
    assert "inputResponses" not in third
    assert [body["id"] for _, body in forecast.calls] == [2, 3, 4]


def test_a_tool_that_asks_for_ever_is_given_up(forecast: FakeGateway, run: Run) -> None:
    forecast.results = [{"resultType": "input_required", "requestState": "s"}] * 20
    said = run("call", "forecast")
    assert (said.code, said.err) == (3, "penstock: the tool asked back more than 20 times\n")
