"""Checks of subscriptions.toml: hearing of changes."""

from typing import Any

from tests.conformance.checking import check
from tests.conformance.scene import META, Scene
from tests.conformance.wire import Reply
from tests.peers.servers.conformance_content import WATCHED

TOOLS_CHANGED = "notifications/tools/list_changed"
UPDATED = "notifications/resources/updated"
MANY = 12
"""Messages after which a check stops waiting: others change things as well."""
ACKNOWLEDGED = "notifications/subscriptions/acknowledged"


def changed(scene: Scene, *tools: str) -> None:
    """Have the server change something."""
    for tool in tools or ("test_trigger_tool_change",):
        assert scene.call(tool).read().status == 200


def hear(stream: Reply, *methods: str) -> list[Any]:
    """What is told until each of these was."""
    left = set(methods)
    while left:
        assert len(stream.seen) < MANY, f"still waiting for {left} after {stream.seen}"
        left.discard(stream.until(lambda said: "method" in said)["method"])
    return stream.seen


@check("acknowledgement-comes-first", changes=True)
def a_subscription_is_acknowledged_first(scene: Scene) -> None:
    with scene.listen(toolsListChanged=True) as stream:
        assert stream.next()["method"] == ACKNOWLEDGED


@check("acknowledgement-names-what-is-honoured", changes=True)
def an_acknowledgement_names_what_will_be_told(scene: Scene) -> None:
    with scene.listen(toolsListChanged=True, resourceSubscriptions=[WATCHED]) as stream:
        honoured = stream.next()["params"]["notifications"]
        assert honoured == {"toolsListChanged": True, "resourceSubscriptions": [WATCHED]}, honoured


@check("notifications-name-their-subscription", changes=True)
def what_is_told_names_its_subscription(scene: Scene) -> None:
    wanted = {"toolsListChanged": True, "resourceSubscriptions": [WATCHED]}
    for request_id in ("listen-a", 4242):
        with scene.ask("subscriptions/listen", {"notifications": wanted}, request_id=request_id) as stream:
            stream.next()
            changed(scene, "test_trigger_tool_change", "test_trigger_resource_update")
            for said in hear(stream, TOOLS_CHANGED, UPDATED):
                named = said["params"]["_meta"][f"{META}subscriptionId"]
                assert named == request_id, said
                assert type(named) is type(request_id), said


@check("only-what-was-asked-for-is-told", changes=True)
def only_what_was_asked_for_is_told(scene: Scene) -> None:
    with scene.listen(toolsListChanged=True) as stream:
        stream.next()
        changed(scene, "test_trigger_prompt_change", "test_trigger_resource_update", "test_trigger_tool_change")
        told = {said["method"] for said in hear(stream, TOOLS_CHANGED)}
        assert told == {ACKNOWLEDGED, TOOLS_CHANGED}, told


@check("list-changes-are-told", changes=True)
def changes_of_lists_are_told(scene: Scene) -> None:
    with scene.listen(toolsListChanged=True, promptsListChanged=True) as stream:
        if scene.is_modern:
            stream.next()
        changed(scene, "test_trigger_tool_change", "test_trigger_prompt_change")
        hear(stream, TOOLS_CHANGED, "notifications/prompts/list_changed")


@check("updates-are-told-with-their-uri", changes=True)
def updates_are_told_with_their_uri(scene: Scene) -> None:
    with scene.listen(resourceSubscriptions=[WATCHED]) as stream:
        if scene.is_modern:
            stream.next()
        changed(scene, "test_trigger_resource_update")
        assert hear(stream, UPDATED)[-1]["params"]["uri"] == WATCHED


@check("unwatched-resources-are-not-told", changes=True)
def updates_of_what_is_not_watched_are_not_told(scene: Scene) -> None:
    wanted = {"toolsListChanged": True} if scene.is_modern else {"resourceSubscriptions": [WATCHED]}
    with scene.listen(**wanted) as stream:
        if scene.is_modern:
            stream.next()
        else:
            assert scene.ask("resources/unsubscribe", {"uri": WATCHED}).result == {}
        changed(scene)
        before = len(hear(stream, TOOLS_CHANGED))  # what others changed while it was watched has come by now
        changed(scene, "test_trigger_resource_update", "test_trigger_tool_change")
        told = [said["method"] for said in hear(stream, TOOLS_CHANGED)[before:]]
        assert UPDATED not in told, told


@check("no-responses-on-listening-streams", changes=True)
def a_listening_stream_carries_no_responses(scene: Scene) -> None:
    with scene.listen() as stream:
        scene.ask("logging/setLevel", {"level": "debug"}).read()
        scene.call("test_tool_with_logging").read()
        scene.call("test_tool_with_progress", meta={"progressToken": 1}).read()
        changed(scene)
        told = hear(stream, TOOLS_CHANGED)
        assert all(said.get("method", "").endswith(("list_changed", "updated")) for said in told), told


@check("one-stream-each", changes=True, direct=False)
def a_message_goes_out_on_one_stream(scene: Scene) -> None:
    with scene.listen() as first, scene.listen() as second:
        changed(scene)
        hear(second, TOOLS_CHANGED)
        scene.http("DELETE", scene.session().headers).read()
        told = [said["method"] for stream in (first, second) for said in stream.read().seen]
        assert told.count(TOOLS_CHANGED) == 1, told


@check("get-is-a-stream", changes=True)
def get_is_answered_with_a_stream(scene: Scene) -> None:
    with scene.listen() as stream:
        assert (stream.status, stream.is_stream) == (200, True), stream.headers


@check("servers-get-streams-ask-for-events", back=True)
def the_gateways_get_takes_event_streams(scene: Scene) -> None:
    scene.call("test_simple_text").read()
    session = scene.sent_call().headers["mcp-session-id"]
    listening = [note for note in scene.history if note.verb == "GET" and note.headers.get("mcp-session-id") == session]
    assert listening, [note.method for note in scene.sent]
    for note in listening:
        assert "text/event-stream" in note.headers["accept"], note.headers
        assert note.headers["mcp-protocol-version"], note.headers


@check("one-listen-feeds-many", back=True)
def one_listen_feeds_many(scene: Scene) -> None:
    other = scene.another()
    wanted = {"resourceSubscriptions": [WATCHED]}
    with scene.listen(**wanted) as first, other.listen(**wanted) as second:
        for stream in (first, second) if scene.is_modern else ():
            stream.next()
        changed(scene, "test_trigger_resource_update")
        for stream in (first, second):
            hear(stream, UPDATED)
        asked = [note.message for note in scene.sent if note.method == "subscriptions/listen"]
        told = [said for said in asked if WATCHED in said["params"]["notifications"].get("resourceSubscriptions", [])]
        assert len(told) == 1, asked
