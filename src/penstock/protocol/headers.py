"""The HTTP headers of the modern era that mirror a request's body.

Knows: `MCP-Protocol-Version`, `Mcp-Method`, `Mcp-Name` and how values are written in a header. Does not know: HTTP framing
(names come lower-cased, values stripped), `Mcp-Param-*` (see `param_headers`).

Source: 2026-07-28 basic/transports/streamable-http, "Request Metadata" and "Server Validation".
"""

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from typing import Final, NamedTuple

import msgspec

from penstock.protocol.messages import Request
from penstock.protocol.methods import MethodRule

_decode_str = msgspec.json.Decoder(str).decode

_PREFIX: Final = b"=?base64?"
_SUFFIX: Final = b"?="
_SAFE: Final = re.compile(rb"[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?|").fullmatch
"""Visible ASCII, spaces and tabs only inside; or nothing."""
_VALID: Final = re.compile(rb"[\t\x20-\x7e]*").fullmatch


class Mismatch(NamedTuple):
    """Why headers and body do not belong together (-32020, with 400)."""

    message: str


def encode_value(text: str) -> bytes:
    """A text as a header value: itself where that is safe, else Base64 of its UTF-8 between the sentinel's marks."""
    raw = text.encode()
    if _SAFE(raw) and not (raw.startswith(_PREFIX) and raw.endswith(_SUFFIX)):
        return raw
    return _PREFIX + b64encode(raw) + _SUFFIX


def decode_value(value: bytes) -> str | None:
    """The text a header value stands for, or None when it contains invalid characters or wrong Base64.

    Base64 must be canonical (RFC 4648 alphabet, padding, no stray bits): two spellings of one name would let two readers see
    two names.
    """
    if not _VALID(value):
        return None
    if value[:2] != b"=?" or not (
        value.startswith(_PREFIX) and value.endswith(_SUFFIX) and len(value) >= len(_PREFIX) + len(_SUFFIX)
    ):
        return value.decode("ascii")
    payload = value[len(_PREFIX) : -len(_SUFFIX)]
    try:
        decoded = b64decode(payload, validate=True)
        return decoded.decode() if b64encode(decoded) == payload else None
    except (Base64Error, UnicodeDecodeError):
        return None


def request_name(request: Request, rule: MethodRule | None) -> str | None:
    """The name, URI or task id the request's parameters give; None when the method has none or it is no string."""
    if rule is None or rule.name_field is None:
        return None
    raw = request.params.get(rule.name_field)
    if raw is None:
        return None
    try:
        return _decode_str(raw)
    except msgspec.ValidationError:
        return None


def check_request_headers(
    headers: dict[bytes, bytes], request: Request, rule: MethodRule | None, version: str | None
) -> Mismatch | None:
    """Whether the standard headers are there and say what the body says.

    Args:
        headers: lower-case names, stripped values.
        rule: of the method; None when it is unknown (then `Mcp-Name` is not looked at).
        version: what the body's `_meta` says, None when it does not say (that is another refusal: -32602).
    """
    said = headers.get(b"mcp-protocol-version")
    if said is None:
        return Mismatch("Header mismatch: MCP-Protocol-Version is missing")
    if version is not None and said != version.encode():
        return Mismatch(f"Header mismatch: MCP-Protocol-Version is {_shown(said)}, '_meta' says {version!r}")
    said = headers.get(b"mcp-method")
    if said is None:
        return Mismatch("Header mismatch: Mcp-Method is missing")
    if said != request.method.encode():
        return Mismatch(f"Header mismatch: Mcp-Method is {_shown(said)}, the body's method is {request.method!r}")
    if rule is None or rule.name_field is None:
        return None
    said = headers.get(b"mcp-name")
    if said is None:
        return Mismatch(f"Header mismatch: Mcp-Name is missing, {request.method} needs it")
    decoded = decode_value(said)
    if decoded is None:
        return Mismatch("Header mismatch: Mcp-Name contains invalid characters or invalid Base64")
    if decoded != request_name(request, rule):
        return Mismatch(
            f"Header mismatch: Mcp-Name {_shown(said)} is not what the body's 'params.{rule.name_field}' says"
        )
    return None


def standard_headers(version: str, method: str, name: str | None) -> bytes:
    """The header lines of a modern request to a server, each with its CRLF; `name` is the body's, None when it has none.

    A version or method that no header can carry is refused before it comes here; both are taken from our own tables.
    """
    lines = b"mcp-protocol-version: %b\r\nmcp-method: %b\r\n" % (version.encode("ascii"), encode_value(method))
    return lines if name is None else b"%bmcp-name: %b\r\n" % (lines, encode_value(name))


def _shown(value: bytes) -> str:
    """A header value in a message: bounded, on one line, harmless."""
    return repr(value[:100].decode("latin-1"))
