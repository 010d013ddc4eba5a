"""What the scripted servers of the fault tests say: both eras, a handful of tools. Standard library only.

Knows: JSON-RPC messages. Does not know: how they travel.
"""

import os
from typing import Any

Message = dict[str, Any]
MODERN = "2026-07-28"
LEGACY = "2025-11-25"
_VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
_SERVER_INFO = {"name": "scripted", "version": "1"}


def is_modern(message: Message) -> bool:
    """Whether a request carries its own revision."""
    return _VERSION_KEY in message.get("params", {}).get("_meta", {})


def result_of(message: Message, result: Message) -> Message:
    """The answer to a request, in its era."""
    if is_modern(message):
        result = {"resultType": "complete", **result}
    return {"jsonrpc": "2.0", "id": message["id"], "result": result}


def text_result(message: Message, text: str) -> Message:
    """A tool's answer."""
    return result_of(message, {"content": [{"type": "text", "text": text}]})


def answer_without_tools(message: Message, tools: list[str]) -> Message | None:
    """The answer to all but `tools/call`; None for notifications."""
    method = message.get("method")
    if "id" not in message:
        return None
    if method == "server/discover":
        described = {
            "supportedVersions": [MODERN, LEGACY],
            "capabilities": {"tools": {}},
            "ttlMs": 0,
            "cacheScope": "private",
            "_meta": {"io.modelcontextprotocol/serverInfo": _SERVER_INFO},
        }
        return result_of(message, described)
    if method == "initialize":
        described = {"protocolVersion": LEGACY, "capabilities": {"tools": {}}, "serverInfo": _SERVER_INFO}
        return result_of(message, described)
    if method == "tools/list":
        schema = {"type": "object"}
        listed: Message = {"tools": [{"name": name, "inputSchema": schema} for name in tools]}
        if is_modern(message):
            listed |= {"ttlMs": 60_000, "cacheScope": "public"}
        return result_of(message, listed)
    if method == "ping":
        return result_of(message, {})
    return {"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "no such method"}}


def call_of(message: Message) -> tuple[str, Message]:
    """Name and arguments of a `tools/call`."""
    params = message["params"]
    return params["name"], params.get("arguments", {})


def plain_tool(message: Message) -> Message | None:
    """The answer of a tool that behaves; None when it is another one."""
    name, arguments = call_of(message)
    if name == "echo":
        return text_result(message, str(arguments.get("text", "")))
    if name == "pid":
        return text_result(message, str(os.getpid()))
    return None
