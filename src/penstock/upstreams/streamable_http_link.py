"""Connections to one HTTP server, and the heads of requests to it.

Knows: the pool, which connection takes a request, when it may be sent again, header lines that never change. Does not
know: JSON-RPC, eras, sessions.
Invariant: a request is written a second time only if the first cannot have reached the server.
"""

import ipaddress
import ssl
from collections.abc import Callable, Iterable
from operator import attrgetter
from time import monotonic
from typing import Final

from penstock import __version__
from penstock.clock import Clock
from penstock.errors import ConfigError, ServerBusy, ServerUnavailable
from penstock.http.client import (
    ClientConnection,
    ConnectionLost,
    OnEvent,
    RequestFailed,
    Response,
    connect,
    connect_unix,
    parse_url,
)
from penstock.protocol.headers import encode_value
from penstock.upstreams.calls import Call, Caller
from penstock.upstreams.pool import Pool
from penstock.upstreams.streamable_http_refusals import failed_request
from penstock.upstreams.streamable_http_settings import StreamableHttpSettings

_TRIES: Final = 3
_OWN_HEADERS: Final = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-length",
        "content-type",
        "host",
        "last-event-id",
        "mcp-method",
        "mcp-name",
        "mcp-protocol-version",
        "mcp-session-id",
        "transfer-encoding",
    }
)
"""What a configured header must not be: we write these."""


class HttpLink:
    """The way to one server."""

    __slots__ = (
        "_limits",
        "_max_streams",
        "_principal_header",
        "_tls",
        "_unix_path",
        "delete_head",
        "get_head",
        "name",
        "origin",
        "pool",
        "post_head",
        "resent",
        "streams",
        "url",
    )

    def __init__(self, name: str, settings: StreamableHttpSettings, tls: ssl.SSLContext | None, clock: Clock) -> None:
        """`tls`: the context of the server's trust domain; needed for https.

        Raises:
            ConfigError: the URL or a header cannot be used.
        """
        self.name: Final = name
        self.url: Final = settings.url.partition("?")[0]
        """Without its query, which may hold secrets."""
        try:
            self.origin, target, authority = parse_url(settings.url)
        except ValueError as error:
            raise ConfigError(str(error), key=f"servers.{name}.url") from error
        self._tls, self._limits = tls, settings.limits
        self._unix_path: Final = settings.unix_path
        self._principal_header: Final = settings.principal_header
        encoding = b"identity" if _is_loopback(self.origin.host) else b"gzip, deflate"
        common = b"host: %b\r\nuser-agent: penstock/%b\r\naccept-encoding: %b\r\n%b" % (
            authority,
            __version__.encode(),
            encoding,
            _header_lines(name, settings.headers),
        )
        self.post_head: Final = (
            b"POST %b HTTP/1.1\r\naccept: application/json, text/event-stream\r\ncontent-type: application/json\r\n%b"
            % (target, common)
        )
        """All that POSTs have in common; content-length and the empty line are still to come."""
        self.get_head: Final = b"GET %b HTTP/1.1\r\naccept: text/event-stream\r\n%b" % (target, common)
        self.delete_head: Final = b"DELETE %b HTTP/1.1\r\n%b" % (target, common)
        self.resent = 0
        self.streams = 0
        """Connections that are listened to."""
        self._max_streams: Final = settings.max_streams
        self.pool: Final[Pool[ClientConnection]] = Pool(
            name,
            open=self._open,
            close=ClientConnection.close,
            is_closed=attrgetter("is_over"),
            check=None,
            settings=settings.connections,
            clock=clock,
        )

    def __repr__(self) -> str:
        return f"<HttpLink {self.url} {self.pool!r}>"

    async def send(
        self,
        head: bytes,
        body: bytes,
        on_event: OnEvent | None,
        call: Call | None = None,
        *,
        detach: bool = False,
    ) -> Response:
        """Send one request over a connection of the pool and return what comes.

        Args:
            call: whose `sent_at` is set when a connection was had.
            detach: cancelling lets the request run on for a bounded time instead of closing its connection.

        Raises:
            RequestFailed: no answer came; it is not known to be unprocessed.
            ServerError: no connection became free, or none could be opened.
        """
        pool, tries = self.pool, 1
        while True:
            connection = pool.try_borrow()
            if connection is None:
                connection = await pool.borrow()
            if call is not None:
                call.sent_at = monotonic()
            connection.detach_on_cancel = detach
            try:
                return await connection.request(head, body, on_event)
            except ConnectionLost as error:
                if not error.unprocessed or tries == _TRIES:
                    raise
                tries += 1
                self.resent += 1
            finally:
                if not connection.is_busy:
                    pool.give_back(connection)
                else:  # its answer is had, but its stream has not ended: the connection comes back by itself
                    connection.on_settled = pool.give_back

    def who_asks(self, caller: Caller) -> bytes:
        """Header lines that say so; none for servers that are not told."""
        if not self._principal_header or not caller.principal:
            return b""
        return b"%b: %b\r\n" % (self._principal_header, encode_value(caller.principal))

    async def open_apart(self) -> ClientConnection:
        """A connection that the pool knows nothing of: for an answer that may take for ever.

        Raises:
            ServerError: none could be opened.
        """
        connection = await self._open()
        connection.on_keep_alive = None
        return connection

    async def listen(self, head: bytes, on_event: OnEvent, on_stream: Callable[[], object]) -> Response:
        """Send one request over a connection of its own, for an answer that may take for ever.

        Args:
            on_stream: told when the server has begun an event stream.

        Raises:
            RequestFailed, ServerError: as for `send`; also when too many such streams are open.
        """
        if self.streams >= self._max_streams:
            raise ServerBusy(self.name, f"{self.streams} streams of it are listened to, the most that may")
        self.streams += 1
        connection: ClientConnection | None = None
        try:
            connection = await self.open_apart()
            connection.on_stream = on_stream
            return await connection.request(head, b"", on_event)
        finally:
            self.streams -= 1
            if connection is not None:
                connection.close()

    async def _open(self) -> ClientConnection:
        try:
            if self._unix_path is not None:
                connection = await connect_unix(self._unix_path, limits=self._limits)
            else:
                connection = await connect(self.origin, limits=self._limits, tls=self._tls)
        except RequestFailed as error:
            raise failed_request(self.name, error) from error
        except ValueError as error:
            raise ServerUnavailable(self.name, f"{error}; this is a fault of Penstock's configuration") from error
        connection.on_keep_alive = self.pool.limit_idle
        return connection


