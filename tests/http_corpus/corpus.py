"""The corpus: HTTP/1.1 as clients should and should not send it, with what RFC 9110 and 9112 ask of a server.

Knows: the files in `messages/`, how a request is written down in one line. Does not know: servers, sockets.
"""

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

FOLDER: Final = Path(__file__).parent
SECTIONS: Final = {
    "length": "How long a body is",
    "smuggler": "Transfer-Encoding in disguise",
    "chunks": "Chunks and trailers",
    "fields": "Field lines",
    "host": "Host",
    "target": "Request targets",
    "line": "Request lines",
    "connection": "Connections",
    "limits": "Limits and ends",
}
Rule = Literal["accept", "must-refuse", "should-refuse", "either"]
RULES: Final[dict[str, str]] = {
    "accept": "conforming, or to be tolerated: must be understood as `reading` says",
    "must-refuse": "a MUST forbids to act on it: nothing after `reading` may reach the application",
    "should-refuse": "malformed: SHOULD be refused; who tolerates it must not read anything else than `reading`",
    "either": "may be refused, or be read as `reading` and nothing else",
}
_REPEATED: Final = re.compile(r"⟨(.+?)\*([0-9]+)⟩", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What one client says on one connection."""

    id: str
    raw: bytes
    why: str
    source: str
    """Where the idea was published; the bytes are ours."""
    clause: str
    """`9112-6.1` is RFC 9112, section 6.1."""
    rule: Rule
    reading: tuple[str, ...]
    """The requests that an application may see, as `describe` writes them."""
    malformed: bool
    section: str
    close: bool = False
    """The connection MUST be closed after the answer."""
    status: int | None = None
    """The one status that a refusal MUST have."""
    eof: bool = False
    """The client says so when it has said everything."""
    waits: bool = False
    """The message is incomplete on purpose, and the client waits for the server."""

    @property
    def clause_title(self) -> str:
        """`RFC 9112 §6.1`."""
        number, _, section = self.clause.partition("-")
        return f"RFC {number} §{section}"

    @property
    def clause_link(self) -> str:
        """The clause's place on the web."""
        number, _, section = self.clause.partition("-")
        return f"https://www.rfc-editor.org/rfc/rfc{number}#section-{section}"


def load() -> list[Message]:
    """All messages, section by section."""
    return [message for section in SECTIONS for message in _load_section(section)]


def _load_section(section: str) -> Iterable[Message]:
    table = tomllib.loads((FOLDER / f"messages/{section}.toml").read_text())
    for name, entry in table.items():
        raw, reading = unescape(entry.pop("raw")), tuple(entry.pop("reading"))
        yield Message(id=name, raw=raw, reading=reading, section=section, **entry)


def unescape(text: str) -> bytes:
    r"""Bytes written as ASCII with the escapes of Python (`\r`, `\x00`), and `⟨abc*3⟩` for three times `abc`."""
    repeated = _REPEATED.sub(lambda match: match[1] * int(match[2]), text)
    return repeated.encode("ascii").decode("unicode_escape").encode("latin-1")


def describe(method: str, target: str, body: bytes, probe: str | None) -> str:
    """One request as an application saw it: `POST /a "body" {the field X-Probe}`."""
    if len(method) > 40:
        method = f"{method[0]}*{len(method)}"
    if len(target) > 100:
        target = f"{target[0]}... {len(target)}"
    parts = [_escape(method), _escape(target)]
    if len(body) > 80 and len(set(body)) == 1:
        parts.append(f'{len(body)} * "{_escape(body[:1].decode("latin-1"))}"')
    elif body:
        parts.append(f'"{_escape(body.decode("latin-1"))}"')
    if probe is not None:
        parts.append(f"{{{_escape(probe)}}}")
    return " ".join(parts)


def _escape(text: str) -> str:
    return text.encode("unicode_escape").decode("ascii")
