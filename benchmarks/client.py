"""A plain client that looks at everything: it opens legacy sessions, and verifies the id and the result of each call.

Knows: HTTP/1.1 as servers on this machine speak it, what a right answer is. Does not know: time, load.
It writes requests on all its connections before it reads any answer, so that answers given to the wrong call show.
"""

import socket
from collections.abc import Sequence
from typing import Final, NamedTuple, Self

from benchmarks.messages import (
    FIRST_ID,
    ID_DIGITS,
    LEGACY_VERSION,
    Era,
    Shape,
    message_in,
    request,
    why_wrong,
)
from benchmarks.processes import Failed

TIMEOUT_SECONDS: Final = 20.0


class Answer(NamedTuple):
    """One HTTP response."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes

    @property
    def content_type(self) -> bytes:
        """Empty when there is none."""
        return self.headers.get(b"content-type", b"")


class Template(NamedTuple):
    """The body of every right answer of a row: `prefix + id + suffix`."""

    prefix: bytes
    suffix: bytes


class Connection:
    """A keep-alive connection; one request at a time."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Write a request."""
        self._socket.sendall(data)

    def read(self) -> Answer:
        """The next response."""
        head, _, self._buffer = self._until(b"\r\n\r\n")
        status_line, *lines = head.split(b"\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        status = int(status_line.split()[1])
        if status in {204, 304}:
            return Answer(status, headers, b"")
        if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
            return Answer(status, headers, self._chunks())
        return Answer(status, headers, self._exactly(int(headers[b"content-length"])))

    def exchange(self, data: bytes) -> Answer:
        """Write a request and read its response."""
        self.send(data)
        return self.read()

    def _chunks(self) -> bytes:
        body = b""
        while True:
            line, _, self._buffer = self._until(b"\r\n")
            size = int(line.split(b";")[0], 16)
            chunk = self._exactly(size + 2)[:-2]
            if size == 0:
                return body
            body += chunk

    def _until(self, mark: bytes) -> tuple[bytes, bytes, bytes]:
        while mark not in self._buffer:
            self._more()
        return self._buffer.partition(mark)

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._more()
        found, self._buffer = self._buffer[:size], self._buffer[size:]
        return found

    def _more(self) -> None:
        data = self._socket.recv(262_144)
        if not data:
            raise Failed(
                f"the connection was closed in the middle of an answer; before that came {self._buffer[:200]!r}"
            )
        self._buffer += data


class Session(NamedTuple):
    """What `initialize` brought; `id` is None where the server issues none."""

    id: str | None
    version: str


def open_session(port: int, path: str) -> Session:
    """Initialize a legacy session.

    Raises:
        Failed: it was refused.
    """
    params = {
        "protocolVersion": LEGACY_VERSION,
        "capabilities": {},
        "clientInfo": {"name": "bench", "version": "1"},
    }
    with Connection(port) as connection:
        answer = connection.exchange(
            request(path, {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params})
        )
        if answer.status != 200:
            raise Failed(f"initialize at {path} was answered {answer.status}: {answer.body[:300]!r}")
        message = message_in(answer.body, answer.content_type)
        if "result" not in message:
            raise Failed(f"initialize at {path} was answered {str(message)[:300]}")
        version = str(message["result"]["protocolVersion"])
        session_id = answer.headers.get(b"mcp-session-id", b"").decode() or None
        lines = {"mcp-protocol-version": version} | ({"mcp-session-id": session_id} if session_id else {})
        connection.exchange(request(path, {"jsonrpc": "2.0", "method": "notifications/initialized"}, lines))
        return Session(session_id, version)


def verify(
    port: int, shapes: Sequence[Shape], era: Era, tool: str, calls: int, connections: int = 16
) -> Template | None:
    """Make `calls` calls, of `shapes` in turn, and verify each one's id and result.

    Returns what all answers look like but for their id; None when their bytes differ in more than that.

    Raises:
        Failed: an answer is not right.
    """
    templates: set[Template | None] = set()
    opened = [Connection(port) for _ in range(min(connections, calls))]
    try:
        for first in range(0, calls, len(opened)):
            batch = list(zip(range(FIRST_ID + first, FIRST_ID + min(first + len(opened), calls)), opened, strict=False))
            for number, connection in batch:
                connection.send(shapes[(number - FIRST_ID) % len(shapes)].with_id(number))
            for number, connection in batch:
                templates.add(_verified(connection.read(), era, tool, number))
    finally:
        for connection in opened:
            connection.__exit__()
    return templates.pop() if len(templates) == 1 else None


def _verified(answer: Answer, era: Era, tool: str, number: int) -> Template | None:
    if answer.status != 200:
        raise Failed(f"call {number} was answered {answer.status}: {answer.body[:300]!r}")
    try:
        message = message_in(answer.body, answer.content_type)
    except ValueError as error:
        raise Failed(f"call {number}: {error}: {answer.body[:300]!r}") from error
    wrong = why_wrong(message, era, tool, number)
    if wrong:
        raise Failed(f"call {number} of {tool}: {wrong}")
    prefix, found, suffix = answer.body.partition(b"%d" % number)
    return Template(prefix, suffix) if found and len(found) == ID_DIGITS else None
