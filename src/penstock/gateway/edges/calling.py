"""One call from its admission to its answer: sent by the quickest way there is, worded for its client, counted.

Knows: routes, the HTTP exchange, cells. Does not know: which checks the client's era makes before, or how its answers are
worded; the edge passes that in as an `AnswerForm`; what a client is asked meanwhile is its `Dialogue`'s.

A server that can take the call at once gets it without a task or coroutine (`Route.start`), and its answer comes back through
`ended` in the same turn of the loop in which it arrives; otherwise one task waits for it.
"""

import logging
from time import monotonic
from typing import Final, Protocol

import msgspec

from penstock.errors import ServerError, forget_frames
from penstock.gateway.edges.head import HeadFacts
from penstock.gateway.edges.waiting import Waiting, wait
from penstock.gateway.replay import EventSink, KeptStream
from penstock.gateway.route import Route
from penstock.gateway.sessions import ClientSession
from penstock.http.messages import LARGE_BYTES, Body, joined
from penstock.http.server import Exchange
from penstock.protocol.envelopes import encode_error, encode_large_result, encode_notification, encode_result
from penstock.protocol.errors import INTERNAL_ERROR, URL_ELICITATION_REQUIRED
from penstock.protocol.event_stream import encode_event
from penstock.protocol.messages import Fault
from penstock.protocol.meta import LOG_LEVEL, PROGRESS_TOKEN
from penstock.protocol.results import classify
from penstock.protocol.tasks import is_unfinished
from penstock.protocol.versions import Era
from penstock.telemetry.server_timing import server_timing
from penstock.upstreams.calls import Answer, Call, Caller, Cancellable, Failure, Result
from penstock.upstreams.log_levels import is_at_least
from penstock.upstreams.questions import Question

_log = logging.getLogger(__name__)
_PROGRESS: Final = "notifications/progress"
_MESSAGE: Final = "notifications/message"
_MODERN: Final = Era.MODERN
"""A name of our own for what every call needs: compiled, it is not looked up."""
_MAX_KEPT_MESSAGE: Final = 500
"""Characters of what went wrong last, for whoever asks why."""
_OF_NOTIFICATIONS: Final = frozenset({PROGRESS_TOKEN, LOG_LEVEL})
Outcome = Answer | ServerError | None
"""None: cancelled."""


class Dialogue(Protocol):
    """What a client is asked while a call of its is under way. Made when there is a first reason to."""

    def ask(self, question: Question) -> None:
        """A server wants to know something of the client."""

    def takes(self, call: Call, outcome: Outcome) -> bool:
        """The call has ended. True: the client is not answered now, or was; the dialogue sees, or saw, to it."""


class AnswerForm(Protocol):
    """How one era and revision words an answer."""

    @property
    def era(self) -> Era:
        """Results of this era are passed on as they are."""
        ...

    def translated(self, method: str, result: Result, request_id: bytes, server_info: bytes) -> tuple[int, Body]:
        """HTTP status and body of a result of the other era, or of the error when this one cannot express it.

        `server_info`: what the server calls itself, a JSON object; empty when that is not known.
        """
        ...

    def failure(self, method: str, failure: Failure, request_id: bytes) -> tuple[int, bytes]:
        """HTTP status and body of a server's own error."""
        ...

    def refusal(self, error: ServerError, request_id: bytes) -> tuple[int, bytes]:
        """HTTP status and body of Penstock's own."""
        ...

    def open_stream(self, exchange: Exchange, session: ClientSession | None) -> EventSink:
        """Answer with an event stream, which may outlive its connection."""
        ...

    def dialogue(self, running: "RunningCall", session: ClientSession | None) -> Dialogue:
        """How clients of this form are asked something."""
        ...


