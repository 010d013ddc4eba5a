"""Ask a modern client what its call's server wants to know: by an `input_required` answer, and the retry that follows.

Knows: one running call, where it is parked meanwhile, its sealed state. Does not know: how the server asked.

A legacy server's request keeps the call open at the server: the client is answered `input_required`, its call is parked, and
the client's retry takes it up where it was. A modern server's own `input_required` passes through; its state is sealed.
Invariants: a client is asked only what it declared; each state takes a call up once; what waits for a client is bounded.

Source: 2026-07-28 basic/patterns/mrtr; DESIGN "Era translation".
"""

import asyncio
import itertools
from functools import partial
from time import monotonic
from typing import Final

import msgspec

from penstock.errors import ServerBusy, ServerMisbehaved
from penstock.gateway.edges.calling import Outcome, RunningCall
from penstock.gateway.edges.head import HeadFacts
from penstock.gateway.edges.refused_questions import lacking, not_declared
from penstock.gateway.edges.task_answers import with_task_id
from penstock.gateway.parking import Parking
from penstock.gateway.request_states import MAX_SERVER_STATE, RequestState, RequestStates, binding_of
from penstock.gateway.task_ids import MAX_TASK_ID, TaskId, TaskIds
from penstock.http.server import Exchange
from penstock.protocol.client_capabilities import Askable, missing
from penstock.protocol.errors import (
    INTERNAL_ERROR,
    METHOD_NOT_FOUND,
    MISSING_CLIENT_CAPABILITY,
    URL_ELICITATION_REQUIRED,
    missing_capability_data,
)
from penstock.protocol.input_required import (
    REQUEST_STATE,
    InputRequest,
    asks_for_input,
    for_modern_client,
    read_input_required,
    url_elicitations,
    write_input_required,
)
from penstock.protocol.messages import Fault, RpcError
from penstock.protocol.methods import METHODS
from penstock.protocol.results import classify, with_members
from penstock.protocol.tasks import declares_tasks, is_task, task_id_of
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Call, Caller, Failure, Result
from penstock.upstreams.questions import Question

GATHER_SECONDS: Final = 0.02
"""A server that asks several things asks them one after the other; they go out together."""
_ENDED: Final = RpcError(INTERNAL_ERROR, "the call this belongs to has ended")
_WORDS: Final = {"elicitation/create": "elicitation", "sampling/createMessage": "sampling", "roots/list": "roots"}
_METHODS: Final = METHODS[Era.MODERN]


