"""Calls of legacy clients: whose they are, and how they are begun; those that repeat what was judged before at once.

Knows: sessions, routes, forms. Does not know: what is no call, how sessions begin and end, which worker has what a call needs
beyond whether it is this one.
"""

from typing import Final

import msgspec

from penstock.gateway.context import GatewayContext
from penstock.gateway.edges.calling import RunningCall
from penstock.gateway.edges.head import HeadFacts
from penstock.gateway.edges.legacy_form import LegacyForm
from penstock.gateway.edges.parts import client_headers, completion_route, name_of, unknown_name
from penstock.gateway.hops import Hops
from penstock.gateway.known_call import NO_META, KnownCall
from penstock.gateway.sessions import ClientSession
from penstock.gateway.view import View
from penstock.http.server import Exchange
from penstock.protocol.envelopes import encode_error
from penstock.protocol.errors import INVALID_PARAMS, INVALID_REQUEST, RESOURCE_NOT_FOUND
from penstock.protocol.input_required import INPUT_RESPONSES, REQUEST_STATE
from penstock.protocol.messages import Fault, Request
from penstock.protocol.meta import LOG_LEVEL, decode_legacy_meta
from penstock.protocol.methods import MethodRule
from penstock.protocol.versions import DEFAULT_LEGACY, LEGACY_VERSIONS, Era
from penstock.upstreams.calls import Caller

_KNOWN_CALLERS: Final = 1024
"""Of those without a session, by revision and principal."""
_MAX_KNOWN_NAME: Final = 512
_STATE: Final = REQUEST_STATE
"""Names of our own for what every call needs: compiled, they are not looked up."""
_RESPONSES: Final = INPUT_RESPONSES
_NO_META: Final = NO_META

Client = tuple[Caller, ClientSession | None]
"""Who calls; without a session where none was opened, or none is kept."""


