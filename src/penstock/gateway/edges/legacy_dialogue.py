"""Ask a legacy client what its call's server wants to know: by requests on the call's stream.

Knows: one running call, the client's session. Does not know: how the server asked.

A legacy server's request is relayed, and so is the answer. A modern server's `input_required` becomes a request for each thing it
asks; once all are answered the call is sent again with the answers.
Invariants: a client is asked only what it declared; a call is sent again a bounded number of times; what a client still owes
when its call ends is taken back.

Source: 2025-11-25 client/elicitation, client/sampling, client/roots; 2026-07-28 basic/patterns/mrtr.
"""

import asyncio
import os
from functools import partial
from time import monotonic
from typing import Final

import msgspec

from penstock.errors import ServerMisbehaved
from penstock.gateway.client_questions import TOO_MANY, UNREACHABLE, Asked
from penstock.gateway.edges.calling import Outcome, RunningCall
from penstock.gateway.edges.refused_questions import not_declared
from penstock.gateway.sessions import ClientSession
from penstock.protocol.client_capabilities import missing
from penstock.protocol.envelopes import encode_notification
from penstock.protocol.errors import INTERNAL_ERROR
from penstock.protocol.event_stream import encode_event
from penstock.protocol.input_required import (
    INPUT_RESPONSES,
    REQUEST_STATE,
    InputRequired,
    asks_for_input,
    read_input_required,
)
from penstock.protocol.messages import Fault, RpcError
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Call, Failure, Result
from penstock.upstreams.questions import Question, Reply

Raw = msgspec.Raw
MAX_ROUNDS: Final = 32
"""How often one call is sent again."""
PAUSES_SECONDS: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Before a call is sent again whose server asked for nothing but that."""
_ENDED: Final = RpcError(INTERNAL_ERROR, "the call this belongs to has ended")
_CANCEL: Final = b'{"action":"cancel"}'
_UNSENT: Final = (UNREACHABLE, TOO_MANY)
"""Not the client's own word: it was never asked."""


class LegacyDialogue:
    """What one call's server asks of a legacy client."""

    __slots__ = ("_asked", "_rounds", "_running", "_session", "_urls")

    def __init__(self, running: RunningCall, session: ClientSession | None) -> None:
        self._running: Final = running
        self._session: Final = session
        self._asked: set[Asked] = set()
        self._rounds = 0
        self._urls: list[Raw] = []
        """Ids of the URLs the client was sent to, and must be told of once that is over."""

    def __repr__(self) -> str:
        return f"<LegacyDialogue {self._running!r} [{len(self._asked)} open] round {self._rounds}>"

    def ask(self, question: Question) -> None:
        """See `Dialogue`: a legacy server's request."""
        call = self._running.call
        if call is None:
            question.answer(_ENDED)
        elif missing(call.caller.askable, question.method, question.params) is not None:
            question.answer(not_declared(question.method))
        elif self.put(question):
            call.begin_asking(monotonic())

    def takes(self, call: Call, outcome: Outcome) -> bool:
        """See `Dialogue`."""
        for asked in list(self._asked):
            asked.retract("its call has ended")
            asked.question.answer(_ENDED)
        if isinstance(outcome, Result) and outcome.era is Era.MODERN and asks_for_input(outcome.raw):
            self._begin_round(call, outcome)
            return True
        self._tell_of_urls()
        return False

    def put(self, question: Question) -> bool:
        """Send a question to the client; False when it could not be, and has been answered with the reason."""
        session = self._session
        if session is None or session.questions is None:
            question.answer(UNREACHABLE)
            return False
        asked = session.questions.ask(question, self._say)
        if asked is not None:
            self._asked.add(asked)
            asked.on_closed = partial(self._closed, asked)
        return asked is not None

    def url_sent(self, elicitation_id: Raw) -> None:
        """The client was sent to a URL of that id."""
        self._urls.append(elicitation_id)

    def _say(self, message: bytes) -> bool:
        return self._running.say(encode_event(message))

    def _closed(self, asked: Asked) -> None:
        self._asked.discard(asked)
        self._settle()

    def _settle(self) -> None:
        """Once nothing is open it is the server's turn again."""
        call = self._running.call
        if not self._asked and call is not None:
            call.end_asking(monotonic())

    def _begin_round(self, call: Call, result: Result) -> None:
        running = self._running
        found = read_input_required(result.raw)
        self._rounds += 1
        if isinstance(found, Fault):
            running.conclude(call, ServerMisbehaved(running.server, f"it cannot be answered: {found.message}"))
        elif self._rounds > MAX_ROUNDS:
            why = f"it asked for input {self._rounds} times in the course of one call; {MAX_ROUNDS} is the most that is answered"
            running.conclude(call, ServerMisbehaved(running.server, why))
        else:
            running.hold(call)
            asking = Round(self, running, call, found, session=self._session)
            asking.begin(PAUSES_SECONDS[min(self._rounds, len(PAUSES_SECONDS)) - 1])

    def _tell_of_urls(self) -> None:
        for elicitation_id in self._urls:
            params = {"elicitationId": elicitation_id}
            self._say(encode_notification("notifications/elicitation/complete", params))
        self._urls.clear()


