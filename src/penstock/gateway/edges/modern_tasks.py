"""`tasks/get`, `tasks/update` and `tasks/cancel` of modern clients: to the server that has the task, and to nobody else.

Knows: sealed ids, views, what the extension asks of both sides. Does not know: headers and `_meta`, which were judged before.
Invariant: nothing about a task reaches a server but what its own client says, by an id this gateway has sealed.

Source: SEP-2663, Error Handling: -32021 for clients that have not declared the extension, -32602 for ids that are unknown.
"""

from functools import partial
from typing import Final

import msgspec

from penstock.gateway.context import GatewayContext
from penstock.gateway.edges.calling import AnswerForm, RunningCall
from penstock.gateway.edges.head import HeadFacts
from penstock.gateway.edges.parts import client_headers, when_listed
from penstock.gateway.edges.task_answers import TaskDialogue
from penstock.gateway.hosting import HostedServer
from penstock.gateway.task_ids import TaskId
from penstock.gateway.view import View
from penstock.http.server import Exchange
from penstock.protocol.admission import Refusal
from penstock.protocol.envelopes import encode_error
from penstock.protocol.errors import INVALID_PARAMS, METHOD_NOT_FOUND, MISSING_CLIENT_CAPABILITY, http_status
from penstock.protocol.input_required import REQUEST_STATE
from penstock.protocol.messages import Request
from penstock.protocol.tasks import LACKS_TASKS, TASK_ID, declares_tasks
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Caller

LACKING: Final = Refusal(
    MISSING_CLIENT_CAPABILITY, "Missing required client capability: io.modelcontextprotocol/tasks", LACKS_TASKS
)
_UNKNOWN: Final = Refusal(
    INVALID_PARAMS, "Unknown task: the id is none this gateway gave to this client, or has expired"
)


def find_task(context: GatewayContext, view: View, token: str, caller: Caller) -> tuple[HostedServer, TaskId] | None:
    """The server of the view that has the task, and the id by which it knows it; None when the caller has no such task here."""
    task = context.task_ids.open(token)
    if task is None:
        return None
    server = next((one for one in view.servers if one.name == task.server), None)
    if server is None or not server.has_tasks:
        return None
    if server.settings.is_elsewhere:
        return server, TaskId(task.server, token, task.principal)  # the worker that has the server has sealed it
    return (server, task) if task.principal == caller.principal else None


class ModernTasks:
    """Sends them on their way."""

    def __init__(self, context: GatewayContext, form: AnswerForm) -> None:
        self._context: Final = context
        self._form: Final = form

    def __repr__(self) -> str:
        return f"<ModernTasks {self._context.task_ids!r}>"

    def begin(
        self,
        exchange: Exchange,
        view: View,
        request: Request,
        facts: HeadFacts,
        caller: Caller,
        meta: dict[str, msgspec.Raw] | None,
        token: str,
    ) -> None:
        """A request about the task `token`."""
        if self._context.is_pending(view):
            listed = partial(self._begin_later, exchange, request, facts, caller, meta, token)
            exchange.on_disconnect = exchange.spawn(when_listed(self._context, view.name, listed)).cancel
        else:
            self._begin_listed(exchange, request, facts, caller, meta, token, view)

    def _begin_later(
        self,
        exchange: Exchange,
        request: Request,
        facts: HeadFacts,
        caller: Caller,
        meta: dict[str, msgspec.Raw] | None,
        token: str,
        view: View | None,
    ) -> None:
        exchange.release()
        self._begin_listed(exchange, request, facts, caller, meta, token, view)

    def _begin_listed(
        self,
        exchange: Exchange,
        request: Request,
        facts: HeadFacts,
        caller: Caller,
        meta: dict[str, msgspec.Raw] | None,
        token: str,
        view: View | None,
    ) -> None:
        if view is None or not view.identity.has_tasks:
            self._refuse(exchange, request, Refusal(METHOD_NOT_FOUND, f"Method not found: {request.method}"))
            return
        if not declares_tasks(caller.capabilities):
            self._refuse(exchange, request, LACKING)
            return
        found = find_task(self._context, view, token, caller)
        if found is None:
            self._refuse(exchange, request, _UNKNOWN)
            return
        server, task = found
        route = view.task_route(request.method, server, task.task)
        headers = client_headers(facts, exchange.request.headers, server.settings.forward_headers)
        params = request.params
        params.pop("_meta", None)
        params.pop(REQUEST_STATE, None)  # the extension has none
        params[TASK_ID] = route.name_json
        running = RunningCall(exchange, request.id, facts, route, self._form)
        running.converse(TaskDialogue(running, token))
        under_way = running.begin(request.method, params, caller, meta, headers)
        if not exchange.is_answered:
            exchange.on_disconnect = under_way.cancel

    @staticmethod
    def _refuse(exchange: Exchange, request: Request, refusal: Refusal) -> None:
        status = 200 if refusal.code == INVALID_PARAMS else http_status(Era.MODERN, refusal.code)
        exchange.respond(status, encode_error(request.id, refusal.code, refusal.message, refusal.data, null_id=False))
