"""One call's way back to its client: a plain JSON answer, or an event stream once there is something to say before it.

Knows: the HTTP exchange, encoded messages. Does not know: eras, servers, routes.
"""

from typing import Final

import msgspec

from penstock.gateway.edges.head import HeadFacts
from penstock.http.server import EventStream, Exchange
from penstock.protocol.envelopes import encode_notification
from penstock.protocol.event_stream import encode_event

_PROGRESS: Final = "notifications/progress"


class Reply:
    """Answers exactly once. A client that does not take event streams gets no notifications."""

    __slots__ = ("_stream", "exchange", "facts", "request_id")

    def __init__(self, exchange: Exchange, request_id: bytes, facts: HeadFacts) -> None:
        self.exchange: Final = exchange
        self.request_id: Final = request_id
        """JSON bytes of the client's id."""
        self._stream: EventStream | None = None
        self.facts: Final = facts

    def __repr__(self) -> str:
        return f"<Reply to {self.request_id!r}{' streaming' if self._stream is not None else ''}>"

    def notify(self, method: str, params: dict[str, msgspec.Raw]) -> None:
        """Send a notification ahead of the answer; progress is what a slow reader loses first."""
        if not self.facts.takes_stream or (self._stream is None and self.exchange.is_answered):
            return
        if self._stream is None:
            self._stream = self.exchange.open_stream()
        self._stream.send(encode_event(encode_notification(method, params)), droppable=method == _PROGRESS)

    def finish(self, body: bytes, *, status: int = 200, headers: bytes = b"") -> None:
        """Send the answer; on a stream its status and headers have long gone out."""
        if self._stream is not None:
            self._stream.finish(encode_event(body))
        else:
            self.exchange.respond(status, body, headers=headers)

    def finish_empty(self) -> None:
        """End without an answer, as a cancelled legacy request has it: a stream that carries nothing more."""
        if self._stream is None:
            self._stream = self.exchange.open_stream()
        self._stream.finish()
