"""The desk over streamable HTTP (on Penstock's own lane) or stdio.

usage: python -m tests.end_to_end.servers.desk_server NAME dual|modern|legacy PORT|stdio     over HTTP prints `ready PORT`
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
from typing import Any

import uvloop

from penstock.clock import SystemClock
from penstock.http.event_stream import EventStream
from penstock.http.limits import ServerLimits
from penstock.http.server import Exchange, HttpServer
from penstock.protocol.event_stream import encode_event
from tests.end_to_end.servers.desk import Desk, Peer, Session
from tests.end_to_end.servers.plain_mcp import Message, is_modern

MAX_SESSIONS = 4_096
IDLE_SECONDS = 300.0


class CallPeer(Peer):
    """One POST."""

    def __init__(self, exchange: Exchange, session: Session | None) -> None:
        self.exchange, self.session = exchange, session
        self.stream: EventStream | None = None

    def say(self, message: Message) -> None:
        if self.stream is None:
            self.stream = self.exchange.open_stream()
        self.stream.send(encode_event(json.dumps(message).encode()))

    def end(self, answer: Message) -> None:
        body = json.dumps(answer).encode()
        if self.stream is not None:
            self.stream.finish(encode_event(body))
        else:
            status = 400 if answer.get("error", {}).get("code") in {-32600, -32022} else 200
            self.exchange.respond(status, body)


class OverHttp:
    """Sessions by their ids, and the streams of each."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._sessions: dict[bytes, Session] = {}
        desk.forget = self._forget

    def __call__(self, exchange: Exchange) -> None:
        request = exchange.request
        session_id = request.headers.get(b"mcp-session-id", b"")
        session = self._sessions.get(session_id)
        if request.method == b"DELETE" and session is not None:
            self._end(session_id)
            exchange.respond(200)
        elif request.method == b"GET" and session is not None:
            self._open_stream(exchange, session)
        elif request.method != b"POST":
            exchange.respond(404 if self._desk.kind != "modern" else 405)
        else:
            self._take(exchange, json.loads(request.body), session)

    def _take(self, exchange: Exchange, message: Message, session: Session | None) -> None:
        refusal = self._desk.refusal(message)
        if refusal is not None:
            CallPeer(exchange, None).end(refusal)
        elif message.get("method") == "initialize":
            self._initialize(exchange, message)
        elif not is_modern(message) and "method" in message and session is None and "id" in message:
            exchange.respond(404)
        elif "id" not in message or "method" not in message:
            if session is not None:
                self._note(session, message)
            exchange.respond(202)
        else:
            task = exchange.spawn(self._answer(exchange, message, session))
            if is_modern(message):
                exchange.on_disconnect = task.cancel

    def _note(self, session: Session, message: Message) -> None:
        if "method" not in message:
            self._desk.replied(session, message)
        elif message["method"] == "notifications/cancelled":
            self._desk.cancel(session, message)

    def _initialize(self, exchange: Exchange, message: Message) -> None:
        session_id = os.urandom(8).hex().encode()
        session = self._sessions[session_id] = Session()
        self._desk.sessions.add(session)
        if len(self._sessions) > MAX_SESSIONS:
            self._end(next(iter(self._sessions)))
        answer = self._desk._told_at_once(Peer(), message, "initialize", {})
        exchange.respond(200, json.dumps(answer).encode(), headers=b"mcp-session-id: %b\r\n" % session_id)

    def _forget(self) -> None:
        for session_id in list(self._sessions):
            self._end(session_id)

    def _end(self, session_id: bytes) -> None:
        session = self._sessions.pop(session_id)
        self._desk.sessions.discard(session)
        self._desk.counts["ended_sessions"] += 1
        if session.end is not None:
            session.end()
        for task in session.tasks.values():
            task.cancel()

    @staticmethod
    def _open_stream(exchange: Exchange, session: Session) -> None:
        stream = exchange.open_stream()

        def say(message: Message) -> None:
            stream.send(encode_event(json.dumps(message).encode()))

        def gone() -> None:
            if session.say is say:
                session.say = None

        session.say, session.end = say, stream.finish
        exchange.on_disconnect = gone

    async def _answer(self, exchange: Exchange, message: Message, session: Session | None) -> None:
        peer, key = CallPeer(exchange, session), json.dumps(message["id"])
        if message["method"] == "subscriptions/listen":
            peer.end(await self._desk.listen(message, peer.say))
            return
        task = asyncio.ensure_future(self._desk.answer(peer, message))
        if session is not None:
            session.tasks[key] = task
        try:
            peer.end(await task)
        except asyncio.CancelledError:
            task.cancel()
            if peer.stream is not None:
                peer.stream.finish()
        finally:
            if session is not None:
                session.tasks.pop(key, None)


class PipePeer(Peer):
    """The one client there is."""

    def __init__(self) -> None:
        self.session: Session = Session(self.say)

    def say(self, message: Message) -> None:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()


async def over_stdio(desk: Desk) -> None:
    """Until standard input ends."""
    reader, peer = asyncio.StreamReader(limit=1 << 25), PipePeer()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    running: set[asyncio.Task[Any]] = set()

    async def take(message: Message) -> None:
        work = desk.listen(message, peer.say) if message["method"] == "subscriptions/listen" else None
        task = asyncio.ensure_future(work if work is not None else desk.answer(peer, message))
        peer.session.tasks[json.dumps(message["id"])] = task
        try:
            with contextlib.suppress(asyncio.CancelledError):
                peer.say(await task)
        finally:
            peer.session.tasks.pop(json.dumps(message["id"]), None)

    while line := await reader.readline():
        message = json.loads(line)
        refusal = desk.refusal(message) if "id" in message else None
        if refusal is not None:
            peer.say(refusal)
        elif "method" not in message:
            desk.replied(peer.session, message)
        elif message["method"] == "notifications/initialized":
            desk.sessions.add(peer.session)
        elif message["method"] == "notifications/cancelled":
            desk.cancel(peer.session, message)
        elif "id" in message:
            task = asyncio.ensure_future(take(message))
            running.add(task)
            task.add_done_callback(running.discard)


async def over_http(desk: Desk, port: int) -> None:
    """Until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    limits = ServerLimits(idle_seconds=IDLE_SECONDS)
    server = await HttpServer.start(
        OverHttp(desk), host="127.0.0.1", port=port, limits=limits, tls=None, reuse_port=False, clock=SystemClock()
    )
    print("ready", server.addresses[0][1], flush=True)
    await stop.wait()
    server.close()


if __name__ == "__main__":
    the_desk = Desk(sys.argv[1], sys.argv[2])
    uvloop.run(over_stdio(the_desk) if sys.argv[3] == "stdio" else over_http(the_desk, int(sys.argv[3])))
