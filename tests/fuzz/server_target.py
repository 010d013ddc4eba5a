"""Fuzzes a server's connection: any bytes, cut anywhere, with whatever may happen in between.

An input is four bytes of circumstances and the bytes that the client sends: how the handler answers, how the bytes are cut,
what happens meanwhile, and after which piece.
"""

import asyncio
import re
from typing import Final, cast

from penstock.clock import FakeClock
from penstock.http.connection import CLOSED, HEAD, LINGER, ServerConnection
from penstock.http.exchange import Exchange
from penstock.http.limits import ServerLimits
from penstock.http.server import HttpServer
from tests.fuzz.invariants import AskedFor, Finding, Guard, pieces
from tests.fuzz.transport import FuzzTransport

LIMITS: Final = ServerLimits(
    header_bytes=1024,
    header_fields=12,
    target_bytes=256,
    body_bytes=2048,
    chunk_overhead_bytes=256,
    pipelined_bytes=1536,
    stream_queue_events=4,
    stream_queue_bytes=256,
)
ANSWERS: Final = (
    "at once",
    "by a task",
    "by a stream",
    "by a stream at once",
    "fails",
    "task fails",
    "task says nothing",
)
EVENTS: Final = (
    "nothing", "end of file", "connection lost", "reader stops", "reader stops and goes on", "11 s pass", "80 s pass",
    "the reader stops and 80 s pass", "draining begins", "closed when idle",
)  # fmt: skip
TURNS: Final = 6
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.1 [2-5][0-9]{2} ")
MAX_TURNS: Final = 3_000


class Run:
    """One connection, fed once."""

    def __init__(self, answer: str) -> None:
        self.answer = answer
        self.clock = FakeClock()
        self.seen: list[tuple[bytes, str, bytes, list[tuple[bytes, bytes]], bytes]] = []
        self.server = HttpServer(self._handle, LIMITS, self.clock)
        self.connection = ServerConnection(self.server)
        self.transport = FuzzTransport(asyncio.get_running_loop(), cast("asyncio.Protocol", self.connection))

    def __repr__(self) -> str:
        return f"<Run {self.answer} {self.connection!r} {len(self.seen)} requests>"

    @property
    def output(self) -> bytes:
        return b"".join(self.transport.written)

    @property
    def is_over(self) -> bool:
        return self.connection._state in {LINGER, CLOSED}

    def _handle(self, exchange: Exchange) -> None:
        request = exchange.request
        self.seen.append((request.method, request.path, request.query, sorted(request.headers.items()), request.body))
        if self.answer == "at once":
            exchange.respond(200)
        elif self.answer == "fails":
            raise AskedFor
        elif self.answer == "by a stream at once":
            exchange.open_stream().finish(b"data: 1\n\n")
        else:
            exchange.spawn(self._answer(exchange))

    async def _answer(self, exchange: Exchange) -> None:
        await asyncio.sleep(0)
        if self.answer == "by a task":
            exchange.respond(200)
        elif self.answer == "task fails":
            raise AskedFor
        elif self.answer == "by a stream":
            stream = exchange.open_stream()
            for number in range(8):
                stream.send(b"data: %d\n\n" % number, droppable=number % 2 == 0)
                await asyncio.sleep(0)
            stream.finish(b"data: end\n\n")

    async def feed(self, parts: list[bytes], event: str = "nothing", position: int = 0) -> None:
        """Say the pieces; the event happens after one of them."""
        patience = MAX_TURNS  # for all pieces together: a reader that has stopped for good is not waited for at each
        for index, part in enumerate(parts):
            while self.transport.is_paused and patience:
                patience -= 1
                await asyncio.sleep(0)
            if not self.transport.feed(part):
                break
            if index == position:
                self._happen(event)
            if index < 16:
                await asyncio.sleep(0)
        await self.settle()
        self._go_on(event)
        await self.settle()

    async def settle(self) -> None:
        """Until what was sent is dealt with."""
        turns = 0
        for _ in range(MAX_TURNS):
            before = len(self.seen), len(self.connection._stash), self.connection._state
            await asyncio.sleep(0)
            turns = turns + 1 if before == (len(self.seen), len(self.connection._stash), self.connection._state) else 0
            if turns > TURNS + 12 * bool(self.server.tasks):
                return
        raise Finding("the connection does not settle")

    def _happen(self, event: str) -> None:
        if event == "end of file":
            self.transport.feed_eof()
        elif event == "connection lost":
            self.transport.lose(ConnectionResetError())
        elif "reader stops" in event:
            self.connection.pause_writing()
        elif event == "draining begins":
            self.server.is_draining = True
        elif event == "closed when idle":
            self.connection.close_when_idle()
        self._pass_time(event)

    def _pass_time(self, event: str) -> None:
        seconds = 80 if "80 s" in event else 11 if "11 s" in event else 0
        for _ in range(seconds // 8):
            self.clock._now += 8.0
            self.server.sweep()

    def _go_on(self, event: str) -> None:
        self._pass_time(event)
        if event == "reader stops and goes on" and not self.transport.is_closing():
            self.connection.resume_writing()

    async def end(self) -> None:
        """The client goes; nothing may stay."""
        self.transport.lose(None)
        for _ in range(TURNS + 12):
            await asyncio.sleep(0)
        if self.server.open_connections or self.server.tasks or self.connection._exchange is not None:
            raise Finding(f"something stays after the connection: {self!r} {self.server!r}")
        if self.connection._stash or self.connection._state != CLOSED:
            raise Finding(f"the connection is not closed: {self.connection!r}")

    def check_output(self) -> None:
        """What we say is HTTP, and not more answers than there were requests and one refusal."""
        output = self.output
        if output and not output.startswith(b"HTTP/1.1 "):
            raise Finding(f"no answer: {output[:100]!r}")
        answers = len(_STATUS_LINE.findall(output))
        if answers > len(self.seen) + 1:
            raise Finding(f"{answers} answers to {len(self.seen)} requests")


async def _once(data: bytes) -> None:
    answer, event = ANSWERS[data[0] % len(ANSWERS)], EVENTS[data[2] % len(EVENTS)]
    raw = data[4:]
    run = Run(answer)
    await run.feed(pieces(raw, data[1] % 64), event, data[3] % 16)
    run.check_output()
    if event == "nothing" and answer == "at once":
        whole = Run(answer)
        await whole.feed([raw])
        if (run.seen, run.is_over) != (whole.seen, whole.is_over):
            raise Finding(f"cut otherwise, it reads otherwise: {run.seen} {run!r}; whole: {whole.seen} {whole!r}")
        if whole.connection._state == HEAD and not whole.connection._stash and whole.seen:
            await whole.feed([raw])
            if whole.seen != run.seen * 2:
                raise Finding(f"said again, it reads otherwise: {whole.seen}; first: {run.seen}")
        await whole.end()
    await run.end()


def target(guard: Guard, data: bytes) -> None:
    """Try one input."""
    if len(data) >= 4:
        guard.run(_once(data))


def seed(raw: bytes) -> list[bytes]:
    """Inputs from a message of the corpus."""
    return [b"\0\0\0\0" + raw, b"\0\1\0\0" + raw, b"\2\7\4\1" + raw, b"\1\5\2\2" + raw] if len(raw) < 4096 else []
