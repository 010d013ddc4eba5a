"""Content blocks and tools, in what an older revision can express.

Knows: which block came with which revision. Does not know: results around them, eras.
What cannot be read as blocks is left as it is: judging a server's content is the client's business.

Source: schema.ts: 2024-11-05 has text, image and resource; 2025-03-26 adds audio; 2025-06-18 resource_link and outputSchema;
2026-07-28 allows output schemas of any type.
"""

from typing import Final

import msgspec
from msgspec import UNSET, Raw, UnsetType

FIRST_AUDIO: Final = "2025-03-26"

_decode_blocks = msgspec.json.Decoder(list[dict[str, Raw]]).decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.Encoder().encode


class _Link(msgspec.Struct):
    uri: str
    name: str = ""
    title: str = ""
    description: str = ""


class _SchemaType(msgspec.Struct):
    type: Raw | UnsetType = UNSET


_decode_link = msgspec.json.Decoder(_Link).decode
_decode_schema_type = msgspec.json.Decoder(_SchemaType).decode


def text_block(text: str) -> bytes:
    """A text content block."""
    return _encode({"type": "text", "text": text})


def down_level_blocks(raw: Raw, revision: str) -> Raw:
    """A list of content blocks for a revision before 2025-06-18: links become text, for 2024-11-05 audio becomes a resource."""
    if not _needs_work(bytes(raw), revision):
        return raw
    try:
        blocks = _decode_blocks(raw)
    except msgspec.ValidationError:
        return raw
    return Raw(_encode([_block(block, index, revision) for index, block in enumerate(blocks)]))


def down_level_messages(raw: Raw, revision: str) -> Raw:
    """The messages of a prompt, each with one content block, likewise."""
    if not _needs_work(bytes(raw), revision):
        return raw
    try:
        messages = _decode_blocks(raw)
        for index, message in enumerate(messages):
            if "content" in message:
                message["content"] = Raw(_encode(_block(_decode_members(message["content"]), index, revision)))
    except msgspec.ValidationError:
        return raw
    return Raw(_encode(messages))


def down_level_tools(raw: Raw, *, drop_all: bool) -> Raw:
    """Tools without the output schemas the revision does not know: all of them, or those that are not of type object."""
    if b'"outputSchema"' not in bytes(raw):
        return raw
    try:
        tools = _decode_blocks(raw)
    except msgspec.ValidationError:
        return raw
    changed = False
    for tool in tools:
        if "outputSchema" in tool and (drop_all or not _is_object_schema(tool["outputSchema"])):
            del tool["outputSchema"]
            changed = True
    return Raw(_encode(tools)) if changed else raw


def _is_object_schema(raw: Raw) -> bool:
    try:
        kind = _decode_schema_type(raw).type
    except msgspec.ValidationError:
        return False
    return kind is not UNSET and bytes(kind) == b'"object"'


def _needs_work(raw: bytes, revision: str) -> bool:
    return b'"resource_link"' in raw or (revision < FIRST_AUDIO and b'"audio"' in raw)


def _block(block: dict[str, Raw], index: int, revision: str) -> dict[str, Raw]:
    kind = bytes(block.get("type", b""))
    if kind == b'"resource_link"':
        return _link_as_text(block)
    if kind == b'"audio"' and revision < FIRST_AUDIO and "data" in block:
        return _audio_as_resource(block, index)
    return block


def _link_as_text(block: dict[str, Raw]) -> dict[str, Raw]:
    try:
        link = _decode_link(_encode(block))
    except msgspec.ValidationError:
        return block
    label = link.title or link.name
    text = f"{label}: {link.uri}" if label else link.uri
    if link.description:
        text += f" ({link.description})"
    kept = {key: value for key, value in block.items() if key in ("annotations", "_meta")}
    return {"type": Raw(b'"text"'), "text": Raw(_encode(text)), **kept}


def _audio_as_resource(block: dict[str, Raw], index: int) -> dict[str, Raw]:
    """The same bytes as an embedded resource, which every revision has."""
    resource = {"uri": Raw(b'"audio:%d"' % index), "blob": block["data"]}
    if "mimeType" in block:
        resource["mimeType"] = block["mimeType"]
    kept = {key: value for key, value in block.items() if key in ("annotations", "_meta")}
    return {"type": Raw(b'"resource"'), "resource": Raw(_encode(resource)), **kept}
