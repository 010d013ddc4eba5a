"""`initialize` over HTTP: what the server agrees to, or why it is no legacy server.

Knows: the request, the answers servers give, session ids. Does not know: what sessions are opened for, or kept.

Source: basic/lifecycle and basic/transports of each legacy revision ("Backwards Compatibility").
"""

import asyncio
from typing import Final

from penstock.errors import PenstockError, ServerError, ServerMisbehaved, ServerUnavailable
from penstock.http.client import RequestFailed, Response
from penstock.protocol.envelopes import encode_request
from penstock.protocol.event_stream import Event
from penstock.protocol.messages import Reply
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Raw
from penstock.upstreams.stdio_eras import Agreement, judge_initialize
from penstock.upstreams.streamable_http_link import HttpLink, content_length
from penstock.upstreams.streamable_http_reception import HttpCounts, Reception
from penstock.upstreams.streamable_http_refusals import clause, error_reply, failed_request, is_json, refusal
from penstock.upstreams.streamable_http_settings import StreamableHttpSettings

_VISIBLE: Final = frozenset(range(0x21, 0x7F))
_MAX_SESSION_ID_BYTES: Final = 2048


class NotLegacyAnswer(PenstockError):
    """The server does not take the handshake, or no longer; what was sent was not processed."""


class SpeaksSse(NotLegacyAnswer):
    """The server speaks the HTTP+SSE transport of 2024-11-05 instead."""


class HttpHandshake:
    """Shakes hands with one server."""

    __slots__ = ("_counts", "_link", "_settings")

    def __init__(self, link: HttpLink, settings: StreamableHttpSettings, counts: HttpCounts) -> None:
        self._link, self._settings, self._counts = link, settings, counts

    def __repr__(self) -> str:
        return f"<HttpHandshake {self._link.name}>"

    async def initialize(
        self, request_id: bytes, version: str, client_info: bytes, capabilities: bytes, who: bytes = b""
    ) -> tuple[Agreement, bytes | None]:
        """What was agreed on, and the session id if the server keeps sessions; `who`: header lines that say who asks.

        Raises:
            NotLegacyAnswer: it is not a legacy server.
            ServerError: no answer came, or none from which that could be told.
        """
        name = self._link.name
        params = {
            "protocolVersion": Raw(b'"%b"' % version.encode()),
            "capabilities": Raw(capabilities),
            "clientInfo": Raw(client_info),
        }
        body = encode_request(request_id, "initialize", params)
        reception = Reception(name, request_id, Era.LEGACY, self._counts)
        try:
            async with asyncio.timeout(self._settings.handshake_seconds):
                response = await self._link.send(
                    self._link.post_head + who + content_length(body), body, reception.on_event, detach=True
                )
        except RequestFailed as error:
            raise failed_request(name, error) from error
        except TimeoutError:
            seconds = self._settings.handshake_seconds
            raise ServerUnavailable(name, f"it did not answer initialize within {seconds:g} s") from None
        reply = self._reply_of(response, reception)
        if reply is None or (response.status != 200 and reply.error is None):
            if response.status in (400, 404, 405):
                raise NotLegacyAnswer(await self._why_not(response))
            raise refusal(name, self._link.url, response)
        agreement = judge_initialize(reply)
        if isinstance(agreement, str):
            raise NotLegacyAnswer(agreement)
        return agreement, self._session_id(response)

    def _reply_of(self, response: Response, reception: Reception) -> Reply | None:
        if reception.reply is not None:
            return reception.reply
        if response.status in (401, 403):
            raise refusal(self._link.name, self._link.url, response)
        if response.status == 200 and is_json(response):
            reception.take(response.body)
            return reception.reply
        return error_reply(response)

    async def _why_not(self, response: Response) -> str:
        """Why a POST of `initialize` was refused.

        Raises:
            SpeaksSse: the server is one of the transport before this one: it shows itself by a GET.
        """
        seen: list[bytes] = []

        def take_first(event: Event) -> bool:
            seen.append(event.event)
            return True

        head = self._link.get_head + b"\r\n"
        try:
            async with asyncio.timeout(self._settings.background_seconds):
                await self._link.send(head, b"", take_first)
        except (RequestFailed, ServerError, TimeoutError):
            seen.clear()
        if b"endpoint" in seen:
            raise SpeaksSse("speaks the HTTP+SSE transport of 2024-11-05")
        return clause(refusal(self._link.name, self._link.url, response))

    def _session_id(self, response: Response) -> bytes | None:
        session_id = response.headers.get(b"mcp-session-id")
        if not session_id:
            return None
        if len(session_id) > _MAX_SESSION_ID_BYTES or not _VISIBLE.issuperset(session_id):
            raise ServerMisbehaved(self._link.name, "it issued a session id that no header can carry")
        return session_id
