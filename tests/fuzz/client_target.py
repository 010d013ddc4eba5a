"""Fuzzes a client's connection: any bytes as answers, cut anywhere, to one or two requests.

An input is four bytes of circumstances and the bytes that the server sends: what is asked for, how the bytes are cut, what
happens meanwhile, and after which piece.
"""

import asyncio
from typing import Final, cast

from penstock.http.client_connection import ClientConnection
from penstock.http.client_messages import RequestFailed, Response, ResponseTooLarge
from penstock.http.client_url import Origin
from penstock.http.limits import ClientLimits
from penstock.protocol.event_stream import Event
from tests.fuzz.invariants import AskedFor, Finding, Guard, pieces
from tests.fuzz.transport import FuzzTransport

LIMITS: Final = ClientLimits(
    response_bytes=4096, event_bytes=512, header_bytes=1024, header_fields=16, interim_answers=3, inflate_ratio=10
)
ORIGIN: Final = Origin("http", "a", 80)
ASKED: Final = ("get", "stream", "stream until the first event", "head", "detached", "callback fails")
EVENTS: Final = ("nothing", "end of file", "connection lost", "cancelled", "closed here", "writer stops")
TURNS: Final = 8
Got = tuple[str, tuple[object, ...] | None, list[Event]]


class Run:
    """One connection and its requests."""

    def __init__(self, asked: str) -> None:
        self.asked = asked
        self.events: list[Event] = []
        loop = asyncio.get_running_loop()
        self.connection = ClientConnection(ORIGIN, LIMITS, loop)
        self.connection.detach_on_cancel = asked == "detached"
        self.transport = FuzzTransport(loop, cast("asyncio.Protocol", self.connection))

    def __repr__(self) -> str:
        return f"<Run {self.asked} {self.connection!r}>"

    def _take(self, event: Event) -> bool:
        self.events.append(event)
        if self.asked == "callback fails":
            raise AskedFor
        return self.asked == "stream until the first event"

    async def ask(self, parts: list[bytes], event: str = "nothing", position: int = 0) -> Got:
        """Send one request, hear the pieces, and say what came of it."""
        self.events = []
        method = b"HEAD" if self.asked == "head" else b"GET"
        callback = None if self.asked in {"get", "head", "detached"} else self._take
        head = method + b" / HTTP/1.1\r\nhost: a\r\n\r\n"
        task = asyncio.get_running_loop().create_task(self.connection.request(head, b"", callback))
        await asyncio.sleep(0)
        for index, part in enumerate(parts):
            if not self.transport.feed(part):
                break
            if index == position:
                self._happen(event, task)
            if index < 16:
                await asyncio.sleep(0)
        for _ in range(TURNS):
            await asyncio.sleep(0)
        if not task.done():
            return await self._end(task)
        return self._got(task)

    async def _end(self, task: "asyncio.Task[Response]") -> Got:
        """The answer is not complete: the server's end of file must settle it."""
        self.transport.feed_eof()
        for _ in range(TURNS):
            await asyncio.sleep(0)
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise Finding(f"the request waits though the connection has ended: {self!r}")
        return self._got(task)

    def _got(self, task: "asyncio.Task[Response]") -> Got:
        if task.cancelled():
            return "cancelled", None, self.events
        error = task.exception()
        if error is None:
            answer = task.result()
            return "answer", (answer.status, sorted(answer.headers.items()), answer.body), self.events
        if not isinstance(error, RequestFailed | AskedFor):
            raise Finding(f"the request failed by {error!r}") from error
        return "too large" if isinstance(error, ResponseTooLarge) else "failed", None, self.events

    def _happen(self, event: str, task: "asyncio.Task[Response]") -> None:
        if event == "end of file":
            self.transport.feed_eof()
        elif event == "connection lost":
            self.transport.lose(ConnectionResetError())
        elif event == "cancelled":
            task.cancel()
        elif event == "closed here":
            self.connection.close()
        elif event == "writer stops":
            self.connection.pause_writing()

    async def end(self) -> None:
        """The server goes; nothing may stay."""
        self.transport.lose(None)
        for _ in range(TURNS):
            await asyncio.sleep(0)
        connection = self.connection
        if not connection.is_closed() or connection.is_busy or connection._watch is not None:
            raise Finding(f"something stays after the connection: {connection!r}")


async def _once(data: bytes) -> None:
    asked, event = ASKED[data[0] % len(ASKED)], EVENTS[data[2] % len(EVENTS)]
    raw = data[4:]
    run = Run(asked)
    got = await run.ask(pieces(raw, data[1] % 64), event, data[3] % 16)
    if event == "nothing":
        whole = Run(asked)
        first = await whole.ask([raw])
        # what is too much framing depends on how it is cut
        if "too large" not in {got[0], first[0]} and got != first:
            raise Finding(f"cut otherwise, it reads otherwise: {got}; whole: {first}")
        if first[0] == "answer" and whole.connection.is_idle() and not whole.transport.is_closing():
            again = await whole.ask([raw])
            if again != first:
                raise Finding(f"said again, it reads otherwise: {again}; first: {first}")
        await whole.end()
    await run.end()


def target(guard: Guard, data: bytes) -> None:
    """Try one input."""
    if len(data) >= 4:
        guard.run(_once(data))


HEADS: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: hi\n\nevent: message\nid: 1\ndata: {}\n\ndata: 2\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\nKeep-Alive: timeout=5\r\n\r\n",
    b"HTTP/1.0 404 Not Found\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
    (
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 25\r\n\r\n"
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff\xcb\x48\xcd\xc9\xc9\x07\x00\x86\xa6\x10\x36\x05\x00\x00\x00"
    ),
    b"HTTP/1.1 302 Found\r\nLocation: /x\r\nConnection: close\r\n\r\nbody until the end",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
)


def seed(raw: bytes) -> list[bytes]:
    """Inputs from a message of the corpus: what it says of a body, as an answer."""
    start, found, rest = raw.partition(b"\r\n")
    if not found or len(raw) > 4096 or b" HTTP/" not in start:
        return []
    answer = b"HTTP/1.1 200 OK\r\n" + rest
    return [b"\0\0\0\0" + answer, b"\1\3\0\0" + answer]


def own_seeds() -> list[bytes]:
    """Answers of every kind."""
    return [bytes((asked, cut, 0, 0)) + head for head in HEADS for asked in range(len(ASKED)) for cut in (0, 1)]
