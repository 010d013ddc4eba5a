"""Checks of messages.toml: messages, ids, errors, `_meta`."""

from typing import Any

from tests.conformance.checking import check
from tests.conformance.scene import DROPPED, LEGACY, META, MODERN, Scene

HINTED = ("tools/list", "prompts/list", "resources/list", "resources/templates/list")
DEFINED = {-32700, -32600, -32601, -32602, -32603, -32020, -32021, -32022}


def plain_requests(scene: Scene) -> dict[str, dict[str, Any]]:
    """One result of each method that an ordinary client uses, by method."""
    asked: dict[str, dict[str, Any]] = {
        **{method: {} for method in HINTED},
        "tools/call": {"name": "test_simple_text", "arguments": {}},
        "prompts/get": {"name": "test_simple_prompt"},
        "resources/read": {"uri": "test://static-text"},
        "completion/complete": {
            "ref": {"type": "ref/prompt", "name": "test_prompt_with_arguments"},
            "argument": {"name": "arg1", "value": "par"},
        },
    }
    if scene.is_modern:
        asked["server/discover"] = {}
    return {method: scene.ask(method, params).result for method, params in asked.items()}


@check("answer-has-the-requests-id")
def an_answer_has_its_requests_id(scene: Scene) -> None:
    for request_id in ("a-1", 2**53 - 1, "17", 0):
        said = scene.call("test_simple_text", request_id=request_id).response()
        assert said["id"] == request_id, said
        assert type(said["id"]) is type(request_id), said


@check("error-has-the-requests-id")
def an_error_has_its_requests_id(scene: Scene) -> None:
    for method, params in (("no/such", {}), ("prompts/get", {"name": "none"}), ("resources/read", {"uri": "x://y"})):
        said = scene.ask(method, params, request_id="e-1").response()
        assert "error" in said, said
        assert said["id"] == "e-1", said


@check("error-has-code-and-message")
def an_error_has_a_code_and_a_message(scene: Scene) -> None:
    for method, params in (("no/such", {}), ("prompts/get", {"name": "none"}), ("resources/read", {"uri": "x://y"})):
        error = scene.ask(method, params).error
        assert type(error["code"]) is int, error
        assert isinstance(error["message"], str), error


@check("unreadable-id-is-left-out", direct=False)
def an_error_to_an_unreadable_id_names_none(scene: Scene) -> None:
    headers = {"mcp-protocol-version": MODERN if scene.is_modern else LEGACY, "mcp-method": "tools/list"}
    for body in (b'{"jsonrpc":"2.0","id":{},"method":"tools/list"}', b'{"jsonrpc": "2.0", "id": 5, "method":'):
        reply = scene.post(body, headers)
        assert reply.response().get("id") is None, reply
        assert (reply.status, reply.error["code"] in {-32600, -32700}) == (400, True), reply


@check("null-id-is-refused", direct=False)
def an_id_is_never_null(scene: Scene) -> None:
    headers = (
        {"mcp-protocol-version": MODERN, "mcp-method": "tools/list"} if scene.is_modern else scene.session().headers
    )
    reply = scene.post({"id": None, "method": "tools/list"}, headers)
    assert (reply.status, reply.error["code"]) == (400, -32600), reply


@check("one-answer-each")
def a_request_is_answered_once_and_last(scene: Scene) -> None:
    reply = scene.call("test_tool_with_progress", meta={"progressToken": "once"}).read()
    assert [said for said in reply.seen if "method" not in said] == [reply.seen[-1]], reply


@check("notification-is-202")
def a_notification_is_202_without_a_body(scene: Scene) -> None:
    headers = {"mcp-protocol-version": MODERN, "mcp-method": "notifications/cancelled"}
    headers = headers if scene.is_modern else scene.session().headers
    params = {"requestId": "never-used"}
    reply = scene.post({"method": "notifications/cancelled", "params": params}, headers).read()
    assert (reply.status, reply.body) == (202, b""), reply


@check("notification-has-no-id")
def a_notification_has_no_id(scene: Scene) -> None:
    reply = scene.call("test_tool_with_progress", meta={"progressToken": "n"}).read()
    told = [said for said in reply.seen if "method" in said]
    assert told, reply
    assert not any("id" in said for said in told), reply


@check("request-ids-to-servers-are-not-reused", back=True)
def ids_sent_to_a_server_are_not_reused(scene: Scene) -> None:
    for _ in range(3):
        scene.call("test_simple_text", request_id="same").read()
    calls = [note for note in scene.sent if note.method == "tools/call"]
    used = [(note.headers.get("mcp-session-id"), note.message["id"]) for note in calls]
    assert len(set(used)) == len(used) == 3, used


@check("meta-is-required")
def meta_without_version_or_capabilities_is_invalid(scene: Scene) -> None:
    for missing in ("protocolVersion", "clientCapabilities"):
        reply = scene.ask("tools/list", meta={f"{META}{missing}": None})
        assert (reply.status, reply.error["code"]) == (400, -32602), (missing, reply)


@check("client-info-may-be-missing")
def a_client_that_does_not_say_who_it_is_is_served(scene: Scene) -> None:
    assert scene.call("test_simple_text", meta={f"{META}clientInfo": None}).result["content"]


