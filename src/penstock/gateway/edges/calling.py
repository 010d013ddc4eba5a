"""One call from its admission to its answer: sent by the quickest way there is, worded for its client, counted.

Knows: routes, the HTTP exchange, cells. Does not know: which checks the client's era makes before, or how its answers are
worded; the edge passes that in as an `AnswerForm`.

A server that can take the call at once gets it without a task or coroutine (`Route.start`), and its answer comes back through
`ended` in the same turn of the loop in which it arrives; otherwise one task waits for it.
"""

from time import monotonic
from typing import Final, Protocol

import msgspec

from penstock.errors import ServerError, forget_frames
from penstock.gateway.edges.head import HeadFacts
from penstock.gateway.edges.waiting import Waiting, wait
from penstock.gateway.route import Route
from penstock.gateway.sessions import ClientSession
from penstock.http.messages import LARGE_BYTES, Body, joined
from penstock.http.server import EventStream, Exchange
from penstock.protocol.envelopes import encode_large_result, encode_notification, encode_result
from penstock.protocol.event_stream import encode_event
from penstock.protocol.messages import Fault
from penstock.protocol.results import classify
from penstock.protocol.versions import Era
from penstock.telemetry.server_timing import server_timing
from penstock.upstreams.interface import Answer, Call, Caller, Cancellable, Failure, Result

_PROGRESS: Final = "notifications/progress"


class AnswerForm(Protocol):
    """How one era and revision words an answer."""

    @property
    def era(self) -> Era:
        """Results of this era are passed on as they are."""
        ...

    def translated(self, method: str, result: Result, request_id: bytes) -> tuple[int, Body]:
        """HTTP status and body of a result of the other era, or of the error when this one cannot express it."""
        ...

    def failure(self, method: str, failure: Failure, request_id: bytes) -> tuple[int, bytes]:
        """HTTP status and body of a server's own error."""
        ...

    def refusal(self, error: ServerError, request_id: bytes) -> tuple[int, bytes]:
        """HTTP status and body of Penstock's own."""
        ...


