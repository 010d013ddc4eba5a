"""Clients of 2026-07-28 and later: every request carries its own version and capabilities; nothing is remembered.

Knows: the modern checks and their errors, views. Does not know: legacy sessions, servers' transports.

The order of the checks: envelope, headers against body, `_meta`, version, method, then the name. Source: 2026-07-28
basic/index (`_meta`), basic/transports/streamable-http (Server Validation), basic/versioning.
"""

from functools import partial
from typing import ClassVar, Final

import msgspec

from penstock.errors import ServerError
from penstock.gateway.context import GatewayContext
from penstock.gateway.edges.calling import Dialogue, RunningCall, result_body
from penstock.gateway.edges.head import HeadFacts
from penstock.gateway.edges.listening import Listening
from penstock.gateway.edges.modern_dialogue import ModernDialogue
from penstock.gateway.edges.modern_tasks import ModernTasks
from penstock.gateway.edges.parts import client_headers, completion_route, cursor_of, unknown_name, when_listed
from penstock.gateway.edges.refusal import away, refusal_body
from penstock.gateway.edges.retries import Elsewhere, retried
from penstock.gateway.known_call import KnownCall
from penstock.gateway.parking import Parking
from penstock.gateway.replay import EventSink
from penstock.gateway.request_states import RequestStates
from penstock.gateway.route import Route
from penstock.gateway.sessions import ClientSession
from penstock.gateway.task_ids import TaskIds
from penstock.gateway.view import View
from penstock.http.messages import Body
from penstock.http.server import Exchange
from penstock.protocol.admission import Refusal, admit
from penstock.protocol.envelopes import encode_error, encode_result
from penstock.protocol.errors import (
    HEADER_MISMATCH,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    http_status,
    translate_error,
)
from penstock.protocol.input_required import INPUT_RESPONSES, REQUEST_STATE
from penstock.protocol.messages import Fault, Notification, Request
from penstock.protocol.methods import MethodRule
from penstock.protocol.param_headers import check_param_headers
from penstock.protocol.results import to_modern
from penstock.protocol.versions import SUPPORTED_VERSIONS, Era
from penstock.upstreams.calls import Caller, Failure, Result

_CALLS: Final = frozenset({"routed", "completion"})
_KNOWN_CALLERS: Final = 1024
_MAX_KNOWN_META: Final = 4096
_STATE: Final = REQUEST_STATE
"""Names of our own for what every call needs: compiled, they are not looked up."""
_RESPONSES: Final = INPUT_RESPONSES


class ModernForm:
    """How modern clients read an answer."""

    era: ClassVar[Era] = Era.MODERN

    def __init__(self, parking: Parking, states: RequestStates, task_ids: TaskIds) -> None:
        self._parking: Final = parking
        self._states: Final = states
        self._task_ids: Final = task_ids

    def open_stream(self, exchange: Exchange, _session: ClientSession | None) -> EventSink:
        return exchange.open_stream()

    def dialogue(self, running: RunningCall, _session: ClientSession | None) -> Dialogue:
        return ModernDialogue(running, self._parking, self._states, self._task_ids)

    def translated(self, method: str, result: Result, request_id: bytes, server_info: bytes) -> tuple[int, Body]:
        raw = to_modern(result.raw, method, server_info=server_info, marks=result.marks)
        if isinstance(raw, Fault):
            return 502, encode_error(request_id, 502, raw.message, b'{"reason":"bad_answer"}', null_id=False)
        return 200, result_body(request_id, raw)

    def failure(self, method: str, failure: Failure, request_id: bytes) -> tuple[int, bytes]:
        code = translate_error(failure.code, method, failure.era, Era.MODERN)
        body = encode_error(request_id, code, failure.message, failure.data, null_id=False)
        return http_status(Era.MODERN, code, relayed=True), body

    def refusal(self, error: ServerError, request_id: bytes) -> tuple[int, bytes]:
        return error.status, refusal_body(request_id, error)


