"""Requests of the command line to a running gateway: its admin API, and MCP on its data port.

Knows: how both are asked, what their refusals mean to a person. Does not know: verbs, terminals.
"""

import asyncio
import json
import ssl
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote, urlencode

import msgspec

from penstock import __version__
from penstock.cli.runtime import Running
from penstock.errors import GatewayNotFound, PenstockError
from penstock.http.client import OnEvent, RequestFailed, Response, connect, parse_url
from penstock.http.limits import ClientLimits
from penstock.http.tls import client_context
from penstock.protocol.envelopes import decode, encode_request
from penstock.protocol.event_stream import Event
from penstock.protocol.headers import standard_headers
from penstock.protocol.messages import Fault, Reply, Request
from penstock.protocol.meta import CLIENT_CAPABILITIES, CLIENT_INFO, PROGRESS_TOKEN, PROTOCOL_VERSION
from penstock.protocol.versions import LATEST_MODERN

ADMIN_SECONDS: Final = 15.0
CALL_SECONDS: Final = 16 * 60.0
"""A little more than the gateway's own `limits.call_total`."""
JSON_HEADERS: Final = b"content-type: application/json\r\n"
_encode: Final = msgspec.json.Encoder().encode

Told = Callable[[str, dict[str, Any]], None]
"""Takes the method and params of a notification."""


class Refused(PenstockError):
    """The gateway refused the request."""


class NoSuchThing(Refused):
    """It knows nothing of that name."""

    exit_code = 2


