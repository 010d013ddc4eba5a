"""The calls that are measured, and what a right answer to each is.

Knows: the bytes of a `tools/call` in both eras, the two results. Does not know: sockets, who answers.
Ids have nine digits always, so that every request of a row has the same length and every answer to it too.
"""

import json
from typing import Any, Final, Literal, NamedTuple

Era = Literal["modern", "legacy"]
MODERN_VERSION: Final = "2026-07-28"
LEGACY_VERSION: Final = "2025-11-25"
FIRST_ID: Final = 100_000_000
ID_DIGITS: Final = 9
SIZES: Final = {"small": 1024, "large": 100 * 1024}
"""Tools of the raw server, and how many bytes the text of their result has."""

VARIETY: Final = 64
"""How many different calls take turns in a row that varies them."""

_LINE: Final = 'Line %06d of the page says "nothing new" and goes on for a while, as lines of a page do.\n'


def text_of(tool: str) -> str:
    """The text of a tool's result: lines with quotes and line ends, which JSON has to escape."""
    size = SIZES[tool]
    lines = "".join(_LINE % number for number in range(size // len(_LINE) + 1))
    return lines[:size]


def result(era: Era, tool: str) -> bytes:
    """A tool's result as a server of that era writes it."""
    fields: dict[str, Any] = {
        "content": [{"type": "text", "text": text_of(tool)}],
        "structuredContent": {"characters": SIZES[tool]},
        "isError": False,
    }
    if era == "modern":
        fields["resultType"] = "complete"
    return compact(fields)


def compact(value: object) -> bytes:
    """JSON without spaces."""
    return json.dumps(value, separators=(",", ":")).encode()


class Shape(NamedTuple):
    """One HTTP request but for its id: `head + id + tail`."""

    head: bytes
    tail: bytes

    def with_id(self, number: int) -> bytes:
        """The request's bytes."""
        return b"%b%d%b" % (self.head, number, self.tail)


def shape(
    era: Era,
    name: str,
    *,
    path: str,
    session: str | None = None,
    version: str | None = None,
    text: str = "hello",
) -> Shape:
    """A `tools/call` of the tool called `name` at `path`.

    Args:
        session: a legacy session's id.
        version: what was agreed in it.
        text: the tool's argument, which the raw server does not look at.
    """
    version = version or (MODERN_VERSION if era == "modern" else LEGACY_VERSION)
    params: dict[str, Any] = {"name": name, "arguments": {"text": text}}
    lines = {"mcp-protocol-version": version}
    if era == "modern":
        params["_meta"] = modern_meta(version)
        lines |= {"mcp-method": "tools/call", "mcp-name": name}
    elif session is not None:
        lines["mcp-session-id"] = session
    before = b'{"jsonrpc":"2.0","id":'
    after = b',"method":"tools/call","params":%b}' % compact(params)
    head = http_head(path, lines, len(before) + ID_DIGITS + len(after))
    return Shape(head + before, after)


def varied(
    era: Era, name: str, *, path: str, session: str | None = None, version: str | None = None, count: int = VARIETY
) -> list[Shape]:
    """`count` calls of the same tool that all differ in their arguments and in their lengths."""
    return [
        shape(era, name, path=path, session=session, version=version, text=f"{number:02d}" + "x" * number)
        for number in range(count)
    ]


def request(path: str, message: dict[str, Any], lines: dict[str, str] | None = None) -> bytes:
    """Any other message as an HTTP request."""
    body = compact(message)
    return http_head(path, lines or {}, len(body)) + body


def modern_meta(version: str = MODERN_VERSION) -> dict[str, Any]:
    """What every modern request says of its client."""
    return {
        "io.modelcontextprotocol/protocolVersion": version,
        "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }


def http_head(path: str, lines: dict[str, str], length: int) -> bytes:
    """Request line and headers of a POST with `length` bytes of JSON."""
    common = {
        "host": "127.0.0.1",
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "content-length": str(length),
    }
    text = "".join(f"{name}: {value}\r\n" for name, value in (common | lines).items())
    return f"POST {path} HTTP/1.1\r\n{text}\r\n".encode()


def message_in(body: bytes, content_type: bytes) -> Any:
    """The JSON-RPC answer in a response body, which may be an event stream.

    Raises:
        ValueError: there is none.
    """
    if not content_type.startswith(b"text/event-stream"):
        return json.loads(body)
    for event in body.replace(b"\r\n", b"\n").split(b"\n\n"):
        lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
        message = json.loads(b"\n".join(lines)) if any(lines) else {}
        if "result" in message or "error" in message:
            return message
    raise ValueError("an event stream without an answer")


def why_wrong(message: Any, era: Era, tool: str, number: int) -> str | None:
    """What is wrong with an answer to call `number` of `tool`; None when nothing is."""
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
        return f"not a JSON-RPC message: {str(message)[:200]}"
    if message.get("id") != number:
        return f"the answer to call {number} has id {message.get('id')!r}"
    found = message.get("result")
    if not isinstance(found, dict):
        return f"no result: {str(message.get('error'))[:200]}"
    content = found.get("content")
    if not (isinstance(content, list) and len(content) == 1 and content[0].get("text") == text_of(tool)):
        return "another content than the server wrote"
    if found.get("isError", False) is not False or found.get("structuredContent") != {"characters": SIZES[tool]}:
        return "another isError or structuredContent than the server wrote"
    if era == "modern" and found.get("resultType") != "complete":
        return f"resultType {found.get('resultType')!r} for a modern client"
    if era == "legacy" and "resultType" in found:
        return "resultType for a legacy client"
    return None