class RunningCall:
    """Answers exactly once: plainly, or on an event stream once there is something to say before the answer.

    A modern client is answered with `input_required` for as long as its server asks: then the call goes on without an exchange
    until the client comes back with another one.
    """

    __slots__ = (
        "_call",
        "_dialogue",
        "_earlier_seconds",
        "_exchange",
        "_facts",
        "_form",
        "_request_id",
        "_retry_meta",
        "_route",
        "_session",
        "_stream",
    )

    def __init__(
        self,
        exchange: Exchange,
        request_id: bytes,
        facts: HeadFacts,
        route: Route,
        form: AnswerForm,
        session: ClientSession | None = None,
    ) -> None:
        self._exchange: Exchange | None = exchange
        """None while the client is not there to be answered."""
        self._request_id: bytes = request_id
        self._facts: HeadFacts = facts
        self._route: Final = route
        self._form: Final = form
        self._session: Final = session
        self._stream: EventSink | None = None
        self._call: Call | None = None
        """None before and after."""
        self._dialogue: Dialogue | None = None
        self._earlier_seconds = 0.0
        """How long the client waited, and was waited for, before the call was last sent again."""
        self._retry_meta: dict[str, msgspec.Raw] | None = None
        """Which notifications the request wants that resumed the call; None while none has."""

    def __repr__(self) -> str:
        state = " parked" if self._exchange is None else " streaming" if self._stream is not None else ""
        return f"<RunningCall {self._route!r}{state}>"

    @property
    def call(self) -> Call | None:
        """What is under way; None before and after."""
        return self._call

    @property
    def request_id(self) -> bytes:
        """The client's own id of what it waits for."""
        return self._request_id

    @property
    def is_elsewhere(self) -> bool:
        """Whether another worker has the server."""
        return self._route.server.settings.is_elsewhere

    @property
    def server(self) -> str:
        """Name of the server that is called."""
        return self._route.server.name

    @property
    def is_waited_for(self) -> bool:
        """Whether a client is there to be answered."""
        return self._exchange is not None

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
        assert exchange is not None, "a call is begun for somebody who waits"
        call = self._call = Call(
            method, params, caller, route.name, meta, self.notify, headers, exchange.received_at, on_end=self.ended
        )
        call.ask = self.ask  # also for those that cannot be asked: their server gets to know why
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
            call.poll = self.poll
            self._session.in_flight[task] = self._request_id
        return task

    def notify(self, method: str, params: dict[str, msgspec.Raw]) -> None:
        """Send a notification ahead of the answer; progress is what a slow reader loses first.

        A client that does not take event streams gets none, nor does one that is not there.
        """
        if self._retry_meta is not None:
            wanted = _for_retry(self._retry_meta, method, params)
            if wanted is None:
                return
            params = wanted
        self.say(encode_event(encode_notification(method, params)), droppable=method == _PROGRESS)

    def say(self, event: bytes, *, droppable: bool = False) -> bool:
        """Send an event ahead of the answer; False when the client cannot get one."""
        stream = self._stream
        if stream is None:
            exchange = self._exchange
            if exchange is None or not self._facts.takes_stream or exchange.is_answered or exchange.is_disconnected:
                return False
            stream = self._stream = self._form.open_stream(exchange, self._session)
        stream.send(event, droppable=droppable)
        return stream.is_open

    def poll(self, retry_ms: int) -> None:
        """The server has ended its connection, and gives the rest later: so do we, if the client can come back for it."""
        stream, exchange = self._stream, self._exchange
        if stream is None and exchange is not None and self._facts.takes_stream and not exchange.is_answered:
            stream = self._stream = self._form.open_stream(exchange, self._session)
        if isinstance(stream, KeptStream) and stream.is_primed:
            stream.interrupt(retry_ms)

    # a server that asks

    def ask(self, question: Question) -> None:
        """A legacy server asks something in the course of the call."""
        self._talk().ask(question)

    def interrupt(self, result: bytes) -> None:
        """Answer the client for now; the call goes on, and the client may come back for it."""
        exchange, stream = self._exchange, self._stream
        self._exchange = self._stream = None
        body = encode_result(self._request_id, result)
        if stream is not None:
            stream.finish(encode_event(body))
        elif exchange is not None:
            exchange.respond(200, body)

    def resume(
        self, exchange: Exchange, request_id: bytes, facts: HeadFacts, meta: dict[str, msgspec.Raw] | None
    ) -> None:
        """The client is back, with another request."""
        self._exchange, self._request_id, self._facts = exchange, request_id, facts
        self._retry_meta = {key: value.copy() for key, value in (meta or {}).items() if key in _OF_NOTIFICATIONS}
        exchange.on_disconnect = self.cancel

    def hold(self, call: Call) -> None:
        """The call has ended, but the client goes on waiting: it is sent `again`, or `conclude`d after all."""
        call.begin_asking(monotonic())
        exchange = self._exchange
        if exchange is not None:
            exchange.outlives_task = True

    def again(self, call: Call, params: dict[str, msgspec.Raw]) -> None:
        """Send a call that has ended once more, with other parameters; the server has all its idle time again."""
        self._earlier_seconds = monotonic() - call.started_at
        try:
            self.begin(call.method, params, call.caller, call.meta, call.headers)
        except Exception as error:  # called by a timer, or by who brought the answer: neither is who waits for the call
            self._blame(error)
            return
        sent = self._call
        if sent is not None:
            sent.progress_at = monotonic()

    def converse(self, dialogue: Dialogue) -> None:
        """Let that one see to how the call ends, whatever the answer."""
        self._dialogue = dialogue

    def cancel(self) -> None:
        """End it, if it is under way."""
        call = self._call
        if call is not None and call.task is not None:
            call.task.cancel()

    def _talk(self) -> Dialogue:
        if self._dialogue is None:
            self._dialogue = self._form.dialogue(self, self._session)
        return self._dialogue

    # the end

    def ended(self, outcome: Outcome) -> None:
        """The call is over: answered, failed, or cancelled (None). Answer the client and count it."""
        call = self._call
        if call is None:
            self._blame(RuntimeError(f"{self!r} has ended before"))
            return
        answered_at = monotonic()
        self.leave(call)
        try:
            if outcome is None and call.watch is not None:
                outcome = call.watch.refusal(call)
            if (self._dialogue is not None or _needs_client(outcome)) and self._talk().takes(call, outcome):
                if self._exchange is not None:
                    self._exchange.release()
                return
            self._conclude(call, outcome, answered_at)
        except Exception as error:  # called by a server's connection, which must not suffer for a fault of ours
            self._blame(error)

    def conclude(self, call: Call, outcome: Outcome) -> None:
        """Answer a client whose call has ended, after all."""
        try:
            self._conclude(call, outcome, monotonic())
        except Exception as error:  # as in `ended`
            self._blame(error)

    def _conclude(self, call: Call, outcome: Outcome, answered_at: float) -> None:
        self._dialogue = None  # it holds this call
        if isinstance(outcome, Result):
            kind = self._answer(call, outcome, answered_at)
        elif outcome is None:
            kind = "cancelled"
            self._end_cancelled()
        else:
            kind = self._fail(call, outcome, answered_at)
        if not self._facts.is_counted:
            return
        if call.asking_since:
            call.end_asking(answered_at)
        sent_at, asked = call.sent_at, call.asked_seconds
        upstream = answered_at - sent_at - asked if sent_at else 0.0
        # upstream time runs from the request's writing to the answer; all the rest of the call's life is our overhead
        ours = monotonic() - call.started_at - self._earlier_seconds
        self._route.cell.record(kind, ours - upstream - asked, upstream)

    def _answer(self, call: Call, result: Result, answered_at: float) -> str:
        """Pass a result on; returns the kind of outcome."""
        form, request_id, json, marks = self._form, self._request_id, result.json, result.marks
        if result.era is form.era:
            status, body = 200, result_body(request_id, json)
        else:
            status, body = form.translated(call.method, result, request_id, self._route.server.server_info)
        exchange = self._exchange
        if self._stream is None and exchange is not None and not self._facts.wants_timing:
            exchange.respond(status, body)
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
        self._route.cell.last_failure = (answered_at, outcome.message[:_MAX_KEPT_MESSAGE])
        self._respond(call, status, body, answered_at)
        return kind

    def _respond(self, call: Call, status: int, body: Body, answered_at: float) -> None:
        exchange = self._exchange
        if self._stream is not None:  # its status and headers have long gone out
            self._stream.finish(encode_event(joined(body)))
        elif exchange is not None:
            headers = self._timing(call, exchange.received_at, answered_at) if self._facts.wants_timing else b""
            exchange.respond(status, body, headers=headers)

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

    def lost(self) -> None:
        """The call's task has failed by a fault of ours, which its first exchange logs: one that resumed it must not wait."""
        exchange = self._exchange
        if self._retry_meta is not None and exchange is not None:
            exchange.failed(None)

    def _end_cancelled(self) -> None:
        """Nobody wants the answer. A legacy client that cancelled gets a stream that carries nothing more.

        A client that is still there and did not cancel, as nobody without a session can but by leaving, is not left waiting.
        """
        exchange = self._exchange
        if exchange is None:
            return
        if self._session is not None:
            stream = self._stream if self._stream is not None else exchange.open_stream()
            stream.finish()
        else:
            exchange.failed(None)

    def _blame(self, error: Exception) -> None:
        """A fault of ours: logged, and the client is not left waiting."""
        exchange, stream = self._exchange, self._stream
        if stream is not None:  # which may be kept for a client that comes back: it must hear of an end
            self._stream = None
            _log.error("a call failed by an error of ours: %r", self, exc_info=error)
            body = encode_error(self._request_id, INTERNAL_ERROR, "Internal error", null_id=False)
            stream.finish(encode_event(body))
        elif exchange is not None:
            exchange.failed(error)
        else:
            _log.error("a parked call failed by an error of ours: %r", self, exc_info=error)

    @staticmethod
    def _timing(call: Call, received_at: float, answered_at: float) -> bytes:
        value = server_timing(
            received_at=received_at,
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


def _for_retry(
    meta: dict[str, msgspec.Raw], method: str, params: dict[str, msgspec.Raw]
) -> dict[str, msgspec.Raw] | None:
    """A notification as the request wants it that took the call up; None: not at all."""
    if method == _PROGRESS:
        token = meta.get(PROGRESS_TOKEN)
        return None if token is None else params | {PROGRESS_TOKEN: token}
    if method == _MESSAGE:
        level = meta.get(LOG_LEVEL)
        return None if level is None or not is_at_least(params, level) else params
    return params


def _needs_client(outcome: Outcome) -> bool:
    """Whether what a server answered may not be for the client as it is: it has to do something first, or to come back."""
    if isinstance(outcome, Result):
        if outcome.era is not _MODERN:
            return False
        marks = outcome.marks
        if marks is None:
            return is_unfinished(outcome.raw)
        return not marks.is_complete
    return isinstance(outcome, Failure) and outcome.code == URL_ELICITATION_REQUIRED


def _kind_of(result: Result) -> str:
    """Whether a tool says it failed, of a result nobody has looked into."""
    raw = result.raw
    if b'"isError"' not in raw:
        return "ok"
    head = classify(raw)
    return "tool_error" if isinstance(head, Fault) or head.is_error else "ok"
