"""Sends messages to servers byte for byte, and says in one line what came of each.

Knows: sockets, how answers are delimited. Does not know: what should have come.

What is compared is a line such as `200 POST / "hello" · 400 · closed`: each answer's status, the request behind it where
the application gave it (which echoes the body), requests the application saw and nobody got an answer to, and what became
of the connection: `open` when another request on it is answered, `closed`, or `waiting` when the server wants to hear more.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Final

from tests.http_corpus.corpus import Message
from tests.http_corpus.servers import Server

PROBE: Final = b"GET /probe HTTP/1.1\r\nHost: a\r\n\r\n"
PROBE_SEEN: Final = "GET /probe"
TICK_SECONDS: Final = 0.01
TICKS: Final = 8
"""So many sleeps in a row without a byte: the server has nothing more to say. Counted, not timed: a busy machine only
makes them longer."""
PATIENT_TICKS: Final = 60
AT_ONCE: Final = 48
_HEAD: Final = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[^\r\n]*\r\n((?:[^\r\n]+\r\n)*)\r\n")
_BODY: Final = re.compile(r' (?:[0-9]+ \* )?"')


class _Ear(asyncio.Protocol):
    """Keeps what the server says."""

    def __init__(self) -> None:
        self.heard = b""
        self.is_closed = False

    def data_received(self, data: bytes) -> None:
        self.heard += data

    def eof_received(self) -> bool:
        self.is_closed = True
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed = True

    async def listen(self, ticks: int) -> None:
        """Until the server closes, or says nothing for so many ticks."""
        quiet, length = 0, len(self.heard)
        while quiet < ticks and not self.is_closed:
            await asyncio.sleep(TICK_SECONDS)
            quiet = quiet + 1 if len(self.heard) == length else 0
            length = len(self.heard)


async def play(server: Server, message: Message, ticks: int = TICKS) -> str:
    """Send one message on a new connection; what came of it."""
    loop = asyncio.get_running_loop()
    transport, ear = await loop.create_connection(_Ear, "127.0.0.1", server.port)
    port: int = transport.get_extra_info("sockname")[1]
    server.ledger.seen.pop(port, None)
    try:
        with suppress(OSError):
            if message.raw:
                transport.write(message.raw)
            await ear.listen(ticks)
            if message.eof and not ear.is_closed:
                transport.write_eof()
                await ear.listen(ticks)
        before = len(ear.heard)
        if not ear.is_closed and not message.eof and not message.waits:
            transport.write(PROBE)
            await ear.listen(ticks)
        answers = _answers(ear.heard, message.raw)
        fate = "closed" if ear.is_closed else "waiting"
        if answers[-1:] == [f"200 {PROBE_SEEN}"] and len(ear.heard) > before:
            answers.pop()
            fate = "open"
        unheard = _unheard(server.ledger.seen.get(port, []), answers)
        return " · ".join([*answers, *unheard, fate])
    finally:
        transport.abort()


async def play_all(
    servers: Iterable[Server], messages: Iterable[Message], ticks: int = TICKS
) -> dict[str, dict[str, str]]:
    """Every message on every server, many at once: server → message → what came of it."""
    found: dict[str, dict[str, str]] = {server.name: {} for server in servers}
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(server: Server, message: Message) -> None:
        async with gate:
            found[server.name][message.id] = await play(server, message, ticks)

    waiting: list[Awaitable[None]] = [one(server, message) for message in messages for server in servers]
    await asyncio.gather(*waiting)
    return found


async def play_again(
    servers: Iterable[Server],
    messages: Iterable[Message],
    found: dict[str, dict[str, str]],
    is_expected: Callable[[str, str, str], bool],
) -> None:
    """Hear again, with patience, what did not come as expected: the machine may have been busy."""
    for server in servers:
        for message in messages:
            if not is_expected(server.name, message.id, found[server.name][message.id]):
                found[server.name][message.id] = await play(server, message, PATIENT_TICKS)


def _unheard(seen: list[str], answers: list[str]) -> list[str]:
    """Requests of which the application knows, and the client does not."""
    left = [line for line in seen if line != PROBE_SEEN]
    for answer in answers:
        _, _, line = answer.partition(" ")
        if line in left:
            left.remove(line)
    return [f"unanswered {line}" for line in left]


def _answers(heard: bytes, sent: bytes) -> list[str]:
    """Each answer in one line."""
    answers = []
    while heard:
        head = _HEAD.match(heard)
        if head is None:
            answers.append("cut" if heard.startswith(b"HTTP/1.") else "no status line")
            break
        status, lines = head[1].decode(), head[2].decode("latin-1").split("\r\n")[:-1]
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        heard = heard[head.end() :]
        if status[0] == "1":
            answers.append(status)
            continue
        seen = headers.get("x-seen", "")
        is_bodiless = seen.startswith(("HEAD ", "CONNECT ")) or (
            not seen and b"HEAD /" in sent and heard[:5] in {b"", b"HTTP/"}
        )
        body, heard = (b"", heard) if is_bodiless else _take_body(headers, heard)
        answers.append(_answer(status, seen, body, is_bodiless=is_bodiless))
    return answers


def _answer(status: str, seen: str, body: bytes, *, is_bodiless: bool) -> str:
    if not seen:
        return status
    is_echo = is_bodiless or bool(body) == (_BODY.search(seen) is not None)
    if is_echo and 0 < len(body) <= 80:
        is_echo = body.decode("latin-1").encode("unicode_escape").decode() in seen
    return f"{status} {seen}" if is_echo else f"{status} {seen} with another body"


def _take_body(headers: dict[str, str], heard: bytes) -> tuple[bytes, bytes]:
    if "chunked" not in headers.get("transfer-encoding", ""):
        length = int(headers.get("content-length", len(heard)))
        return heard[:length], heard[length:]
    body = b""
    while True:
        line, _, heard = heard.partition(b"\r\n")
        size = int(line or b"0", 16)
        body, heard = body + heard[:size], heard[size + 2 :]
        if not size:
            return body, heard
