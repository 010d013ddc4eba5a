"""`_meta`: what travels beside the parameters of a request.

Knows: the reserved keys and the per-request fields of the modern era. Does not know: HTTP headers, what becomes of it.

Source: 2026-07-28 basic/index "_meta"; basic/patterns/progress; server/utilities/logging.
"""

from typing import Final

import msgspec
from msgspec import Raw

from penstock.protocol.envelopes import read_id
from penstock.protocol.errors import INVALID_PARAMS
from penstock.protocol.messages import Fault

PROTOCOL_VERSION: Final = "io.modelcontextprotocol/protocolVersion"
CLIENT_INFO: Final = "io.modelcontextprotocol/clientInfo"
CLIENT_CAPABILITIES: Final = "io.modelcontextprotocol/clientCapabilities"
LOG_LEVEL: Final = "io.modelcontextprotocol/logLevel"
SUBSCRIPTION_ID: Final = "io.modelcontextprotocol/subscriptionId"
SERVER_INFO: Final = "io.modelcontextprotocol/serverInfo"
PROGRESS_TOKEN: Final = "progressToken"
TRACE_CONTEXT: Final = ("traceparent", "tracestate", "baggage")

LOG_LEVELS: Final = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
"""Least severe first (RFC 5424)."""


class RequestMeta(msgspec.Struct, frozen=True):
    """The `_meta` of a request."""

    version: str
    """The revision the request speaks; empty for a legacy request, whose session knows."""
    client_info: bytes
    """JSON object, empty when the client did not say. Owned."""
    capabilities: bytes
    """JSON object; `{}` for a legacy request, whose session knows. Owned."""
    log_level: str | None
    progress_token: bytes | None
    """Canonical JSON bytes of a string or integer."""
    rest: dict[str, Raw]
    """All of `_meta` but version, client info and capabilities; the progress token and the log level are in it."""


_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_str = msgspec.json.Decoder(str).decode
_encode = msgspec.json.Encoder().encode

_NO_META: Final = Fault(
    INVALID_PARAMS,
    f"Invalid params: '_meta' must be an object that holds '{PROTOCOL_VERSION}' and '{CLIENT_CAPABILITIES}'",
)


def _bad(key: str, expected: str) -> Fault:
    return Fault(INVALID_PARAMS, f"Invalid params: '_meta[\"{key}\"]' must be {expected}")


def decode_meta(raw: Raw | bytes | None) -> RequestMeta | Fault:
    """The `_meta` of a modern request, or the -32602 it deserves.

    Args:
        raw: the value of `params._meta`, None when there is none.
    """
    members = _members(raw)
    if members is None:
        return _NO_META
    version_raw = members.pop(PROTOCOL_VERSION, None)
    capabilities_raw = members.pop(CLIENT_CAPABILITIES, None)
    info_raw = members.pop(CLIENT_INFO, None)
    if version_raw is None or capabilities_raw is None:
        missing = PROTOCOL_VERSION if version_raw is None else CLIENT_CAPABILITIES
        return Fault(INVALID_PARAMS, f"Invalid params: '_meta' lacks '{missing}'")
    version, capabilities = _text(version_raw), bytes(capabilities_raw)
    if version is None:
        return _bad(PROTOCOL_VERSION, "a string")
    if capabilities[:1] != b"{":
        return _bad(CLIENT_CAPABILITIES, "an object")
    info = b"" if info_raw is None else bytes(info_raw)
    if info and info[:1] != b"{":
        return _bad(CLIENT_INFO, "an object")
    return _finish(members, version, info, capabilities)


def decode_legacy_meta(raw: Raw | bytes | None) -> RequestMeta | Fault:
    """The `_meta` of a legacy request: optional, and none of its members means a version, a client or capabilities.

    The modern per-request keys are dropped if they are there: what they say is not what the session agreed on.
    """
    members = {} if raw is None else _members(raw)
    if members is None:
        return Fault(INVALID_PARAMS, "Invalid params: '_meta' must be an object")
    for key in (PROTOCOL_VERSION, CLIENT_INFO, CLIENT_CAPABILITIES, LOG_LEVEL):
        members.pop(key, None)
    return _finish(members, "", b"", b"{}")


def _finish(members: dict[str, Raw], version: str, info: bytes, capabilities: bytes) -> RequestMeta | Fault:
    token: bytes | None = None
    if PROGRESS_TOKEN in members:
        read = read_id(bytes(members[PROGRESS_TOKEN]))
        if isinstance(read, Fault):
            return _bad(PROGRESS_TOKEN, "a string or an integer")
        token = read
    level: str | None = None
    if LOG_LEVEL in members:
        level = _text(members[LOG_LEVEL])
        if level not in LOG_LEVELS:
            return _bad(LOG_LEVEL, f"one of {', '.join(LOG_LEVELS)}")
    return RequestMeta(version, info, capabilities, level, token, members)


def said_version(raw: Raw | bytes | None) -> str | None:
    """The protocol version `_meta` names, if it names one: then the request is modern, however bad the rest of it is."""
    members = _members(raw)
    found = None if members is None else members.get(PROTOCOL_VERSION)
    return None if found is None else _text(found)


def encode_modern_meta(
    version: str, client_info: bytes, capabilities: bytes, rest: dict[str, Raw] | None = None
) -> bytes:
    """The `_meta` object of a modern request.

    Args:
        client_info: JSON object; left out when empty.
        capabilities: JSON object.
        rest: further members; those with the names of the fields above are dropped, so that no key stands there twice.
    """
    info = b',"%b":%b' % (CLIENT_INFO.encode(), client_info) if client_info else b""
    head = b'{"%b":%b%b,"%b":%b' % (
        PROTOCOL_VERSION.encode(),
        _encode(version),
        info,
        CLIENT_CAPABILITIES.encode(),
        capabilities,
    )
    if not rest:
        return head + b"}"
    more = {key: value for key, value in rest.items() if key not in _PER_REQUEST}
    return b"%b,%b" % (head, _encode(more)[1:]) if more else head + b"}"


_PER_REQUEST: Final = frozenset({PROTOCOL_VERSION, CLIENT_INFO, CLIENT_CAPABILITIES})


def _members(raw: Raw | bytes | None) -> dict[str, Raw] | None:
    if raw is None:
        return None
    try:
        return _decode_members(raw)
    except msgspec.ValidationError:
        return None


def _text(raw: Raw) -> str | None:
    try:
        return _decode_str(raw)
    except msgspec.ValidationError:
        return None
