"""Calls to a modern HTTP server: one POST, one answer, nothing kept.

Knows: the modern request's headers and `_meta`, what a refusal in the modern era looks like. Does not know: the legacy era,
how eras are detected.

Source: 2026-07-28 basic/transports/streamable-http, server/discover.
"""

import asyncio
from typing import ClassVar, Final

import msgspec

from penstock.errors import PenstockError, ServerMisbehaved
from penstock.http.client import ConnectionLost, RequestFailed, Response
from penstock.protocol.errors import (
    HEADER_MISMATCH,
    METHOD_NOT_FOUND,
    MISSING_CLIENT_CAPABILITY,
    UNSUPPORTED_VERSION,
)
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Answer, Call, Caller, Failure, Heard, Raw
from penstock.upstreams.interface import Description
from penstock.upstreams.stdio_eras import Agreement, DiscoverVerdict, Modern, NotModern, judge_discover
from penstock.upstreams.streamable_http_link import HttpLink
from penstock.upstreams.streamable_http_modern_requests import ModernRequests
from penstock.upstreams.streamable_http_reception import HttpCounts, Reception
from penstock.upstreams.streamable_http_refusals import (
    clause,
    error_reply,
    failed_request,
    is_event_stream,
    is_json,
    refusal,
)
from penstock.upstreams.streamable_http_settings import StreamableHttpSettings

MODERN_ERRORS: Final = frozenset({HEADER_MISMATCH, MISSING_CLIENT_CAPABILITY, UNSUPPORTED_VERSION})
_MAX_PAGES: Final = 50
_encode = msgspec.json.Encoder().encode


class _Tool(msgspec.Struct):
    name: str
    input_schema: Raw = msgspec.field(name="inputSchema", default=Raw(b"{}"))


class _ToolPage(msgspec.Struct):
    tools: list[_Tool]
    next_cursor: str | None = msgspec.field(name="nextCursor", default=None)


_decode_page = msgspec.json.Decoder(_ToolPage).decode


class NotModernAnswer(PenstockError):
    """A modern request was refused in words no modern server uses; it was not processed."""


