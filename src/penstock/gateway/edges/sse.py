"""Clients over HTTP+SSE, the transport of 2024-11-05: a GET opens the stream, POSTs bring messages, answers come on the stream.

Knows: streams by the names they announced, how a session begins and ends with its stream. Does not know: how a message is
answered (that is the legacy edge's, as over streamable HTTP), servers.
Invariants: a stream's name cannot be guessed, and is good for its own view and principal alone; a message reaches the worker
that has its stream; the end of the stream ends its session, and with it the session's calls, questions and subscriptions. A
client may agree on any legacy revision here: clients of this transport ask for the newest they know.

Source: 2024-11-05 basic/transports, "HTTP with SSE"; 2025-11-25 basic/transports, "Backwards Compatibility".
"""

from typing import Final

from penstock.gateway.context import GatewayContext
from penstock.gateway.edges.head import HeadFacts
from penstock.gateway.edges.legacy import LegacyEdge
from penstock.gateway.edges.sse_stream import AnswerLink, NoAnswerLink, SseStream, StreamListener
from penstock.gateway.view import View
from penstock.http.server import Exchange
from penstock.protocol.envelopes import decode, decode_batch, encode_error, is_batch
from penstock.protocol.errors import INVALID_REQUEST
from penstock.protocol.event_stream import encode_event
from penstock.protocol.messages import Fault, Message, Request
from penstock.protocol.methods import lookup
from penstock.protocol.subscriptions import LIST_CHANGED
from penstock.protocol.versions import DEFAULT_LEGACY, Era
from penstock.upstreams.calls import Caller

MAX_IN_FLIGHT: Final = 256
"""Requests of one stream that wait for their answers."""
_FACTS: Final = "sse"
_NAME: Final = b"session_id="
_NOBODY: Final = Caller(Era.LEGACY, "2024-11-05", None)
"""Who has not initialized."""
_STREAM_ACCEPT: Final = b"application/json, text/event-stream"
_GET_FIRST: Final = b'{"error":"GET this path for an event stream; it announces where to POST to"}'
_NO_STREAM: Final = b'{"error":"no stream of that name is open here; GET one, and initialize again"}'
_NOT_ACCEPTABLE: Final = b'{"error":"GET opens a text/event-stream"}'


