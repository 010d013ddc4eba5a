"""A small HTTP/1.1 proxy that notes what passes and applies one mutation to it.

Knows: sockets, heads, bodies, event streams. Does not know: MCP beyond a message's method; checks.
It stands between a client and the gateway (and changes what is answered), or between the gateway and a server (and changes
what is asked). Each request has a connection of its own to the other side; whoever goes away is told to the other one.
A request whose id was changed is answered under its own: else its answer would be none, and nothing would come of it.
Invariant: without a mutation everything arrives as it was sent, framing aside. Notes are those of what was passed on.
"""

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, Self
from urllib.parse import urlsplit

from tests.conformance.mutations import Event, Headers, Mutation

MAX_NOTES: Final = 10_000
"""Exchanges one port remembers; more than any run has."""
_HOP_BY_HOP: Final = {"connection", "keep-alive", "transfer-encoding", "content-length"}


class Note:
    """One exchange as it was passed on."""

    def __init__(self, verb: str, headers: dict[str, str], body: bytes, mutation: Mutation | None = None) -> None:
        self.mutation = mutation
        """What it was asked under: it may have been changed."""
        self.verb = verb
        self.headers = headers
        self.message: Any = None
        with contextlib.suppress(ValueError):
            self.message = json.loads(body)
        self.status = 0
        self.answer_headers: dict[str, str] = {}
        self.answers: list[Any] = []
        """The messages of the answer, as they were passed on."""
        self.hung_up = threading.Event()
        """Set when who asked went away before the answer was whole."""

    @property
    def session_used(self) -> str | None:
        """The session that it was asked in."""
        return self.headers.get("mcp-session-id")

    @property
    def session(self) -> str | None:
        """The session that the answer opened."""
        return self.answer_headers.get("mcp-session-id")

    @property
    def is_request(self) -> bool:
        """Whether an answer under its id is to come."""
        return isinstance(self.message, dict) and {"id", "method"} <= self.message.keys()

    @property
    def method(self) -> str:
        """The message's method; the verb where there is no such thing."""
        said = self.message.get("method") if isinstance(self.message, dict) else None
        return str(said or self.verb)