class ModernDialogue:
    """What one call's server asks of a modern client."""

    __slots__ = (
        "_askable",
        "_held",
        "_instead",
        "_key",
        "_numbers",
        "_open",
        "_parking",
        "_running",
        "_states",
        "_task_ids",
        "_timer",
        "_undeclared",
    )

    def __init__(self, running: RunningCall, parking: Parking, states: RequestStates, task_ids: TaskIds) -> None:
        self._running: Final = running
        self._parking: Final = parking
        self._states: Final = states
        self._task_ids: Final = task_ids
        self._askable: Askable | None = None
        """What the request that resumed the call has declared; None while none has."""
        self._open: dict[str, Question] = {}
        """By the name its answer must have."""
        self._numbers = itertools.count(1)
        self._timer: asyncio.TimerHandle | None = None
        self._key: str | None = None
        """Where the call is parked, while it is."""
        self._held: tuple[Call, Outcome] | None = None
        """How the call ended while nobody was there to hear of it."""
        self._instead: ServerBusy | None = None
        """Why we ended the call ourselves."""
        self._undeclared: bytes | None = None
        """A capability the client would have needed."""

    def __repr__(self) -> str:
        return f"<ModernDialogue {self._running!r} [{len(self._open)} open]>"

    # the server's side

    def ask(self, question: Question) -> None:
        """See `Dialogue`."""
        call = self._running.call
        if call is None:
            question.answer(_ENDED)
            return
        if self._is_refused(call, question):
            return
        if not _METHODS[call.method].input_required_allowed:
            question.answer(RpcError(METHOD_NOT_FOUND, f"nothing can be asked in the course of {call.method}"))
        else:
            key = f"{_WORDS[question.method]}-{next(self._numbers)}"
            question.on_withdrawn = partial(self._withdrawn, key)
            self._open[key] = question
            call.begin_asking(monotonic())
            self._send_soon()

    def takes(self, call: Call, outcome: Outcome) -> bool:
        """See `Dialogue`."""
        self._close_questions(_ENDED)
        outcome = self._reworded(call, self._instead if outcome is None else outcome)
        if self._key is None:
            self._running.conclude(call, outcome)
        else:
            call.begin_asking(monotonic())  # from now on the client alone is waited for
            self._held = call, outcome
        return True

    # the client's side

    def resume(
        self,
        exchange: Exchange,
        request_id: bytes,
        facts: HeadFacts,
        caller: Caller,
        *,
        meta: dict[str, msgspec.Raw] | None,
        responses: dict[str, msgspec.Raw],
    ) -> None:
        """The client is back, with what it has been asked for, or a part of it."""
        if self._key is not None:
            self._parking.leave(self._key)
            self._key = None
        self._askable = caller.askable
        self._running.resume(exchange, request_id, facts, meta)
        if self._tell_held():
            return
        call = self._running.call
        if call is None:  # it was lost by a fault of ours, which has been logged
            exchange.failed(None)
            return
        for key, response in responses.items():
            question = self._open.pop(key, None)
            if question is not None:
                question.answer(bytes(response))
        self._open = {key: question for key, question in self._open.items() if not self._is_refused(call, question)}
        self._send_soon()
        self._settle()

    def expire(self) -> None:
        """See `Parked`: the client did not come back."""
        self._key = None
        if self._tell_held():
            return
        self._close_questions(RpcError(INTERNAL_ERROR, "the client has not answered in time"))
        self._running.cancel()

    # inside

    def _tell_held(self) -> bool:
        """Answer with how the call ended meanwhile; False when it has not."""
        if self._held is None:
            return False
        (call, outcome), self._held = self._held, None
        self._running.conclude(call, outcome)
        return True

    def _is_refused(self, call: Call, question: Question) -> bool:
        """Whether the client has not declared that it can be asked this; then the question has been answered so."""
        needed = missing(self._declared(call), question.method, question.params)
        if needed is None:
            return False
        self._undeclared = self._undeclared or needed
        question.answer(not_declared(question.method))
        return True

    def _declared(self, call: Call) -> Askable:
        return call.caller.askable if self._askable is None else self._askable

    def _withdrawn(self, key: str) -> None:
        self._open.pop(key, None)
        self._settle()

    def _settle(self) -> None:
        """Once nothing is open it is the server's turn again."""
        call = self._running.call
        if not self._open and call is not None:
            call.end_asking(monotonic())

    def _send_soon(self) -> None:
        if self._open and self._timer is None and self._running.is_waited_for:
            self._timer = asyncio.get_running_loop().call_later(GATHER_SECONDS, self._send)

    def _send(self) -> None:
        """Answer the client with what is open, and park the call."""
        self._timer = None
        running, call = self._running, self._running.call
        if not self._open or call is None or not running.is_waited_for:
            return
        key = self._parking.enter(self)
        if key is None:
            most = f"{self._parking.limit} calls wait for their clients to answer, the most that may"
            why = "its client would have to be asked, and the gateway stops" if self._parking.is_closed else most
            self._instead = ServerBusy(running.server, f"{why}; try again")
            running.cancel()
            return
        self._key = key
        requests = {name: for_modern_client(InputRequest(one.method, one.params)) for name, one in self._open.items()}
        state = self._states.seal(RequestState("parked", key), self._binding(call))
        running.interrupt(write_input_required(requests, state))

    def _close_questions(self, error: RpcError) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        questions, self._open = self._open, {}
        for question in questions.values():
            question.answer(error)
        self._settle()

    def _binding(self, call: Call) -> bytes:
        return binding_of(call.caller.principal, self._running.server, call.method, call.params)

    def _reworded(self, call: Call, outcome: Outcome) -> Outcome:
        """What only a dialogue can say: a missing capability, a state that is sealed, a URL to visit first."""
        if isinstance(outcome, Failure) and outcome.code == URL_ELICITATION_REQUIRED and outcome.era is Era.LEGACY:
            return self._url_required(call, outcome)
        if isinstance(outcome, Result) and outcome.era is Era.MODERN:
            if asks_for_input(outcome.raw):
                return self._sealed(call, outcome)
            if is_task(outcome.raw):
                return self._task(call, outcome)
        if self._undeclared is not None and _has_failed(outcome):
            return lacking(self._undeclared)
        return outcome

    def _sealed(self, call: Call, result: Result) -> Outcome:
        """A modern server's result; its state is sealed. What asks for more than the client declared is not passed on."""
        asked = read_input_required(result.raw)
        if isinstance(asked, Fault):
            return ServerMisbehaved(self._running.server, f"its answer cannot be passed on: {asked.message}")
        for request in asked.requests.values():
            if (needed := missing(self._declared(call), request.method, request.params)) is not None:
                return lacking(needed)
        if asked.state is None or self._running.is_elsewhere:
            return result
        if len(asked.state) > MAX_SERVER_STATE:
            return ServerMisbehaved(
                self._running.server,
                f"its requestState has {len(asked.state)} characters, more than {MAX_SERVER_STATE}",
            )
        token = self._states.seal(RequestState("server", asked.state), self._binding(call))
        rewritten = with_members(result.raw, {REQUEST_STATE: msgspec.json.encode(token)})
        assert isinstance(rewritten, bytes), "it was read as an object just now"
        return Result(rewritten, Era.MODERN)

    def _task(self, call: Call, result: Result) -> Outcome:
        """A modern server's call has become a task; its id is sealed."""
        server = self._running.server
        if call.method != "tools/call" or not declares_tasks(call.caller.capabilities):
            return ServerMisbehaved(server, "it has made a task of a call whose client did not say that it takes tasks")
        if self._running.is_elsewhere:
            return result
        task = task_id_of(result.raw)
        if task is None or len(task) > MAX_TASK_ID:
            return ServerMisbehaved(
                server, f"it has made a task whose id is no string of up to {MAX_TASK_ID} characters"
            )
        token = self._task_ids.seal(TaskId(server, task, call.caller.principal))
        return with_task_id(result, token)

    def _url_required(self, call: Call, failure: Failure) -> Outcome:
        """A legacy server sends the client to a URL before it takes the call: afterwards the call is sent again."""
        requests = url_elicitations(failure.data)
        if not requests:
            return failure
        if not self._declared(call).urls:
            data = missing_capability_data(b'{"elicitation":{"url":{}}}')
            return Failure(MISSING_CLIENT_CAPABILITY, failure.message, data, Era.MODERN)
        token = self._states.seal(RequestState("again", ""), self._binding(call))
        return Result(write_input_required(requests, token), Era.MODERN)


def _has_failed(outcome: Outcome) -> bool:
    if isinstance(outcome, Failure):
        return True
    if not isinstance(outcome, Result):
        return False
    head = classify(outcome.raw)
    return isinstance(head, Fault) or head.is_error
