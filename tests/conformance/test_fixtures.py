"""The fixtures where the suite cannot look at them directly: over stdio and HTTP+SSE, and how they ask and tell there."""

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.conformance.cells import LEGACY, MODERN, SERVERS
from tests.peers.environments import modern_python, plain_environment
from tests.peers.processes import Child, make_home

pytestmark = pytest.mark.conformance

SECONDS = 20.0
CAPABILITIES: dict[str, Any] = {"sampling": {}, "elicitation": {}, "roots": {}}
CLIENT = {"name": "test", "version": "1"}
ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": CLIENT,
    "io.modelcontextprotocol/clientCapabilities": CAPABILITIES,
}
METHODS = {"elicitation/create", "sampling/createMessage", "roots/list"}
THREE_QUESTIONS = "test_input_required_result_multiple_inputs"
ANSWERS: dict[str, dict[str, Any]] = {
    "elicitation/create": {"action": "accept", "content": {"name": "Ada"}},
    "sampling/createMessage": {"role": "assistant", "content": {"type": "text", "text": "Hello"}, "model": "none"},
    "roots/list": {"roots": []},
}


class Stdio:
    """A fixture over stdio, spoken to in plain messages."""

    def __init__(self, child: Child) -> None:
        self._child = child

    def send(self, **message: Any) -> None:
        self._child.write_line(json.dumps({"jsonrpc": "2.0", **message}))

    def read(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._child.read_line(SECONDS))
        return message

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a request, and read the one message that follows."""
        self.send(id=7, method=method, params=params)
        return self.read()

    def call(self, tool: str, **meta: Any) -> None:
        self.send(
            id=8, method="tools/call", params={"name": tool, "arguments": {}, **({"_meta": meta} if meta else {})}
        )

    def open_session(self) -> dict[str, Any]:
        said = self.ask("initialize", protocolVersion=LEGACY, capabilities=CAPABILITIES, clientInfo=CLIENT)
        self.send(method="notifications/initialized")
        return said


@pytest.fixture
def fixture(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stdio]:
    command = [modern_python(), "-m", "tests.peers.servers.conformance_server", request.param, "stdio"]
    with Child(f"the {request.param} server", command, plain_environment(make_home(tmp_path))) as child:
        yield Stdio(child)


@pytest.mark.parametrize("fixture", ["modern"], indirect=True)
def test_a_modern_server_over_stdio_refuses_initialize_with_its_versions_and_then_serves(fixture: Stdio) -> None:
    refused = fixture.open_session()["error"]
    assert (refused["code"], refused["data"]) == (-32022, {"supported": [MODERN], "requested": LEGACY})
    assert fixture.ask("tools/list")["error"]["code"] == -32602
    found = fixture.ask("server/discover", _meta=ENVELOPE)["result"]
    assert found["supportedVersions"] == [MODERN]
    assert found["capabilities"]["tools"] == {"listChanged": True}


@pytest.mark.parametrize("fixture", ["legacy"], indirect=True)
def test_a_legacy_server_over_stdio_does_not_know_server_discover_and_then_serves(fixture: Stdio) -> None:
    assert fixture.ask("server/discover", _meta=ENVELOPE)["error"]["code"] == -32601
    opened = fixture.open_session()["result"]
    assert opened["protocolVersion"] == LEGACY
    assert opened["capabilities"]["tools"] == {"listChanged": True}
    assert opened["capabilities"]["resources"] == {"listChanged": True, "subscribe": True}
    assert fixture.ask("tools/list", _meta=ENVELOPE)["result"]["tools"]


@pytest.mark.parametrize("fixture", ["dual"], indirect=True)
def test_a_dual_server_over_stdio_opens_in_either_era(fixture: Stdio) -> None:
    assert fixture.ask("server/discover", _meta=ENVELOPE)["result"]["supportedVersions"] == [MODERN]


@pytest.mark.parametrize("fixture", ["legacy"], indirect=True)
def test_a_legacy_server_asks_its_three_questions_at_once(fixture: Stdio) -> None:
    fixture.open_session()
    fixture.call(THREE_QUESTIONS)
    questions = [fixture.read() for _ in METHODS]
    assert {question["method"] for question in questions} == METHODS
    for question in reversed(questions):
        fixture.send(id=question["id"], result=ANSWERS[question["method"]])
    result = fixture.read()
    assert result["id"] == 8
    assert "Ada" in result["result"]["content"][0]["text"]


@pytest.mark.parametrize("fixture", ["legacy"], indirect=True)
def test_a_legacy_server_asks_in_two_rounds_and_hands_on_a_refusal(fixture: Stdio) -> None:
    fixture.open_session()
    fixture.call("test_input_required_result_multi_round")
    first = fixture.read()
    fixture.send(id=first["id"], result={"action": "accept", "content": {"name": "Ada"}})
    second = fixture.read()
    assert [said["params"]["message"][:6] for said in (first, second)] == ["Step 1", "Step 2"]
    fixture.send(id=second["id"], error={"code": -1, "message": "not now"})
    assert fixture.read()["error"] == {"code": -1, "message": "not now"}


@pytest.mark.parametrize("fixture", ["legacy"], indirect=True)
def test_a_legacy_server_asks_for_sampling_whatever_the_client_declared(fixture: Stdio) -> None:
    fixture.ask("initialize", protocolVersion=LEGACY, capabilities={}, clientInfo=CLIENT)
    fixture.send(method="notifications/initialized")
    fixture.call("test_missing_capability")
    assert fixture.read()["method"] == "sampling/createMessage"


@pytest.mark.parametrize("fixture", ["modern"], indirect=True)
@pytest.mark.parametrize("tool", ["test_sampling", "test_elicitation_sep1330_enums", "test_elicitation"])
def test_a_modern_server_asks_with_input_required_in_the_tools_of_the_legacy_suite(fixture: Stdio, tool: str) -> None:
    fixture.call(tool, **ENVELOPE)
    asked = fixture.read()["result"]
    assert asked["resultType"] == "input_required"
    assert len(asked["inputRequests"]) == 1


@pytest.mark.parametrize("fixture", ["legacy"], indirect=True)
def test_a_legacy_server_tells_its_sessions_of_changes_and_of_watched_resources(fixture: Stdio) -> None:
    fixture.open_session()
    for tool, expected in (
        ("test_trigger_tool_change", ["notifications/tools/list_changed", None]),
        ("test_trigger_prompt_change", ["notifications/prompts/list_changed", None]),
        ("test_trigger_resource_update", [None]),
    ):
        fixture.call(tool)
        assert [fixture.read().get("method") for _ in expected] == expected
    fixture.ask("resources/subscribe", uri="test://watched-resource")
    fixture.call("test_trigger_resource_update")
    assert fixture.read()["params"] == {"uri": "test://watched-resource"}


@pytest.mark.parametrize("fixture", ["modern"], indirect=True)
def test_a_modern_server_tells_a_listener_of_what_it_asked_for(fixture: Stdio) -> None:
    asked = {"toolsListChanged": True, "resourceSubscriptions": ["test://watched-resource"]}
    acknowledged = fixture.ask("subscriptions/listen", notifications=asked, _meta=ENVELOPE)
    assert acknowledged["params"]["notifications"] == asked
    for tool in ("test_trigger_prompt_change", "test_trigger_tool_change", "test_trigger_resource_update"):
        fixture.call(tool, **ENVELOPE)
    said = [fixture.read().get("method", "a result") for _ in range(5)]
    assert sorted(said) == ["a result"] * 3 + ["notifications/resources/updated", "notifications/tools/list_changed"]


@pytest.mark.parametrize("kind", SERVERS["sse"])
def test_a_server_over_http_and_sse_announces_where_to_post_to(kind: str, tmp_path: Path) -> None:
    command = [modern_python(), "-m", "tests.peers.servers.conformance_server", kind, "sse"]
    with Child(f"the {kind} server", command, plain_environment(make_home(tmp_path))) as child:
        where = urlsplit(child.read_line(SECONDS))
        assert where.path == "/sse"
        stream = http.client.HTTPConnection(where.netloc, timeout=SECONDS)
        stream.request("GET", where.path, headers={"accept": "text/event-stream"})
        answer = stream.getresponse()
        path = _next_event(answer, "endpoint")
        params = {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": CLIENT}
        message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
        post = http.client.HTTPConnection(where.netloc, timeout=SECONDS)
        post.request("POST", path, json.dumps(message), {"content-type": "application/json"})
        assert post.getresponse().status == 202
        assert json.loads(_next_event(answer, "message"))["result"]["protocolVersion"] == "2024-11-05"
        post.close()
        stream.close()


def _next_event(answer: http.client.HTTPResponse, name: str) -> str:
    """The text of the next event, which must be of that name."""
    lines = dict(line.split(": ", 1) for line in iter(lambda: answer.readline().decode().strip(), "") if ": " in line)
    assert lines["event"] == name
    return lines["data"]