def content_length(body: bytes) -> bytes:
    """The last line of a head."""
    return b"content-length: %d\r\n\r\n" % len(body)


def extra_lines(headers: Iterable[tuple[bytes, bytes]], *, with_params: bool) -> bytes:
    """Header lines of one call: `mcp-param-*` where the era has them, and what is forwarded."""
    lines = b""
    for name, value in headers:
        if with_params or not name.startswith(b"mcp-param-"):
            if b"\r" in value or b"\n" in value or b"\0" in value:
                continue  # an edge lets none through; one that came another way is not worth a second request
            lines += b"%b: %b\r\n" % (name, value)
    return lines


def _header_lines(server: str, headers: Iterable[tuple[str, str]]) -> bytes:
    lines = []
    for name, value in headers:
        if name.lower() in _OWN_HEADERS:
            raise ConfigError(
                "Penstock writes this header itself; leave it out", key=f"servers.{server}.headers.{name}"
            )
        if not name.isascii() or not name or any(character in "\r\n\0: " for character in name):
            raise ConfigError("this is not a header's name", key=f"servers.{server}.headers.{name!r}")
        if any(character in "\r\n\0" for character in value):
            raise ConfigError("the value must be one line", key=f"servers.{server}.headers.{name}")
        lines.append(b"%b: %b\r\n" % (name.lower().encode("ascii"), value.encode()))
    return b"".join(lines)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
