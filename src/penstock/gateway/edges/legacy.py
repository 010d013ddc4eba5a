"""Clients of the legacy revisions over streamable HTTP: sessions, `initialize`, answers always with status 200.

Knows: sealed sessions, the legacy methods answered here. Does not know: the modern checks, servers' transports.

A call's refusal is 200 with a JSON-RPC error, because legacy clients take 404 for a lost session and some hang on anything
else; only refusals of the transport (bad version header, no such session, batch where there is none) keep a status.
Source: 2025-11-25 basic/transports, basic/lifecycle; 2025-03-26 basic/transports (batches).
"""

from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec

from penstock.errors import PenstockError
from penstock.gateway.client_questions import worker_of
from penstock.gateway.context import GatewayContext
from penstock.gateway.edges.calling import result_body
from penstock.gateway.edges.head import HeadFacts
from penstock.gateway.edges.legacy_calls import LegacyCalls, refuse, transport_error
from penstock.gateway.edges.listening import Listening
from penstock.gateway.edges.parts import cursor_of, name_of, when_listed
from penstock.gateway.edges.refusal import away
from penstock.gateway.hops import Hops
from penstock.gateway.replay import worker_of_event
from penstock.gateway.sessions import ClientSession
from penstock.gateway.view import View
from penstock.http.server import Exchange
from penstock.protocol.envelopes import encode_error, encode_result, read_id
from penstock.protocol.errors import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
)
from penstock.protocol.input_required import INPUT_RESPONSES, REQUEST_STATE
from penstock.protocol.messages import Message, Notification, Reply, Request
from penstock.protocol.meta import LOG_LEVELS
from penstock.protocol.methods import lookup
from penstock.protocol.versions import Era, answer_to_initialize
from penstock.upstreams.calls import Caller, Failure

Begin = Callable[[View, str, bytes, bytes], bytes]
"""Opens a session of that view, revision, capabilities and client info (JSON); returns header lines for the answer."""
_EMPTY: Final = b"{}"
_FOR_ALL_WORKERS: Final = frozenset(
    {"notifications/cancelled", "notifications/progress", "notifications/roots/list_changed"}
)
"""Nobody knows which worker has the call they are about."""
_SUBSCRIBING: Final = ("resources/subscribe", "resources/unsubscribe")
_NOT_TOLD: Final = (
    b'{"error":"too many of this session\'s notifications are under way to the other workers; send it again"}'
)
_NO_GET: Final = b'{"error":"POST messages here; GET opens the stream of a session, and needs its Mcp-Session-Id"}'


