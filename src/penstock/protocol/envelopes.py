"""JSON-RPC envelopes: bytes to messages and back.

Knows: JSON-RPC 2.0 as each revision of MCP narrows it. Does not know: methods, `_meta`, HTTP, who calls.
Invariant: nothing raw of an envelope is ever forwarded. What `decode` judged (after duplicate keys were resolved: the last
one wins) is what `encode_*` writes, so no server can see another message than the policies saw.

Source: JSON-RPC 2.0; "Messages" of basic/index of each revision; batches: 2025-03-26, basic/transports.
"""

import re
from collections.abc import Callable
from itertools import accumulate
from typing import Final

import msgspec
from msgspec import UNSET, Raw, UnsetType

from penstock.protocol.errors import INVALID_REQUEST, LIMIT_EXCEEDED, PARSE_ERROR
from penstock.protocol.messages import Fault, Message, Notification, Reply, Request, RpcError
from penstock.protocol.result_marks import ResultMarks, count_openings, read_marks
from penstock.protocol.wire import Asked, Wire

MAX_DEPTH: Final = 64
"""Nested objects and arrays of one message, the envelope included."""
MAX_ID_BYTES: Final = 1024
"""Length of a string id with its quotes."""
MAX_SAFE_INTEGER: Final = 2**53
"""Integer ids lie within ± this: beyond it JavaScript peers answer with another id than they were asked."""
MAX_BATCH: Final = 100
"""Messages of one batch."""


_decode_asked = msgspec.json.Decoder(Asked).decode
_decode_wire = msgspec.json.Decoder(Wire).decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_items = msgspec.json.Decoder(list[Raw]).decode
_decode_any = msgspec.json.Decoder(Raw).decode
_decode_str = msgspec.json.Decoder(str).decode
_encode = msgspec.json.Encoder().encode

_TOO_DEEP: Final = Fault(
    LIMIT_EXCEEDED, f"the message nests deeper than {MAX_DEPTH} objects and arrays", reason="too_deep"
)
_NOT_JSON: Final = Fault(PARSE_ERROR, "Parse error: the message is not valid JSON in UTF-8")


def openings_slowly(body: bytes) -> int:
    """How many brackets open objects and arrays, where `json_members` is not there: many times faster than `bytes.count`."""
    return 2 * len(body) - len(body.replace(b"{", b"")) - len(body.replace(b"[", b""))


_count_openings: Final[Callable[[bytes], int]] = count_openings or openings_slowly


def decode(body: bytes) -> Message | Fault:
    """What one JSON-RPC message says, or why it is none.

    Refuses: what is not UTF-8 JSON (-32700); a batch, a wrong `jsonrpc`, an id that is null, fractional, boolean or beyond
    ±2^53, `params` that are no object, a reply with both or neither of `result` and `error` or a result that is no object
    (-32600, with the id where it could be read); nesting beyond `MAX_DEPTH` or an id beyond `MAX_ID_BYTES` (our own code).
    Never raises.
    """
    if _count_openings(body) > MAX_DEPTH and nests_too_deep(body):
        return _TOO_DEEP
    try:
        if not body.isascii():
            body.decode()
        asked = _decode_asked(body)
    except msgspec.ValidationError:
        return _decode_other(body)  # another kind of message, or none
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _decode_again(body)
    raw_id = bytes(asked.id)
    if raw_id.isdigit() and len(raw_id) < 16:
        return Request(raw_id, asked.method, asked.params)
    identity = read_id(raw_id)
    return Request(identity, asked.method, asked.params) if isinstance(identity, bytes) else identity


def _decode_other(body: bytes) -> Message | Fault:
    """A message that has other members than a request with parameters needs."""
    try:
        wire = _decode_wire(body)
    except (msgspec.DecodeError, RecursionError):
        return _decode_again(body)
    if wire.jsonrpc != "2.0":
        return Fault(INVALID_REQUEST, "Invalid request: 'jsonrpc' must be \"2.0\"", _id_or_none(wire.id))
    method = wire.method
    if method is UNSET or wire.result is not UNSET or wire.error is not UNSET:
        return _reply(wire)
    params = {} if wire.params is UNSET else wire.params
    if wire.id is UNSET:
        return Notification(method, params)
    identity = read_id(bytes(wire.id))
    return Request(identity, method, params) if isinstance(identity, bytes) else identity


def compact_result(body: bytes | memoryview, id: bytes) -> tuple[bytes | memoryview, ResultMarks] | None:
    """The result of a reply written without spaces in one of the two orders nearly all servers use, and what stands in it;
    None: `decode` the reply.

    The result is a complete JSON object: whatever stands between the known beginning and the known end is judged as one, so
    that a member smuggled in behind it is not missed. The id must be the one given. Of a view the result is one, too.
    """
    head = b'{"jsonrpc":"2.0","id":%b,"result":' % id
    if type(body) is memoryview:
        return _compact_view(body, head, id)
    if body.startswith(head):
        if not body.endswith(b"}"):
            return None
        result = body[len(head) : -1]
    else:
        end = b',"jsonrpc":"2.0","id":%b}' % id
        if not body.startswith(b'{"result":') or not body.endswith(end):
            return None
        result = body[10 : -len(end)]
    marks = read_marks(result)
    return None if marks is None else (result, marks)


