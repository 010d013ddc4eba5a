"""Checks of headers.toml: headers against the body, in both directions."""

import base64
from collections.abc import Mapping
from typing import Any

from tests.conformance.checking import check
from tests.conformance.scene import DROPPED, META, MODERN, Scene
from tests.conformance.wire import Reply

PROMPT = {"name": "test_simple_prompt"}
BEYOND_ASCII = "test://template/žluť/data"


def encoded(text: str) -> str:
    """A value that no header can carry, as the specification writes it."""
    return f"=?base64?{base64.b64encode(text.encode()).decode()}?="


def is_mismatch(reply: Reply) -> None:
    """The one refusal of headers that contradict the body."""
    assert (reply.status, reply.error["code"]) == (400, -32020), reply


@check("version-header-is-required", direct=False)
def a_request_without_version_header_is_refused(scene: Scene) -> None:
    is_mismatch(scene.ask("tools/list", headers={"mcp-protocol-version": DROPPED}))


@check("version-header-says-what-meta-says", direct=False)
def the_version_header_says_what_meta_says(scene: Scene) -> None:
    is_mismatch(scene.ask("tools/list", headers={"mcp-protocol-version": "2027-01-01"}))
    is_mismatch(scene.ask("tools/list", headers={"mcp-protocol-version": "2025-11-25"}))
    is_mismatch(scene.ask("tools/list", meta={f"{META}protocolVersion": "2025-11-25"}))


@check("method-header-says-what-the-body-says")
def the_method_header_says_what_the_body_says(scene: Scene) -> None:
    for said in (DROPPED, "prompts/list", "TOOLS/LIST", encoded("tools/list")):
        is_mismatch(scene.ask("tools/list", headers={"mcp-method": said}))


@check("name-header-says-what-the-body-says")
def the_name_header_says_what_the_body_says(scene: Scene) -> None:
    for said in (DROPPED, "test_error_handling", "TEST_SIMPLE_TEXT", encoded("other")):
        is_mismatch(scene.call("test_simple_text", headers={"mcp-name": said}))
    is_mismatch(scene.ask("prompts/get", PROMPT, headers={"mcp-name": DROPPED}))
    is_mismatch(
        scene.ask("resources/read", {"uri": "test://static-text"}, headers={"mcp-name": "test://static-binary"})
    )


@check("encoded-names-are-decoded")
def an_encoded_name_is_compared_decoded(scene: Scene) -> None:
    assert scene.call("test_simple_text", headers={"mcp-name": encoded("test_simple_text")}).result["content"]
    uri = {"uri": BEYOND_ASCII}
    assert scene.ask("resources/read", uri, headers={"mcp-name": encoded(BEYOND_ASCII)}).result["contents"]
    in_capitals = encoded("test_simple_text").replace("base64", "BASE64")
    is_mismatch(scene.call("test_simple_text", headers={"mcp-name": in_capitals}))


@check("header-names-have-no-case")
def header_names_have_no_case(scene: Scene) -> None:
    shouted: Mapping[str, str | None] = {
        "mcp-protocol-version": DROPPED,
        "mcp-method": DROPPED,
        "mcp-name": DROPPED,
        "MCP-PROTOCOL-VERSION": MODERN,
        "McP-mEtHoD": "tools/call",
        "MCP-NAME": "test_simple_text",
    }
    assert scene.call("test_simple_text", headers=shouted).read().status == 200


@check("headers-bind-requests-alone", direct=False)
def a_notification_needs_no_headers_of_requests(scene: Scene) -> None:
    notification = {"method": "notifications/cancelled", "params": {"requestId": 1}}
    assert scene.post(notification, {"mcp-protocol-version": MODERN}).read().status == 202


