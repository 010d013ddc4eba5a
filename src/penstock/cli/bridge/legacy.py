"""The legacy side of the bridge: one session with the gateway for the one client there is.

Knows: `initialize`, the session's id and revision, the stream for what the gateway says by itself, what to do when the session
is lost. Does not know: lines, when an answer is final.
Invariant: a session that the gateway lost is opened again once, whoever notices first, with what the client said when it opened
its own; many clients never initialize again.

Source: 2025-11-25 basic/transports (session management, resumability), basic/lifecycle.
"""

import asyncio
import logging
import re
from typing import Final

import msgspec

from penstock.cli.bridge.answers import event_line
from penstock.cli.bridge.flight import POST_HEADERS, Flight
from penstock.cli.bridge.link import GatewayLink
from penstock.cli.bridge.pipes import OutputPipe
from penstock.clock import Clock
from penstock.http.client import RequestFailed, Response
from penstock.protocol.envelopes import decode
from penstock.protocol.event_stream import Event
from penstock.protocol.messages import Reply

_log = logging.getLogger(__name__)
_RENEW_SECONDS: Final = 30.0
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 30.0
"""Between two attempts at the stream."""
_REMEMBERED: Final = 256
"""Levels and subscriptions that a new session is told."""
_VISIBLE: Final = re.compile(rb"[\x21-\x7e]{1,8192}").fullmatch
_LASTING: Final = {"logging/setLevel": None, "resources/subscribe": "uri", "resources/unsubscribe": "uri"}
"""Requests whose effect ends with the session, and what tells one from another."""


class Session:
    """What the gateway and the client agreed on."""

    __slots__ = ("has_id", "headers", "version")

    def __init__(self, version: str, token: bytes) -> None:
        self.version: Final = version
        self.has_id: Final = bool(_VISIBLE(token))
        lines = b"mcp-protocol-version: %b\r\n" % version.encode()
        self.headers: Final = lines + b"mcp-session-id: %b\r\n" % token if self.has_id else lines

    def __repr__(self) -> str:
        return f"<Session {self.version}>"

    @classmethod
    def opened_by(cls, response: Response, line: bytes) -> "Session | None":
        """The session that the answer to an `initialize` opened, if it did."""
        reply = decode(line)
        if not isinstance(reply, Reply) or reply.result is None:
            return None
        try:
            version = msgspec.json.decode(reply.result, type=_Initialized).protocolVersion
        except msgspec.ValidationError:
            return None
        if not _VISIBLE(version.encode()):
            return None
        return cls(version, response.headers.get(b"mcp-session-id", b""))


class _Initialized(msgspec.Struct):
    protocolVersion: str