def _compact_view(body: memoryview, head: bytes, id: bytes) -> tuple[memoryview, ResultMarks] | None:
    """The same for what is too large to be copied without need."""
    if bytes(body[: len(head)]) == head:
        if body[-1] != ord("}"):
            return None
        result = body[len(head) : -1]
    else:
        end = b',"jsonrpc":"2.0","id":%b}' % id
        if bytes(body[:10]) != b'{"result":' or bytes(body[-len(end) :]) != end:
            return None
        result = body[10 : -len(end)]
    marks = read_marks(result)
    return None if marks is None else (result, marks)


def _reply(wire: Wire) -> Reply | Fault:
    """The reply in an envelope that is no request."""
    if wire.id is UNSET or bytes(wire.id) == b"null":
        identity = None
    else:
        read = read_id(bytes(wire.id))
        if isinstance(read, Fault):
            return read
        identity = read
    if wire.method is not UNSET:
        return Fault(INVALID_REQUEST, "Invalid request: 'method' and a reply's members exclude each other", identity)
    error = wire.error
    result = None if wire.result is UNSET else bytes(wire.result)
    if error is not None and error is not UNSET:
        if result is not None and result != b"null":
            return Fault(INVALID_REQUEST, "Invalid request: 'result' and 'error' exclude each other", identity)
        data = None if error.data is UNSET else bytes(error.data)
        return Reply(identity, None, RpcError(error.code, error.message, data))
    if result is None:
        return Fault(INVALID_REQUEST, "Invalid request: none of 'method', 'result', 'error' is there", identity)
    if identity is None:
        return Fault(INVALID_REQUEST, "Invalid request: a result needs the id of its request")
    if result[:1] != b"{":
        return Fault(INVALID_REQUEST, "Invalid request: 'result' must be an object", identity)
    return Reply(identity, result)


def _decode_again(body: bytes) -> Message | Fault:
    """The slow way for what the typed decoder refused: repair lone surrogates, or find the most exact refusal."""
    try:
        body.decode()
    except UnicodeDecodeError:
        return _NOT_JSON
    try:
        _decode_any(body)
    except (msgspec.DecodeError, RecursionError):
        repaired = replace_lone_surrogates(body)
        return decode(repaired) if repaired != body else _NOT_JSON
    if is_batch(body):
        return Fault(INVALID_REQUEST, "Invalid request: batches are not part of this revision")
    try:
        members = _decode_members(body)
    except msgspec.ValidationError:
        return Fault(INVALID_REQUEST, "Invalid request: the message is not an object")
    identity = _id_or_none(members.get("id", UNSET))
    if bytes(members.get("jsonrpc", b"")) != b'"2.0"':
        return Fault(INVALID_REQUEST, "Invalid request: 'jsonrpc' must be \"2.0\"", identity)
    if "method" in members and bytes(members["method"])[:1] != b'"':
        return Fault(INVALID_REQUEST, "Invalid request: 'method' must be a string", identity)
    if "method" in members and "params" in members:
        return Fault(INVALID_REQUEST, "Invalid request: 'params' must be an object", identity)
    return Fault(INVALID_REQUEST, "Invalid request: 'error' needs an integer 'code' and a string 'message'", identity)


def decode_batch(body: bytes) -> list[Message | Fault] | Fault:
    """The messages of a 2025-03-26 batch, each judged by itself.

    The whole is refused when it is no array of 1 to `MAX_BATCH` items; an item is refused when it is an `initialize`
    (which must travel alone) or repeats the id of a request before it (nobody could tell the answers apart).
    """
    if nests_too_deep(body):
        return _TOO_DEEP
    try:
        body.decode()
        items = _decode_items(body)
    except msgspec.ValidationError:
        return Fault(INVALID_REQUEST, "Invalid request: the message is not a batch")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        repaired = replace_lone_surrogates(body)
        return decode_batch(repaired) if repaired != body else _NOT_JSON
    if not 0 < len(items) <= MAX_BATCH:
        return Fault(
            INVALID_REQUEST, f"Invalid request: a batch holds 1 to {MAX_BATCH} messages, this one {len(items)}"
        )
    seen: set[bytes] = set()
    return [_batch_item(decode(bytes(item)), seen) for item in items]


def _batch_item(message: Message | Fault, seen: set[bytes]) -> Message | Fault:
    if isinstance(message, Request):
        if message.method == "initialize":
            return Fault(INVALID_REQUEST, "Invalid request: 'initialize' must not be part of a batch", message.id)
        if message.id in seen:
            return Fault(INVALID_REQUEST, "Invalid request: the id is used twice in the batch", message.id)
        seen.add(message.id)
    return message


def is_batch(body: bytes) -> bool:
    """Whether the body is an array rather than one message."""
    return body[:64].lstrip(b" \t\r\n")[:1] == b"["


