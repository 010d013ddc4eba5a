"""The one task of a call: through the route's pipeline to the server, and the answer back.

Knows: routes, replies, cells. Does not know: which checks the client's era makes before, or how its errors are worded; the
edge passes those in as an `AnswerForm`.
"""

import asyncio
from time import monotonic
from typing import Protocol

from penstock.errors import ServerError
from penstock.gateway.edges.reply import Reply
from penstock.gateway.route import Route
from penstock.http.server import Exchange
from penstock.protocol.envelopes import Fault
from penstock.protocol.results import classify
from penstock.telemetry.server_timing import server_timing
from penstock.upstreams.interface import Answer, Call, Failure, Result


class AnswerForm(Protocol):
    """How one era and revision words an answer."""

    def result(self, method: str, result: Result, request_id: bytes) -> tuple[int, bytes]:
        """HTTP status and body of a result, or of the error when this era cannot express it."""
        ...

    def failure(self, method: str, failure: Failure, request_id: bytes) -> tuple[int, bytes]:
        """HTTP status and body of a server's own error."""
        ...

    def refusal(self, error: ServerError, request_id: bytes) -> tuple[int, bytes]:
        """HTTP status and body of Penstock's own."""
        ...


async def run_call(route: Route, call: Call, reply: Reply, form: AnswerForm) -> None:
    """Take one call all the way; whatever happens, the client is answered and the cell is told.

    A cancelled call is not answered here: whoever cancelled it knows how.
    """
    try:
        answer = await route.handle(call)
    except ServerError as error:
        answered_at = monotonic()
        status, body = form.refusal(error, reply.request_id)
        outcome = "server_error"
    except asyncio.CancelledError:
        answered_at = monotonic()
        refusal = call.watch.refusal(call) if call.watch is not None else None
        if refusal is None:
            _record(route, call, "cancelled", answered_at, answered_at)
            raise
        status, body = form.refusal(refusal, reply.request_id)
        outcome = "server_error"
    else:
        answered_at = monotonic()
        status, body, outcome = _word(answer, call, reply, form)
    finally:
        if call.watch is not None:
            call.watch.leave(call)
    headers = b""
    if reply.facts.wants_timing:
        headers = _timing_header(reply.exchange, call, answered_at)
    reply.finish(body, status=status, headers=headers)
    _record(route, call, outcome, answered_at, monotonic())


def _word(answer: Answer, call: Call, reply: Reply, form: AnswerForm) -> tuple[int, bytes, str]:
    if isinstance(answer, Result):
        return *form.result(call.method, answer, reply.request_id), _outcome(answer)
    return *form.failure(call.method, answer, reply.request_id), "rpc_error"


def _outcome(answer: Result) -> str:
    """Whether a tool says it failed; most results hold no such word and are not looked into."""
    if b'"isError"' not in answer.raw:
        return "ok"
    head = classify(answer.raw)
    return "tool_error" if isinstance(head, Fault) or head.is_error else "ok"


def _record(route: Route, call: Call, outcome: str, answered_at: float, done_at: float) -> None:
    """Upstream time runs from the request's writing to the answer; all the rest of the call's life is our overhead."""
    upstream = answered_at - call.sent_at if call.sent_at else 0.0
    route.cell.record(outcome, max(0.0, done_at - call.started_at - upstream), upstream)


def _timing_header(exchange: Exchange, call: Call, answered_at: float) -> bytes:
    value = server_timing(
        received_at=exchange.received_at,
        routed_at=call.started_at,
        sent_at=call.sent_at,
        first_byte_at=call.first_byte_at,
        answered_at=answered_at,
    )
    return b"server-timing: " + value + b"\r\n"
