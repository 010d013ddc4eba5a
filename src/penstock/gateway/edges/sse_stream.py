"""One client's stream over HTTP+SSE, and how everything that is for the client gets onto it.

Knows: the stream, what has still to be answered. Does not know: how messages are judged, sessions' lives.
Invariants: each request on it is answered once, with a JSON-RPC message that has its id; a stream that is to end in good order
ends with the last of these answers.
"""

from collections.abc import Callable
from typing import Final

from penstock.gateway.edges.head import HeadFacts
from penstock.gateway.listeners import Listener
from penstock.gateway.sessions import ClientSession
from penstock.gateway.view import View
from penstock.http.event_stream import EventStream
from penstock.http.limits import ServerLimits
from penstock.http.messages import Body, joined
from penstock.http.passage import Give
from penstock.http.server import Exchange
from penstock.protocol.envelopes import decode, encode_error
from penstock.protocol.errors import INTERNAL_ERROR
from penstock.protocol.event_stream import encode_event
from penstock.protocol.messages import Reply


class SseStream:
    """The stream of one client."""

    __slots__ = (
        "_is_ending",
        "_on_over",
        "facts",
        "in_flight",
        "is_over",
        "key",
        "listener",
        "session",
        "view",
        "whole",
    )

    def __init__(
        self, key: str, view: View, whole: EventStream, facts: HeadFacts, on_over: Callable[["SseStream"], None]
    ) -> None:
        """
        Args:
            facts: of the request that opened it.
            on_over: told once when nothing reaches the client any more.
        """
        self.key: Final = key
        self.view: View = view
        """The view's latest form."""
        self.whole: Final = whole
        self.facts: Final = facts
        self.session: ClientSession | None = None
        """None until the client has sent `initialize`."""
        self.listener: Listener = StreamListener(self, frozenset())
        self.in_flight = 0
        """Requests that have to be answered."""
        self.is_over = False
        self._is_ending = False
        self._on_over: Final = on_over

    def __repr__(self) -> str:
        state = "over" if self.is_over else "ending" if self._is_ending else "open"
        return f"<SseStream {self.key[:8]} {state} [{self.in_flight} in flight]>"

    def end_when_answered(self) -> None:
        """End it in good order: at once when nothing is under way."""
        self._is_ending = True
        if self.in_flight <= 0:
            self.whole.finish()
            self.left()

    def left(self) -> None:
        """Nothing reaches the client any more."""
        if not self.is_over:
            self.is_over = True
            self._on_over(self)

    def landed(self) -> None:
        """One request has been answered, or will not be."""
        self.in_flight -= 1
        if self._is_ending:
            self.end_when_answered()


class StreamListener(Listener):
    """What the client of a stream wants to hear of; the end of the stream waits for answers that are under way."""

    __slots__ = ("_owner",)

    def __init__(self, owner: SseStream, lists: frozenset[str]) -> None:
        super().__init__(owner.view.name, lists, owner.whole)
        self._owner: Final = owner

    def end(self) -> None:
        """See `Listener`."""
        self._owner.end_when_answered()


class AnswerLink:
    """Where the answer to one request goes: an event on the stream. See `http.exchange.Link`."""

    __slots__ = ("_id", "_owner", "exchange")

    def __init__(self, owner: SseStream, request_id: bytes) -> None:
        """`request_id`: JSON bytes."""
        self._owner: SseStream | None = owner
        """None once it has been answered."""
        self._id: Final = request_id
        self.exchange: Exchange | None = None
        """The request's part of the POST it came with."""
        owner.in_flight += 1

    def answer(self, status: int, body: Body, _content_type: bytes, _headers: bytes) -> None:
        """The whole answer is here. What has another status than 200 may be no answer to this very request."""
        message = joined(body)
        self.finish(encode_event(message if status == 200 else self._error_of(message)))

    def begin_stream(self, _headers: bytes) -> EventStream:
        """There is something to say before the answer."""
        return StreamPart(self, EventStream.closed() if self._owner is None else self._owner.whole)

    def give_away(self, _give: Give) -> bool:
        """The connection carries more than this."""
        return False

    def cut(self) -> None:
        """It could not be answered by a fault of ours; the other requests can."""
        self.finish(encode_event(self._error_of(b"")))

    def finish(self, event: bytes) -> None:
        """The answer; empty when there is none, as the client has cancelled."""
        owner, self._owner = self._owner, None
        if owner is None:
            return
        if self.exchange is not None:
            self.exchange.answer_completed()
        owner.whole.send(event)
        owner.landed()

    def _error_of(self, message: bytes) -> bytes:
        reply = decode(message)
        error = reply.error if isinstance(reply, Reply) else None
        if error is None:
            return encode_error(self._id, INTERNAL_ERROR, "the gateway has no answer; see its log", null_id=False)
        return encode_error(self._id, error.code, error.message, error.data, null_id=False)


class NoAnswerLink:
    """Where what answers a notification goes."""

    def answer(self, _status: int, _body: Body, _content_type: bytes, _headers: bytes) -> None:
        """The POST has been answered."""

    def begin_stream(self, _headers: bytes) -> EventStream:
        """Nothing belongs to a notification."""
        return EventStream.closed()

    def give_away(self, _give: Give) -> bool:
        """The connection carries more than this."""
        return False

    def cut(self) -> None:
        """Nothing to cut."""


class StreamPart(EventStream):
    """One request's part of a stream that carries many."""

    __slots__ = ("_answer", "_whole")

    def __init__(self, answer: AnswerLink, whole: EventStream) -> None:
        super().__init__(None, _NO_LIMITS, chunked=False, paused=False)
        self._answer: Final = answer
        self._whole: Final = whole

    @property
    def is_open(self) -> bool:
        """See `EventStream`."""
        return not self.is_finished and self._whole.is_open

    def send(self, event: bytes, *, droppable: bool = False) -> None:
        """See `EventStream`."""
        if not self.is_finished:
            self._whole.send(event, droppable=droppable)

    def finish(self, event: bytes = b"") -> None:
        """The answer is complete; the stream goes on."""
        if not self.is_finished:
            self.is_finished = True
            self._answer.finish(event)


_NO_LIMITS: Final = ServerLimits()