class ModernHttp:
    """The modern side of one server."""

    __slots__ = ("_counts", "_link", "_settings", "heard", "requests")
    era: ClassVar[Era] = Era.MODERN
    landed = None

    def __init__(self, link: HttpLink, settings: StreamableHttpSettings, counts: HttpCounts) -> None:
        self._link, self._settings, self._counts = link, settings, counts
        self.requests: Final = ModernRequests(
            link.post_head, settings.client_info, link.who_asks if settings.principal_header else None
        )
        self.heard: Heard | None = None
        """Takes what the server says of changes on calls' own streams, which it should not do there."""

    def __repr__(self) -> str:
        return f"<ModernHttp {self._link.name} {self.requests!r}>"

    async def call(self, call: Call, *, may_relearn: bool = True) -> Answer:
        """Carry one call.

        `may_relearn`: when headers that we wrote do not fit the tool any more, list the tools and try once again.

        Raises:
            NotModernAnswer: the server does not seem to be modern; the call was not processed.
            ServerError: see `Upstream.call`.
        """
        head, body, request_id = self.requests.write(call)
        reception = self.reception(call, request_id)
        try:
            response = await self._link.send(head, body, reception.on_event, call)
        except RequestFailed as error:
            raise failed_request(self._link.name, error) from error
        call.first_byte_at = response.first_byte_at
        return await self._conclude(call, response, reception, may_relearn=may_relearn)

    def reception(self, call: Call, request_id: bytes) -> Reception:
        """See `Side`."""
        return Reception(self._link.name, request_id, Era.MODERN, self._counts, call=call, heard=self.heard)

    async def unusual(self, call: Call, reception: Reception, came: Response | RequestFailed) -> Answer:
        """See `Side`."""
        if isinstance(came, Response):
            return await self._conclude(call, came, reception, may_relearn=True)
        if isinstance(came, ConnectionLost) and came.unprocessed:
            return await self.call(call)
        raise failed_request(self._link.name, came) from came

    def cancelled(self, request_id: bytes) -> None:
        """See `Side`: the closed connection has said it all."""

    async def _conclude(self, call: Call, response: Response, reception: Reception, *, may_relearn: bool) -> Answer:
        """The answer in what came; else what the refusal in it means."""
        if response.status == 200:
            if reception.reply is None and is_json(response):
                reception.take(response.body)
            answer = reception.answer()
            if answer is not None:
                return answer
        failure = self._refused(response, reception.id)
        if failure.code == HEADER_MISMATCH and may_relearn and await self._has_new_rules(call):
            return await self.call(call, may_relearn=False)
        return failure

    async def discover(self, caller: Caller | None = None) -> DiscoverVerdict:
        """What the server says of itself and the revision in common; or that it is not modern, or not in our revisions.

        Raises:
            ServerError: it gave no answer from which its era could be told.
        """
        head, body, request_id = self.requests.write_discover(caller)
        reception = Reception(self._link.name, request_id, Era.MODERN, self._counts)
        try:
            async with asyncio.timeout(self._settings.handshake_seconds):
                response = await self._link.send(head, body, reception.on_event)
        except RequestFailed as error:
            raise failed_request(self._link.name, error) from error
        except TimeoutError:
            raise ServerMisbehaved(
                self._link.name, f"it did not answer server/discover within {self._settings.handshake_seconds:g} s"
            ) from None
        return self._judge(response, reception)

    # inside

    async def _has_new_rules(self, call: Call) -> bool:
        """After a header mismatch: whether the tool's `Mcp-Param-*` are others by now, and ours to write."""
        name = call.name
        if call.method != "tools/call" or name is None or call.caller.era is Era.MODERN:
            return False
        before, tools = self.requests.rules_of(name), []
        cursor: str | None = None
        for _ in range(_MAX_PAGES):
            params = {} if cursor is None else {"cursor": Raw(_encode(cursor))}
            answer = await self.call(Call("tools/list", params, caller=call.caller), may_relearn=False)
            if isinstance(answer, Failure):
                return False
            try:
                page = _decode_page(answer.raw)
            except msgspec.MsgspecError:
                return False
            tools += [(tool.name, tool.input_schema) for tool in page.tools]
            cursor = page.next_cursor
            if cursor is None:
                break
        self.requests.learn_tools(tools)
        return self.requests.rules_of(name) != before

    def _refused(self, response: Response, request_id: bytes) -> Failure:
        """A JSON-RPC error for our request, whatever its status; else an error of ours."""
        name, status = self._link.name, response.status
        if status == 200 and is_event_stream(response):
            raise ServerMisbehaved(name, "it ended the event stream without an answer; see its log")
        if status in (401, 403):
            raise refusal(name, self._link.url, response)
        reply = error_reply(response)
        if reply is not None and reply.error is not None:
            error = reply.error
            if error.code == UNSUPPORTED_VERSION:
                raise NotModernAnswer(f"refused revision {self.requests.version}")
            if reply.id == request_id or (error.code in MODERN_ERRORS and reply.id is None):
                return Failure(error.code, error.message, error.data, Era.MODERN)
        if status in (400, 404, 405, 406, 415):
            raise NotModernAnswer(clause(refusal(name, self._link.url, response)))
        raise refusal(name, self._link.url, response)

    def _judge(self, response: Response, reception: Reception) -> DiscoverVerdict:
        reply = reception.reply
        if reply is None and response.status == 200 and is_json(response):
            try:
                reception.take(response.body)
            except ServerMisbehaved as error:
                return NotModern(error.message)
            reply = reception.reply
        if reply is None:
            reply = error_reply(response)
        if reply is None or response.status in (401, 403):
            if response.status in (401, 403, 429, 502, 503, 504) or 300 <= response.status < 400:
                raise refusal(self._link.name, self._link.url, response)
            return NotModern(f"answered server/discover with HTTP {response.status}")
        verdict = judge_discover(reply, self.requests.version)
        if response.status == 404 and reply.error is not None and reply.error.code == METHOD_NOT_FOUND:
            # Only a modern server words an unknown method as a 404 with this body; it just does not describe itself.
            return Modern(Agreement(Era.MODERN, self.requests.version, _nameless(self.requests.version)))
        return verdict


def _nameless(version: str) -> Description:
    return Description(eras=(Era.MODERN,), versions=(version,), server_info=Raw(b"{}"), capabilities=Raw(b"{}"))
