"""Checks of transport.toml: streamable HTTP."""

from tests.conformance.checking import check
from tests.conformance.meanwhile import meanwhile
from tests.conformance.scene import CAPABILITIES, MODERN, Scene

LEGACY_ONLY = ("ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe", "initialize", "roots/list")
ASKS = ("test_elicitation", {"message": "Who are you?"})


def any_headers(scene: Scene, method: str) -> dict[str, str | None]:
    """What a POST of this client has in any case."""
    own: dict[str, str | None] = {"mcp-protocol-version": MODERN, "mcp-method": method}
    return own if scene.is_modern else {**scene.session().headers}


@check("foreign-origin-is-403", direct=False)
def a_foreign_origin_is_403(scene: Scene) -> None:
    scene.session() if not scene.is_modern else None
    assert scene.ask("tools/list", headers={"origin": "http://evil.example"}).read().status == 403
    assert scene.ask("tools/list", headers={"origin": "http://localhost:1234"}).read().status == 200


@check("foreign-host-is-refused", direct=False)
def a_foreign_host_is_refused(scene: Scene) -> None:
    assert 400 <= scene.ask("tools/list", headers={"host": "evil.example"}).read().status < 500


@check("bad-notification-is-an-http-error")
def a_notification_that_cannot_be_taken_is_an_http_error(scene: Scene) -> None:
    reply = scene.post(b'{"jsonrpc":"2.0","method":17}', any_headers(scene, "notifications/cancelled")).read()
    assert 400 <= reply.status < 500, reply


@check("posted-responses-are-refused", direct=False)
def a_response_of_a_modern_client_is_refused(scene: Scene) -> None:
    reply = scene.post({"id": 1, "result": {}}, any_headers(scene, "tools/call")).read()
    assert 400 <= reply.status < 500, reply


@check("answers-are-json-or-a-stream")
def an_answer_is_json_or_a_stream(scene: Scene) -> None:
    for reply in (scene.ask("tools/list"), scene.call("test_tool_with_progress", meta={"progressToken": 1})):
        kind = reply.headers["content-type"].split(";")[0]
        assert kind in {"application/json", "text/event-stream"}, reply
        assert reply.read().seen, reply


@check("plain-answers-for-who-takes-no-stream", direct=False)
def who_takes_no_stream_gets_a_plain_answer(scene: Scene) -> None:
    json_only = {"accept": "application/json"}
    reply = scene.call("test_tool_with_progress", meta={"progressToken": 1}, headers=json_only).read()
    assert reply.headers["content-type"].startswith("application/json"), reply
    assert [sorted(said) for said in reply.seen] == [["id", "jsonrpc", "result"]], reply


@check("the-stream-is-the-requests-own")
def a_stream_is_about_its_request(scene: Scene) -> None:
    reply = scene.call("test_tool_with_progress", meta={"progressToken": "own"}).read()
    for said in reply.seen[:-1]:
        assert (said["method"], said["params"]["progressToken"]) == ("notifications/progress", "own"), said


@check("no-requests-to-modern-clients")
def a_modern_client_is_sent_no_request(scene: Scene) -> None:
    reply = scene.call(*ASKS).read()
    assert not [said for said in reply.seen if "method" in said and "id" in said], reply
    assert reply.result["resultType"] == "input_required", reply


@check("the-answer-ends-the-stream")
def an_answer_ends_its_stream(scene: Scene) -> None:
    reply = scene.call("test_tool_with_progress", meta={"progressToken": 7})
    reply.until(lambda said: "method" not in said)
    assert reply.next() is None, reply


@check("streams-are-not-buffered")
def a_stream_is_not_to_be_buffered(scene: Scene) -> None:
    with scene.call("test_tool_with_progress", meta={"progressToken": 7}) as reply:
        assert reply.is_stream, reply.headers
        assert reply.headers["x-accel-buffering"] == "no", reply.headers


@check("unknown-method-is-404")
def an_unknown_method_is_404(scene: Scene) -> None:
    for method in ("no/such", "ping", "logging/setLevel", "resources/subscribe"):
        reply = scene.ask(method, {"level": "info", "uri": "test://static-text"})
        assert (reply.status, reply.error["code"]) == (404, -32601), (method, reply)


@check("missing-capability-is-named")
def a_missing_capability_is_named(scene: Scene) -> None:
    reply = scene.call("test_missing_capability", capabilities={"roots": {}})
    assert (reply.status, reply.error["code"]) == (400, -32021), reply
    assert reply.error["data"]["requiredCapabilities"] == {"sampling": {}}, reply


@check("closing-the-response-cancels", back=True)
def closing_the_response_closes_the_servers(scene: Scene) -> None:
    scene.hold("tools/call")
    with meanwhile(lambda: scene.call("test_simple_text")) as asking:
        note = scene.sent_call()
        asking.hang_up()
        assert note.hung_up.wait(scene.seconds), "the server's response stayed open"


@check("closing-the-response-is-told-to-legacy-servers", back=True)
def closing_the_response_is_told_to_a_legacy_server(scene: Scene) -> None:
    scene.hold("tools/call")
    with meanwhile(lambda: scene.call("test_simple_text")) as asking:
        note = scene.sent_call()
        asking.hang_up()
        told = scene.sent_call("notifications/cancelled")
        assert told.message["params"]["requestId"] == note.message["id"], told.message
        assert told.headers["mcp-session-id"] == note.headers["mcp-session-id"]
        assert not note.hung_up.is_set(), "a legacy server is told, not cut off"


@check("sessions-mean-nothing-to-modern-requests")
def a_modern_request_has_no_session(scene: Scene) -> None:
    reply = scene.ask("tools/list", headers={"mcp-session-id": "made-up", "last-event-id": "1-1"})
    assert reply.status == 200, reply
    assert reply.result["tools"], reply
    assert "mcp-session-id" not in reply.headers


@check("credentials-are-not-passed-on", back=True)
def a_clients_credentials_do_not_reach_the_server(scene: Scene) -> None:
    scene.call("test_simple_text", headers={"authorization": "Bearer secret", "cookie": "a=secret"}).read()
    scene.sent_call()
    for note in scene.sent:
        assert "secret" not in str(note.headers), note.headers


@check("requests-take-both-kinds-of-answers", back=True)
def what_is_posted_takes_both_kinds_of_answers(scene: Scene) -> None:
    scene.call("test_simple_text").read()
    scene.sent_call()
    for note in scene.sent:
        if note.verb == "POST":
            assert {"application/json", "text/event-stream"} <= set(note.headers["accept"].split(", ")), note.headers
        if note.verb == "GET":
            assert "text/event-stream" in note.headers["accept"], note.headers


@check("every-message-is-a-post", back=True)
def every_message_to_a_server_is_a_post_of_its_own(scene: Scene) -> None:
    scene.call("test_simple_text", capabilities=CAPABILITIES).read()
    scene.sent_call()
    for note in scene.sent:
        assert note.verb != "POST" or (isinstance(note.message, dict) and note.message["jsonrpc"] == "2.0"), (
            note.message
        )