@check("param-header-says-what-the-argument-says", direct=False)
def a_param_header_says_what_the_argument_says(scene: Scene) -> None:
    ask = _regional(scene)
    assert "eu" in ask("eu", "eu").result["content"][0]["text"]
    assert "žluť" in ask("žluť", encoded("žluť")).result["content"][0]["text"]
    for argument, header in (("eu", "us"), ("eu", DROPPED), ("eu", "EU"), (None, "eu"), ("eu", encoded("us"))):
        is_mismatch(ask(argument, header))


@check("absent-arguments-need-no-header")
def an_absent_argument_needs_no_header(scene: Scene) -> None:
    for arguments in ({}, {"query": "q"}):
        assert scene.call("test_x_mcp_header", arguments).read().status == 200


def _regional(scene: Scene) -> Any:
    def ask(argument: str | None, header: str | None) -> Reply:
        arguments = {"query": "q"} if argument is None else {"region": argument, "query": "q"}
        return scene.call("test_x_mcp_header", arguments, headers={"mcp-param-region": header})

    return ask


@check("requests-to-modern-servers-mirror-their-body", back=True)
def a_post_to_a_modern_server_mirrors_its_body(scene: Scene) -> None:
    scene.call("test_simple_text").read()
    scene.ask("prompts/get", PROMPT).read()
    scene.ask("resources/read", {"uri": "test://static-text"}).read()
    named = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
    sent = [note for note in scene.sent if note.method in named]
    assert [note.method for note in sent] == list(named), sent
    for note in sent:
        params = note.message["params"]
        assert note.headers["mcp-protocol-version"] == params["_meta"][f"{META}protocolVersion"] == MODERN
        assert note.headers["mcp-method"] == note.method
        assert note.headers["mcp-name"] == params[named[note.method]], note.headers


@check("names-to-modern-servers-are-encoded", back=True)
def a_name_no_header_can_carry_goes_out_encoded(scene: Scene) -> None:
    given = {"mcp-name": encoded(BEYOND_ASCII)} if scene.is_modern else None
    scene.ask("resources/read", {"uri": BEYOND_ASCII}, headers=given).read()
    assert scene.sent_call("resources/read").headers["mcp-name"] == encoded(BEYOND_ASCII)


@check("arguments-are-mirrored-to-modern-servers", back=True)
def annotated_arguments_go_out_as_headers(scene: Scene) -> None:
    for argument, header in (
        ("eu-west", "eu-west"),
        (" žluť", encoded(" žluť")),
        ("=?base64?eA==?=", encoded("=?base64?eA==?=")),
    ):
        since = len(scene.sent)
        given = {"mcp-param-region": header} if scene.is_modern else None
        reply = scene.call("test_x_mcp_header", {"region": argument, "query": "q"}, headers=given)
        reply.read()
        note = next(note for note in scene.sent[since:] if note.method == "tools/call")
        assert note.headers.get("mcp-param-region") == header, note.headers
        assert argument.strip() in reply.result["content"][0]["text"], reply


@check("absent-arguments-are-not-mirrored", back=True)
def of_an_absent_argument_no_header_goes_out(scene: Scene) -> None:
    scene.call("test_x_mcp_header", {"query": "q"}).read()
    assert "mcp-param-region" not in scene.sent_call().headers


@check("mirrored-arguments-stay-modern", back=True)
def a_legacy_server_gets_no_mirrored_headers(scene: Scene) -> None:
    given = {"mcp-param-region": "eu"} if scene.is_modern else None
    scene.call("test_x_mcp_header", {"region": "eu", "query": "q"}, headers=given).read()
    headers = scene.sent_call().headers
    assert not [name for name in headers if name.startswith("mcp-param-") or name in {"mcp-method", "mcp-name"}], (
        headers
    )


@check("unknown-param-headers-are-left-alone", back=True)
def a_param_header_of_no_annotation_is_passed_on(scene: Scene) -> None:
    assert scene.call("test_simple_text", headers={"mcp-param-unheard-of": "x"}).read().status == 200
    assert scene.sent_call().headers["mcp-param-unheard-of"] == "x"
