"""JSON-RPC error codes, their HTTP statuses, and how codes are worded in the other era.

Knows: codes. Does not know: who refuses, or why.
Penstock's own refusals use HTTP statuses as codes (403, 413, 429, 503, 504, …): outside the range JSON-RPC reserves, so a
client can tell them from a server's own.

Source: 2026-07-28 basic/index "Error Codes", basic/transports/streamable-http; 2025-11-25 server/resources (-32002),
client/elicitation (-32042).
"""

from typing import Final

import msgspec

from penstock.protocol.versions import SUPPORTED_VERSIONS, Era

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603

HEADER_MISMATCH: Final = -32020
"""Modern only, with 400: a mirrored header is missing, malformed, or contradicts the body."""
MISSING_CLIENT_CAPABILITY: Final = -32021
"""Modern only, with 400 and `data.requiredCapabilities`."""
UNSUPPORTED_VERSION: Final = -32022
"""Modern only, with 400 and `data.supported`, `data.requested`."""

RESOURCE_NOT_FOUND: Final = -32002
"""Legacy only, on `resources/read`; modern servers say -32602."""
URL_ELICITATION_REQUIRED: Final = -32042
"""2025-11-25 only; a modern client gets a URL elicitation as `input_required` instead."""

LIMIT_EXCEEDED: Final = 413
"""Penstock's own: the message is beyond one of our bounds."""

_MODERN_STATUS: Final = {
    PARSE_ERROR: 400,
    INVALID_REQUEST: 400,
    METHOD_NOT_FOUND: 404,
    HEADER_MISMATCH: 400,
    MISSING_CLIENT_CAPABILITY: 400,
    UNSUPPORTED_VERSION: 400,
}


def http_status(era: Era, code: int, *, relayed: bool = False) -> int:
    """The status with which the refusal of a call travels.

    Legacy clients get 200: they take 404 for a lost session and some hang on any other status. Refusals of the transport
    itself (not JSON, no session, too large) keep their status in both eras: see `refusal_status`.

    Args:
        relayed: the error is a server's answer, not ours: then -32602 and codes that look like a status are 200.
    """
    if era is Era.LEGACY:
        return 200
    status = _MODERN_STATUS.get(code)
    if status is not None:
        return status
    if relayed:
        return 200
    return 400 if code == INVALID_PARAMS else refusal_status(code) if code > 0 else 200


def refusal_status(code: int) -> int:
    """The status with which bytes are refused before they are a call, in either era: our own codes are statuses, else 400."""
    return code if 400 <= code <= 599 else 400


def translate_error(code: int, method: str, from_era: Era, to_era: Era) -> int:
    """The code as the other era words it.

    Only "resource not found" has two numbers, and only on `resources/read` do they mean the same. -32042 has no modern
    number at all: it must become an `input_required` result before it comes here, and is -32603 if nobody did that.
    """
    if from_era is to_era:
        return code
    if to_era is Era.MODERN:
        if code == RESOURCE_NOT_FOUND:
            return INVALID_PARAMS if method == "resources/read" else INTERNAL_ERROR
        return INTERNAL_ERROR if code == URL_ELICITATION_REQUIRED else code
    if code == INVALID_PARAMS and method == "resources/read":
        return RESOURCE_NOT_FOUND
    return _LEGACY_WORDING.get(code, code)


_LEGACY_WORDING: Final = {
    HEADER_MISMATCH: INTERNAL_ERROR,
    MISSING_CLIENT_CAPABILITY: INVALID_REQUEST,
    UNSUPPORTED_VERSION: INTERNAL_ERROR,
}


def unsupported_version_data(requested: str, supported: tuple[str, ...] = SUPPORTED_VERSIONS) -> bytes:
    """`data` of a -32022."""
    return msgspec.json.encode({"supported": supported, "requested": requested})


def missing_capability_data(required: bytes) -> bytes:
    """`data` of a -32021; `required` is a JSON ClientCapabilities object such as `{"sampling":{}}`."""
    return b'{"requiredCapabilities":%b}' % required


def reason_data(reason: str, **more: str | float) -> bytes:
    """`data` of one of Penstock's own errors."""
    return msgspec.json.encode({"reason": reason, **more})