@check("foreign-meta-passes", back=True)
def foreign_members_of_meta_reach_the_server(scene: Scene) -> None:
    foreign = {
        "example/tag": {"a": [1, None]},
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }
    scene.call("test_simple_text", meta=foreign).read()
    meta = scene.sent_call().message["params"]["_meta"]
    assert foreign.items() <= meta.items(), meta


@check("modern-meta-stays-modern", back=True)
def a_legacy_server_sees_nothing_of_modern_meta(scene: Scene) -> None:
    scene.call("test_simple_text", meta={"progressToken": 4}).read()
    meta = scene.sent_call().message["params"].get("_meta", {})
    assert not [name for name in meta if name.startswith(META)], meta


@check("capabilities-are-per-request", back=True)
def each_requests_capabilities_are_its_own(scene: Scene) -> None:
    different: tuple[tuple[dict[str, Any], str], ...] = (({"sampling": {}}, "one"), ({"roots": {}}, "two"))
    for declared, name in different:
        since = len(scene.sent)
        scene.call(
            "test_simple_text", capabilities=declared, meta={f"{META}clientInfo": {"name": name, "version": "1"}}
        ).read()
        meta = next(note for note in scene.sent[since:] if note.method == "tools/call").message["params"]["_meta"]
        assert meta[f"{META}clientCapabilities"] == declared, meta
        assert meta[f"{META}clientInfo"]["name"] == name, meta


@check("result-type-for-modern-clients")
def every_modern_result_has_its_type(scene: Scene) -> None:
    for method, result in plain_requests(scene).items():
        assert result.get("resultType") == "complete", (method, result)


@check("modern-members-stay-modern")
def no_legacy_result_has_modern_members(scene: Scene) -> None:
    for method, result in plain_requests(scene).items():
        assert not {"resultType", "ttlMs", "cacheScope"} & result.keys(), (method, result)
        assert f"{META}serverInfo" not in result.get("_meta", {}), (method, result)


@check("server-info-in-results")
def a_result_names_its_server(scene: Scene) -> None:
    for method, result in plain_requests(scene).items():
        assert result["_meta"][f"{META}serverInfo"]["name"] == "conformance-fixture", (method, result)


check("server-info-in-results-of-legacy-servers")(a_result_names_its_server)


@check("reserved-codes-are-the-specifications", direct=False)
def codes_are_defined_or_outside_the_reserved_range(scene: Scene) -> None:
    for reply in (
        scene.ask("no/such"),
        scene.ask("tools/list", headers={"mcp-method": "tools/call"}),
        scene.ask("tools/list", {"cursor": "none of ours"}),
        scene.ask("prompts/get", {"name": "none"}),
        scene.call("test_missing_capability", capabilities={}),
    ):
        code = reply.error["code"]
        assert code in DEFINED or not -32768 <= code <= -32000, reply


@check("modern-codes-stay-modern")
def a_legacy_client_gets_no_modern_code(scene: Scene) -> None:
    reply = scene.call("test_missing_capability", capabilities={})
    assert not -32099 <= reply.error["code"] <= -32020, reply


@check("payload-is-left-alone")
def what_a_tool_returns_arrives_as_it_was_said(scene: Scene) -> None:
    text, image, resource = scene.call("test_multiple_content_types").result["content"]
    assert text == {"type": "text", "text": "Multiple content types test:"}
    assert (image["type"], image["mimeType"], image["data"][:8]) == ("image", "image/png", "iVBORw0K")
    assert resource["resource"]["text"] == '{"test":"data","value":123}'


@check("messages-are-utf-8", direct=False)
def text_beyond_ascii_passes_and_other_bytes_do_not(scene: Scene) -> None:
    said = scene.call("test_x_mcp_header", {"query": "žluť 漢字 🎈"}).result["content"][0]["text"]
    assert "žluť 漢字 🎈" in said, said
    headers = (
        {"mcp-protocol-version": MODERN, "mcp-method": "tools/list"} if scene.is_modern else scene.session().headers
    )
    reply = scene.post(b'{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"x":"\xff\xfe"}}', headers)
    assert (reply.status, reply.error["code"]) == (400, -32700), reply


@check("batches-where-the-revision-has-them", direct=False)
def a_batch_of_2025_03_26_is_answered_whole(scene: Scene) -> None:
    session = scene.initialize("2025-03-26")
    batch = [
        {"id": "b-1", "method": "ping"},
        {"method": "notifications/roots/list_changed"},
        {"id": "b-2", "method": "tools/call", "params": {"name": "test_simple_text", "arguments": {}}},
    ]
    reply = scene.post(batch, session.headers).read()
    said = reply.seen[0] if isinstance(reply.seen[0], list) else reply.seen
    assert (reply.status, sorted(answer["id"] for answer in said)) == (200, ["b-1", "b-2"]), reply


@check("no-batches-elsewhere", direct=False)
def a_batch_is_400_in_other_revisions(scene: Scene) -> None:
    headers: dict[str, str | None] = {"mcp-protocol-version": MODERN, "mcp-method": "ping", "mcp-name": DROPPED}
    for revision in () if scene.is_modern else ("2025-11-25", "2025-06-18"):
        headers = {**scene.initialize(revision).headers}
        reply = scene.post([{"id": 1, "method": "ping"}], headers).read()
        assert reply.status == 400, (revision, reply)
    if scene.is_modern:
        assert scene.post([{"id": 1, "method": "tools/list"}], headers).read().status == 400