class LegacyEdge:
    """Serves legacy requests of all revisions."""

    def __init__(self, context: GatewayContext) -> None:
        self._context = context
        self._listening = Listening(context)
        self.calls: Final = LegacyCalls(context)

    def __repr__(self) -> str:
        return f"<LegacyEdge {self._context.sessions!r}>"

    def message(self, exchange: Exchange, view: View, message: Message, facts: HeadFacts) -> None:
        """One POSTed message."""
        if isinstance(message, Request) and message.method == "initialize":
            self.initialize(exchange, view, message, partial(self._open_session, facts.principal))
            return
        found = self.calls.client_of(exchange, view, facts)
        if found is not None:
            hops = self.calls.hops_for(facts)
            self.take(exchange, view, message, facts, *found, hops=hops)

    def initialize(self, exchange: Exchange, view: View, request: Request, begin: Begin) -> None:
        """`initialize`, once the view's servers have had their time to be listed; `begin` opens the session."""
        if self._context.is_pending(view):
            listed = partial(self._initialize_listed, exchange, request, begin)
            exchange.spawn(when_listed(self._context, view.name, listed))
        else:
            self._initialize(exchange, view, request, begin)

    def take(
        self,
        exchange: Exchange,
        view: View,
        message: Message,
        facts: HeadFacts,
        caller: Caller,
        session: ClientSession | None,
        *,
        hops: Hops | None,
    ) -> None:
        """Any other message of a client that is known; `hops`: to where the session may have what the message needs."""
        if isinstance(message, Request):
            if hops is not None and session is not None and self._hops(hops, exchange, view, message, session):
                return
            self._request(exchange, view, message, facts, caller, session)
            return
        if isinstance(message, Notification):
            told = True
            if hops is not None and session is not None and message.method in _FOR_ALL_WORKERS:
                told = hops.tell_others(exchange, session.key)
            self._notification(message, view, session)
            if not told:
                exchange.respond(503, _NOT_TOLD)
                return
        elif hops is not None and (asker := _asker(hops, message)) != hops.index:
            self._hand_over(hops, exchange, asker, None)
            return
        elif session is not None and session.questions is not None:
            session.questions.answered(message)  # what answers nothing that was asked is taken and dropped
        exchange.respond(202)

    def _hops(self, hops: Hops, exchange: Exchange, view: View, request: Request, session: ClientSession) -> bool:
        """Whether the session's home answers the request, as it has what that needs."""
        if request.method == "logging/setLevel":
            exchange.spawn(self._set_level_everywhere(hops, exchange, request, session))
            return True
        if hops.is_home(session.home) or not self._needs_home(view, request, session.caller):
            return False
        self._hand_over(hops, exchange, hops.home_of(session.home), request.id, is_home=True)
        return True

    async def _set_level_everywhere(
        self, hops: Hops, exchange: Exchange, request: Request, session: ClientSession
    ) -> None:
        """Before the client knows that it is set: its next call may reach any worker."""
        await hops.others_told(exchange)
        self._set_level(exchange, request, session)

    @staticmethod
    def _needs_home(view: View, request: Request, caller: Caller) -> bool:
        """Subscriptions live there, and so do sessions at servers that keep one for each client."""
        method = request.method
        if method in _SUBSCRIBING:
            return True
        rule = lookup(Era.LEGACY, method)
        if rule is None or rule.kind not in {"routed", "completion"}:
            return False
        name = name_of(request.params, rule.name_field) if rule.name_field else None
        route = view.find(method, name) if name is not None else None
        if route is None:
            return any(server.upstream.binds(caller) for server in view.servers)
        return route.server.upstream.binds(caller)

    def _hand_over(
        self, hops: Hops, exchange: Exchange, worker: int, request_id: bytes | None, *, is_home: bool = False
    ) -> None:
        """Let another worker answer; the session's home has all that this client will ask for on its connection."""

        def fail(error: PenstockError) -> None:
            status, body = away(request_id, error)
            exchange.respond(200 if request_id is not None else status, body)

        (hops.hand_over_client if is_home else hops.hand_over)(exchange, worker, fail)

    def open_stream(self, exchange: Exchange, view: View, facts: HeadFacts) -> None:
        """GET: the stream on which a session hears what belongs to no call."""
        if facts.session is None or facts.is_modern:
            exchange.respond(405, _NO_GET, headers=b"allow: POST, DELETE, OPTIONS\r\n")
        elif not facts.takes_stream:
            exchange.respond(406, transport_error(INVALID_REQUEST, "Not Acceptable: GET opens a text/event-stream"))
        else:
            found = self.calls.client_of(exchange, view, facts)
            session = found[1] if found is not None else None
            hops = self.calls.hops_for(facts)
            if session is None:
                return
            last = exchange.request.headers.get(b"last-event-id")
            worker = worker_of_event(last) if last is not None else None
            there = hops.home_of(session.home if worker is None else worker) if hops is not None else 0
            if hops is not None and there != hops.index:
                self._hand_over(hops, exchange, there, None, is_home=worker is None)
            elif last is not None and worker is not None:
                self._listening.resume(exchange, view, session, last)
            else:
                self._listening.open_stream(exchange, view, session)

    def is_refused(self, exchange: Exchange, view: View, facts: HeadFacts) -> bool:
        """Whether the request's session or version is none of ours; then that has been answered."""
        return self.calls.client_of(exchange, view, facts) is None

    def end_session(self, exchange: Exchange, view: View, facts: HeadFacts) -> None:
        """DELETE: from now on the session's id is unknown."""
        if facts.session is None:
            exchange.respond(
                400, transport_error(INVALID_REQUEST, "Bad Request: DELETE needs an Mcp-Session-Id header")
            )
            return
        found = self.calls.client_of(exchange, view, facts)
        if found is None or found[1] is None:
            return
        self.close(view, found[1])
        hops = self.calls.hops_for(facts)
        if hops is not None:
            exchange.spawn(self._end_session_everywhere(hops, exchange))
        else:
            exchange.respond(204)

    def close(self, view: View, session: ClientSession) -> None:
        """End a session, and what was opened for it at servers."""
        self._context.sessions.end(session)
        for server in view.servers:
            self._context.in_background(server.upstream.close_session(session.key))

    @staticmethod
    async def _end_session_everywhere(hops: Hops, exchange: Exchange) -> None:
        await hops.others_told(exchange)
        exchange.respond(204)

    def _open_session(
        self, principal: str, view: View, revision: str, capabilities: bytes, client_info: bytes
    ) -> bytes:
        """See `Begin`."""
        worker = self._context.worker
        token = self._context.sessions.open(
            view.name, revision, capabilities, client_info, worker=worker, principal=principal
        )
        return b"mcp-session-id: %b\r\n" % token.encode()

    def _initialize(self, exchange: Exchange, view: View, request: Request, begin: Begin) -> None:
        asked = _InitializeParams.read(request)
        if asked is None:
            message = (
                "Invalid params: initialize needs 'protocolVersion' (string), 'capabilities' and 'clientInfo' (objects)"
            )
            exchange.respond(200, encode_error(request.id, INVALID_PARAMS, message, null_id=False))
            return
        revision = answer_to_initialize(asked.protocolVersion)
        headers = begin(view, revision, bytes(asked.capabilities), bytes(asked.clientInfo))
        exchange.respond(200, encode_result(request.id, _initialize_result(view, revision)), headers=headers)

    def _initialize_listed(self, exchange: Exchange, request: Request, begin: Begin, view: View | None) -> None:
        if view is None:
            exchange.respond(404, transport_error(METHOD_NOT_FOUND, "this view has just been removed"))
        else:
            self._initialize(exchange, view, request, begin)

    def _request(
        self,
        exchange: Exchange,
        view: View,
        request: Request,
        facts: HeadFacts,
        caller: Caller,
        session: ClientSession | None,
    ) -> None:
        method, params = request.method, request.params
        if (
            REQUEST_STATE in params or INPUT_RESPONSES in params
        ):  # words of the other era, which reach no server unsealed
            params.pop(REQUEST_STATE, None)
            params.pop(INPUT_RESPONSES, None)
        if self.calls.begin_known(exchange, view, request, facts, caller, session):
            return
        rule = lookup(Era.LEGACY, method)
        if rule is None or method.startswith("tasks/") or rule.since > caller.revision:
            refuse(exchange, request, METHOD_NOT_FOUND, f"Method not found: {method[:100]}")
        elif rule.kind == "list" and self._context.is_pending(view):
            exchange.spawn(when_listed(self._context, view.name, partial(self._list_listed, exchange, request, caller)))
        elif rule.kind == "list":
            self._list(exchange, view, request, caller)
        elif method == "ping":
            exchange.respond(200, encode_result(request.id, _EMPTY))
        elif method == "logging/setLevel":
            self._set_level(exchange, request, session)
        elif method in _SUBSCRIBING:
            self._subscribe(exchange, view, request, session)
        else:
            self.calls.begin(exchange, view, request, facts, rule, caller, session)

    def _notification(self, notification: Notification, view: View, session: ClientSession | None) -> None:
        if session is None:
            return  # without a session nobody can tell whose id it is
        params = notification.params
        if notification.method == "notifications/cancelled":
            request_id = read_id(bytes(params.get("requestId", b"")))
            if isinstance(request_id, bytes):
                session.cancel(request_id)
        elif notification.method == "notifications/progress" and session.questions is not None:
            session.questions.progressed(params)
        elif notification.method == "notifications/roots/list_changed":
            for server in view.servers:
                server.upstream.roots_changed(session.caller)

    def _set_level(self, exchange: Exchange, request: Request, session: ClientSession | None) -> None:
        level = name_of(request.params, "level")
        if level not in LOG_LEVELS:
            refuse(exchange, request, INVALID_PARAMS, f"Invalid params: 'level' must be one of {', '.join(LOG_LEVELS)}")
            return
        if session is not None:
            session.log_level = request.params["level"]
        exchange.respond(200, encode_result(request.id, _EMPTY))

    def _subscribe(self, exchange: Exchange, view: View, request: Request, session: ClientSession | None) -> None:
        uri = name_of(request.params, "uri")
        if uri is None:
            refuse(exchange, request, INVALID_PARAMS, "Invalid params: 'params.uri' must be a string")
        elif session is None:
            message = "Invalid request: subscriptions belong to a session; send the Mcp-Session-Id that initialize gave"
            refuse(exchange, request, INVALID_REQUEST, message)
        elif request.method == "resources/unsubscribe":
            self._listening.unsubscribe(view, session, uri)
            exchange.respond(200, encode_result(request.id, _EMPTY))
        else:
            exchange.spawn(self._answer_subscribe(exchange, view, request, session, uri))

    async def _answer_subscribe(
        self, exchange: Exchange, view: View, request: Request, session: ClientSession, uri: str
    ) -> None:
        refusal = await self._listening.subscribe(view, session, uri)
        if refusal is None:
            status, body = 200, encode_result(request.id, _EMPTY)
        elif isinstance(refusal, Failure):
            status, body = self.calls.forms[session.caller.revision].failure("resources/read", refusal, request.id)
        else:
            status, body = self.calls.forms[session.caller.revision].refusal(refusal, request.id)
        exchange.respond(status, body)

    def _list(self, exchange: Exchange, view: View, request: Request, caller: Caller) -> None:
        self._context.catalogue.refresh_if_aged(view.servers)
        cursor, valid = cursor_of(request.params)
        page = view.lists[request.method].legacy(cursor, caller.revision) if valid else None
        if page is None:
            message = "Invalid params: the cursor is not one this gateway gave for this list; list from the start"
            refuse(exchange, request, INVALID_PARAMS, message)
        else:
            exchange.respond(200, result_body(request.id, page))

    def _list_listed(self, exchange: Exchange, request: Request, caller: Caller, view: View | None) -> None:
        if view is None:
            refuse(exchange, request, METHOD_NOT_FOUND, "this view has just been removed")
        else:
            self._list(exchange, view, request, caller)


class _InitializeParams(msgspec.Struct):
    protocolVersion: str  # the wire's name
    capabilities: msgspec.Raw = msgspec.Raw(_EMPTY)
    clientInfo: msgspec.Raw = msgspec.Raw(_EMPTY)

    @classmethod
    def read(cls, request: Request) -> "_InitializeParams | None":
        try:
            asked = msgspec.json.decode(msgspec.json.encode(request.params), type=cls)
        except msgspec.ValidationError:
            return None
        return asked if bytes(asked.capabilities)[:1] == b"{" and bytes(asked.clientInfo)[:1] == b"{" else None


def _initialize_result(view: View, revision: str) -> bytes:
    identity = view.identity
    result: dict[str, object] = {
        "protocolVersion": revision,
        "capabilities": msgspec.Raw(identity.capabilities),
        "serverInfo": msgspec.Raw(identity.server_info),
    }
    if identity.instructions:
        result["instructions"] = identity.instructions
    return msgspec.json.encode(result)


def _asker(hops: Hops, reply: Reply) -> int:
    """The worker that has asked what a client answers; this one, when nobody knows."""
    worker = worker_of(reply.id) if reply.id is not None else None
    return hops.index if worker is None else hops.home_of(worker)
