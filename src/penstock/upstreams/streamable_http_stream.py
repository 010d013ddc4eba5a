"""The GET stream of a legacy session: what its server says beside the calls.

Knows: how it is opened, and opened again where it broke off. Does not know: what its messages mean, whose session it is.
Invariant: a message is handed on once; after a break the server is asked for what was missed (`Last-Event-ID`).

Source: 2025-11-25 basic/transports, "Listening for Messages from the Server", "Resumability and Redelivery".
"""

import asyncio
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
LONGEST_RETRY_SECONDS: Final = 60.0


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
        "gaps",
        "is_open",
        "seen",
    )

    def __init__(
        self,
        link: HttpLink,
        session: LegacySession,
        take: Callable[[Message], None],
        *,
        settings: StreamableHttpSettings,
        clock: Clock,
    ) -> None:
        """`take` takes each message. Must not raise."""
        self._link, self._session, self._take, self._settings, self._clock = link, session, take, settings, clock
        self._last_event_id = b""
        self._retry_ms: int | None = None
        self.is_open = asyncio.Event()
        """The server has answered with a stream, once at least."""
        self.seen = 0
        """Messages so far."""
        self.gaps = 0
        """Times the stream broke off where nothing tells what was missed."""

    def __repr__(self) -> str:
        return f"<SessionStream of {self._link.name} {self.seen} messages>"

    async def run(self) -> Response | None:
        """Hand on what comes, until the server refuses the stream: then its refusal, or None when it cannot be reached."""
        failures = 0
        while True:
            seen = self.seen
            resumes = b"" if not self._last_event_id else b"last-event-id: %b\r\n" % self._last_event_id
            head = b"%b%b%b\r\n" % (self._link.get_head, self._session.head, resumes)
            try:
                response = await self._link.listen(head, self._on_event, self.is_open.set)
            except (RequestFailed, ServerError):
                failures = 0 if self.seen > seen else failures + 1
                if failures > self._settings.resume_tries:
                    return None
            else:
                if response.status != 200 or not is_event_stream(response):
                    return response
                failures = 0
            if not self._last_event_id:
                self.gaps += 1
            asked = DEFAULT_RETRY_SECONDS if self._retry_ms is None else self._retry_ms / 1000
            await self._clock.sleep(min(max(asked, failures), LONGEST_RETRY_SECONDS))

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