class ProtocolError(PenstockError):
    """The call was answered with a JSON-RPC error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code: Final = code


class AdminClient:
    """The admin API of one gateway."""

    def __init__(self, gateway: Running) -> None:
        self._gateway = gateway

    def __repr__(self) -> str:
        return f"<AdminClient {self._gateway.admin}>"

    async def servers(self, *, ask_failed: bool = False) -> dict[str, Any]:
        """`ask_failed`: have those that failed asked once more before; takes a second at most."""
        return await self._get(f"/api/v1/servers{'?ask_failed=1' if ask_failed else ''}")

    async def log(self, name: str, *, lines: int, after: int | None = None) -> dict[str, Any]:
        query = {"lines": str(lines)} | ({} if after is None else {"after": str(after)})
        return await self._get(f"/api/v1/servers/{quote(name, safe='')}/log?{urlencode(query)}")

    async def tools(self, query: str = "") -> list[dict[str, Any]]:
        tools = (await self._get(f"/api/v1/tools?{urlencode({'q': query})}")).get("tools", [])
        return [tool for tool in tools if isinstance(tool, dict)]

    async def explain(self, tool: str) -> dict[str, Any]:
        return await self._get(f"/api/v1/explain?{urlencode({'tool': tool})}")

    async def reload(self) -> dict[str, Any]:
        """Have the gateway read its configuration again.

        Raises:
            Refused: it kept the old one; the message says why.
        """
        return self._answer(await self._fetch("POST", "/api/v1/reload"))

    async def _get(self, target: str) -> dict[str, Any]:
        return self._answer(await self._fetch("GET", target))

    async def _fetch(self, method: str, target: str) -> Response:
        body, headers = (b"{}", JSON_HEADERS) if method == "POST" else (b"", b"")
        url = self._gateway.admin + target
        return await fetch(method, url, headers=headers, body=body, seconds=ADMIN_SECONDS, gateway=self._gateway)

    def _answer(self, response: Response) -> dict[str, Any]:
        try:
            answer = json.loads(response.body)
        except ValueError:
            answer = None
        if response.status == 200 and isinstance(answer, dict):
            return answer
        if isinstance(answer, dict) and isinstance(answer.get("error"), str):
            raise (NoSuchThing if response.status == 404 else Refused)(answer["error"])
        raise GatewayNotFound(
            f"what answers at {self._gateway.admin} is not the admin port of a Penstock gateway (status {response.status})"
        )


class McpClient:
    """The data port of one gateway, spoken to in the modern era."""

    def __init__(self, gateway: Running, *, elicits: bool) -> None:
        self._gateway = gateway
        self._capabilities: dict[str, Any] = {"elicitation": {"form": {}}} if elicits else {}
        self._id = 0

    def __repr__(self) -> str:
        return f"<McpClient {self._gateway.url} | requests {self._id}>"

    async def list_tools(self) -> list[dict[str, Any]]:
        """Every tool of the default view."""
        tools, cursor = list[dict[str, Any]](), None
        while True:
            result = json.loads(await self.request("tools/list", {} if cursor is None else {"cursor": cursor}))
            tools += [tool for tool in result.get("tools", []) if isinstance(tool, dict)]
            cursor = result.get("nextCursor")
            if cursor is None:
                return tools

    async def request(
        self,
        method: str,
        params: dict[str, Any],
        *,
        name: str | None = None,
        headers: bytes = b"",
        told: Told | None = None,
    ) -> bytes:
        """Send one request and return its result, JSON bytes as they came.

        Raises:
            ProtocolError: it was answered with an error.
            GatewayNotFound: the gateway does not answer.
            Refused: it answered with something that is no MCP.
        """
        self._id += 1
        meta = {
            PROTOCOL_VERSION: LATEST_MODERN,
            CLIENT_INFO: {"name": "penstock-cli", "version": __version__},
            CLIENT_CAPABILITIES: self._capabilities,
        } | ({PROGRESS_TOKEN: self._id} if told else {})
        raw = {key: msgspec.Raw(_encode(value)) for key, value in {**params, "_meta": meta}.items()}
        stream = _StreamReader(told)
        response = await fetch(
            "POST",
            self._gateway.url,
            headers=(
                JSON_HEADERS
                + b"accept: application/json, text/event-stream\r\n"
                + standard_headers(LATEST_MODERN, method, name)
                + headers
            ),
            body=encode_request(str(self._id).encode(), method, raw),
            on_event=stream,
            seconds=CALL_SECONDS,
            gateway=self._gateway,
        )
        reply = stream.reply or (decode(response.body) if response.body else None)
        if not isinstance(reply, Reply):
            why = reply.message if isinstance(reply, Fault) else f"status {response.status}, no JSON-RPC message"
            raise Refused(f"what answers at {self._gateway.url} is not an MCP endpoint ({why})")
        if reply.error is not None:
            raise ProtocolError(reply.error.code, reply.error.message)
        return bytes(reply.result or b"{}")


class _StreamReader:
    """Takes the events of a call's stream until the reply."""

    def __init__(self, told: Told | None) -> None:
        self.reply: Reply | None = None
        self._told = told

    def __call__(self, event: Event) -> bool:
        message = decode(bytes(event.data)) if event.data else None
        if isinstance(message, Reply):
            self.reply = message
            return True
        if self._told and message is not None and not isinstance(message, Fault | Request):
            self._told(message.method, {key: json.loads(bytes(value)) for key, value in message.params.items()})
        return False


async def fetch(
    method: str,
    url: str,
    *,
    gateway: Running,
    seconds: float,
    headers: bytes = b"",
    body: bytes = b"",
    on_event: OnEvent | None = None,
) -> Response:
    """One request on a connection of its own.

    Raises:
        GatewayNotFound: nothing answers there, or not in time.
    """
    try:
        origin, target, authority = parse_url(url)
    except ValueError as error:
        raise GatewayNotFound(f"'{url}' is no URL of a gateway: {error}") from None
    length = b"content-length: %d\r\n" % len(body) if body or method == "POST" else b""
    head = b"%s %s HTTP/1.1\r\nhost: %s\r\n%s%s\r\n" % (method.encode(), target, authority, headers, length)
    tls: ssl.SSLContext | None = client_context() if origin.scheme == "https" else None
    try:
        async with asyncio.timeout(seconds):
            connection = await connect(origin, limits=ClientLimits(), tls=tls)
            try:
                return await connection.request(head, body, on_event)
            finally:
                connection.close()
    except TimeoutError:
        raise GatewayNotFound(f"the gateway at {origin} did not answer within {seconds:.0f} s") from None
    except RequestFailed as error:
        process = f" (pid {gateway.pid})" if gateway.pid else ""
        raise GatewayNotFound(
            f"the gateway at {origin}{process} does not answer: {error.reason}; start one with 'penstock serve'"
        ) from None
