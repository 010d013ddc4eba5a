"""Requests of the modern era as bytes.

Knows: their header lines, their `_meta`, what a tool wants repeated in headers. Does not know: connections, answers.
Invariant: header and body of a request say the same, as both are written from the same values here.

Source: 2026-07-28 basic/transports/streamable-http.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from penstock.protocol.envelopes import encode_request
from penstock.protocol.headers import standard_headers
from penstock.protocol.meta import LOG_LEVEL, PROGRESS_TOKEN, encode_modern_meta
from penstock.protocol.param_headers import Invalid, ParamHeader, param_header_rules, write_param_headers
from penstock.protocol.versions import LATEST_MODERN, Era
from penstock.upstreams.calls import Call, Caller, Raw
from penstock.upstreams.log_levels import EVERY_LOG, asking_for_logs
from penstock.upstreams.streamable_http_link import content_length, extra_lines

_MAX_HEADS: Final = 2048
_MAX_KEPT_NAME: Final = 512
"""Characters: a client can write URIs of megabytes."""
_TOOLS_CALL: Final = b'{"jsonrpc":"2.0","id":%b,"method":"tools/call","params":{"name":%b,"arguments":%b,"_meta":%b}}'
_encode = msgspec.json.Encoder().encode
_EVERY_LOG: Final = b",%b" % _encode({LOG_LEVEL: EVERY_LOG})[1:]
"""The end of the `_meta` of callers that take every line of log."""


class ModernRequests:
    """Writes the requests to one server."""

    __slots__ = ("_client_info", "_heads", "_last_id", "_param_rules", "_post_head", "_who_asks", "version")

    def __init__(self, post_head: bytes, client_info: bytes, who_asks: Callable[[Caller], bytes] | None = None) -> None:
        """
        Args:
            post_head: request line and the header lines all requests share.
            client_info: JSON object, for callers that did not say who they are.
            who_asks: header lines that say so; None: the server is not told.
        """
        self._who_asks: Final = who_asks
        self._post_head: Final = post_head
        self._client_info: Final = client_info
        self._last_id = 0
        self._heads: dict[tuple[str, str | None], bytes] = {}
        self._param_rules: dict[str, tuple[ParamHeader, ...]] = {}
        self.version = LATEST_MODERN

    def __repr__(self) -> str:
        return f"<ModernRequests {self.version} | heads {len(self._heads)}>"

    def write(self, call: Call) -> tuple[bytes, bytes, bytes]:
        """Head, body and id of the request that carries a call."""
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
        if self._who_asks is not None:
            head += self._who_asks(call.caller)
        return b"%bcontent-length: %d\r\n\r\n" % (head, len(body)), body, request_id

    def write_discover(self, caller: Caller | None) -> tuple[bytes, bytes, bytes]:
        """The same for `server/discover`."""
        self._last_id += 1
        request_id = b"%d" % self._last_id
        info = caller.client_info if caller is not None and caller.client_info else self._client_info
        capabilities = caller.modern_capabilities if caller is not None else b"{}"
        meta = Raw(encode_modern_meta(self.version, info, capabilities))
        body = encode_request(request_id, "server/discover", {"_meta": meta})
        who = self._who_asks(caller) if self._who_asks is not None and caller is not None else b""
        return self._new_head("server/discover", None) + who + content_length(body), body, request_id

    def use(self, version: str) -> None:
        """From now on write requests of that revision."""
        if version != self.version:
            self.version = version
            self._heads.clear()

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

    def rules_of(self, tool: str) -> tuple[ParamHeader, ...]:
        """The `Mcp-Param-*` headers of a tool, as last learnt."""
        return self._param_rules.get(tool, ())

    def _meta(self, call: Call, request_id: bytes) -> Raw:
        caller = call.caller
        cached = caller.encoded_meta
        if cached is None or cached[0] != self.version:
            info = caller.client_info or self._client_info
            own = encode_modern_meta(self.version, info, caller.modern_capabilities, asking_for_logs(caller, None))
            caller.encoded_meta = cached = (self.version, Raw(own))
        meta = call.meta
        if not meta:
            return cached[1]
        if PROGRESS_TOKEN in meta:
            meta = meta | {PROGRESS_TOKEN: Raw(request_id)}
        cut = (
            len(_EVERY_LOG) if caller.hears_every_log and LOG_LEVEL in meta else 1
        )  # what it has set stands in its place
        return Raw(b"%b,%b" % (bytes(cached[1])[:-cut], _encode(meta)[1:]))

    def _new_head(self, method: str, name: str | None) -> bytes:
        head = self._post_head + standard_headers(self.version, method, name)
        if name is not None and (len(name) > _MAX_KEPT_NAME or method.startswith("tasks/")):
            return head
        if len(self._heads) >= _MAX_HEADS:
            self._heads.clear()
        self._heads[method, name] = head
        return head

    def _call_headers(self, call: Call) -> tuple[tuple[bytes, bytes], ...]:
        """The caller's own, and for a caller that does not know `Mcp-Param-*` those too."""
        if call.caller.era is Era.MODERN or call.method != "tools/call" or call.name is None:
            return call.headers
        rules = self._param_rules.get(call.name)
        if rules is None:
            return call.headers
        own = tuple(header for header in call.headers if not header[0].startswith(b"mcp-param-"))
        return own + write_param_headers(rules, call.params.get("arguments"))
