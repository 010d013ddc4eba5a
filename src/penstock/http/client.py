"""Requests to servers: what the rooms above import, and a small client for programs that make few of them.

Knows: a list of idle connections per origin. Does not know: MCP, pools with bounds and checks (that is
`upstreams/pool.py`), redirects and proxies (neither is followed).
"""

import asyncio
import re
import ssl
from collections.abc import Mapping
from time import monotonic
from types import TracebackType
from typing import Final, Self

from penstock.http.client_answer import OnEvent
from penstock.http.client_connect import connect, connect_over, connect_unix
from penstock.http.client_connection import ClientConnection
from penstock.http.client_messages import BadResponse, ConnectionLost, RequestFailed, Response, ResponseTooLarge
from penstock.http.client_url import Origin, parse_url
from penstock.http.limits import ClientLimits

__all__ = [
    "BadResponse",
    "ClientConnection",
    "ConnectionLost",
    "HttpClient",
    "OnEvent",
    "Origin",
    "RequestFailed",
    "Response",
    "ResponseTooLarge",
    "connect",
    "connect_over",
    "connect_unix",
    "parse_url",
]

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_OURS: Final = frozenset({"connection", "content-length", "host", "transfer-encoding"})


class HttpClient:
    """GET and POST with keep-alive, for the command line and for tests.

    A call borrows an idle connection of its origin or opens one; there is no bound on how many are open at once.
    """

    def __init__(
        self, *, limits: ClientLimits | None = None, tls: ssl.SSLContext | None = None, idle_per_origin: int = 8
    ) -> None:
        """`tls` is used for every https origin; without it one with the system's trust is made when first needed."""
        self._limits = limits or ClientLimits()
        self._tls = tls
        self._idle_per_origin = idle_per_origin
        self._idle: dict[Origin, list[ClientConnection]] = {}
        self._open: set[ClientConnection] = set()
        self._closed = False

    def __repr__(self) -> str:
        idle = sum(map(len, self._idle.values()))
        return f"<HttpClient {len(self._open)} open {idle} idle | {'closed' if self._closed else 'in use'}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def get(
        self, url: str, headers: Mapping[str, str] | None = None, *, timeout: float | None = 30.0
    ) -> Response:
        """As `post`."""
        return await self.request("GET", url, headers, timeout=timeout)

    async def post(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        on_event: OnEvent | None = None,
        *,
        timeout: float | None = 30.0,
    ) -> Response:
        """Send one request and return its answer, whatever its status; see `ClientConnection.request`.

        Raises:
            RequestFailed: one of its subclasses.
            TimeoutError: after `timeout` seconds, connecting included.
            ValueError: the URL or a header cannot be sent; the message never shows a header's value.
        """
        return await self.request("POST", url, headers, body, on_event, timeout=timeout)

    async def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        on_event: OnEvent | None = None,
        *,
        timeout: float | None = 30.0,
    ) -> Response:
        """As `post`, with any method."""
        origin, target, authority = parse_url(url)
        head = _format_head(method, target, authority, headers or {}, len(body))
        async with asyncio.timeout(timeout):
            while True:
                connection = self._take_idle(origin)
                is_new = connection is None
                if connection is None:
                    connection = await self._connect(origin)
                try:
                    return await connection.request(head, body, on_event)
                except ConnectionLost as error:
                    if is_new or not error.unprocessed:
                        raise
                finally:
                    self._give_back(connection)

    async def aclose(self) -> None:
        """Close every connection; requests under way fail. Idempotent."""
        self._closed = True
        for connection in list(self._open):
            connection.close()
        self._idle.clear()
        await asyncio.sleep(0)  # lets the transports let go of their sockets

    def _take_idle(self, origin: Origin) -> ClientConnection | None:
        idle = self._idle.get(origin, [])
        while idle:
            connection = idle.pop()
            if connection.is_idle() and not connection.has_expired(monotonic()):
                return connection
            connection.close()
        return None

    async def _connect(self, origin: Origin) -> ClientConnection:
        if self._closed:
            raise RuntimeError("the client is closed")
        if origin.scheme == "https" and self._tls is None:
            self._tls = await asyncio.to_thread(ssl.create_default_context)  # reads files
        connection = await connect(origin, limits=self._limits, tls=self._tls)
        connection.on_closed = self._forget
        self._open.add(connection)
        return connection

    def _give_back(self, connection: ClientConnection) -> None:
        if connection.is_closed():
            return
        if not connection.is_idle():
            connection.on_settled = self._give_back
            return
        idle = self._idle.setdefault(connection.origin, [])
        if self._closed or len(idle) >= self._idle_per_origin:
            connection.close()
        else:
            idle.append(connection)

    def _forget(self, connection: ClientConnection) -> None:
        self._open.discard(connection)
        idle = self._idle.get(connection.origin, [])
        if connection in idle:
            idle.remove(connection)


def _format_head(method: str, target: bytes, authority: bytes, headers: Mapping[str, str], length: int) -> bytes:
    if not _TOKEN.fullmatch(method):
        raise ValueError(f"{method!r} is not an HTTP method")
    lines = [b"%b %b HTTP/1.1\r\nhost: %b\r\n" % (method.encode(), target, authority)]
    names = set()
    for name, value in headers.items():
        lowered = name.lower()
        if not _TOKEN.fullmatch(name) or lowered in _OURS:
            raise ValueError(f"{name!r} is not a header that can be set")
        if not _VALUE.fullmatch(value):
            raise ValueError(f"the value of header {name!r} contains characters that cannot be sent")
        names.add(lowered)
        lines.append(b"%b: %b\r\n" % (lowered.encode(), value.strip().encode("latin-1")))
    if "accept" not in names:
        lines.append(b"accept: */*\r\n")
    if "accept-encoding" not in names:
        lines.append(b"accept-encoding: gzip, deflate\r\n")
    if length or method not in {"GET", "HEAD"}:
        lines.append(b"content-length: %d\r\n" % length)
    lines.append(b"\r\n")
    return b"".join(lines)
