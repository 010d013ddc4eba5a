"""Calls to a modern HTTP server: one POST, one answer, nothing kept.

Knows: the modern request's headers and `_meta`, what a refusal in the modern era looks like. Does not know: the legacy era,
how eras are detected.
Invariant: header and body of a request say the same, as both are written from the same values here.

Source: 2026-07-28 basic/transports/streamable-http, server/discover.
"""

import asyncio
from time import monotonic
from typing import Final

import msgspec

from penstock.errors import PenstockError, ServerMisbehaved
from penstock.http.client import ClientConnection, ConnectionLost, RequestFailed, Response
from penstock.protocol.envelopes import compact_result, encode_request
from penstock.protocol.errors import (
    HEADER_MISMATCH,
    METHOD_NOT_FOUND,
    MISSING_CLIENT_CAPABILITY,
    UNSUPPORTED_VERSION,
)
from penstock.protocol.headers import standard_headers
from penstock.protocol.meta import PROGRESS_TOKEN, encode_modern_meta
from penstock.protocol.param_headers import Invalid, ParamHeader, param_header_rules, write_param_headers
from penstock.protocol.versions import LATEST_MODERN, Era
from penstock.upstreams.interface import Answer, Call, Caller, Description, Failure, Raw, Result
from penstock.upstreams.stdio_eras import Agreement, DiscoverVerdict, Modern, NotModern, judge_discover
from penstock.upstreams.streamable_http_flight import Flight, Supervisor
from penstock.upstreams.streamable_http_link import HttpLink, content_length, extra_lines
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
_MAX_HEADS: Final = 2048
_MAX_KEPT_NAME: Final = 512
"""Characters: a client can write URIs of megabytes."""
_TOOLS_CALL: Final = b'{"jsonrpc":"2.0","id":%b,"method":"tools/call","params":{"name":%b,"arguments":%b,"_meta":%b}}'
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

    __slots__ = ("_counts", "_heads", "_last_id", "_link", "_param_rules", "_settings", "version")
    landed = None

    def __init__(self, link: HttpLink, settings: StreamableHttpSettings, counts: HttpCounts) -> None:
        self._link, self._settings, self._counts = link, settings, counts
        self._last_id = 0
        self._heads: dict[tuple[str, str | None], bytes] = {}
        self._param_rules: dict[str, tuple[ParamHeader, ...]] = {}
        self.version = LATEST_MODERN

    def __repr__(self) -> str:
        return f"<ModernHttp {self._link.name} {self.version} | heads {len(self._heads)}>"

    async def call(self, call: Call, *, may_relearn: bool = True) -> Answer:
        """Carry one call.

        `may_relearn`: when headers that we wrote do not fit the tool any more, list the tools and try once again.

        Raises:
            NotModernAnswer: the server does not seem to be modern; the call was not processed.
            ServerError: see `Upstream.call`.
        """
        head, body, request_id = self._write(call)
        reception = self.reception(call, request_id)
        try:
            response = await self._link.send(head, body, reception.on_event, call)
        except RequestFailed as error:
            raise failed_request(self._link.name, error) from error
        call.first_byte_at = response.first_byte_at
        return await self._conclude(call, response, reception, may_relearn=may_relearn)

    def begin(self, call: Call, connection: ClientConnection, supervisor: Supervisor) -> Flight:
        """Write the call at once over a connection on loan."""
        head, body, request_id = self._write(call)
        flight = Flight(supervisor, self, call, request_id, connection, self._link.pool)
        call.sent_at = monotonic()
        connection.detach_on_cancel = False
        connection.begin(flight, head, body, flight.on_event)
        return flight

    def reception(self, call: Call, request_id: bytes) -> Reception:
        """See `Side`."""
        return Reception(self._link.name, request_id, Era.MODERN, self._counts, call=call)

    def ordinary(self, body: bytes | memoryview, request_id: bytes) -> Answer | None:
        """See `Side`."""
        compact = compact_result(body, request_id)
        return None if compact is None else Result(compact[0], Era.MODERN, compact[1])

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

    def _write(self, call: Call) -> tuple[bytes, bytes, bytes]:
        """Head, body and id of the request."""
        number = self._last_id = self._last_id + 1
        request_id = b"%d" % number
        params, method, name = call.params, call.method, call.name
        known = call.caller.encoded_meta
        meta = (
            known[1]
            if known is not None and known[0] == self.version and not call.meta
            else self._meta(call, request_id)
        )
        arguments = params.get("arguments")
        if arguments is not None and len(params) == 2 and "name" in params and method == "tools/call":
            body = _TOOLS_CALL % (request_id, params["name"], arguments, meta)  # what nearly every request is
        else:
            body = encode_request(request_id, method, params | {"_meta": meta})
        head = self._heads.get((method, name)) or self._new_head(method, name)
        if call.headers or self._param_rules:
            head += extra_lines(self._call_headers(call), with_params=True)
        return b"%bcontent-length: %d\r\n\r\n" % (head, len(body)), body, request_id

    async def discover(self, caller: Caller | None = None) -> DiscoverVerdict:
        """What the server says of itself and the revision in common; or that it is not modern, or not in our revisions.

        Raises:
            ServerError: it gave no answer from which its era could be told.
        """
        self._last_id += 1
        request_id = b"%d" % self._last_id
        info = caller.client_info if caller is not None and caller.client_info else self._settings.client_info
        capabilities = caller.capabilities if caller is not None and caller.era is Era.MODERN else b"{}"
        meta = Raw(encode_modern_meta(self.version, info, capabilities))
        body = encode_request(request_id, "server/discover", {"_meta": meta})
        head = self._new_head("server/discover", None) + content_length(body)
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

    def learn_tools(self, tools: list[tuple[str, Raw]]) -> dict[str, str]:
        """Take the rules for `Mcp-Param-*` from the tools just listed (name, inputSchema).

        Returns:
            The tools whose annotations are invalid, each with the reason: they must be left out of the list.
        """
        rules: dict[str, tuple[ParamHeader, ...]] = {}
        invalid: dict[str, str] = {}
        for name, schema in tools:
            found = param_header_rules(schema)
            if isinstance(found, Invalid):
                invalid[name] = found.reason
            elif found:
                rules[name] = found
        self._param_rules = rules
        return invalid

    # inside

    def _meta(self, call: Call, request_id: bytes) -> Raw:
        caller = call.caller
        cached = caller.encoded_meta
        if cached is None or cached[0] != self.version:
            capabilities = caller.capabilities if caller.era is Era.MODERN else b"{}"
            own = encode_modern_meta(self.version, caller.client_info or self._settings.client_info, capabilities)
            caller.encoded_meta = cached = (self.version, Raw(own))
        meta = call.meta
        if not meta:
            return cached[1]
        if PROGRESS_TOKEN in meta:
            meta = meta | {PROGRESS_TOKEN: Raw(request_id)}
        return Raw(b"%b,%b" % (bytes(cached[1])[:-1], _encode(meta)[1:]))

    def _new_head(self, method: str, name: str | None) -> bytes:
        head = self._link.post_head + standard_headers(self.version, method, name)
        if name is not None and len(name) > _MAX_KEPT_NAME:
            return head
        if len(self._heads) >= _MAX_HEADS:
            self._heads.clear()
        self._heads[method, name] = head
        return head

    async def _has_new_rules(self, call: Call) -> bool:
        """After a header mismatch: whether the tool's `Mcp-Param-*` are others by now, and ours to write."""
        name = call.name
        if call.method != "tools/call" or name is None or call.caller.era is Era.MODERN:
            return False
        before, tools = self._param_rules.get(name, ()), []
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
        self.learn_tools(tools)
        return self._param_rules.get(name, ()) != before

    def forget_heads(self) -> None:
        """The revision changed."""
        self._heads.clear()

    def _call_headers(self, call: Call) -> tuple[tuple[bytes, bytes], ...]:
        """The caller's own, and for a caller that does not know `Mcp-Param-*` those too."""
        if call.caller.era is Era.MODERN or call.method != "tools/call" or call.name is None:
            return call.headers
        rules = self._param_rules.get(call.name)
        if rules is None:
            return call.headers
        own = tuple(header for header in call.headers if not header[0].startswith(b"mcp-param-"))
        return own + write_param_headers(rules, call.params.get("arguments"))

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
                raise NotModernAnswer(f"refused revision {self.version}")
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
        verdict = judge_discover(reply, self.version)
        if response.status == 404 and reply.error is not None and reply.error.code == METHOD_NOT_FOUND:
            # Only a modern server words an unknown method as a 404 with this body; it just does not describe itself.
            return Modern(Agreement(Era.MODERN, self.version, _nameless(self.version)))
        return verdict


def _nameless(version: str) -> Description:
    return Description(eras=(Era.MODERN,), versions=(version,), server_info=Raw(b"{}"), capabilities=Raw(b"{}"))
