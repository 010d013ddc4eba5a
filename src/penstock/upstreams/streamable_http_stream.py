"""The GET stream of a legacy session: what its server says beside the calls.

Knows: how it is opened, and opened again where it broke off. Does not know: what its messages mean, whose session it is.
Invariant: a message is handed on once; after a break the server is asked for what was missed (`Last-Event-ID`), or, where nothing
tells what that was, it is said that something may have been.

Source: 2025-11-25 basic/transports, "Listening for Messages from the Server", "Resumability and Redelivery".
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from penstock.clock import Clock
from penstock.errors import ServerError
from penstock.http.client import RequestFailed, Response
from penstock.protocol.envelopes import decode, decode_batch, is_batch
from penstock.protocol.event_stream import Event
from penstock.protocol.messages import Message
from penstock.upstreams.sessions import LegacySession
from penstock.upstreams.streamable_http_link import HttpLink
from penstock.upstreams.streamable_http_refusals import is_event_stream
from penstock.upstreams.streamable_http_settings import StreamableHttpSettings

DEFAULT_RETRY_SECONDS: Final = 1.0
SHORTEST_RETRY_SECONDS: Final = 0.5
"""Whatever the server asks for: one that ends each stream at once must not keep us busy."""
LONGEST_RETRY_SECONDS: Final = 60.0
HEALTHY_SECONDS: Final = 30.0
"""A stream that lasted as long was worth opening, though nothing came on it."""


class SessionStream:
    """One session's stream."""

    __slots__ = (
        "_clock",
        "_last_event_id",
        "_link",
        "_retry_ms",
        "_session",
        "_settings",
        "_take",
        "breaks",
        "has_gap",
        "is_open",
        "missed",
        "seen",
    )

    def __init__(
        self,
        link: HttpLink,
        session: LegacySession,
        take: Callable[[Message], None],
        *,
        missed: Callable[[], None] = lambda: None,
        has_gap: bool = False,
        settings: StreamableHttpSettings,
        clock: Clock,
    ) -> None:
        """
        Args:
            take: takes each message. Must not raise.
            missed: told when the stream is there, and others may have been missed before. Must not raise.
            has_gap: that may be so from the start.
        """
        self._link, self._session, self._settings, self._clock = link, session, settings, clock
        self._take, self.missed, self.has_gap = take, missed, has_gap
        self._last_event_id = b""
        self._retry_ms: int | None = None
        self.is_open = asyncio.Event()
        """The server has answered with a stream, once at least."""
        self.seen = 0
        """Messages so far."""
        self.breaks = 0
        """Times the stream broke off, or could not be had."""

    def __repr__(self) -> str:
        return f"<SessionStream of {self._link.name} {self.seen} messages>"

    async def run(self) -> Response | None:
        """Hand on what comes, until the server refuses the stream: then its refusal, or None when it cannot be reached."""
        failures = 0
        while True:
            seen, began_at = self.seen, self._clock.now()
            resumes = b"" if not self._last_event_id else b"last-event-id: %b\r\n" % self._last_event_id
            head = b"%b%b%b\r\n" % (self._link.get_head, self._session.head, resumes)
            response: Response | None = None
            with contextlib.suppress(RequestFailed, ServerError):
                response = await self._link.listen(head, self._on_event, self._opened)
                if response.status != 200 or not is_event_stream(response):
                    return response
            self.breaks += 1
            self.has_gap = self.has_gap or not self._last_event_id
            was_worth_it = self.seen > seen or self._clock.now() - began_at >= HEALTHY_SECONDS
            failures = 0 if was_worth_it else failures + 1
            if response is None and failures > self._settings.resume_tries:
                return None
            await self._clock.sleep(self._pause(0 if response is not None and self._last_event_id else failures))

    def _opened(self) -> None:
        """The server has begun the stream: what it says from now on is heard."""
        self.is_open.set()
        self._session.had_stream = True
        if self.has_gap:
            self.has_gap = False
            self.missed()

    def note_gap(self) -> None:
        """Something may have been missed: that is said at once, or when the stream is there."""
        if self.is_open.is_set():
            self.missed()
        else:
            self.has_gap = True

    def _pause(self, failures: int) -> float:
        """What the server asks for, but ever longer where streams bring nothing and say nothing of being resumed."""
        asked = DEFAULT_RETRY_SECONDS if self._retry_ms is None else self._retry_ms / 1000
        return min(max(asked, failures, SHORTEST_RETRY_SECONDS), LONGEST_RETRY_SECONDS)

    def _on_event(self, event: Event) -> bool:
        if event.id is not None:
            self._last_event_id = event.id
        if event.retry_ms is not None:
            self._retry_ms = event.retry_ms
        if event.data and event.event == b"message":
            self.seen += 1
            body = bytes(event.data)
            messages = decode_batch(body) if is_batch(body) else [decode(body)]
            for message in messages if isinstance(messages, list) else []:
                if isinstance(message, Message):
                    self._take(message)
        return False
