"""The data port: which request is for whom, before any era is asked.

Knows: paths, origins, the edges. Does not know: sockets, calls, servers.

Answers of the transport, in both eras: 403 for an origin or host that is not allowed (DNS rebinding), 404 for paths nobody has,
405 for methods an endpoint does not take. Source: 2026-07-28 basic/transports/streamable-http (Security & Endpoint).
"""

from typing import Final

import msgspec

from penstock.gateway.admittance import Admittance
from penstock.gateway.context import GatewayContext
from penstock.gateway.edges.batch import answer_batch
from penstock.gateway.edges.head import FACTS, HeadFacts
from penstock.gateway.edges.legacy import LegacyEdge
from penstock.gateway.edges.modern import ModernEdge
from penstock.gateway.edges.sse import SseEdge
from penstock.gateway.view import View
from penstock.http.server import Exchange
from penstock.protocol.admission import is_modern
from penstock.protocol.envelopes import decode, encode_error, is_batch
from penstock.protocol.errors import INVALID_REQUEST
from penstock.protocol.messages import Fault, Message, Notification, Reply, Request
from penstock.protocol.versions import DEFAULT_LEGACY, LEGACY_VERSIONS, writes_null_id

_NOT_FOUND: Final = (
    b'{"error":"not found: MCP is spoken at /mcp, and at /mcp/NAME for each view; /health and /ready are there"}'
)
_NO_SIGN_IN: Final = b'{"error":"this gateway has no sign-in"}'
_SSE: Final = "/sse"
_SIGN_IN_PATHS: Final = ("/.well-known/oauth-", "/.well-known/openid-configuration")


class Worker:
    """Handles every request of the data port; its `__call__` is the HTTP server's handler."""

    def __init__(self, context: GatewayContext, admittance: Admittance) -> None:
        self._context = context
        self.admittance = admittance
        self._modern = ModernEdge(context)
        self._legacy = LegacyEdge(context)
        self._calls: Final = self._legacy.calls
        self._sse = SseEdge(context, self._legacy)
        self.is_draining = False

    def __repr__(self) -> str:
        return f"<Worker {self._context.snapshot!r}{' draining' if self.is_draining else ''}>"

    def __call__(self, exchange: Exchange) -> None:
        request = exchange.request
        facts = request.shared.get(FACTS)
        if type(facts) is not HeadFacts or facts.admittance is not self.admittance:
            facts = request.shared[FACTS] = HeadFacts(request.headers, self.admittance)
        if facts.refusal is not None:
            exchange.respond(403, encode_error(None, 403, facts.refusal, b'{"reason":"forbidden"}', null_id=False))
            return
        if facts.cors:
            exchange.extra_headers = facts.cors
        view = self._context.snapshot.endpoints.get(request.path)
        if view is None:
            self._elsewhere(exchange, facts)
        elif request.method == b"POST":
            message = decode(request.body)
            if facts.is_modern and type(message) is Request:
                self._modern.request(exchange, view, message, facts)
            elif type(message) is not Request or not self._calls.repeat(exchange, view, message, facts):
                self._take(exchange, view, message, facts)
        elif request.method == b"DELETE":
            self._legacy.end_session(exchange, view, facts)
        elif request.method == b"GET":
            self._legacy.open_stream(exchange, view, facts)
        elif request.method == b"OPTIONS":
            self.admittance.answer_preflight(exchange)
        else:
            exchange.respond(405, b'{"error":"POST messages here"}', headers=b"allow: GET, POST, DELETE, OPTIONS\r\n")

    def _take(self, exchange: Exchange, view: View, message: Message | Fault, facts: HeadFacts) -> None:
        """All but requests that their headers show to be modern."""
        if type(message) is Request:
            if is_modern(None, message):
                self._modern.request(exchange, view, message, facts)
            else:
                self._legacy.message(exchange, view, message, facts)
        elif isinstance(message, Fault):
            self._fault(exchange, view, message, facts)
        elif not facts.is_modern:
            self._legacy.message(exchange, view, message, facts)
        elif isinstance(message, Notification):
            self._modern.notification(exchange, message)
        else:
            assert isinstance(message, Reply)
            text = "Invalid Request: clients of this revision send requests and notifications, not responses"
            exchange.respond(400, encode_error(None, INVALID_REQUEST, text, null_id=False))

    def _fault(self, exchange: Exchange, view: View, fault: Fault, facts: HeadFacts) -> None:
        """What is no message: a batch where the revision has batches, else 400."""
        revision = facts.version or DEFAULT_LEGACY
        if revision == DEFAULT_LEGACY and is_batch(exchange.request.body):
            answer_batch(self._legacy, exchange, view, facts)
            return
        data = msgspec.json.encode({"reason": fault.reason}) if fault.reason else None
        null_id = revision in LEGACY_VERSIONS and writes_null_id(revision)
        exchange.respond(400, encode_error(fault.id, fault.code, fault.message, data, null_id=null_id))

    def _over_sse(self, exchange: Exchange, facts: HeadFacts) -> None:
        """The transport of 2024-11-05: each view's path with /sse in the place of /mcp."""
        method = exchange.request.method
        view = self._context.snapshot.endpoints.get("/mcp" + exchange.request.path[len(_SSE) :])
        if view is None:
            exchange.respond(404, _NOT_FOUND)
        elif method == b"POST":
            self._sse.take(exchange, view, facts)
        elif method == b"GET" and self.is_draining:
            exchange.respond(503, b'{"error":"draining"}')
        elif method == b"GET":
            self._sse.open_stream(exchange, view, facts)
        elif method == b"OPTIONS":
            self.admittance.answer_preflight(exchange)
        else:
            exchange.respond(405, b'{"error":"GET a stream here"}', headers=b"allow: GET, POST, OPTIONS\r\n")

    def _elsewhere(self, exchange: Exchange, facts: HeadFacts) -> None:
        path = exchange.request.path
        if path == _SSE or path.startswith(_SSE + "/"):
            self._over_sse(exchange, facts)
        elif path == "/health":
            exchange.respond(200, b'{"status":"ok"}')
        elif path == "/ready":
            ready = not self.is_draining
            exchange.respond(
                200 if ready else 503, b'{"ready":true}' if ready else b'{"ready":false,"reason":"draining"}'
            )
        elif path.startswith(_SIGN_IN_PATHS) or path == "/register":
            exchange.respond(404, _NO_SIGN_IN)
        else:
            exchange.respond(404, _NOT_FOUND)
