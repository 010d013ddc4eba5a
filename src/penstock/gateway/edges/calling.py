"""One call from its admission to its answer: sent by the quickest way there is, worded for its client, counted.

Knows: routes, the HTTP exchange, cells. Does not know: which checks the client's era makes before, or how its answers are
worded; the edge passes that in as an `AnswerForm`.

A server that can take the call at once gets it without a task or coroutine (`Route.start`), and its answer comes back through
`ended` in the same turn of the loop in which it arrives; otherwise one task waits for it.
"""

import asyncio
from time import monotonic
from typing import Final, Protocol

import msgspec

from penstock.errors import ServerError
from penstock.gateway.edges.head import HeadFacts
from penstock.gateway.route import Route
from penstock.gateway.sessions import ClientSession
from penstock.http.server import EventStream, Exchange
from penstock.protocol.envelopes import Fault, encode_notification, encode_result
from penstock.protocol.event_stream import encode_event
from penstock.protocol.results import classify
from penstock.protocol.versions import Era
from penstock.telemetry.server_timing import server_timing
from penstock.upstreams.interface import Answer, Call, Cancellable, Failure, Result

_PROGRESS: Final = "notifications/progress"


class AnswerForm(Protocol):
    """How one era and revision words an answer."""

    @property
    def era(self) -> Era:
        """Results of this era are passed on as they are."""
        ...

    def translated(self, method: str, result: Result, request_id: bytes) -> tuple[int, bytes]:
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
        self._exchange = exchange
        self._request_id = request_id
        self._facts = facts
        self._route = route
        self._form = form
        self._session = session
        self._stream: EventStream | None = None

    def __repr__(self) -> str:
        return f"<RunningCall {self._route!r}{' streaming' if self._stream is not None else ''}>"

    def begin(self, call: Call) -> Cancellable:
        """Send the call. What is returned ends it; the client is then not answered, unless its deadline was the reason."""
        self._call = call
        call.notify = self.notify
        call.on_end = self.ended
        start = self._route.start
        task: Cancellable | None = None
        if start is not None:
            try:
                task = start(call)
            except Exception:  # a fault of ours, which the connection logs and answers
                self._leave()
                raise
        if task is None:
            task = _Waiting(self._exchange.spawn(self._run(call)))
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
        try:
            self._answer(outcome, monotonic())
        except Exception as error:  # called by a server's connection, which must not suffer for a fault of ours
            self._exchange.failed(error)

    async def _run(self, call: Call) -> None:
        outcome: Answer | ServerError
        try:
            outcome = await self._route.handle(call)
        except ServerError as error:
            outcome = error
        except asyncio.CancelledError:
            self.ended(None)
            raise
        except Exception:  # a fault of ours, which the exchange logs and answers
            self._leave()
            raise
        self.ended(outcome)

    def _answer(self, outcome: Answer | ServerError | None, answered_at: float) -> None:
        call = self._call
        self._leave()
        if outcome is None and call.watch is not None:
            outcome = call.watch.refusal(call)
        if type(outcome) is Result:
            if outcome.era is self._form.era:
                status, body = 200, encode_result(self._request_id, outcome.raw)
            else:
                status, body = self._form.translated(call.method, outcome, self._request_id)
            marks = outcome.marks
            kind = _kind_of(outcome) if marks is None else "tool_error" if marks.is_error else "ok"
        elif outcome is None:
            self._end_cancelled(answered_at)
            return
        elif isinstance(outcome, Failure):
            status, body = self._form.failure(call.method, outcome, self._request_id)
            kind = "rpc_error"
        else:
            assert isinstance(outcome, ServerError)
            status, body = self._form.refusal(outcome, self._request_id)
            kind = "server_error"
        if self._stream is not None:
            self._stream.finish(encode_event(body))  # its status and headers have long gone out
        else:
            self._exchange.respond(status, body, headers=self._timing(answered_at) if self._facts.wants_timing else b"")
        sent_at = call.sent_at
        upstream = answered_at - sent_at if sent_at else 0.0
        # upstream time runs from the request's writing to the answer; all the rest of the call's life is our overhead
        self._route.cell.record(kind, monotonic() - call.started_at - upstream, upstream)

    def _leave(self) -> None:
        """The call is under way no longer."""
        call = self._call
        if self._session is not None and call.task is not None:
            self._session.in_flight.pop(call.task, None)
        if call.watch is not None:
            call.watch.leave(call)
        call.notify = call.on_end = call.task = None

    def _end_cancelled(self, now: float) -> None:
        """Nobody wants the answer. A legacy client that cancelled gets a stream that carries nothing more.

        A client that is still there and did not cancel, as nobody without a session can but by leaving, is not left waiting.
        """
        call = self._call
        upstream = now - call.sent_at if call.sent_at else 0.0
        self._route.cell.record("cancelled", now - call.started_at - upstream, upstream)
        if self._session is not None:
            stream = self._stream if self._stream is not None else self._exchange.open_stream()
            stream.finish()
        else:
            self._exchange.failed(None)

    def _timing(self, answered_at: float) -> bytes:
        call = self._call
        value = server_timing(
            received_at=self._exchange.received_at,
            routed_at=call.started_at,
            sent_at=call.sent_at,
            first_byte_at=call.first_byte_at,
            answered_at=answered_at,
        )
        return b"server-timing: " + value + b"\r\n"


class _Waiting:
    """A call that waits in a task."""

    __slots__ = ("_task",)

    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task

    def cancel(self) -> None:
        """Not before the task's first turn: one that never ran could not say how it ended."""
        self._task.get_loop().call_soon(self._task.cancel)


def _kind_of(result: Result) -> str:
    """Whether a tool says it failed, of a result nobody has looked into."""
    if b'"isError"' not in result.raw:
        return "ok"
    head = classify(result.raw)
    return "tool_error" if isinstance(head, Fault) or head.is_error else "ok"
