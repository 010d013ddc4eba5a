"""Calls at a fixed rate, whatever becomes of earlier ones; every one is accounted for.

Knows: bytes of HTTP/1.1 and JSON-RPC, the clock. Does not know: what is broken meanwhile.
"""

import asyncio
import json
from collections import Counter, deque
from dataclasses import dataclass
from time import monotonic
from typing import cast

from tests.end_to_end.faults_kit import Era, McpClient

_MARK = b"909090909"
"""Stands for a call's number in the prepared bytes; as long as every number is."""
_FIRST = 100_000_000


@dataclass(slots=True)
class Sent:
    """One call and what became of it."""

    kind: "Kind"
    sent_at: float
    ended_at: float = 0.0
    outcome: str = ""
    """`ok`, or what went wrong: a refusal's words, or what the sender itself saw."""
    is_named: bool = False
    """Whether it is an error that names the server."""


@dataclass(slots=True)
class Kind:
    """Calls of one server by one client, ready to be sent."""

    server: str
    era: Era
    request: bytes

    def bytes_of(self, number: int) -> bytes:
        return self.request.replace(_MARK, b"%d" % number)


async def kind_of(client: McpClient, server: str, host: str, *, seconds: float = 0.0) -> Kind:
    """Prepare the calls of a client, whose session, if it needs one, is open afterwards; the server takes `seconds` for each."""
    if client.era == "legacy" and client.session is None:
        await client.initialize()
    tool = f"{server}_slow" if seconds else f"{server}_echo"
    arguments = {"name": tool, "arguments": {"text": _MARK.decode(), "seconds": seconds}}
    headers, body = client.written("tools/call", arguments, int(_MARK))
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"POST /mcp HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(body)}\r\n{lines}\r\n"
    return Kind(server, client.era, head.encode() + body)


class _Connection(asyncio.Protocol):
    """One call at a time."""

    def __init__(self, load: "Load") -> None:
        self._load = load
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._call: Sent | None = None
        self._number = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def send(self, call: Sent, number: int) -> None:
        assert self._transport is not None
        self._call, self._number, self._received = call, number, b""
        self._transport.write(call.kind.bytes_of(number))

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        if len(body) < length:
            return
        call, self._call = self._call, None
        assert call is not None, "an answer to nothing"
        self._load.end(call, *_judged(call.kind.server, self._number, head, body))
        if b"connection: close" in head.lower():
            self.close()
        else:
            self._load.idle.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.connections.discard(self)
        if self in self._load.idle:
            self._load.idle.remove(self)
        if self._call is not None:
            self._load.end(self._call, f"connection lost: {exc}", False)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def _judged(server: str, number: int, head: bytes, body: bytes) -> tuple[str, bool]:
    message = json.loads(body)
    if message.get("id") != number:
        return f"answer to another call: {message}", False
    if "error" in message:
        error = message["error"]
        named = error.get("data", {}).get("server") == server and f"'{server}'" in error["message"]
        return str(error["message"]), named
    text = message["result"]["content"][0]["text"]
    status_fits = head.startswith(b"HTTP/1.1 200")
    return ("ok", False) if text == str(number) and status_fits else (f"wrong result: {head!r} {text!r}", False)


class Load:
    """Sends calls of all kinds in turn, `rate` a second, from `start` until `stop`."""

    def __init__(self, host: str, port: int, kinds: list[Kind], rate: float) -> None:
        self._host, self._port = host, port
        self._kinds = kinds
        self._rate = rate
        self._sending: asyncio.Task[None] | None = None
        self._starting: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()
        self._is_stopping = False
        self.idle: deque[_Connection] = deque()
        self.connections: set[_Connection] = set()
        self.sent: list[Sent] = []
        self.in_flight = 0
        self.latest = 0.0
        """The longest the sender itself was behind its schedule, in seconds."""

    def __repr__(self) -> str:
        return f"<Load {len(self.sent)} sent, {self.in_flight} in flight, {len(self.connections)} connections>"

    def start(self) -> None:
        self._sending = asyncio.create_task(self._send_all())

    async def stop(self, seconds: float) -> None:
        """Send no more; wait for the answers, then close."""
        self._is_stopping = True
        assert self._sending is not None
        await self._sending
        async with asyncio.timeout(seconds):
            while self.in_flight:
                self._ended.clear()
                await self._ended.wait()
        for connection in list(self.connections):
            connection.close()

    def end(self, call: Sent, outcome: str, is_named: bool) -> None:
        call.ended_at, call.outcome, call.is_named = monotonic(), outcome, is_named
        self.in_flight -= 1
        self._ended.set()

    def in_flight_at(self, when: float, server: str) -> int:
        """Calls of a server that had been sent then and had no answer."""
        return sum(call.kind.server == server and call.sent_at <= when < call.ended_at for call in self.sent)

    def failed(self, server: str) -> list[Sent]:
        return [call for call in self.sent if call.kind.server == server and call.outcome != "ok"]

    def counts(self) -> dict[str, Counter[str]]:
        """Of each server: calls sent, answered, failed by name, and lost."""
        found: dict[str, Counter[str]] = {}
        for call in self.sent:
            counter = found.setdefault(call.kind.server, Counter(sent=0, answered=0, named=0, lost=0))
            counter["sent"] += 1
            counter["answered" if call.outcome == "ok" else "named" if call.is_named else "lost"] += 1
        return found

    async def _send_all(self) -> None:
        began, number = monotonic(), 0
        while not self._is_stopping:
            now = monotonic()
            due = int((now - began) * self._rate)
            if due > number:
                self.latest = max(self.latest, now - began - number / self._rate)
            while number < due:
                self._send(number)
                number += 1
            await asyncio.sleep(0.001)
        await asyncio.gather(*self._starting)

    def _send(self, number: int) -> None:
        call = Sent(self._kinds[number % len(self._kinds)], monotonic())
        self.sent.append(call)
        self.in_flight += 1
        if self.idle:
            self.idle.pop().send(call, _FIRST + number)
        else:
            task = asyncio.create_task(self._send_on_new(call, _FIRST + number))
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)

    async def _send_on_new(self, call: Sent, number: int) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(lambda: _Connection(self), self._host, self._port)
        except OSError as error:
            self.end(call, f"cannot connect: {error}", False)
        else:
            self.connections.add(connection)
            connection.send(call, number)