class Round:
    """What a modern server wants to know before it takes a call; then the call is sent again with the answers."""

    __slots__ = (
        "_call",
        "_dialogue",
        "_found",
        "_is_over",
        "_questions",
        "_responses",
        "_running",
        "_session",
        "_timer",
    )

    def __init__(
        self,
        dialogue: LegacyDialogue,
        running: RunningCall,
        call: Call,
        found: InputRequired,
        *,
        session: ClientSession | None,
    ) -> None:
        self._dialogue: Final = dialogue
        self._running: Final = running
        self._call: Final = call
        self._found: Final = found
        self._session: Final = session
        self._questions: list[Question] = []
        self._responses: dict[str, bytes] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._is_over = False

    def __repr__(self) -> str:
        return f"<Round {self._running!r} {len(self._responses)} of {len(self._found.requests)} answered>"

    def begin(self, pause_seconds: float) -> None:
        """Ask the client; where there is nothing to ask, send the call again after a pause."""
        if self._session is not None:
            self._session.in_flight[self] = self._running.request_id
        if not self._found.requests:
            self._timer = asyncio.get_running_loop().call_later(pause_seconds, self._send_again)
            return
        for request in self._found.requests.values():  # all of them, before the client is asked the first
            if missing(self._call.caller.askable, request.method, request.params) is not None:
                self._end(_not_askable(self._running.server, request.method))
                return
        for key, request in self._found.requests.items():
            params = dict(request.params)
            if bytes(params.get("mode", b"")) == b'"url"':
                params["elicitationId"] = Raw(b'"%b"' % os.urandom(16).hex().encode())
                self._dialogue.url_sent(params["elicitationId"])
            question = Question(request.method, params, partial(self._answered, key, request.method))
            self._questions.append(question)
            self._dialogue.put(question)
            if self._is_over:
                return

    def cancel(self) -> None:
        """See `Cancellable`: the client does not want the call any more."""
        self._end(None)

    def _answered(self, key: str, method: str, reply: Reply) -> None:
        if self._is_over:
            return
        if isinstance(reply, bytes):
            self._responses[key] = reply
        elif method == "elicitation/create" and reply not in _UNSENT:
            self._responses[key] = _CANCEL  # what a modern client says that shows its user no form
        else:
            self._end(Failure(reply.code, reply.message, reply.data, Era.LEGACY))
            return
        if len(self._responses) == len(self._found.requests):
            self._send_again()

    def _send_again(self) -> None:
        self._leave()
        params = {key: value for key, value in self._call.params.items() if key not in {INPUT_RESPONSES, REQUEST_STATE}}
        if self._found.requests:
            params[INPUT_RESPONSES] = Raw(msgspec.json.encode({k: Raw(v) for k, v in self._responses.items()}))
        if self._found.state is not None:
            params[REQUEST_STATE] = Raw(msgspec.json.encode(self._found.state))
        self._running.again(self._call, params)

    def _end(self, outcome: Outcome) -> None:
        """The call is not sent again."""
        if self._is_over:
            return
        questions = self._questions
        self._leave()
        for question in questions:
            question.withdraw()
        self._running.conclude(self._call, outcome)

    def _leave(self) -> None:
        self._is_over = True
        self._questions = []  # they hold the round
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._session is not None:
            self._session.in_flight.pop(self, None)


def _not_askable(server: str, method: str) -> ServerMisbehaved:
    return ServerMisbehaved(server, f"it asked for {method}, which the client has not declared it answers")
