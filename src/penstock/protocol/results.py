"""Results: what the gateway must know of them, and how the other era words them.

Knows: the members that eras and revisions treat differently. Does not know: envelopes, clients, servers.
Payloads stay the bytes they were: members are added by splicing, removed by writing the others again as they stood. Only what
a revision cannot express is rewritten, and only when it is there.

Source: schema.ts of each revision (Result, CacheableResult, CallToolResult, Tool, ContentBlock).
"""

from typing import Final, NamedTuple

import msgspec
from msgspec import Raw

from penstock.protocol.content import down_level_blocks, down_level_messages, down_level_tools, text_block
from penstock.protocol.errors import INTERNAL_ERROR
from penstock.protocol.messages import Fault, FoundHead
from penstock.protocol.meta import SERVER_INFO
from penstock.protocol.methods import METHODS
from penstock.protocol.result_marks import (
    COMPLETE,
    CONTENT,
    META,
    SCOPE,
    STRUCTURED,
    TTL,
    TYPE,
    ResultMarks,
    read_marks,
)
from penstock.protocol.versions import Era

FIRST_STRUCTURED: Final = "2025-06-18"
"""First revision with structured output and resource links."""
MAX_TTL_MS: Final = 365 * 86_400_000
"""A year; longer hints mean no more than that."""

_NOT_AN_OBJECT: Final = Fault(INTERNAL_ERROR, "The server's result is not a JSON object")
_CACHEABLE: Final = frozenset(method for method, rule in METHODS[Era.MODERN].items() if rule.cacheable)


class ResultHead(NamedTuple):
    """What the gateway looks at in a result."""

    result_type: str
    """`complete` (also when a legacy result does not say), `input_required`, or an extension's own."""
    is_error: bool
    ttl_ms: int
    """0 when absent or unusable."""
    cache_scope: str
    """`public` only if the server said exactly that; else `private`."""


_decode_head: Final = msgspec.json.Decoder(FoundHead).decode
_decode_members: Final = msgspec.json.Decoder(dict[str, Raw]).decode
_encode: Final = msgspec.json.Encoder().encode


