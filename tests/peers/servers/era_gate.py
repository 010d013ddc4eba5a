"""Hold a server of both eras to one of them: as an ASGI application around it, or request by request on a stream.

The other era is met as the specification, or a server that never heard of it, meets it.
"""

import json
from typing import Any

from mcp_types import (
    INVALID_PARAMS,
    PROTOCOL_VERSION_META_KEY,
    UNSUPPORTED_PROTOCOL_VERSION,
    ErrorData,
    JSONRPCError,
    JSONRPCRequest,
)

LEGACY = (b"2024-11-05", b"2025-03-26", b"2025-06-18", b"2025-11-25")
MODERN = "2026-07-28"
MODERN_META = "io.modelcontextprotocol/"
"""How the names begin by which a request of 2026-07-28 says what its client is."""


async def _reply(send: Any, status: int, message: dict[str, Any] | None, headers: list[tuple[bytes, bytes]]) -> None:
    body = b"" if message is None else json.dumps({"jsonrpc": "2.0", **message}).encode()
    lines = [(b"content-length", str(len(body)).encode()), (b"content-type", b"application/json"), *headers]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": body})


async def _body(receive: Any) -> bytes:
    body, more = b"", True
    while more:
        event = await receive()
        body += event.get("body", b"")
        more = event.get("more_body", False)
    return body


def _opens_a_session(body: bytes) -> tuple[Any, str | None]:
    """The request's id, and the version that an `initialize` asks for (None for any other message)."""
    try:
        message = json.loads(body)
        if message["method"] == "initialize":
            return message.get("id"), str(message.get("params", {}).get("protocolVersion"))
        return message.get("id"), None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None, None


def only_modern(app: Any) -> Any:
    """2026-07-28 alone: no GET, no DELETE, no session; what is older is told which versions there are.

    basic/transports/streamable-http 'Earlier Streamable HTTP Revisions', basic/versioning 'Backward Compatibility'.
    """

    async def gate(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await app(scope, receive, send)
        if scope["method"] != "POST":
            return await _reply(send, 405, None, [(b"allow", b"POST")])
        version = dict(scope["headers"]).get(b"mcp-protocol-version")
        if version is not None and version not in LEGACY:
            return await app(scope, receive, send)
        request_id, asked = _opens_a_session(await _body(receive))
        error: dict[str, Any]
        if asked is None and version is None:
            error = {"code": -32020, "message": f"The header MCP-Protocol-Version is missing; supported: {MODERN}"}
        else:
            requested = asked or (version or b"").decode()
            data = {"supported": [MODERN], "requested": requested}
            error = {"code": -32022, "message": f"Unsupported protocol version; supported: {MODERN}", "data": data}
        return await _reply(send, 400, {"id": request_id, "error": error}, [])

    return gate


def only_legacy(app: Any) -> Any:
    """2025-11-25 and older: an unknown version header is a plain 400 (basic/transports 'Protocol Version Header')."""

    async def gate(scope: Any, receive: Any, send: Any) -> None:
        version = dict(scope["headers"]).get(b"mcp-protocol-version") if scope["type"] == "http" else None
        if version is None or version in LEGACY:
            return await app(scope, receive, send)
        known = ", ".join(name.decode() for name in LEGACY)
        message = f"Bad Request: Unsupported protocol version: {version.decode('latin-1')}. Supported versions: {known}"
        return await _reply(send, 400, {"id": "server-error", "error": {"code": -32600, "message": message}}, [])

    return gate


def any_request(request: JSONRPCRequest) -> JSONRPCRequest:
    """Both eras."""
    return request


def only_modern_requests(request: JSONRPCRequest) -> JSONRPCRequest | JSONRPCError:
    """2026-07-28 alone, on a stream.

    `initialize` is refused with the versions there are (basic/versioning); so is a request that does not say its version.
    """
    params = request.params or {}
    if request.method == "initialize":
        data = {"supported": [MODERN], "requested": params.get("protocolVersion")}
        message = f"Unsupported protocol version; supported: {MODERN}"
        return _refusal(request, ErrorData(code=UNSUPPORTED_PROTOCOL_VERSION, message=message, data=data))
    if PROTOCOL_VERSION_META_KEY not in (params.get("_meta") or {}):
        message = f"_meta lacks {PROTOCOL_VERSION_META_KEY}; supported: {MODERN}"
        return _refusal(request, ErrorData(code=INVALID_PARAMS, message=message))
    return request


def only_legacy_requests(request: JSONRPCRequest) -> JSONRPCRequest:
    """2025-11-25 and older, on a stream: what 2026-07-28 adds to `_meta` says nothing there, and its methods are unknown."""
    params = request.params or {}
    meta = {name: value for name, value in (params.get("_meta") or {}).items() if not name.startswith(MODERN_META)}
    if len(meta) == len(params.get("_meta") or {}):
        return request
    rest = {name: value for name, value in params.items() if name != "_meta"}
    return request.model_copy(update={"params": rest | ({"_meta": meta} if meta else {})})


def _refusal(request: JSONRPCRequest, error: ErrorData) -> JSONRPCError:
    return JSONRPCError(jsonrpc="2.0", id=request.id, error=error)