class RunningCall:
    """Answers exactly once: plainly, or on an event stream once there is something to say before the answer."""

    __slots__ = ("_call", "_exchange", "_facts", "_form", "_request_id", "_route", "_session", "_stream")

    def __init__(
        self,
        exchange: Exchange,
        request_id: bytes,
        facts: HeadFacts,
        route: Route,
        form: AnswerForm,
        session: ClientSession | None = None,
    ) -> None:
        self._exchange: Final = exchange
        self._request_id: Final = request_id
        self._facts: Final = facts
        self._route: Final = route
        self._form: Final = form
        self._session: Final = session
        self._stream: EventStream | None = None
        self._call: Call | None = None
        """None before and after."""

    def __repr__(self) -> str:
        return f"<RunningCall {self._route!r}{' streaming' if self._stream is not None else ''}>"

    def begin(
        self,
        method: str,
        params: dict[str, msgspec.Raw],
        caller: Caller,
        meta: dict[str, msgspec.Raw] | None,
        headers: tuple[tuple[bytes, bytes], ...],
    ) -> Cancellable:
        """Send the call. What is returned ends it; the client is then not answered, unless its deadline was the reason."""
        route, exchange = self._route, self._exchange
        call = self._call = Call(
            method, params, caller, route.name, meta, self.notify, headers, exchange.received_at, self.ended
        )
        start = route.start
        task: Cancellable | None = None
        if start is not None:
            try:
                task = start(call)
            except Exception:  # a fault of ours, which the connection logs and answers
                self.leave(call)
                raise
        if task is None:
            task = Waiting(exchange.spawn(wait(route.handle, call, self)))
        call.task = task
        if self._session is not None:
            self._session.in_flight[task] = self._request_id
        return task

    def notify(self, method: str, params: dict[str, msgspec.Raw]) -> None:
        """Send a notification ahead of the answer; progress is what a slow reader loses first.

        A client that does not take event streams gets none.
        """
        stream = self._stream
        if stream is None:
            if not self._facts.takes_stream or self._exchange.is_answered:
                return
            stream = self._stream = self._exchange.open_stream()
        stream.send(encode_event(encode_notification(method, params)), droppable=method == _PROGRESS)

    def ended(self, outcome: Answer | ServerError | None) -> None:
        """The call is over: answered, failed, or cancelled (None). Answer the client and count it."""
        call = self._call
        if call is None:
            self._exchange.failed(RuntimeError(f"{self!r} has ended before"))
            return
        answered_at = monotonic()
        self.leave(call)
        try:
            if outcome is None and call.watch is not None:
                outcome = call.watch.refusal(call)
            if isinstance(outcome, Result):
                kind = self._answer(call, outcome, answered_at)
            elif outcome is None:
                kind = "cancelled"
                self._end_cancelled()
            else:
                kind = self._fail(call, outcome, answered_at)
            sent_at = call.sent_at
            upstream = answered_at - sent_at if sent_at else 0.0
            # upstream time runs from the request's writing to the answer; all the rest of the call's life is our overhead
            self._route.cell.record(kind, monotonic() - call.started_at - upstream, upstream)
        except Exception as error:  # called by a server's connection, which must not suffer for a fault of ours
            self._exchange.failed(error)

    def _answer(self, call: Call, result: Result, answered_at: float) -> str:
        """Pass a result on; returns the kind of outcome."""
        form, request_id, json, marks = self._form, self._request_id, result.json, result.marks
        if result.era is form.era:
            status, body = 200, result_body(request_id, json)
        else:
            status, body = form.translated(call.method, result, request_id)
        if self._stream is None and not self._facts.wants_timing:
            self._exchange.respond(status, body)
        else:
            self._respond(call, status, body, answered_at)
        if marks is None:
            return _kind_of(result)
        return "tool_error" if marks.is_error else "ok"

    def _fail(self, call: Call, outcome: Failure | ServerError, answered_at: float) -> str:
        """Tell what went wrong; returns the kind of outcome."""
        if isinstance(outcome, Failure):
            status, body = self._form.failure(call.method, outcome, self._request_id)
            kind = "rpc_error"
        else:
            assert isinstance(outcome, ServerError)
            status, body = self._form.refusal(outcome, self._request_id)
            kind = "server_error"
            forget_frames(outcome)
        self._respond(call, status, body, answered_at)
        return kind

    def _respond(self, call: Call, status: int, body: Body, answered_at: float) -> None:
        if self._stream is not None:  # its status and headers have long gone out
            self._stream.finish(encode_event(joined(body)))
        else:
            headers = self._timing(call, answered_at) if self._facts.wants_timing else b""
            self._exchange.respond(status, body, headers=headers)

    def leave(self, call: Call) -> None:
        """The call is under way no longer. What it is held by, and what it holds, is let go of: a cycle would keep large answers
        until the collector comes by.
        """
        self._call = None
        session, watch = self._session, call.watch
        if session is not None and call.task is not None:
            session.in_flight.pop(call.task, None)
        if watch is not None:
            watch.leave(call)
        call.task = None

    def _end_cancelled(self) -> None:
        """Nobody wants the answer. A legacy client that cancelled gets a stream that carries nothing more.

        A client that is still there and did not cancel, as nobody without a session can but by leaving, is not left waiting.
        """
        if self._session is not None:
            stream = self._stream if self._stream is not None else self._exchange.open_stream()
            stream.finish()
        else:
            self._exchange.failed(None)

    def _timing(self, call: Call, answered_at: float) -> bytes:
        value = server_timing(
            received_at=self._exchange.received_at,
            routed_at=call.started_at,
            sent_at=call.sent_at,
            first_byte_at=call.first_byte_at,
            answered_at=answered_at,
        )
        return b"server-timing: " + value + b"\r\n"


def result_body(request_id: bytes, json: bytes | memoryview) -> Body:
    """The body of an answer with that result: in pieces where it is large."""
    if len(json) < LARGE_BYTES:
        return encode_result(request_id, bytes(json))
    return encode_large_result(request_id, json)


def _kind_of(result: Result) -> str:
    """Whether a tool says it failed, of a result nobody has looked into."""
    raw = result.raw
    if b'"isError"' not in raw:
        return "ok"
    head = classify(raw)
    return "tool_error" if isinstance(head, Fault) or head.is_error else "ok"
