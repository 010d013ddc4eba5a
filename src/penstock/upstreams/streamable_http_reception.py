"""Take in what a server sends in answer to one request: events or a body, until the answer to it is there.

Knows: JSON-RPC messages, our id, the caller's progress token and log level. Does not know: connections, statuses, sessions.
Invariants: only a reply with our id is an answer; a notification reaches the caller only if it belongs to this call. That
something has changed belongs to nobody's call, and is not lost where a server says it in the course of one.
"""

from time import monotonic
from typing import Final

import msgspec

from penstock.errors import ServerMisbehaved
from penstock.protocol.envelopes import compact_result, decode, decode_batch, is_batch
from penstock.protocol.event_stream import Event
from penstock.protocol.messages import (
    Fault,
    Message,
    Notification,
    Reply,
    Request,
)
from penstock.protocol.meta import PROGRESS_TOKEN
from penstock.protocol.result_marks import ResultMarks
from penstock.protocol.subscriptions import CAPABILITY_OF, UPDATED
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Answer, Call, Failure, Heard, Result
from penstock.upstreams.log_levels import is_wanted
from penstock.upstreams.questions import Questions

_MESSAGE: Final = b"message"


class HttpCounts(msgspec.Struct):
    """What one server sent that was of no use, and what was done about it; totals."""

    calls: int = 0
    stray_progress: int = 0
    unwanted_logs: int = 0
    other_notifications: int = 0
    refused_requests: int = 0
    dropped_requests: int = 0
    resumed_streams: int = 0
    lost_sessions: int = 0
    cancelled: int = 0
    background_dropped: int = 0
    reprobes: int = 0


class Reception:
    """What came so far for one request."""

    __slots__ = (
        "_call",
        "_counts",
        "_era",
        "_heard",
        "_marks",
        "_questions",
        "_server",
        "id",
        "last_event_id",
        "reply",
        "retry_ms",
        "seen",
    )

    def __init__(
        self,
        server: str,
        request_id: bytes,
        era: Era,
        counts: HttpCounts,
        *,
        call: Call | None = None,
        questions: Questions | None = None,
        heard: Heard | None = None,
    ) -> None:
        """
        Args:
            questions: takes what a legacy server asks; None when it must not ask.
            heard: takes what the server says of changes, unless the call listens to them itself.
        """
        self._server, self.id, self._era, self._heard = server, request_id, era, heard
        self._counts, self._call, self._questions = counts, call, questions
        self._marks: ResultMarks | None = None
        self.reply: Reply | None = None
        """The answer, once it is there."""
        self.last_event_id = b""
        """Where the stream can be resumed; empty when it cannot."""
        self.retry_ms: int | None = None
        """How long the server wants us to wait before that."""
        self.seen = 0
        """Events so far."""

    def __repr__(self) -> str:
        state = "answered" if self.reply else "waiting"
        return f"<Reception of {self._server} id {self.id.decode()} {state} | events {self.seen}>"

    def on_event(self, event: Event) -> bool:
        """Callback for each event; True when the answer is there.

        Raises:
            ServerMisbehaved: the event is no message, or answers something that was not asked.
        """
        self.seen += 1
        if event.id is not None:
            self.last_event_id = event.id
        if event.retry_ms is not None:
            self.retry_ms = event.retry_ms
        if event.data and event.event == _MESSAGE:
            self.take(bytes(event.data))
        return self.reply is not None

    def take(self, body: bytes) -> None:
        """A body, or the data of an event: one message, or a batch where the era has them.

        Raises:
            ServerMisbehaved: as for `on_event`.
        """
        if body[:1] != b"{" and self._era is Era.LEGACY and is_batch(body):
            batch = decode_batch(body)
            for message in batch if isinstance(batch, list) else (batch,):
                self._take(message)
            return
        compact = compact_result(body, self.id) if self.reply is None else None
        if compact is not None:  # what nearly every body is
            result, self._marks = compact
            self.reply = Reply(self.id, bytes(result))
        else:
            self._take(decode(body))

    def answer(self) -> Answer | None:
        """What the interface calls the reply."""
        reply = self.reply
        if reply is None:
            return None
        if reply.error is not None:
            return Failure(reply.error.code, reply.error.message, reply.error.data, self._era)
        return Result(reply.result or b"{}", self._era, self._marks)

    def _take(self, message: Message | Fault) -> None:
        if type(message) is Reply:
            self._take_reply(message)
        elif type(message) is Notification:
            self._take_notification(message)
        elif type(message) is Request:
            if self._questions is None:
                self._counts.dropped_requests += 1
            else:
                self._questions.asked(message, self._call.ask if self._call is not None else None)
        elif type(message) is Fault:
            raise ServerMisbehaved(self._server, f"its answer is no JSON-RPC message: {message.message}; see its log")

    def _take_reply(self, reply: Reply) -> None:
        if reply.id != self.id and not (reply.id is None and reply.error is not None):
            theirs = "no id" if reply.id is None else f"id {reply.id[:40].decode('utf-8', 'replace')}"
            raise ServerMisbehaved(
                self._server,
                f"it answered {theirs} where id {self.id.decode()} was asked; its answers cannot be trusted",
            )
        if self.reply is not None:
            raise ServerMisbehaved(self._server, "it sent two answers to one request; neither can be trusted")
        self.reply = reply

    def _take_notification(self, notification: Notification) -> None:
        call, params = self._call, notification.params
        if notification.method == "notifications/progress":
            token = call.meta.get(PROGRESS_TOKEN) if call is not None and call.meta else None
            if call is None or token is None or bytes(params.get(PROGRESS_TOKEN, b"")) != self.id:
                self._counts.stray_progress += 1
                return
            call.progress_at = monotonic()
            if call.notify is not None:
                call.notify(notification.method, params | {PROGRESS_TOKEN: token})
        elif notification.method == "notifications/message":
            if call is None or call.notify is None or not is_wanted(call, params):
                self._counts.unwanted_logs += 1
                return
            call.notify(notification.method, params)
        elif notification.method == "notifications/cancelled" and self._questions is not None:
            self._questions.cancelled(params)
        elif call is not None and call.hear is not None:
            call.hear(notification.method, params)
        elif self._heard is not None and (notification.method in CAPABILITY_OF or notification.method == UPDATED):
            self._heard(notification.method, params)
        else:
            self._counts.other_notifications += 1