Judged = tuple[MethodRule, Caller, dict[str, msgspec.Raw] | None, str | None]
"""A request in order: what its method needs, who sends it, what else its `_meta` holds, what it is about."""


class ModernEdge:
    """Judges modern requests and sends them on their way."""

    def __init__(self, context: GatewayContext) -> None:
        self._context = context
        self._listening = Listening(context)
        self._form: Final = ModernForm(context.parking, context.request_states, context.task_ids)
        self._tasks: Final = ModernTasks(context, self._form)
        self._callers: dict[bytes, Caller] = {}
        """By the bytes of `_meta`: most clients send the same ones with every call."""

    def __repr__(self) -> str:
        return f"<ModernEdge {len(self._callers)} known callers>"

    def notification(self, exchange: Exchange, _notification: Notification) -> None:
        """The core protocol has none that mean anything over HTTP: taken and dropped."""
        exchange.respond(202)

    def request(self, exchange: Exchange, view: View, request: Request, facts: HeadFacts) -> None:
        """Judge one request; answer it here or start its call."""
        known = view.known.get(facts)
        if known is not None and known.method == request.method:
            params, field = request.params, known.name_field
            if params.get("_meta") == known.meta and params.get(field) == known.name:
                del params["_meta"]
                params[field] = known.route.name_json
                self._send(exchange, request, facts, known.route, known.caller, None, known.headers)
                return
        judged = self._judge(exchange.request.headers, request, facts.principal)
        if isinstance(judged, Refusal):
            self._refuse(exchange, request.id, judged.code, judged.message, judged.data)
            return
        rule = judged[0]
        if rule.kind in _CALLS:
            self._start_call(exchange, view, request, judged, facts)
        elif request.method == "subscriptions/listen":
            refused = self._listening.listen(exchange, view, request, facts, judged[1])
            if refused is not None:
                self._refuse(exchange, request.id, refused.code, refused.message, refused.data)
        elif rule.kind == "task":
            _, caller, meta, task = judged
            assert task is not None, "admitted are those that name one"
            self._tasks.begin(exchange, view, request, facts, caller, meta, task)
        elif rule.kind == "list" or request.method == "server/discover":
            if self._context.is_pending(view):
                listed = when_listed(self._context, view.name, partial(self._answer_listed, exchange, request))
                exchange.on_disconnect = exchange.spawn(listed).cancel
            else:
                self._answer_here(exchange, view, request)
        else:
            self._refuse(exchange, request.id, METHOD_NOT_FOUND, f"Method not found: {request.method}")

    def _judge(self, headers: dict[bytes, bytes], request: Request, principal: str) -> Judged | Refusal:
        """What `protocol.admission.admit` says, and who calls."""
        admitted = admit(headers, request)
        if isinstance(admitted, Refusal):
            return admitted
        meta = admitted.meta
        key = principal.encode() + bytes(request.params["_meta"])
        caller = self._callers.get(key)
        if caller is None:
            caller = Caller(Era.MODERN, meta.version, None, meta.capabilities, meta.client_info, principal)
            if not meta.rest and len(key) <= _MAX_KNOWN_META:
                if len(self._callers) >= _KNOWN_CALLERS:
                    del self._callers[next(iter(self._callers))]
                self._callers[key] = caller
        return admitted.rule, caller, meta.rest or None, admitted.name

    def _start_call(self, exchange: Exchange, view: View, request: Request, judged: Judged, facts: HeadFacts) -> None:
        rule, caller, meta, name = judged
        params = request.params
        if name is None:
            route = completion_route(view, params)
        else:
            route = view.routes[request.method].get(name) or view.find(request.method, name)
        if route is None:
            self._refuse(exchange, request.id, INVALID_PARAMS, unknown_name(request.method, name), status=200)
            return
        if route.param_headers is not None:
            mismatch = check_param_headers(route.param_headers, exchange.request.headers, params.get("arguments"))
            if mismatch is not None:
                self._refuse(exchange, request.id, HEADER_MISMATCH, mismatch.message)
                return
        headers = client_headers(facts, exchange.request.headers, route.server.settings.forward_headers)
        raw_meta, field = params.pop("_meta"), rule.name_field
        if field is not None:
            if meta is None and route.param_headers is None and len(params[field]) + len(raw_meta) <= _MAX_KNOWN_META:
                name_json = params[field].copy()  # not a slice that keeps the whole body
                known = KnownCall(route, caller, request.method, raw_meta.copy(), field, name_json, headers)
                view.known.remember(facts, known)
            params[field] = route.name_json
        self._send(exchange, request, facts, route, caller, meta, headers)

    def _send(
        self,
        exchange: Exchange,
        request: Request,
        facts: HeadFacts,
        route: Route,
        caller: Caller,
        meta: dict[str, msgspec.Raw] | None,
        headers: tuple[tuple[bytes, bytes], ...],
    ) -> None:
        params = request.params
        if _STATE in params or _RESPONSES in params:
            said = retried(self._context, route, request, caller)
            if isinstance(said, Fault):
                self._refuse(exchange, request.id, said.code, said.message, status=200)
                return
            if isinstance(said, Elsewhere):
                self._hand_over(exchange, request, said.worker, facts)
                return
            if said is not None:
                said.dialogue.resume(exchange, request.id, facts, caller, meta=meta, responses=said.responses)
                return
        running = RunningCall(exchange, request.id, facts, route, self._form)
        task = running.begin(request.method, params, caller, meta, headers)
        if not exchange.is_answered:
            exchange.on_disconnect = task.cancel  # closing the response is how a modern client cancels

    def _hand_over(self, exchange: Exchange, request: Request, worker: int, facts: HeadFacts) -> None:
        """Another worker has what the request is about."""
        hops = self._context.hops
        if hops is None or facts.admittance.is_internal:
            self._refuse(
                exchange, request.id, INVALID_PARAMS, "Invalid params: 'requestState' is of no call that waits"
            )
        else:
            hops.hand_over(exchange, worker, lambda error: exchange.respond(*away(request.id, error)))

    def _answer_here(self, exchange: Exchange, view: View, request: Request) -> None:
        """Lists and `server/discover` come from the snapshot."""
        context = self._context
        if request.method == "server/discover":
            exchange.respond(200, encode_result(request.id, _discover_result(view)))
            return
        context.catalogue.refresh_if_aged(view.servers)
        cursor, valid = cursor_of(request.params)
        ttl_ms = view.ttl_ms(request.method, context.clock.wall())
        page = view.lists[request.method].modern(cursor, ttl_ms) if valid else None
        if page is None:
            message = "Invalid params: the cursor is not one this gateway gave for this list; list from the start"
            self._refuse(exchange, request.id, INVALID_PARAMS, message, status=200)
        else:
            exchange.respond(200, result_body(request.id, page))

    def _answer_listed(self, exchange: Exchange, request: Request, view: View | None) -> None:
        if view is None:
            self._refuse(exchange, request.id, METHOD_NOT_FOUND, "this view has just been removed")
        else:
            self._answer_here(exchange, view, request)

    def _refuse(
        self,
        exchange: Exchange,
        request_id: bytes,
        code: int,
        message: str,
        data: bytes | None = None,
        *,
        status: int = 0,
    ) -> None:
        body = encode_error(request_id, code, message, data, null_id=False)
        exchange.respond(status or http_status(Era.MODERN, code), body)


def _discover_result(view: View) -> bytes:
    identity = view.identity
    result: dict[str, object] = {
        "resultType": "complete",
        "supportedVersions": SUPPORTED_VERSIONS,
        "capabilities": msgspec.Raw(identity.modern_capabilities),
        "_meta": {"io.modelcontextprotocol/serverInfo": msgspec.Raw(identity.server_info)},
        "ttlMs": 0,
        "cacheScope": "private",
    }
    if identity.instructions:
        result["instructions"] = identity.instructions
    return msgspec.json.encode(result)
