"""JSON-RPC batches, which 2025-03-26 alone has: every member is taken as if it had come by itself.

Knows: exchanges, the members' answers. Does not know: what the members ask. Notifications of a member's server are not passed
on: a batch is answered once, when its last member is.
"""

from functools import partial
from typing import Final

from penstock.gateway.edges.head import FACTS, HeadFacts
from penstock.gateway.edges.legacy import LegacyEdge
from penstock.gateway.view import View
from penstock.http.event_stream import EventStream
from penstock.http.messages import Body, joined
from penstock.http.messages import Request as HttpRequest
from penstock.http.passage import Give
from penstock.http.server import Exchange
from penstock.protocol.envelopes import (
    decode_batch,
    encode_batch,
    encode_error,
    encode_notification,
    encode_request,
    encode_result,
)
from penstock.protocol.messages import Fault, Message, Notification, Request


class _Members:
    """Collects the answers of a batch's requests, in the requests' order."""

    def __init__(self, exchange: Exchange, count: int) -> None:
        self._exchange = exchange
        self._answers: list[bytes | None] = [None] * count
        self._missing = count

    def settle(self, index: int, body: bytes | None) -> None:
        self._answers[index] = body
        self._missing -= 1
        if self._missing == 0 and not self._exchange.is_disconnected:
            answers = [answer for answer in self._answers if answer is not None]
            if answers:
                self._exchange.respond(200, encode_batch(answers))
            else:
                self._exchange.respond(202)


class _MemberLink:
    """Where one member's exchange answers to."""

    def __init__(self, members: _Members, index: int, *, is_answered: bool) -> None:
        """`is_answered`: False for a notification; whatever HTTP would say to it, a batch has no place for that."""
        self._settle: Final = partial(members.settle, index)
        self._is_answered: Final = is_answered

    def answer(self, _status: int, body: Body, _content_type: bytes, _headers: bytes) -> None:
        self._settle((joined(body) or None) if self._is_answered else None)

    def begin_stream(self, _headers: bytes) -> EventStream:
        self._settle(None)  # a cancelled member: it has no answer
        return EventStream.closed()

    def give_away(self, _give: Give) -> bool:
        """The connection carries more than this."""
        return False

    def cut(self) -> None:
        """Nothing to cut: the batch's own exchange notices a client that is gone."""


def answer_batch(edge: LegacyEdge, exchange: Exchange, view: View, facts: HeadFacts) -> None:
    """Take every member of the batch in `exchange`'s body through the legacy edge."""
    items = decode_batch(exchange.request.body)
    if isinstance(items, Fault):
        exchange.respond(400, encode_error(items.id, items.code, items.message, null_id=True))
        return
    if edge.is_refused(exchange, view, facts):
        return  # a client that lost its session must be told so by the status of the whole
    members = _Members(exchange, len(items))
    headers = {name: value for name, value in exchange.request.headers.items() if name != b"accept"}
    facts = HeadFacts(headers, facts.admittance)  # a member takes no stream: nobody could tell whose events they are
    for index, item in enumerate(items):
        link = _MemberLink(members, index, is_answered=not isinstance(item, Notification))
        if isinstance(item, Fault):
            link.answer(400, encode_error(item.id, item.code, item.message, null_id=True), b"", b"")
        else:
            edge.message(exchange.member(link, _request_of(exchange, headers, item, facts)), view, item, facts)


def _request_of(exchange: Exchange, headers: dict[bytes, bytes], item: Message, facts: HeadFacts) -> HttpRequest:
    """The HTTP request that would have brought the member alone: what another worker is handed, if that has to answer."""
    whole = exchange.request
    if isinstance(item, Request):
        body = encode_request(item.id, item.method, item.params)
    elif isinstance(item, Notification):
        body = encode_notification(item.method, item.params)
    elif item.error is not None:
        body = encode_error(item.id, item.error.code, item.error.message, item.error.data, null_id=True)
    else:
        body = encode_result(item.id or b"null", item.result or b"{}")
    return HttpRequest(whole.method, whole.path, whole.query, headers, body, {FACTS: facts})
