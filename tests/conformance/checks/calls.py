"""Checks of calls.toml: progress, log lines, cancelling, pings."""

from typing import Any

from tests.conformance.checking import check
from tests.conformance.checks.subscriptions import TOOLS_CHANGED, changed, hear
from tests.conformance.checks.transport import any_headers
from tests.conformance.meanwhile import meanwhile
from tests.conformance.scene import META, Scene

PROGRESS = "notifications/progress"
LOG = "notifications/message"


def progress(scene: Scene, token: Any) -> list[dict[str, Any]]:
    """The parameters of what a call reports."""
    reply = scene.call("test_tool_with_progress", meta={"progressToken": token}).read()
    return [said["params"] for said in reply.seen if said.get("method") == PROGRESS]


@check("progress-has-the-clients-token")
def progress_has_the_clients_token(scene: Scene) -> None:
    for token in ("a-token", 77, "77", 0):
        tokens = [told["progressToken"] for told in progress(scene, token)]
        assert tokens, tokens
        assert all(said == token and type(said) is type(token) for said in tokens), tokens


@check("progress-is-asked-for")
def without_a_token_there_is_no_progress(scene: Scene) -> None:
    reply = scene.call("test_tool_with_progress").read()
    assert [sorted(said) for said in reply.seen] == [["id", "jsonrpc", "result"]], reply


@check("progress-increases")
def progress_increases(scene: Scene) -> None:
    values = [told["progress"] for told in progress(scene, "up")]
    assert values == [0, 50, 100], values


@check("progress-stops-with-the-answer")
def progress_stops_with_the_answer(scene: Scene) -> None:
    reply = scene.call("test_tool_with_progress", meta={"progressToken": "stop"}).read()
    assert "result" in reply.seen[-1], reply
    assert len(reply.seen) == 4, reply


@check("progress-is-whole")
def progress_keeps_its_total_and_words(scene: Scene) -> None:
    told = progress(scene, "whole")
    assert [(said["total"], said["message"]) for said in told] == [
        (100, f"Completed step {step} of 100") for step in (0, 50, 100)
    ]


@check("tokens-to-servers-are-unique", back=True)
def tokens_to_a_server_are_unique(scene: Scene) -> None:
    if not scene.is_modern:
        scene.session()
    scene.hold("tools/call")
    ask = lambda: scene.call("test_tool_with_progress", meta={"progressToken": "same"})  # noqa: E731
    with meanwhile(ask) as one, meanwhile(ask) as two:
        scene.sent_when(lambda _: len(_calls(scene)) == 2)
        calls = _calls(scene)
        scene.hold(None)
        tokens = [
            (note.headers.get("mcp-session-id"), note.message["params"]["_meta"]["progressToken"]) for note in calls
        ]
        assert len(set(tokens)) == 2, tokens
        for asking in (one, two):
            said = [told["params"]["progressToken"] for told in asking.reply().read().seen if "method" in told]
            assert said == ["same"] * 3, said


def _calls(scene: Scene) -> list[Any]:
    return [note for note in scene.sent if note.method == "tools/call"]


@check("logs-are-asked-for")
def without_a_level_there_are_no_log_lines(scene: Scene) -> None:
    reply = scene.call("test_tool_with_logging").read()
    assert not [said for said in reply.seen if said.get("method") == LOG], reply


@check("logs-are-of-the-level-asked-for")
def log_lines_are_of_the_level_asked_for(scene: Scene) -> None:
    for level, count in (("info", 3), ("warning", 0)):
        reply = scene.call("test_tool_with_logging", meta={f"{META}logLevel": level}).read()
        told = [said["params"]["level"] for said in reply.seen if said.get("method") == LOG]
        assert told == ["info"] * count, reply
        assert "result" in reply.seen[-1], reply


@check("logs-stay-on-their-stream", changes=True)
def log_lines_stay_on_their_stream(scene: Scene) -> None:
    with scene.listen(toolsListChanged=True) as stream:
        stream.next()
        scene.call("test_tool_with_logging", meta={f"{META}logLevel": "debug"}).read()
        changed(scene)
        assert not [said for said in hear(stream, TOOLS_CHANGED) if said["method"] == LOG]


@check("a-sessions-level-counts-for-its-calls", direct=False)
def a_sessions_level_counts_for_its_calls(scene: Scene) -> None:
    for level, count in (("debug", 3), ("error", 0)):
        assert scene.ask("logging/setLevel", {"level": level}).result == {}
        reply = scene.call("test_tool_with_logging").read()
        assert len([said for said in reply.seen if said.get("method") == LOG]) == count, (level, reply)


@check("unknown-levels-are-invalid-params", direct=False)
def an_unknown_level_is_invalid_params(scene: Scene) -> None:
    reply = (
        scene.call("test_simple_text", meta={f"{META}logLevel": "loud"})
        if scene.is_modern
        else scene.ask("logging/setLevel", {"level": "loud"})
    )
    assert reply.error["code"] == -32602, reply


@check("a-legacy-cancel-reaches-the-server", back=True)
def a_legacy_cancel_reaches_a_legacy_server(scene: Scene) -> None:
    session = scene.session()
    scene.hold("tools/call")
    with meanwhile(lambda: scene.call("test_simple_text", request_id="mine")):
        call = scene.sent_call()
        assert session.say("notifications/cancelled", requestId="mine", reason="enough").status == 202
        told = scene.sent_call("notifications/cancelled")
        assert told.message["params"]["requestId"] == call.message["id"], told.message
        assert told.headers["mcp-session-id"] == call.headers["mcp-session-id"]
        assert not call.hung_up.is_set()


@check("a-legacy-cancel-closes-a-modern-response", back=True)
def a_legacy_cancel_closes_a_modern_response(scene: Scene) -> None:
    session = scene.session()
    scene.hold("tools/call")
    with meanwhile(lambda: scene.call("test_simple_text", request_id=33)):
        call = scene.sent_call()
        assert session.say("notifications/cancelled", requestId=33).status == 202
        assert call.hung_up.wait(scene.seconds), "the server's response stayed open"
        assert not [note for note in scene.sent if note.method == "notifications/cancelled"]


@check("a-legacy-disconnect-is-no-cancel", back=True)
def a_legacy_disconnect_is_no_cancel(scene: Scene) -> None:
    scene.session()
    scene.hold("tools/call")
    with meanwhile(lambda: scene.call("test_simple_text")) as asking:
        call = scene.sent_call()
        asking.hang_up()
        for _ in range(3):  # time enough for a cancel to be told
            scene.ask("prompts/get", {"name": "test_simple_prompt"}).read()
        assert not call.hung_up.is_set()
        in_session = [note for note in scene.sent if note.session_used == call.session_used]
        assert "notifications/cancelled" not in [note.method for note in in_session]
        scene.hold(None)


@check("cancels-of-nothing-are-ignored")
def a_cancel_of_nothing_is_ignored(scene: Scene) -> None:
    scene.call("test_simple_text", request_id="over").read()
    headers = any_headers(scene, "notifications/cancelled")
    for request_id in ("over", "never", 1):
        cancel = {"method": "notifications/cancelled", "params": {"requestId": request_id}}
        assert scene.post(cancel, headers).read().status == 202


@check("no-cancels-to-modern-clients")
def a_modern_client_is_not_sent_cancels(scene: Scene) -> None:
    reply = scene.call("test_tool_with_progress", meta={"progressToken": 1}).read()
    assert not [said for said in reply.seen if said.get("method") == "notifications/cancelled"], reply


@check("pings-are-answered")
def a_ping_is_answered_with_nothing(scene: Scene) -> None:
    assert scene.ask("ping").result == {}
