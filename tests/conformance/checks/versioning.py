"""Checks of versioning.toml: versions, capabilities, `initialize` and `server/discover`."""

from typing import Any

from tests.conformance.checking import check
from tests.conformance.mutating_proxy import Note
from tests.conformance.scene import LEGACY, META, MODERN, TAKES_TASKS, TASKS, Scene

LEGACY_VERSIONS = ("2025-03-26", "2025-06-18", "2025-11-25")
SERVED = ("tools", "prompts", "resources", "completions")


@check("unsupported-version-lists-those-there-are")
def an_unsupported_version_is_told_which_there_are(scene: Scene) -> None:
    version = "2027-12-31"
    reply = scene.ask("tools/list", headers={"mcp-protocol-version": version}, meta={f"{META}protocolVersion": version})
    assert (reply.status, reply.error["code"]) == (400, -32022), reply
    data = reply.error["data"]
    assert MODERN in data["supported"], data
    assert data["requested"] == version, data


@check("discover-is-there")
def discover_describes_the_server(scene: Scene) -> None:
    reply = scene.ask("server/discover")
    result = reply.result
    assert reply.status == 200, reply
    assert MODERN in result["supportedVersions"], reply
    assert isinstance(result["capabilities"], dict)
    assert result["_meta"][f"{META}serverInfo"]["name"] == "conformance-fixture"


@check("discovered-versions-are-served", direct=False)
def discovered_versions_are_served(scene: Scene) -> None:
    for version in scene.ask("server/discover").result["supportedVersions"]:
        if version >= MODERN:
            meta = {f"{META}protocolVersion": version}
            assert scene.ask("tools/list", meta=meta, headers={"mcp-protocol-version": version}).read().status == 200
        elif version != "2024-11-05":  # over HTTP+SSE alone
            assert scene.initialize(version).result["protocolVersion"] == version


@check("discover-declares-what-is-served")
def discover_declares_what_is_served(scene: Scene) -> None:
    assert set(SERVED) <= scene.ask("server/discover").result["capabilities"].keys()


@check("initialize-declares-what-is-served")
def initialize_declares_what_is_served(scene: Scene) -> None:
    assert set(SERVED) <= scene.session().result["capabilities"].keys()


@check("nothing-unserved-is-declared", direct=False)
def what_is_declared_is_served(scene: Scene) -> None:
    said = scene.ask("server/discover").result if scene.is_modern else scene.session().result
    capabilities = said["capabilities"]
    assert not {"tasks", "experimental"} & capabilities.keys(), capabilities
    assert not {*capabilities.get("extensions", {})} - ({TASKS} if scene.is_modern else set()), capabilities
    if TASKS in capabilities.get("extensions", {}):
        assert scene.ask("tasks/get", {"taskId": "x"}, capabilities=TAKES_TASKS).error["code"] == -32602
    for name in {"tools", "prompts", "resources"} & capabilities.keys():
        assert scene.ask(f"{name}/list").result[name], name


@check("initialize-answers-with-what-was-asked")
def initialize_is_answered_with_the_revision_asked_for(scene: Scene) -> None:
    for revision in LEGACY_VERSIONS:
        assert scene.initialize(revision).result["protocolVersion"] == revision


@check("initialize-answers-unknown-versions")
def initialize_is_answered_with_our_latest_legacy_revision(scene: Scene) -> None:
    for asked in ("2020-02-02", MODERN, "next"):
        assert scene.initialize(asked).result["protocolVersion"] == LEGACY, asked


@check("initialize-says-who-answers")
def initialize_says_who_answers(scene: Scene) -> None:
    result = scene.session().result
    assert isinstance(result["capabilities"], dict)
    assert (result["serverInfo"]["name"], bool(result["serverInfo"]["version"])) == ("conformance-fixture", True)


@check("legacy-version-header-is-judged")
def a_bad_version_header_is_400(scene: Scene) -> None:
    for version in ("1999-01-01", "nonsense"):
        assert scene.ask("tools/list", headers={"mcp-protocol-version": version}).read().status == 400, version