def read_id(raw: bytes) -> bytes | Fault:
    """The canonical bytes of a JSON value used as an id (or as a progress token), or why it is none.

    A string or an integer stays what it was, string or integer: peers compare by type as well.
    """
    if raw[:1] == b'"':
        if len(raw) > MAX_ID_BYTES:
            return Fault(LIMIT_EXCEEDED, f"the id is longer than {MAX_ID_BYTES} bytes", reason="id_too_long")
        return _encode(_decode_str(raw)) if b"\\" in raw else raw
    if raw.lstrip(b"-").isdigit() and len(raw) <= 17 and -MAX_SAFE_INTEGER <= int(raw) <= MAX_SAFE_INTEGER:
        return b"%d" % int(raw)
    return Fault(INVALID_REQUEST, "Invalid request: 'id' must be a string or an integer within ±2^53")


def _id_or_none(raw: Raw | UnsetType) -> bytes | None:
    identity = None if raw is UNSET else read_id(bytes(raw))
    return None if isinstance(identity, Fault) else identity


# --- what the parser cannot take ---------------------------------------------------------------------------------------

_BRACKETS_ONLY: Final = bytes(range(256)).translate(None, b"[]{}")
_ONE_KIND: Final = bytes.maketrans(b"{}", b"[]")
_STEPS: Final = bytes.maketrans(b"[]", b"\x01\xff")


def nests_too_deep(body: bytes) -> bool:
    """Whether any value lies deeper than `MAX_DEPTH`, without parsing and without recursion.

    Escapes, then strings, then all but brackets are dropped; leaves are folded away while that halves the rest; what is
    left is summed up as +1 and -1. Each step runs at the speed of C and is linear in the body.
    """
    bare = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    brackets = b"".join(bare.split(b'"')[::2]).translate(_ONE_KIND, _BRACKETS_ONLY)
    folded = 0
    while len(brackets) > 2 * MAX_DEPTH:
        rest = brackets.replace(b"[]", b"")
        if 2 * len(rest) > len(brackets):
            break
        brackets, folded = rest, folded + 1
    depths = accumulate(memoryview(brackets.translate(_STEPS)).cast("b"))
    return folded + max(depths, default=0) > MAX_DEPTH


_ESCAPES: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)


def replace_lone_surrogates(body: bytes) -> bytes:
    """Replace each escaped half of a surrogate pair that lacks its other half by U+FFFD.

    JavaScript's `JSON.stringify` writes such halves when a server cut a text inside an emoji; strict parsers (ours, and those
    of many clients) refuse the whole message for it.
    """
    return _ESCAPES.sub(lambda found: b"\\ufffd" if found[1] else found[0], body)


# --- writing -----------------------------------------------------------------------------------------------------------


def encode_request(id: bytes, method: str, params: dict[str, Raw]) -> bytes:  # JSON-RPC's own word
    """A request; `params` are left out when empty."""
    if params:
        return b'{"jsonrpc":"2.0","id":%b,"method":%b,"params":%b}' % (id, _encode(method), _encode(params))
    return b'{"jsonrpc":"2.0","id":%b,"method":%b}' % (id, _encode(method))


def encode_notification(method: str, params: dict[str, Raw]) -> bytes:
    """A notification; `params` are left out when empty."""
    if params:
        return b'{"jsonrpc":"2.0","method":%b,"params":%b}' % (_encode(method), _encode(params))
    return b'{"jsonrpc":"2.0","method":%b}' % _encode(method)


def encode_result(id: bytes, result: bytes) -> bytes:
    """A reply that carries a result (a JSON object, written as it is)."""
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (id, result)


def encode_large_result(id: bytes, result: bytes | memoryview) -> tuple[bytes | memoryview, ...]:
    """The same in pieces, for what is too large to be copied without need."""
    return b'{"jsonrpc":"2.0","id":%b,"result":' % id, result, b"}"


def encode_error(
    id: bytes | None,
    code: int,
    message: str,
    data: bytes | None = None,
    *,
    null_id: bool,
) -> bytes:
    """A reply that carries an error.

    Args:
        id: of the request, or None when it could not be read.
        null_id: what to write then: `"id":null` (revisions before 2025-11-25, see `versions.writes_null_id`) or no id at all.
    """
    head = b'"id":%b,' % id if id is not None else b'"id":null,' if null_id else b""
    tail = b"" if data is None else b',"data":%b' % data
    return b'{"jsonrpc":"2.0",%b"error":{"code":%d,"message":%b%b}}' % (head, code, _encode(message), tail)


def encode_batch(messages: list[bytes]) -> bytes:
    """A batch of encoded messages (2025-03-26)."""
    return b"[%b]" % b",".join(messages)


def one_line(message: bytes) -> bytes:
    """The same JSON without line breaks, as stdio and event streams need it.

    In valid JSON a raw line break is whitespace between tokens, never part of a string.
    """
    if b"\n" in message or b"\r" in message:
        return message.replace(b"\r", b" ").replace(b"\n", b" ")
    return message