def classify(raw: bytes) -> ResultHead | Fault:
    """The head of a result; a Fault when it is no object, or its `resultType` no string.

    Unusable caching hints are read as "do not cache": a wrong hint must not fail a call, nor share it.
    """
    try:
        head = _decode_head(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _classify_tolerantly(raw)
    ttl_ms = int(min(head.ttl_ms, MAX_TTL_MS)) if head.ttl_ms and head.ttl_ms > 0 else 0
    scope = "public" if head.cache_scope == "public" else "private"
    return ResultHead(head.result_type, head.is_error is True, ttl_ms, scope)


def _classify_tolerantly(raw: bytes) -> ResultHead | Fault:
    members = _members(raw)
    if isinstance(members, Fault):
        return members
    result_type = bytes(members.get("resultType", b'"complete"'))
    if result_type[:1] != b'"':
        return Fault(INTERNAL_ERROR, "The server's 'resultType' is not a string")
    is_error = bytes(members.get("isError", b"")) == b"true"
    return ResultHead(msgspec.json.decode(result_type, type=str), is_error, 0, "private")


def to_modern(raw: bytes, method: str, *, server_info: bytes = b"", marks: ResultMarks | None = None) -> bytes | Fault:
    """A legacy server's complete result for a modern client.

    Adds `resultType`, on the six cacheable methods also `ttlMs` 0 and `cacheScope` private where they are missing, and
    `serverInfo` to its `_meta` when `server_info` (a JSON object) is given.
    """
    cacheable = method in _CACHEABLE
    found = read_marks(raw) if marks is None else marks
    if found is not None and not found.has(TYPE) and not (cacheable and (found.has(TTL) or found.has(SCOPE))):
        if not server_info:
            return _splice(_HEADS[cacheable], raw)
        if not found.has(META):
            return _splice(_NAMED_HEADS[cacheable] % server_info, raw)
    return _to_modern_slowly(raw, cacheable, server_info)


_HEADS: Final = {
    False: b'{"resultType":"complete",',
    True: b'{"resultType":"complete","ttlMs":0,"cacheScope":"private",',
}
_NAMED_HEADS: Final = {
    cacheable: b'%b"_meta":{"%b":%%b},' % (head, SERVER_INFO.encode()) for cacheable, head in _HEADS.items()
}


def _splice(head: bytes, raw: bytes) -> bytes:
    """The members of `head` (which ends in a comma), then those of the object `raw`."""
    rest = raw[raw.index(b"{") + 1 :].lstrip(b" \t\r\n")
    return head[:-1] + rest if rest[:1] == b"}" else head + rest


def _to_modern_slowly(raw: bytes, cacheable: bool, server_info: bytes) -> bytes | Fault:
    members = _members(raw)
    if isinstance(members, Fault):
        return members
    members["resultType"] = Raw(COMPLETE)
    if cacheable:
        head = classify(raw)
        ttl_ms, scope = (0, "private") if isinstance(head, Fault) else (head.ttl_ms, head.cache_scope)
        members["ttlMs"], members["cacheScope"] = Raw(b"%d" % ttl_ms), Raw(_encode(scope))
    if server_info:
        meta = _members(bytes(members.get("_meta", b"{}")))
        meta = {} if isinstance(meta, Fault) else meta
        members["_meta"] = Raw(_encode(meta | {SERVER_INFO: Raw(server_info)}))
    return _encode(members)


def to_legacy(raw: bytes, method: str, revision: str, marks: ResultMarks | None = None) -> bytes | Fault:
    """A modern server's complete result for a legacy client, in what its revision can express.

    Drops `resultType`, `ttlMs`, `cacheScope` and the server info in `_meta`. A result that is not complete is a Fault: it must
    be resolved before it comes here. Also fit for a legacy result that an older revision shall read.
    """
    if method == "tools/call" and revision >= FIRST_STRUCTURED and marks is not None:
        quick = _to_legacy_quickly(raw, marks)
        if quick is not None:
            return quick
    members = _members(raw)
    if isinstance(members, Fault):
        return members
    result_type = members.pop("resultType", None)
    if result_type is not None and bytes(result_type) != COMPLETE:
        return Fault(INTERNAL_ERROR, "The server's result cannot be put into words of the client's revision")
    members.pop("ttlMs", None)
    members.pop("cacheScope", None)
    if "_meta" in members:
        _drop_server_info(members)
    down_level = _DOWN_LEVEL.get(method)
    if down_level is not None:
        down_level(members, revision)
    return _encode(members)


_COMPLETE: Final = b'"resultType":"complete"'
_COMPLETE_AT_END: Final = b',"resultType":"complete"}'
_TAIL_BYTES: Final = 512


def _to_legacy_quickly(raw: bytes, marks: ResultMarks) -> bytes | None:
    """A tool's result without its `resultType`, cut out of the bytes; None where more than that must change, or it is not found
    near an end.
    """
    if not marks.has(TYPE) or not marks.has(CONTENT) or marks.has(META):
        return None
    if marks.has(TTL) or marks.has(SCOPE) or not marks.is_complete:
        return None
    if marks.has(STRUCTURED) and not marks.is_structure_object:
        return None
    if raw.endswith(_COMPLETE_AT_END):  # as nearly all servers write it; nothing but the object itself can end there
        return raw[: -len(_COMPLETE_AT_END)] + b"}"
    if raw.startswith(b"{%b," % _COMPLETE):
        return b"{" + raw[len(_COMPLETE) + 2 :]
    found = raw.rfind(_COMPLETE, max(0, len(raw) - _TAIL_BYTES))
    if found < 2 or raw[found - 1 : found] != b",":
        return None
    after = raw[found + len(_COMPLETE) :]
    # It is the object's own member, and not one of an object inside, if what follows ends just one object.
    try:
        _decode_members(b'{"":0' + after)
    except msgspec.DecodeError:
        return None
    return raw[: found - 1] + after


def _drop_server_info(members: dict[str, Raw]) -> None:
    meta = _members(bytes(members["_meta"]))
    if isinstance(meta, Fault) or SERVER_INFO not in meta:
        return
    del meta[SERVER_INFO]
    if meta:
        members["_meta"] = Raw(_encode(meta))
    else:
        del members["_meta"]


def _down_level_call(members: dict[str, Raw], revision: str) -> None:
    """`structuredContent`: objects only, none before 2025-06-18; what is dropped stays readable as text."""
    if "content" in members and revision < FIRST_STRUCTURED:
        members["content"] = down_level_blocks(members["content"], revision)
    structured = bytes(members.get("structuredContent", b"{}"))
    if "structuredContent" in members and (revision < FIRST_STRUCTURED or structured[:1] != b"{"):
        del members["structuredContent"]
        content = bytes(members.get("content", b"[]"))
        if not content.strip(b"[] \t\r\n"):
            members["content"] = Raw(b"[%b]" % text_block(structured.decode()))
    members.setdefault("content", Raw(b"[]"))


def _down_level_prompt(members: dict[str, Raw], revision: str) -> None:
    if "messages" in members and revision < FIRST_STRUCTURED:
        members["messages"] = down_level_messages(members["messages"], revision)


def _down_level_tools(members: dict[str, Raw], revision: str) -> None:
    if "tools" in members:
        members["tools"] = down_level_tools(members["tools"], drop_all=revision < FIRST_STRUCTURED)


_DOWN_LEVEL: Final = {
    "tools/call": _down_level_call,
    "prompts/get": _down_level_prompt,
    "tools/list": _down_level_tools,
}


def with_members(raw: bytes, changes: dict[str, bytes | None]) -> bytes | Fault:
    """The same object with some members set (JSON bytes) or removed (None); for cursors, task ids and states of ours."""
    members = _members(raw)
    if isinstance(members, Fault):
        return members
    for key, value in changes.items():
        if value is None:
            members.pop(key, None)
        else:
            members[key] = Raw(value)
    return _encode(members)


def _members(raw: bytes) -> dict[str, Raw] | Fault:
    try:
        return _decode_members(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _NOT_AN_OBJECT
