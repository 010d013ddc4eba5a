"""The checks a modern request passes before anything is done for it, in one order.

Knows: which refusal wins. Does not know: transports, routes, identities.

The order, first failure wins (what comes before an `admit` in brackets):
 [not JSON, no valid envelope                -32700, -32600 (400)]   `envelopes.decode`
 1. standard headers missing or contradicting -32020 (400)            only over HTTP
 2. `_meta` incomplete or malformed           -32602 (400)
 3. revision not ours                         -32022 (400)            also when header and body agree on it
 4. method not part of the revision           -32601 (404)
 5. the method's target has no name           -32602 (400)
 [a capability the client did not declare     -32021 (400)]           whoever needs the capability
A header that cannot be compared because `_meta` does not name a version is left to step 2: the body is at fault.
Where the specification leaves the order open this is what its conformance scenarios expect.
"""

from typing import Final, NamedTuple

from penstock.protocol.errors import (
    HEADER_MISMATCH,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    UNSUPPORTED_VERSION,
    unsupported_version_data,
)
from penstock.protocol.headers import check_request_headers, request_name
from penstock.protocol.messages import Fault, Request
from penstock.protocol.meta import RequestMeta, decode_meta, said_version
from penstock.protocol.methods import MethodRule, lookup
from penstock.protocol.versions import FIRST_MODERN, MODERN_VERSIONS, SUPPORTED_VERSIONS, Era

_MAX_SHOWN: Final = 100
"""Characters of a version that is refused."""


class Admitted(NamedTuple):
    """A modern request whose envelope, headers and metadata are in order."""

    rule: MethodRule
    meta: RequestMeta
    name: str | None
    """The tool, prompt, URI or task it is about; None for methods without one."""


class Refusal(NamedTuple):
    """Why it is not admitted; the status is `http_status(Era.MODERN, code)`."""

    code: int
    message: str
    data: bytes | None = None


def is_modern(headers: dict[bytes, bytes] | None, request: Request) -> bool:
    """Whether a request belongs to the modern era: by its version header, else by a version in its `_meta`."""
    if headers is not None and headers.get(b"mcp-protocol-version", b"") >= FIRST_MODERN.encode():
        return True
    meta = request.params.get("_meta")
    return meta is not None and said_version(meta) is not None


def admit(
    headers: dict[bytes, bytes] | None,
    request: Request,
    supported: tuple[str, ...] = SUPPORTED_VERSIONS,
) -> Admitted | Refusal:
    """Judge a modern request.

    Args:
        headers: of the HTTP request (lower-case names), None for stdio.
        supported: what a refused version is answered with; must be what `server/discover` says.
    """
    raw_meta = request.params.get("_meta")
    meta = decode_meta(raw_meta)
    rule = lookup(Era.MODERN, request.method)
    if headers is not None:
        version = said_version(raw_meta) if isinstance(meta, Fault) else meta.version
        unknown = _unknown_version(headers, version)
        if unknown is not None:  # before what else that version may need: a client that speaks it cannot know ours
            return _unsupported(unknown, supported)
        mismatch = check_request_headers(headers, request, rule, version)
        if mismatch is not None:
            return Refusal(HEADER_MISMATCH, mismatch.message)
    if isinstance(meta, Fault):
        return Refusal(meta.code, meta.message)
    if meta.version not in MODERN_VERSIONS:
        return _unsupported(meta.version, supported)
    if rule is None:
        return Refusal(METHOD_NOT_FOUND, "Method not found")
    name = request_name(request, rule)
    if name is None and rule.name_field is not None:
        return Refusal(INVALID_PARAMS, f"Invalid params: 'params.{rule.name_field}' must be a string")
    return Admitted(rule, meta, name)


def _unsupported(version: str, supported: tuple[str, ...]) -> Refusal:
    data = unsupported_version_data(version, supported)
    return Refusal(UNSUPPORTED_VERSION, "Unsupported protocol version", data)


def _unknown_version(headers: dict[bytes, bytes], in_body: str | None) -> str | None:
    """The version that the request's header names, if we do not speak it and the body says no other."""
    said = headers.get(b"mcp-protocol-version", b"")[:_MAX_SHOWN].decode("latin-1")
    is_known = said < FIRST_MODERN or said in MODERN_VERSIONS
    return None if is_known or in_body not in {None, said} else said
