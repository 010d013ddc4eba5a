"""What servers say of a task, with the id by which its client knows it.

Knows: results about tasks. Does not know: seals, streams, who asks.
"""

from typing import Final

import msgspec

from penstock.errors import ServerMisbehaved
from penstock.gateway.edges.calling import Outcome, RunningCall
from penstock.gateway.edges.refused_questions import lacking
from penstock.protocol.client_capabilities import missing
from penstock.protocol.errors import METHOD_NOT_FOUND
from penstock.protocol.input_required import read_input_requests
from penstock.protocol.messages import Fault, RpcError
from penstock.protocol.results import with_members
from penstock.protocol.tasks import TASK_ID, task_id_of
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Call, Result
from penstock.upstreams.questions import Question

_INPUT_REQUESTS: Final = b'"inputRequests"'


class TaskDialogue:
    """A request about one task: nothing is asked in its course, and its answer names the task as the client does."""

    __slots__ = ("_running", "_token")

    def __init__(self, running: RunningCall, token: str) -> None:
        self._running: Final = running
        self._token: Final = token

    def __repr__(self) -> str:
        return f"<TaskDialogue {self._running!r}>"

    def ask(self, question: Question) -> None:
        """See `Dialogue`."""
        question.answer(RpcError(METHOD_NOT_FOUND, "nothing can be asked in the course of a request about a task"))

    def takes(self, call: Call, outcome: Outcome) -> bool:
        """See `Dialogue`."""
        if isinstance(outcome, Result):
            if outcome.era is not Era.MODERN:
                outcome = ServerMisbehaved(
                    self._running.server, "it answers about a task of 2026-07-28 in another revision"
                )
            elif task_id_of(outcome.raw) is not None:
                outcome = self._asks_too_much(call, outcome) or with_task_id(outcome, self._token)
        self._running.conclude(call, outcome)
        return True

    def _asks_too_much(self, call: Call, result: Result) -> Outcome:
        """Why a task that waits for its client cannot be passed on: it asks what no client, or not this one, can be asked."""
        if _INPUT_REQUESTS not in result.raw:
            return None
        asked = read_input_requests(result.raw)
        if isinstance(asked, Fault):
            return ServerMisbehaved(self._running.server, f"its task cannot be passed on: {asked.message}")
        for request in asked.requests.values():
            if (needed := missing(call.caller.askable, request.method, request.params)) is not None:
                return lacking(needed)
        return None


def with_task_id(result: Result, token: str) -> Result:
    """The same result, about a task of that id."""
    rewritten = with_members(result.raw, {TASK_ID: msgspec.json.encode(token)})
    assert isinstance(rewritten, bytes), "it was read as an object just now"
    return Result(rewritten, result.era)