class Port:
    """One address of the proxy, in front of one target."""

    def __init__(self, target: str, mutation: Mutation | None, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        parts = urlsplit(target)
        self.host, self.target_port = str(parts.hostname), int(parts.port or 80)
        self.path = parts.path
        self.url = ""
        self.mutation = mutation
        self.notes: list[Note] = []
        self.noted = threading.Condition()
        self._held: str | None = None
        self._let_go = asyncio.Event()
        self.server: asyncio.Server | None = None

    @property
    def held(self) -> str | None:
        """Answers to requests of this method wait until it is another."""
        return self._held

    @held.setter
    def held(self, method: str | None) -> None:
        self._held = method
        self._loop.call_soon_threadsafe(self._let_go.set)

    async def released(self, method: str) -> None:
        """Returns when answers to requests of that method may go."""
        while self._held == method:
            self._let_go.clear()
            await self._let_go.wait()

    def note(self, note: Note) -> None:
        """Remember an exchange, and wake who waits for one."""
        with self.noted:
            self.notes = [*self.notes[-MAX_NOTES:], note]
            self.noted.notify_all()

    def wait_for(self, wanted: Callable[[Note], bool], since: int, seconds: float) -> Note | None:
        """The first exchange since number `since` that is wanted; None when none comes in time."""
        with self.noted:
            self.noted.wait_for(lambda: any(wanted(note) for note in self.notes[since:]), seconds)
            return next((note for note in self.notes[since:] if wanted(note)), None)


class MutatingProxy:
    """Ports, on an event loop in a thread of its own. Use as a context manager."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="mutating proxy", daemon=True)
        self._handlers: set[asyncio.Task[None]] = set()
        self._listeners: list[asyncio.Server] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def open(self, target: str, mutation: Mutation | None = None) -> Port:
        """A new port in front of `target`; its `url` has the target's path."""
        port = Port(target, mutation, self._loop)
        port.server = self._run(asyncio.start_server(lambda r, w: self._serve(port, r, w), "127.0.0.1", 0))
        self._listeners.append(port.server)
        port.url = f"http://127.0.0.1:{port.server.sockets[0].getsockname()[1]}{port.path}"
        return port

    def close(self, port: Port) -> None:
        """Take no more connections there."""
        if port.server is not None:
            self._loop.call_soon_threadsafe(port.server.close)

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _end(self) -> None:
        for listener in self._listeners:
            listener.close()
        for task in self._handlers:
            task.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)

    async def _serve(self, port: Port, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        try:
            near = _Near(reader, writer)
            while await _Exchange(port, near).pass_on():
                pass
        except (OSError, EOFError, asyncio.CancelledError):
            pass  # either side went away, or the proxy ends
        finally:
            self._handlers.discard(task)
            writer.transport.abort()


class _Near:
    """The side that asks: can be read, and watched for its end, without losing what was read ahead."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.ahead = b""

    async def head(self) -> bytes:
        """A request's head; empty at the end."""
        try:
            first = self.ahead or await self.reader.readexactly(1)
            self.ahead = b""
            return first + await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return b""

    async def gone(self) -> None:
        """Returns when the other side closed; not when it sends more."""
        self.ahead += await self.reader.read(1)
        if self.ahead:
            await asyncio.Event().wait()


class _Exchange:
    """One request and its answer."""

    def __init__(self, port: Port, near: _Near) -> None:
        self._port, self._near = port, near
        self._asking: Mutation | None = None
        self._answering: Mutation | None = None
        self._method = ""
        self._id: Any = None
        """What the answer's id is changed back to; None where it was not changed."""

    async def pass_on(self) -> bool:
        """Whether the connection goes on afterwards."""
        head = await self._near.head()
        if not head:
            return False
        if (mutation := self._port.mutation) is not None:
            self._asking = mutation if mutation.to == "server" else None
            self._answering = mutation if mutation.to == "client" else None
        (verb, target, _), headers = _parse_head(head)
        body = await _read_body(self._near.reader, headers, until_end=False)
        self._method = Note(verb, {}, body).method
        if self._asking is not None and self._asking.concerns(self._method):
            asked = Note(verb, {}, body)
            if self._asking.is_meant(asked.message):
                _, headers = self._asking.head(0, headers)
            body = b"".join(_encoded(message) for message in _mutated(self._asking, body))
            if self._asking.table.get("set") == "id" and asked.is_request:
                self._id = asked.message["id"]
        note = Note(verb, {name.lower(): value for name, value in headers}, body, self._asking)
        self._port.note(note)
        far_reader, far_writer = await asyncio.open_connection(self._port.host, self._port.target_port)
        try:
            lines = [*_without_framing(headers), ("content-length", str(len(body))), ("connection", "close")]
            far_writer.write(_head(f"{verb} {target} HTTP/1.1", lines) + body)
            return await self._answer_or_hang_up(note, far_reader)
        finally:
            far_writer.transport.abort()

    async def _answer_or_hang_up(self, note: Note, far: asyncio.StreamReader) -> bool:
        answering = asyncio.ensure_future(self._answer(note, far))
        gone = asyncio.ensure_future(self._near.gone())
        try:
            await asyncio.wait([answering, gone], return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                answering.result()
                return True
            if self._asking is None or self._asking.passes_hang_up():
                note.hung_up.set()
                return False
            await answering
            return False
        finally:
            answering.cancel()
            gone.cancel()
            await asyncio.gather(answering, gone, return_exceptions=True)

    async def _answer(self, note: Note, far: asyncio.StreamReader) -> None:
        (_, status, *reason), headers = _parse_head(await far.readuntil(b"\r\n\r\n"))
        mutation = self._answering if self._answering and self._answering.concerns(self._method) else None
        is_stream = _value(headers, "content-type").startswith("text/event-stream")
        code = int(status)
        if mutation is not None:
            code, headers = mutation.head(code, headers)
        await self._port.released(self._method)
        note.status = code
        note.answer_headers = {name.lower(): value for name, value in headers}
        start = f"HTTP/1.1 {code} {' '.join(reason)}"
        if is_stream:
            await self._pass_stream(note, far, start, headers, mutation)
            return
        body = await _read_body(far, headers, until_end=True)
        if mutation is not None and mutation.makes_stream(code, body):
            headers = [(name, value) for name, value in headers if name.lower() != "content-type"]
            headers.append(("content-type", "text/event-stream"))
            body = b"".join(event.encoded() for event in mutation.events(Event([("data", body.decode())])))
        elif mutation is not None:
            body = b"".join(_encoded(message) for message in _mutated(mutation, body))
        elif self._id is not None and body:
            body = _encoded(self._with_own_id(json.loads(body)))
        with contextlib.suppress(ValueError):
            note.answers.append(json.loads(body))
        lines = [*_without_framing(headers), ("content-length", str(len(body)))]
        self._near.writer.write(_head(start, lines) + body)
        await self._near.writer.drain()

    def _with_own_id(self, message: Any) -> Any:
        return message if "method" in message else {**message, "id": self._id}

    async def _pass_stream(
        self, note: Note, far: asyncio.StreamReader, start: str, headers: Headers, mutation: Mutation | None
    ) -> None:
        writer = self._near.writer
        writer.write(_head(start, [*_without_framing(headers), ("transfer-encoding", "chunked")]))
        chunks = _chunks(far) if "chunked" in _value(headers, "transfer-encoding") else _rest(far)
        fields: list[tuple[str, str]] = []
        text = b""
        async for chunk in chunks:
            text += chunk
            *lines, text = text.replace(b"\r\n", b"\n").split(b"\n")
            for line in lines:
                if line:
                    name, _, value = line.decode().partition(":")
                    fields.append((name, value.removeprefix(" ")))
                elif fields:
                    event, fields = Event(fields), []
                    if self._id is not None and event.message() is not None:
                        event = event.with_message(self._with_own_id(event.message()))
                    for passed in [event] if mutation is None else mutation.events(event):
                        note.answers.append(passed.message())
                        writer.write(_chunk(passed.encoded()))
            await writer.drain()
        for passed in () if mutation is None else mutation.last_events():
            writer.write(_chunk(passed.encoded()))
        writer.write(b"0\r\n\r\n")
        await writer.drain()


def _mutated(mutation: Mutation, body: bytes) -> list[Any]:
    return mutation.body(json.loads(body)) if body else []


def _encoded(message: Any) -> bytes:
    return json.dumps(message).encode()


def _parse_head(head: bytes) -> tuple[list[str], Headers]:
    start, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    pairs = [line.partition(":") for line in lines]
    return start.split(" ", 2), [(name, value.strip()) for name, _, value in pairs]


def _head(start: str, headers: Headers) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"{start}\r\n{lines}\r\n".encode("latin-1")


def _value(headers: Headers, name: str) -> str:
    return next((value for found, value in headers if found.lower() == name), "")


def _without_framing(headers: Headers) -> Headers:
    return [(name, value) for name, value in headers if name.lower() not in _HOP_BY_HOP]


def _chunk(text: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(text), text)


async def _read_body(reader: asyncio.StreamReader, headers: Headers, *, until_end: bool) -> bytes:
    if length := _value(headers, "content-length"):
        return await reader.readexactly(int(length))
    if "chunked" in _value(headers, "transfer-encoding"):
        return b"".join([chunk async for chunk in _chunks(reader)])
    return await reader.read() if until_end else b""


async def _chunks(reader: asyncio.StreamReader) -> Any:
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        yield await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readexactly(2)


async def _rest(reader: asyncio.StreamReader) -> Any:
    while chunk := await reader.read(65536):
        yield chunk
