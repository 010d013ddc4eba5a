"""The modern side of the bridge: headers that say again what the body says.

Knows: the standard headers, which arguments of which tool are mirrored in headers. Does not know: lines, when an answer is final.
A client on stdio writes no headers and need not know `x-mcp-header`; what a tool wants mirrored is learnt from the lists that
pass through, and from a list of our own when the gateway says that something is missing (-32020).

Source: 2026-07-28 basic/transports/streamable-http ("Request Metadata", "Custom Headers from Tool Parameters").
"""

import asyncio
import re
from typing import Final

import msgspec

from penstock.cli.bridge.answers import error_of
from penstock.cli.bridge.flight import POST_HEADERS, Flight
from penstock.cli.bridge.link import GatewayLink
from penstock.http.client import RequestFailed, Response
from penstock.protocol.envelopes import decode, encode_error, encode_request
from penstock.protocol.errors import HEADER_MISMATCH, UNSUPPORTED_VERSION, unsupported_version_data
from penstock.protocol.headers import request_name, standard_headers
from penstock.protocol.messages import Notification, Reply, Request
from penstock.protocol.meta import PROGRESS_TOKEN, said_version
from penstock.protocol.methods import lookup
from penstock.protocol.param_headers import ANNOTATION, Invalid, ParamHeader, param_header_rules, write_param_headers
from penstock.protocol.versions import LATEST_MODERN, Era

_LIST_ID: Final = b'"penstock-stdio-list"'
_LIST_PAGES: Final = 100
_LIST_SECONDS: Final = 15.0
_MOST_TOOLS: Final = 10_000
"""Tools with mirrored arguments that are kept in mind."""
_VERSION: Final = re.compile(r"[\x21-\x7e]{1,64}").fullmatch
_decode_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode: Final = msgspec.json.Encoder().encode


class _Tool(msgspec.Struct):
    name: str
    inputSchema: msgspec.Raw = msgspec.Raw(b"{}")


class _Page(msgspec.Struct):
    tools: list[_Tool] = []
    nextCursor: str | None = None


class ModernSide:
    """Writes headers; see `flight.Side`."""

    def __init__(self, link: GatewayLink) -> None:
        self._link: Final = link
        self._mirrored: dict[str, tuple[ParamHeader, ...]] = {}

    def __repr__(self) -> str:
        return f"<ModernSide {len(self._mirrored)} tools with mirrored arguments>"

    @staticmethod
    def refusal(request: Request) -> bytes | None:
        """The answer to a request whose version no header can carry; None for all others."""
        version = said_version(request.params.get("_meta")) or ""
        if _VERSION(version):
            return None
        data = unsupported_version_data(version)
        return encode_error(request.id, UNSUPPORTED_VERSION, "Unsupported protocol version", data, null_id=False)

    def headers(self, flight: Flight) -> bytes:
        """See `Side`."""
        message = flight.message
        assert isinstance(message, Request | Notification)
        version = said_version(message.params.get("_meta")) or LATEST_MODERN
        if isinstance(message, Notification):
            return standard_headers(version if _VERSION(version) else LATEST_MODERN, message.method, None)
        name = request_name(message, lookup(Era.MODERN, message.method))
        mirrored = b""
        if name is not None and message.method == "tools/call" and name in self._mirrored:
            pairs = write_param_headers(self._mirrored[name], message.params.get("arguments"))
            mirrored = b"".join(b"%b: %b\r\n" % pair for pair in pairs)
        flight.sent_with = mirrored
        return standard_headers(version, message.method, name) + mirrored

    async def put_right(self, flight: Flight, response: Response) -> bool:
        """See `Side`. A call that lacks a header of its tool's can be sent again with it."""
        message = flight.message
        if not isinstance(message, Request) or message.method != "tools/call" or error_of(response) != HEADER_MISMATCH:
            return False
        before = flight.sent_with
        try:
            async with asyncio.timeout(_LIST_SECONDS):
                await self._list(message)
        except (RequestFailed, TimeoutError):
            return False
        self.headers(flight)
        return flight.sent_with != before

    def answered(self, flight: Flight, _response: Response, line: bytes) -> None:
        """See `Side`."""
        if flight.method == "tools/list" and (self._mirrored or ANNOTATION.encode() in line):
            self._learn(line)

    async def _list(self, asking: Request) -> None:
        """Learn every tool, on behalf of one request."""
        meta = {key: value for key, value in _decode_members(asking.params["_meta"]).items() if key != PROGRESS_TOKEN}
        params = {"_meta": msgspec.Raw(_encode(meta))}
        version = said_version(params["_meta"]) or LATEST_MODERN
        headers = POST_HEADERS + standard_headers(version, "tools/list", None)
        for _ in range(_LIST_PAGES):
            body = encode_request(_LIST_ID, "tools/list", params)
            response = await (await self._link.begin("POST", headers, body)).answer()
            cursor = self._learn(response.body)
            if cursor is None:
                return
            params["cursor"] = msgspec.Raw(_encode(cursor))

    def _learn(self, line: bytes) -> str | None:
        """What the tools of one page want mirrored; returns where the next page begins."""
        reply = decode(line)
        if not isinstance(reply, Reply) or reply.result is None:
            return None
        try:
            page = msgspec.json.decode(reply.result, type=_Page)
        except msgspec.ValidationError:
            return None
        for tool in page.tools:
            rules = param_header_rules(tool.inputSchema)
            if not rules or isinstance(rules, Invalid):
                self._mirrored.pop(tool.name, None)
            elif len(self._mirrored) < _MOST_TOOLS or tool.name in self._mirrored:
                self._mirrored[tool.name] = rules
        return page.nextCursor