class SseEdge:
    """Serves them all. Streams are as many as there may be connections."""

    def __init__(self, context: GatewayContext, legacy: LegacyEdge) -> None:
        self._context = context
        self._legacy = legacy
        self._streams = context.streams

    def __repr__(self) -> str:
        return f"<SseEdge [{len(self._streams)} streams]>"

    def open_stream(self, exchange: Exchange, view: View, facts: HeadFacts) -> None:
        """GET: open a stream, and announce on it where its messages are taken."""
        if not facts.takes_stream:
            exchange.respond(406, _NOT_ACCEPTABLE)
            return
        key, token = self._context.sessions.name_stream(view.name, self._context.worker)
        stream = self._streams[key] = SseStream(key, view, exchange.open_stream(), facts, self._over)
        exchange.on_disconnect = stream.left
        self._context.listeners.add(stream.listener)  # it hears nothing yet, but ends with the view and the gateway
        endpoint = b"%b?%b%b" % (exchange.request.path.encode(), _NAME, token.encode())
        stream.whole.send(encode_event(endpoint, event=b"endpoint"))

    def take(self, exchange: Exchange, view: View, facts: HeadFacts) -> None:
        """POST: one message, answered with 202; what it leads to comes on the stream."""
        request = exchange.request
        token = _name_in(request.query)
        if token is None:  # how clients of later transports find out
            exchange.respond(405, _GET_FIRST, headers=b"allow: GET, OPTIONS\r\n")
            return
        found = self._context.sessions.find_stream(view.name, token)
        if found is None:
            exchange.respond(404, _NO_STREAM)
            return
        key, worker = found
        hops = None if facts.admittance.is_internal else self._context.hops
        if hops is not None and (home := hops.home_of(worker)) != hops.index:
            hops.hand_over_client(exchange, home, lambda _: exchange.respond(404, _NO_STREAM))
            return
        stream = self._streams.get(key)
        if stream is None or stream.facts.principal != facts.principal:
            exchange.respond(404, _NO_STREAM)
            return
        stream.view = view
        message = decode(request.body)
        if not isinstance(message, Fault):
            messages: list[Message | Fault] | Fault = [message]
        elif stream.session is not None and stream.session.caller.revision == DEFAULT_LEGACY and is_batch(request.body):
            messages = decode_batch(request.body)
        else:
            messages = message
        if isinstance(messages, Fault):
            exchange.respond(400, encode_error(messages.id, messages.code, messages.message, null_id=True))
            return
        exchange.respond(202, b"Accepted", b"text/plain")
        facts = _facts_of(exchange, stream.facts)
        for one in messages:
            self._message(exchange, stream, one, facts)

    # one message

    def _message(self, exchange: Exchange, stream: SseStream, message: Message | Fault, facts: HeadFacts) -> None:
        session = stream.session
        if isinstance(message, Request):
            self._request(exchange, stream, message, facts)
        elif isinstance(message, Fault):
            stream.whole.send(encode_event(encode_error(message.id, message.code, message.message, null_id=True)))
        elif session is not None:
            part = exchange.member(NoAnswerLink())
            self._legacy.take(part, stream.view, message, facts, session.caller, session, hops=None)

    def _request(self, exchange: Exchange, stream: SseStream, request: Request, facts: HeadFacts) -> None:
        session, method = stream.session, request.method
        link = AnswerLink(stream, request.id)
        part = link.exchange = exchange.member(link)
        if stream.in_flight > MAX_IN_FLIGHT:
            why = f"{MAX_IN_FLIGHT} requests of this client wait for their answers, the most that may"
            part.respond(200, encode_error(request.id, 503, why, b'{"reason":"busy","retryable":true}', null_id=False))
        elif method == "initialize" and session is None:
            self._legacy.initialize(part, stream.view, request, _Beginning(self._context, stream))
        elif method == "initialize":
            _refuse(part, request, "Invalid request: this stream's session has been initialized before")
        elif session is None and method != "ping" and lookup(Era.LEGACY, method) is not None:
            _refuse(part, request, "Invalid request: initialize first; a new stream is a new session")
        else:
            caller = session.caller if session is not None else _NOBODY
            self._legacy.take(part, stream.view, request, facts, caller, session, hops=None)

    def _over(self, stream: SseStream) -> None:
        """The client has gone, or the stream has been ended."""
        self._streams.pop(stream.key, None)
        self._context.listeners.discard(stream.listener)
        session, stream.session = stream.session, None
        if session is not None:
            path = f"/mcp/{session.view}" if session.view else "/mcp"
            self._legacy.close(self._context.snapshot.endpoints.get(path, stream.view), session)


class _Beginning:
    """Opens a stream's session once it is agreed on."""

    def __init__(self, context: GatewayContext, stream: SseStream) -> None:
        self._context = context
        self._stream = stream

    def __call__(self, view: View, revision: str, capabilities: bytes, client_info: bytes) -> bytes:
        """Takes what was agreed on; returns the header lines of the answer: none."""
        stream, context = self._stream, self._context
        if stream.session is None and not stream.is_over:
            session = stream.session = context.sessions.open_unnamed(
                view.name,
                revision,
                capabilities,
                client_info,
                worker=context.worker,
                principal=stream.facts.principal,
            )
            context.listeners.discard(stream.listener)
            session.listener = stream.listener = StreamListener(stream, frozenset(LIST_CHANGED))
            context.listeners.add(stream.listener)
        return b""


def _name_in(query: bytes) -> bytes | None:
    """A stream's name as it was announced; nothing in it has to be escaped."""
    return next((part[len(_NAME) :] for part in query.split(b"&") if part.startswith(_NAME)), None)


def _facts_of(exchange: Exchange, facts: HeadFacts) -> HeadFacts:
    """What a message's header block says; its answer goes to the stream with those facts, whatever the POST accepts."""
    request = exchange.request
    known = request.shared.get(_FACTS)
    if not isinstance(known, HeadFacts) or known.admittance is not facts.admittance:
        known = HeadFacts(request.headers | {b"accept": _STREAM_ACCEPT}, facts.admittance)
        request.shared[_FACTS] = known
    return known


def _refuse(exchange: Exchange, request: Request, message: str) -> None:
    exchange.respond(200, encode_error(request.id, INVALID_REQUEST, message, null_id=False))
