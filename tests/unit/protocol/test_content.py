"""Content blocks and tools in older revisions."""

import json
from typing import Any

import pytest
from msgspec import Raw

from penstock.protocol.content import down_level_blocks, down_level_messages, down_level_tools, text_block

LINK = {"type": "resource_link", "uri": "file:///a", "name": "a"}
AUDIO = {"type": "audio", "data": "AAAA", "mimeType": "audio/wav"}
RESOURCE = {"type": "resource", "resource": {"uri": "audio:0", "blob": "AAAA", "mimeType": "audio/wav"}}


def blocks(value: Any, revision: str) -> Any:
    return json.loads(bytes(down_level_blocks(Raw(json.dumps(value).encode()), revision)))


def messages(value: Any, revision: str) -> Any:
    return json.loads(bytes(down_level_messages(Raw(json.dumps(value).encode()), revision)))


def tools(value: Any, *, drop_all: bool) -> Any:
    return json.loads(bytes(down_level_tools(Raw(json.dumps(value).encode()), drop_all=drop_all)))


def test_a_text_block_is_written() -> None:
    assert json.loads(text_block('a "b"')) == {"type": "text", "text": 'a "b"'}


def test_2024_11_05_has_no_audio_and_gets_the_bytes_as_a_resource() -> None:
    assert blocks([AUDIO], "2024-11-05") == [RESOURCE]
    assert blocks([AUDIO], "2025-03-26") == [AUDIO]
    assert blocks([AUDIO, LINK], "2025-03-26") == [AUDIO, {"type": "text", "text": "a: file:///a"}]
    assert messages([{"role": "user", "content": AUDIO}], "2024-11-05") == [{"role": "user", "content": RESOURCE}]
    bare = blocks([{"type": "audio", "data": "AA"}], "2024-11-05")
    assert bare == [{"type": "resource", "resource": {"uri": "audio:0", "blob": "AA"}}]


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({}, "a: file:///a"),
        ({"title": "A file"}, "A file: file:///a"),
        ({"description": "of letters"}, "a: file:///a (of letters)"),
        ({"name": ""}, "file:///a"),
    ],
)
def test_a_resource_link_becomes_readable_text(more: dict[str, str], text: str) -> None:
    assert blocks([LINK | more], "2025-03-26") == [{"type": "text", "text": text}]


def test_annotations_and_meta_of_a_block_are_kept() -> None:
    extra = {"annotations": {"priority": 1}, "_meta": {"x": 1}}
    assert blocks([LINK | extra], "2025-03-26") == [{"type": "text", "text": "a: file:///a", **extra}]
    assert blocks([AUDIO | extra], "2024-11-05") == [RESOURCE | extra]


@pytest.mark.parametrize(
    "value",
    [
        "resource_link",
        ["resource_link"],
        [{"type": "resource_link"}],
        [{"type": "resource_link", "uri": 5}],
        [{"type": "audio"}],
        [{"text": "audio"}],
    ],
)
def test_what_cannot_be_read_as_blocks_is_left_alone(value: Any) -> None:
    assert blocks(value, "2024-11-05") == value


@pytest.mark.parametrize(
    "value", ["resource_link", [{"content": "resource_link"}], [{"role": "user", "x": "resource_link"}], [LINK]]
)
def test_what_cannot_be_read_as_messages_is_left_alone(value: Any) -> None:
    assert messages(value, "2025-03-26") == value


def test_content_that_needs_nothing_is_the_same_object() -> None:
    plain = Raw(b'[ {"type":"text","text":"x"} ]')
    assert down_level_blocks(plain, "2024-11-05") is plain
    assert down_level_messages(plain, "2024-11-05") is plain
    assert down_level_tools(plain, drop_all=True) is plain
    objects = Raw(b'[ {"outputSchema":{"type":"object"}} ]')
    assert down_level_tools(objects, drop_all=False) is objects


@pytest.mark.parametrize(
    "schema", [True, [], {}, {"type": ["object"]}, {"type": "string"}, {"anyOf": [{"type": "object"}]}]
)
def test_an_output_schema_that_is_not_of_type_object_is_dropped(schema: Any) -> None:
    assert tools([{"name": "t", "outputSchema": schema}], drop_all=False) == [{"name": "t"}]


def test_all_output_schemas_are_dropped_where_the_revision_has_none() -> None:
    assert tools([{"name": "t", "outputSchema": {"type": "object"}}], drop_all=True) == [{"name": "t"}]


def test_what_cannot_be_read_as_tools_is_left_alone() -> None:
    assert tools(["outputSchema"], drop_all=True) == ["outputSchema"]
    assert tools({"outputSchema": 1}, drop_all=True) == {"outputSchema": 1}