class LegacyCalls:
    """Begins them, in all revisions."""

    def __init__(self, context: GatewayContext) -> None:
        self._context: Final = context
        self._sessions: Final = context.sessions
        self._stateless: dict[tuple[str, str], Caller] = {}
        self.forms: Final = {
            revision: LegacyForm(revision, context.parking, context.replay) for revision in LEGACY_VERSIONS
        }
        """How answers are worded, by revision."""

    def __repr__(self) -> str:
        return f"<LegacyCalls of {self._sessions!r} and {len(self._stateless)} without>"

    def repeat(self, exchange: Exchange, view: View, request: Request, facts: HeadFacts) -> bool:
        """Begin a request's call, if it repeats one that was judged before and this worker has what it needs."""
        known = _known(view, request, facts)
        if known is None:
            return False
        token = facts.session
        session: ClientSession | None = None
        if token is None:
            caller = self._stateless.get((facts.version or DEFAULT_LEGACY, facts.principal))
            if caller is None:
                return False
        else:
            session = self._sessions.find(view.name, token, facts.principal)
            if session is None:
                return False
            caller = session.caller
            hops = self.hops_for(facts)
            if hops is not None and not hops.is_home(session.home) and known.route.server.upstream.binds(caller):
                return False
        return self._begin_known(exchange, request, facts, known, caller, session)

    def begin_known(
        self,
        exchange: Exchange,
        view: View,
        request: Request,
        facts: HeadFacts,
        caller: Caller,
        session: ClientSession | None,
    ) -> bool:
        """The same for a client that is known already, and has been found to be in the right place."""
        known = _known(view, request, facts)
        return known is not None and self._begin_known(exchange, request, facts, known, caller, session)

    def _begin_known(
        self,
        exchange: Exchange,
        request: Request,
        facts: HeadFacts,
        known: KnownCall,
        caller: Caller,
        session: ClientSession | None,
    ) -> bool:
        if session is not None and session.log_level is not None:
            return False
        params = request.params
        params[known.name_field] = known.route.name_json
        running = RunningCall(exchange, request.id, facts, known.route, self.forms[caller.revision], session)
        running.begin(request.method, params, caller, None, known.headers)
        return True

    def hops_for(self, facts: HeadFacts) -> Hops | None:
        """To the other workers; None where there are none, or one of them has sent the request here."""
        return None if facts.admittance.is_internal else self._context.hops

    def begin(
        self,
        exchange: Exchange,
        view: View,
        request: Request,
        facts: HeadFacts,
        rule: MethodRule,
        caller: Caller,
        session: ClientSession | None,
    ) -> None:
        """Judge a call and begin it, or refuse it."""
        params, method = request.params, request.method
        said = params.pop("_meta", None)
        meta: dict[str, msgspec.Raw] = {}
        if said is not None:
            read = decode_legacy_meta(said)
            if isinstance(read, Fault):
                refuse(exchange, request, read.code, read.message)
                return
            meta = read.rest
        name = name_of(params, rule.name_field) if rule.name_field else None
        if name is None and rule.name_field:
            refuse(exchange, request, INVALID_PARAMS, f"Invalid params: 'params.{rule.name_field}' must be a string")
            return
        route = completion_route(view, params) if name is None else view.find(method, name)
        if route is None:
            code = RESOURCE_NOT_FOUND if method == "resources/read" else INVALID_PARAMS
            refuse(exchange, request, code, unknown_name(method, name))
            return
        headers = client_headers(facts, exchange.request.headers, route.server.settings.forward_headers)
        field = rule.name_field
        if field:
            if said is None and len(params[field]) <= _MAX_KNOWN_NAME:
                written = params[field].copy()  # not a slice that keeps the whole body
                view.known.remember(facts, KnownCall(route, caller, method, _NO_META, field, written, headers))
            params[field] = route.name_json
        if session is not None and session.log_level is not None:
            meta[LOG_LEVEL] = session.log_level
        running = RunningCall(exchange, request.id, facts, route, self.forms[caller.revision], session)
        running.begin(method, params, caller, meta or None, headers)

    def client_of(self, exchange: Exchange, view: View, facts: HeadFacts) -> Client | None:
        """Who calls; None when that was refused."""
        revision = facts.version or DEFAULT_LEGACY
        if revision not in LEGACY_VERSIONS:
            supported = ", ".join(LEGACY_VERSIONS)
            message = f"Bad Request: unsupported MCP-Protocol-Version '{revision[:40]}' (supported: {supported})"
            exchange.respond(400, transport_error(INVALID_REQUEST, message))
            return None
        token = facts.session
        if token is None:
            return self._stateless_caller(revision, facts.principal), None
        session = self._sessions.find(view.name, token, facts.principal)
        if session is None:
            exchange.respond(404, transport_error(INVALID_REQUEST, "Session not found: initialize again"))
            return None
        return session.caller, session

    def _stateless_caller(self, revision: str, principal: str) -> Caller:
        """Who sent no session id: curl, and clients of servers that keep no sessions."""
        caller = self._stateless.get((revision, principal))
        if caller is None:
            if len(self._stateless) >= _KNOWN_CALLERS:
                del self._stateless[next(iter(self._stateless))]
            caller = self._stateless[revision, principal] = Caller(Era.LEGACY, revision, None, principal=principal)
        return caller


def _known(view: View, request: Request, facts: HeadFacts) -> KnownCall | None:
    """The call that a request repeats; None when it says anything of itself that has to be judged."""
    known, params = view.known.get(facts), request.params
    if known is None or known.meta is not _NO_META or known.method != request.method:
        return None
    if params.get(known.name_field) != known.name or "_meta" in params or _STATE in params or _RESPONSES in params:
        return None
    return known


def refuse(exchange: Exchange, request: Request, code: int, message: str) -> None:
    """Answer a request with an error: legacy clients take any status but 200 for something else."""
    exchange.respond(200, encode_error(request.id, code, message, null_id=False))


def transport_error(code: int, message: str) -> bytes:
    """The body of an answer that has a status of its own."""
    return encode_error(None, code, message, null_id=False)