@check("no-version-is-2025-03-26", direct=False)
def a_request_that_says_nothing_is_served(scene: Scene) -> None:
    params = {"name": "test_simple_text", "arguments": {}}
    reply = scene.post({"id": 1, "method": "tools/call", "params": params}, {})
    assert reply.status == 200, reply
    assert reply.result["content"], reply


@check("the-body-can-say-modern", direct=False)
def a_request_is_modern_when_its_body_says_so(scene: Scene) -> None:
    assert scene.ask("no/such", headers={"mcp-protocol-version": None}).error["code"] == -32020


@check("initialize-comes-first", back=True)
def initialize_opens_each_session(scene: Scene) -> None:
    scene.call("test_simple_text").read()
    for note in scene.history:
        if note.method == "initialize":
            said = note.message["params"]
            assert {"protocolVersion", "capabilities", "clientInfo"} <= said.keys(), said
    session = scene.sent_call().headers["mcp-session-id"]
    in_session = [note for note in scene.history if note.headers.get("mcp-session-id") == session]
    assert in_session[0].method == "notifications/initialized", [note.method for note in in_session]
    opened = _opening(scene, session)
    assert "mcp-session-id" not in opened.headers, opened.headers
    assert "mcp-protocol-version" not in opened.headers, opened.headers


def _opening(scene: Scene, session: str) -> Note:
    """The `initialize` that opened a session."""
    return next(note for note in scene.history if note.method == "initialize" and note.session == session)


@check("version-header-after-initialize", back=True)
def every_request_of_a_session_says_the_version(scene: Scene) -> None:
    scene.call("test_simple_text").read()
    session = scene.sent_call().headers["mcp-session-id"]
    if not scene.is_modern:
        scene.http("DELETE", scene.session().headers).read()
        ended = scene.sent_when(lambda note: note.verb == "DELETE" and note.headers.get("mcp-session-id") == session)
        assert ended is not None, [note.method for note in scene.sent]
    for note in scene.history:
        if note.headers.get("mcp-session-id") == session:  # not what asks whether the server has become a modern one
            assert note.headers.get("mcp-protocol-version") == LEGACY, (note.method, note.headers)


@check("initialize-asks-for-a-legacy-version", back=True)
def initialize_asks_for_our_latest_legacy_version(scene: Scene) -> None:
    scene.call("test_simple_text").read()
    opened = _opening(scene, scene.sent_call().headers["mcp-session-id"])
    assert opened.message["params"]["protocolVersion"] == LEGACY, opened.message


def _declared(scene: Scene, capabilities: dict[str, Any]) -> dict[str, Any]:
    """What the server was told the caller of a call can be asked."""
    scene.call("test_simple_text", capabilities=capabilities).read()
    call = scene.sent_call()
    if f"{META}clientCapabilities" in call.message["params"].get("_meta", {}):
        told: dict[str, Any] = call.message["params"]["_meta"][f"{META}clientCapabilities"]
        return told
    opened: dict[str, Any] = _opening(scene, call.headers["mcp-session-id"]).message["params"]["capabilities"]
    return opened


@check("capabilities-declared-are-the-clients", back=True)
def no_server_is_told_of_more_than_the_client_declared(scene: Scene) -> None:
    declared: dict[str, Any] = {"roots": {}}
    assert _declared(scene, declared).keys() <= declared.keys()
    if not scene.is_modern:
        opened = [note for note in scene.sent if note.method == "initialize"]
        assert all(note.message["params"]["capabilities"].keys() <= declared.keys() for note in opened)


@check("different-capabilities-share-no-session", back=True)
def different_capabilities_share_no_session(scene: Scene) -> None:
    used = []
    different: tuple[dict[str, Any], ...] = ({"sampling": {}}, {"roots": {}}, {})
    for declared in different:
        one = scene.another()
        since = len(scene.sent)
        one.call("test_simple_text", capabilities=declared).read()
        call = next(note for note in scene.sent[since:] if note.method == "tools/call")
        used.append(call.headers["mcp-session-id"])
    assert len(set(used)) == 3, used
