"""Checks of sessions.toml: legacy sessions, and streams that are taken up again."""

from collections.abc import Sequence

from tests.conformance.checking import check
from tests.conformance.dialogue import Dialogue
from tests.conformance.mutating_proxy import Note
from tests.conformance.plain_client import answer
from tests.conformance.scene import Scene
from tests.conformance.wire import send

EVENTS = {"accept": "text/event-stream"}


@check("session-ids-are-visible-ascii")
def a_session_id_is_visible_ascii(scene: Scene) -> None:
    session = scene.initialize().id
    assert session is not None, session
    assert all("!" <= character <= "~" for character in session), session
    assert len(session) >= 16, session


@check("initialize-opens-a-session-of-its-own")
def each_initialize_opens_a_session_of_its_own(scene: Scene) -> None:
    first, second = (scene.initialize().id for _ in range(2))
    assert first != second


@check("ended-sessions-are-404")
def an_ended_session_is_404(scene: Scene) -> None:
    headers = scene.session().headers
    assert scene.ask("tools/list").read().status == 200
    assert scene.http("DELETE", headers).read().status in {200, 202, 204}
    for method in ("tools/list", "ping", "tools/call"):
        assert scene.ask(method, {"name": "test_simple_text"}).read().status == 404, method
    assert scene.http("GET", {**EVENTS, **headers}).read().status == 404


@check("foreign-sessions-are-404")
def a_foreign_session_is_404(scene: Scene) -> None:
    headers = {**scene.session().headers, "mcp-session-id": "0123456789abcdef0123456789abcdef"}
    assert scene.ask("tools/list", headers=headers).read().status == 404
    assert scene.http("GET", {**EVENTS, **headers}).read().status == 404
    assert scene.http("DELETE", headers).read().status == 404


@check("only-lost-sessions-are-404")
def only_a_lost_session_is_404(scene: Scene) -> None:
    for reply in (
        scene.ask("no/such"),
        scene.call("no_such_tool"),
        scene.ask("resources/read", {"uri": "test://nothing"}),
        scene.ask("prompts/get", {"name": "no_such_prompt"}),
    ):
        assert reply.status == 200, reply
        assert reply.error, reply


@check("modern-methods-are-unknown-to-sessions")
def modern_methods_are_unknown_on_a_session(scene: Scene) -> None:
    for method in ("server/discover", "subscriptions/listen"):
        assert scene.ask(method, {"notifications": {}}).error["code"] == -32601, method


@check("delete-ends-the-sessions-calls", direct=False)
def delete_ends_a_session(scene: Scene) -> None:
    dialogue = Dialogue(scene, "test_input_required_result_elicitation")
    dialogue.questions()
    assert scene.http("DELETE", scene.session().headers).read().status in {200, 202, 204}
    assert "result" not in [key for said in dialogue.reply.read().seen if "method" not in said for key in said]


@check("the-session-id-goes-with-every-request", back=True)
def a_servers_session_id_goes_with_every_request(scene: Scene) -> None:
    scene.call("test_simple_text").read()
    scene.sent_call()
    for note in scene.sent:
        assert note.method == "initialize" or note.headers.get("mcp-session-id"), (note.method, note.headers)


@check("each-client-session-has-its-own", back=True)
def each_client_session_has_its_own_at_the_server(scene: Scene) -> None:
    other = scene.another()
    for client in (scene, other, scene):
        client.call("test_simple_text").read()
    used = [note.headers["mcp-session-id"] for note in scene.sent if note.method == "tools/call"]
    assert used[0] == used[-1], used
    assert len(set(used)) == 2, used


@check("a-servers-404-opens-a-new-session", back=True)
def a_lost_session_is_opened_anew(scene: Scene) -> None:
    scene.call("test_simple_text").read()
    _opened_without_an_id(scene.history)
    lost = scene.sent_call().headers["mcp-session-id"]
    headers = {"mcp-session-id": lost, "mcp-protocol-version": "2025-11-25"}
    assert send(scene.server_url, "DELETE", headers).read().status == 200
    since = len(scene.sent)
    assert scene.call("test_simple_text").result["content"]
    opened = [note for note in scene.sent[since:] if note.method == "initialize"]
    assert len(opened) == 1, opened
    _opened_without_an_id(opened)
    calls = [note for note in scene.sent[since:] if note.method == "tools/call"]
    assert [note.status for note in calls] == [404, 200], calls


def _opened_without_an_id(notes: Sequence[Note]) -> None:
    for note in notes:
        assert note.method != "initialize" or "mcp-session-id" not in note.headers, note.headers


@check("sessions-at-servers-are-ended", back=True)
def a_session_is_ended_at_the_server(scene: Scene) -> None:
    scene.call("test_simple_text").read()
    session = scene.sent_call().headers["mcp-session-id"]
    scene.http("DELETE", scene.session().headers).read()
    ended = scene.sent_when(lambda note: note.verb == "DELETE")
    assert ended is not None, ended
    assert ended.headers.get("mcp-session-id") == session, ended


@check("event-ids-are-unique-in-a-session", direct=False)
def event_ids_are_unique_in_a_session(scene: Scene) -> None:
    ids: list[str] = []
    for token in range(3):
        reply = scene.call("test_tool_with_progress", meta={"progressToken": token}).read()
        ids += [value for event in reply.events for name, value in event.fields if name == "id"]
    assert len(ids) >= 9, ids
    assert len(set(ids)) == len(ids), ids


@check("streams-are-primed", direct=False)
def a_stream_begins_with_an_id(scene: Scene) -> None:
    reply = scene.call("test_tool_with_progress", meta={"progressToken": 1}).read()
    first = reply.events[0]
    assert first.message() is None, first.fields
    assert dict(first.fields).get("id"), first.fields


@check("what-was-missed-is-fetched", direct=False)
def what_was_missed_is_fetched(scene: Scene) -> None:
    dialogue = Dialogue(scene, "test_input_required_result_elicitation", request_id="missed")
    questions = dialogue.questions()
    last = dict(dialogue.reply.events[-1].fields)["id"]
    dialogue.reply.close()
    dialogue.say({key: answer(question) for key, question in questions.items()})
    headers = {**EVENTS, **scene.session().headers, "last-event-id": last}
    with scene.http("GET", headers) as rest:
        assert rest.until(lambda said: "method" not in said)["id"] == "missed", rest
        assert len(rest.seen) == 1, rest


@check("no-stream-replays-another", direct=False)
def no_stream_replays_another(scene: Scene) -> None:
    first = Dialogue(scene, "test_input_required_result_elicitation", request_id="first")
    second = Dialogue(scene, "test_input_required_result_elicitation", request_id="second")
    for dialogue in (first, second):
        questions = dialogue.questions()
        dialogue.last = dict(dialogue.reply.events[-1].fields)["id"]
        dialogue.reply.close()
        dialogue.say({key: answer(question) for key, question in questions.items()})
    for dialogue, request_id in ((first, "first"), (second, "second")):
        headers = {**EVENTS, **scene.session().headers, "last-event-id": dialogue.last}
        with scene.http("GET", headers) as rest:
            rest.until(lambda said: "method" not in said)
            assert [said["id"] for said in rest.seen if "method" not in said] == [request_id], rest
