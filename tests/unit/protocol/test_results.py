"""Results carried from one era and revision to another."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.protocol.messages import Fault
from penstock.protocol.meta import SERVER_INFO
from penstock.protocol.results import MAX_TTL_MS, ResultHead, classify, to_legacy, to_modern, with_members
from penstock.protocol.versions import LEGACY_VERSIONS

TEXT = {"type": "text", "text": "hi"}
CACHEABLE = [
    "server/discover",
    "tools/list",
    "prompts/list",
    "resources/list",
    "resources/templates/list",
    "resources/read",
]


def raw(members: Any) -> bytes:
    return json.dumps(members, separators=(",", ":")).encode()


def modern(result: bytes, method: str = "tools/call", server_info: bytes = b"") -> dict[str, Any]:
    found = to_modern(result, method, server_info=server_info)
    assert isinstance(found, bytes), found
    return dict(unique(found))


def legacy(members: Any, method: str = "tools/call", revision: str = "2025-11-25") -> dict[str, Any]:
    found = to_legacy(members if isinstance(members, bytes) else raw(members), method, revision)
    assert isinstance(found, bytes), found
    return dict(unique(found))


def unique(result: bytes) -> list[tuple[str, Any]]:
    """The members of an object, none of which may stand there twice."""
    pairs: list[tuple[str, Any]] = json.loads(result, object_pairs_hook=lambda found: found)
    assert len({key for key, _ in pairs}) == len(pairs)
    return list(json.loads(result).items())


# --- the head ---


def test_the_head_of_a_result_is_read_past_its_payload() -> None:
    head = classify(
        b'{"content":[{"resultType":"x"}],"resultType":"input_required","isError":true,"ttlMs":5,"cacheScope":"public"}'
    )
    assert head == ResultHead("input_required", True, 5, "public")


def test_a_result_that_does_not_say_is_complete_and_not_to_be_cached() -> None:
    assert classify(b"{}") == ResultHead("complete", False, 0, "private")


@pytest.mark.parametrize(
    ("members", "head"),
    [
        ({"ttlMs": -1}, ResultHead("complete", False, 0, "private")),
        ({"ttlMs": 2.9}, ResultHead("complete", False, 2, "private")),
        ({"ttlMs": 1e300}, ResultHead("complete", False, MAX_TTL_MS, "private")),
        ({"ttlMs": None, "cacheScope": None, "isError": None}, ResultHead("complete", False, 0, "private")),
        ({"ttlMs": 5, "cacheScope": "PUBLIC"}, ResultHead("complete", False, 5, "private")),
        ({"ttlMs": "5", "cacheScope": "public"}, ResultHead("complete", False, 0, "private")),
        ({"ttlMs": 5, "cacheScope": 1, "isError": True}, ResultHead("complete", True, 0, "private")),
        ({"isError": "true", "resultType": "x"}, ResultHead("x", False, 0, "private")),
    ],
)
def test_unusable_hints_mean_do_not_cache(members: dict[str, Any], head: ResultHead) -> None:
    assert classify(raw(members)) == head


@pytest.mark.parametrize("result", [b"[]", b"null", b'"x"', b"", b"{", b'{"resultType":5}', b'{"resultType":null}'])
def test_what_is_no_result_is_a_fault(result: bytes) -> None:
    assert isinstance(classify(result), Fault)


@pytest.mark.parametrize("result", [b"[]", b"null", b"1", b"", b'{"\xff":1}'])
def test_no_translation_takes_what_is_no_object(result: bytes) -> None:
    assert isinstance(to_modern(result, "tools/call"), Fault)
    assert isinstance(to_legacy(result, "tools/call", "2025-11-25"), Fault)
    assert isinstance(with_members(result, {}), Fault)


# --- to modern ---


def test_a_legacy_result_is_complete_and_else_stays_as_it_came() -> None:
    assert (
        to_modern(b'{ "content" : [ ] , "x":1.0}', "tools/call")
        == b'{"resultType":"complete","content" : [ ] , "x":1.0}'
    )


def test_a_legacy_result_with_a_flag_that_is_none_keeps_all_it_has() -> None:
    said = b'{"isError":null,"content":[{"type":"text","text":"1.0"}],"x":1.00}'
    written = to_modern(said, "tools/call", server_info=b'{"name":"a"}')
    assert isinstance(written, bytes)
    assert b'"x":1.00' in written
    assert json.loads(written) == json.loads(said) | {"resultType": "complete", "_meta": {SERVER_INFO: {"name": "a"}}}


@pytest.mark.parametrize("empty", [b"{}", b"{ }", b" {\r\n\t}"])
def test_an_empty_result_becomes_modern_without_a_stray_comma(empty: bytes) -> None:
    assert modern(empty) == {"resultType": "complete"}


@pytest.mark.parametrize("method", CACHEABLE)
def test_caching_hints_are_added_on_the_six_methods(method: str) -> None:
    assert modern(b'{"a":1}', method) == {"resultType": "complete", "ttlMs": 0, "cacheScope": "private", "a": 1}


@pytest.mark.parametrize("method", ["tools/call", "prompts/get", "completion/complete", "unknown"])
def test_caching_hints_are_added_on_no_other_method(method: str) -> None:
    assert modern(b'{"a":1}', method) == {"resultType": "complete", "a": 1}


def test_caching_hints_on_another_method_are_unknown_members_and_stay_as_they_came() -> None:
    assert to_modern(b'{"ttlMs" : 5,"cacheScope":"x"}', "tools/call") == (
        b'{"resultType":"complete","ttlMs" : 5,"cacheScope":"x"}'
    )


def test_caching_hints_a_server_gave_are_kept_if_they_can_be_used() -> None:
    assert modern(b'{"ttlMs":5,"cacheScope":"public"}', "tools/list") == {
        "resultType": "complete",
        "ttlMs": 5,
        "cacheScope": "public",
    }
    assert modern(b'{"ttlMs":5}', "tools/list") == {"resultType": "complete", "ttlMs": 5, "cacheScope": "private"}
    assert modern(b'{"ttlMs":"x","cacheScope":"all"}', "tools/list")["ttlMs"] == 0
    assert modern(b'{"cacheScope":"all","resultType":[]}', "tools/list")["cacheScope"] == "private"


def test_a_legacy_server_cannot_smuggle_another_result_type() -> None:
    assert modern(b'{"result\\u0054ype":"input_required","a":1}') == {"resultType": "complete", "a": 1}


def test_server_info_is_meta_and_joins_what_is_there() -> None:
    info = b'{"name":"s","version":"1"}'
    value = {"name": "s", "version": "1"}
    assert modern(b"{}", server_info=info) == {"resultType": "complete", "_meta": {SERVER_INFO: value}}
    assert modern(b'{"a":1}', "tools/list", info)["_meta"] == {SERVER_INFO: value}
    assert modern(b'{"_meta":{"x":1}}', server_info=info)["_meta"] == {"x": 1, SERVER_INFO: value}
    assert modern(b'{"_meta":5}', server_info=info)["_meta"] == {SERVER_INFO: value}


# --- to legacy ---


@pytest.mark.parametrize("revision", LEGACY_VERSIONS)
def test_a_legacy_client_sees_no_modern_members(revision: str) -> None:
    members = {
        "resultType": "complete", "ttlMs": 5, "cacheScope": "public", "contents": [1.0], "more": {"a": 1},
        "_meta": {SERVER_INFO: {"name": "s"}},
    }  # fmt: skip
    assert legacy(members, "resources/read", revision) == {"contents": [1.0], "more": {"a": 1}}


def test_other_meta_is_kept_as_it_is() -> None:
    assert legacy({"_meta": {SERVER_INFO: {}, "x": 1}}, "ping") == {"_meta": {"x": 1}}
    assert legacy({"_meta": {"x": 1}}, "ping") == {"_meta": {"x": 1}}
    assert legacy({"_meta": 5}, "ping") == {"_meta": 5}


@pytest.mark.parametrize("result_type", ["input_required", "task", 5])
def test_a_result_that_is_not_complete_is_not_put_into_legacy_words(result_type: Any) -> None:
    assert isinstance(to_legacy(raw({"resultType": result_type}), "tools/call", "2025-11-25"), Fault)


@pytest.mark.parametrize("revision", ["2025-06-18", "2025-11-25"])
def test_structured_content_may_be_any_json_in_modern_and_an_object_in_legacy(revision: str) -> None:
    kept = {"content": [TEXT], "structuredContent": {"a": 1}}
    assert legacy(kept, revision=revision) == kept
    assert legacy({"content": [TEXT], "structuredContent": [1]}, revision=revision) == {"content": [TEXT]}
    assert legacy({"content": [], "structuredContent": [1]}, revision=revision) == {
        "content": [{"type": "text", "text": "[1]"}]
    }


@pytest.mark.parametrize("revision", ["2024-11-05", "2025-03-26"])
def test_2025_03_26_has_no_structured_output_but_what_it_said_stays_readable(revision: str) -> None:
    assert legacy({"content": [TEXT], "structuredContent": {"a": 1}}, revision=revision) == {"content": [TEXT]}
    assert legacy({"structuredContent": {"a": 1}}, revision=revision) == {
        "content": [{"type": "text", "text": '{"a":1}'}]
    }


def test_a_tool_result_always_has_content() -> None:
    assert legacy({"resultType": "complete"}) == {"content": []}


@pytest.mark.parametrize(
    ("revision", "kept"), [("2025-11-25", True), ("2025-06-18", True), ("2025-03-26", False), ("2024-11-05", False)]
)
def test_resource_links_are_blocks_from_2025_06_18_on(revision: str, kept: bool) -> None:
    link = {"type": "resource_link", "uri": "file:///a", "name": "a"}
    text = {"type": "text", "text": "a: file:///a"}
    assert legacy({"content": [TEXT, link]}, revision=revision) == {"content": [TEXT, link if kept else text]}
    messages = [{"role": "user", "content": link}]
    down = [{"role": "user", "content": text}]
    assert legacy({"messages": messages}, "prompts/get", revision) == {"messages": messages if kept else down}


@pytest.mark.parametrize("revision", LEGACY_VERSIONS)
def test_output_schemas_are_of_type_object_in_legacy_and_absent_before_2025_06_18(revision: str) -> None:
    tools: list[dict[str, Any]] = [
        {"name": "a", "outputSchema": {"type": "object"}},
        {"name": "b", "outputSchema": {"type": "array"}},
        {"name": "c"},
    ]
    found = legacy({"tools": tools, "nextCursor": ""}, "tools/list", revision)
    assert found["nextCursor"] == ""
    assert ["outputSchema" in tool for tool in found["tools"]] == [revision >= "2025-06-18", False, False]


@pytest.mark.parametrize("method", ["tools/list", "prompts/get"])
def test_a_result_without_its_main_member_passes(method: str) -> None:
    assert legacy({}, method, "2024-11-05") == {}


@pytest.mark.parametrize("revision", LEGACY_VERSIONS)
@given(members=st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=8), max_size=5))
def test_unknown_members_survive_both_ways(revision: str, members: dict[str, Any]) -> None:
    kept = {key: value for key, value in members.items() if key not in ("resultType", "_meta", "ttlMs", "cacheScope")}
    there = to_modern(raw(kept), "completion/complete")
    assert isinstance(there, bytes)
    assert legacy(there, "completion/complete", revision) == kept


def test_members_of_ours_are_set_and_removed_and_others_stay_as_they_came() -> None:
    result = b'{"tools":[1.0 ],"nextCursor":"theirs","x":1}'
    assert with_members(result, {"nextCursor": b'"ours"'}) == b'{"tools":[1.0 ],"nextCursor":"ours","x":1}'
    assert with_members(result, {"nextCursor": None, "absent": None}) == b'{"tools":[1.0 ],"x":1}'