class LegacySide:
    """Keeps the session; see `flight.Side`."""

    def __init__(self, link: GatewayLink, output: OutputPipe, clock: Clock) -> None:
        self._link: Final = link
        self._output: Final = output
        self._clock: Final = clock
        self.session: Session | None = None
        self._opening = b""
        """The client's `initialize`, and below its `notifications/initialized`, as it wrote them."""
        self._opened = b""
        self._lasting: dict[tuple[str, bytes], bytes] = {}
        self._renewing: Final = asyncio.Lock()
        self._listening: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<LegacySide {self.session} {'listening' if self._listening else 'not listening'}>"

    @property
    def version(self) -> str | None:
        """The revision agreed on; None before."""
        return None if self.session is None else self.session.version

    def headers(self, flight: Flight) -> bytes:
        """See `Side`."""
        session = None if flight.method == "initialize" else self.session
        flight.sent_with = session
        return b"" if session is None else session.headers

    async def put_right(self, flight: Flight, response: Response) -> bool:
        """See `Side`. On a session's request 404 means that the session is lost."""
        lost = flight.sent_with
        if response.status != 404 or not isinstance(lost, Session) or not lost.has_id:
            return False
        return await self._renew(lost)

    def answered(self, flight: Flight, response: Response, line: bytes) -> None:
        """See `Side`."""
        if flight.method == "initialize":
            self._stop_listening()
            self._opening, self._opened = flight.line, b""
            self._lasting.clear()
            self.session = Session.opened_by(response, line)
        elif flight.method == "notifications/initialized" and response.status < 300:
            self._opened = flight.line
            self._listen()
        elif flight.method in _LASTING:
            self._remember(flight)

    async def end(self, seconds: float) -> None:
        """End the session, within that time."""
        self._stop_listening()
        session, self.session = self.session, None
        if session is None or not session.has_id:
            return
        try:
            async with asyncio.timeout(seconds):
                await (await self._link.begin("DELETE", session.headers)).answer()
        except (RequestFailed, TimeoutError):
            pass  # a gateway that is away has nothing to end that it would not forget by itself

    def _remember(self, flight: Flight) -> None:
        params = getattr(flight.message, "params", {})
        field = _LASTING[flight.method]
        target = b"" if field is None else bytes(params.get(field, b""))
        if flight.method == "resources/unsubscribe":
            self._lasting.pop(("resources/subscribe", target), None)
        elif len(self._lasting) < _REMEMBERED:
            self._lasting[flight.method, target] = flight.line

    # a lost session

    async def _renew(self, lost: Session) -> bool:
        """Whether there is a session again."""
        async with self._renewing:
            if self.session is not lost:
                return self.session is not None
            try:
                async with asyncio.timeout(_RENEW_SECONDS):
                    return await self._open_again(lost)
            except (RequestFailed, TimeoutError) as error:
                _log.warning("the gateway lost the session, and opens none: %s", error)
                return False

    async def _open_again(self, lost: Session) -> bool:
        response = await self._post(b"", self._opening)
        session = Session.opened_by(response, response.body) if response.status == 200 else None
        if session is None:
            _log.warning("the gateway lost the session, and opens none: status %d", response.status)
            return False
        if session.version != lost.version:
            _log.warning("the new session speaks %s, the lost one %s", session.version, lost.version)
        self.session = session
        if self._opened:
            await self._post(session.headers, self._opened)
        await self._say_again(session)
        _log.warning("the gateway had lost the session; a new one was opened in its place")
        if self._opened:
            self._listen()
        return True

    async def _say_again(self, session: Session) -> None:
        """What was said in a session and lasts."""
        for line in list(self._lasting.values()):
            await self._post(session.headers, line)

    async def _post(self, headers: bytes, line: bytes) -> Response:
        return await (await self._link.begin("POST", POST_HEADERS + headers, line)).answer()

    # what the gateway says by itself

    def _listen(self) -> None:
        self._stop_listening()
        if self.session is not None and self.session.has_id:
            self._listening = asyncio.get_running_loop().create_task(self._follow(self.session))

    def _stop_listening(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
            self._listening = None

    async def _follow(self, session: Session) -> None:
        """Pass on what comes on the session's GET stream; go on where it ends. A gateway that has none is done without.

        One that was away may have started anew: then it knows the session by its id, and nothing of what was said in it.
        """
        stream, pause, was_there = _Stream(self._output), _FIRST_PAUSE, False
        while self.session is session:
            stream.count = 0
            status = await self._read_stream(session, stream)
            if status == 404 and was_there:  # it was the session's, so the session is lost
                await self._renew(session)
                return
            if 400 <= status < 500:
                return
            was_there = was_there or status == 200
            pause = _FIRST_PAUSE if stream.count else min(2 * pause, _LONGEST_PAUSE)
            await self._clock.sleep(stream.retry_seconds if stream.retry_seconds is not None else pause)

    async def _read_stream(self, session: Session, stream: "_Stream") -> int:
        """Read one stream to its end; returns its status, 0 when the gateway was away."""
        headers = b"accept: text/event-stream\r\n" + session.headers
        was_away, stream.was_away = stream.was_away, False
        if _VISIBLE(stream.last_id):
            headers += b"last-event-id: %b\r\n" % stream.last_id
        try:
            if was_away:
                await self._say_again(session)
            return (await (await self._link.begin("GET", headers, b"", stream)).answer()).status
        except RequestFailed:
            stream.was_away = True
            return 0


class _Stream:
    """Passes on the events of a GET stream, and keeps where it stopped."""

    def __init__(self, output: OutputPipe) -> None:
        self._output: Final = output
        self.last_id = b""
        self.retry_seconds: float | None = None
        """What the gateway asked to wait before the next attempt."""
        self.count = 0
        self.was_away = False

    def __call__(self, event: Event) -> bool:
        self.count += 1
        if event.id is not None:
            self.last_id = event.id
        if event.retry_ms is not None:
            self.retry_seconds = min(event.retry_ms / 1000, _LONGEST_PAUSE)
        found = event_line(bytes(event.data)) if event.data else None
        if found is not None:
            self._output.write(found[0])
        return False
