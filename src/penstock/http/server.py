"""The listening half of the HTTP/1.1 lane.

Knows: addresses, the set of connections, the sweep, draining. Does not know: what requests mean, signals, configuration.
Invariants: time is looked at once a second for all connections together, and no connection owns a timer; however many have
something due in the same second (ten thousand that listen get their comment), others have their turn in between.
"""

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable, Iterator
from functools import partial
from typing import cast

from penstock.clock import Clock, SystemClock
from penstock.errors import ListenError
from penstock.http.connection import ServerConnection
from penstock.http.event_stream import EventStream
from penstock.http.exchange import Exchange
from penstock.http.limits import ServerLimits
from penstock.http.messages import Request
from penstock.http.request_head import HeadParser
from penstock.http.request_repeat import KnownHeads
from penstock.http.responses import ResponseHeads

__all__ = ["EventStream", "Exchange", "Handler", "HttpServer", "Request"]

log = logging.getLogger("penstock.http")

Handler = Callable[[Exchange], None]
"""Called once per complete request, synchronously; it answers at once or spawns the call's task."""

SWEEP_SECONDS = 1.0
SLICE = 16
"""Connections whose time is up, in one turn of the loop: a comment to each takes 17 µs, most of it the kernel's."""
REFUSED_CONNECTIONS = 256
"""Connections beyond the limit that are told so at the same time; further ones are cut."""
CANCEL_SECONDS = 1.0
"""How long cancelled calls may take to clean up when a drain ends."""


class HttpServer:
    """Serves one handler on one host and port."""

    def __init__(self, handler: Handler, limits: ServerLimits, clock: Clock) -> None:
        self.handler = handler
        self.limits = limits
        self.clock = clock
        self.now = clock.now
        self.coarse_now = clock.now()
        self.idle_until = self.coarse_now + limits.idle_seconds
        """How long a connection may rest that has its answer now."""
        self.heads = ResponseHeads(clock.wall())
        self.head_parser = HeadParser(limits.header_fields, limits.target_bytes)
        self.known_heads = KnownHeads()
        self.open_connections: set[ServerConnection] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.addresses: list[tuple[str, int]] = []
        self.is_draining = False
        self.refused = 0
        """Connections refused because there were too many."""
        self._listeners: list[asyncio.Server] = []
        self._sweeper: asyncio.Task[None] | None = None
        self._adopting: set[asyncio.Task[object]] = set()
        """Connections that were passed to us, on their way into the loop."""
        self._quiet = asyncio.Event()
        self._was_cut = False

    def __repr__(self) -> str:
        state = "draining" if self.is_draining else "listening" if self._listeners else "closed"
        places = " ".join(f"{host}:{port}" for host, port in self.addresses)
        return f"<HttpServer {places} {state} [{self.connections} connections | {len(self.tasks)} calls]>"

    @property
    def connections(self) -> int:
        """Open connections, those being refused included."""
        return len(self.open_connections)

    @classmethod
    async def start(
        cls,
        handler: Handler,
        *,
        host: str,
        port: int,
        limits: ServerLimits | None = None,
        tls: ssl.SSLContext | None = None,
        reuse_port: bool = False,
        clock: Clock | None = None,
        backlog: int = 2048,
    ) -> "HttpServer":
        """Listen; `localhost` means both families. Raises ListenError when the address cannot be had."""
        server = cls(handler, limits or ServerLimits(), clock or SystemClock())
        sockets = await _bind(host, port, reuse_port=reuse_port)
        server.addresses = [sock.getsockname()[:2] for sock in sockets]
        loop = asyncio.get_running_loop()
        handshake = server.limits.header_seconds if tls is not None else None
        for sock in sockets:
            listener = await loop.create_server(
                server._new_connection, sock=sock, ssl=tls, backlog=backlog, ssl_handshake_timeout=handshake
            )
            server._listeners.append(listener)
        server._sweeper = loop.create_task(server._sweep_forever())
        return server

    @classmethod
    def start_private(cls, handler: Handler, *, limits: ServerLimits, clock: Clock) -> "HttpServer":
        """Serve this process alone: no address, no other program can get in; `join` gives connections."""
        server = cls(handler, limits, clock)
        server._sweeper = asyncio.get_running_loop().create_task(server._sweep_forever())
        return server

    @classmethod
    async def start_at(
        cls, handler: Handler, listener: socket.socket, *, limits: ServerLimits, clock: Clock
    ) -> "HttpServer":
        """Serve whoever connects to a Unix socket that listens already."""
        server = cls(handler, limits, clock)
        loop = asyncio.get_running_loop()
        server._listeners.append(await loop.create_unix_server(server._new_connection, sock=listener))
        server._sweeper = loop.create_task(server._sweep_forever())
        return server

    async def join(self) -> socket.socket:
        """Our end of a pair of sockets whose other end is served like any client's."""
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        await asyncio.get_running_loop().connect_accepted_socket(self._new_connection, theirs)
        return ours

    def adopt(self, client: socket.socket, ahead: bytes, moves: int) -> None:
        """Serve a client whose connection was passed to us; `ahead`: what has arrived on it."""
        loop = asyncio.get_running_loop()
        adopted = loop.create_task(
            loop.connect_accepted_socket(lambda: cast("asyncio.Protocol", ServerConnection(self, ahead, moves)), client)
        )
        self._adopting.add(adopted)
        adopted.add_done_callback(partial(self._adopted, client))

    def _adopted(self, client: socket.socket, adopted: "asyncio.Task[object]") -> None:
        self._adopting.discard(adopted)
        if adopted.cancelled() or adopted.exception() is not None:  # it went away on its way to us
            client.close()

    async def drain(self, seconds: float | None = None) -> bool:
        """Stop accepting, let calls under way end, then cut and cancel what is left; True if nothing was cut.

        Idle connections are closed at once, and every answer from now on announces the close of its connection.
        """
        self.is_draining = True
        self._stop_listening()
        for connection in list(self.open_connections):
            connection.close_when_idle()
        self._check_quiet()
        cutter = asyncio.get_running_loop().create_task(
            self._cut_after(self.limits.drain_seconds if seconds is None else seconds)
        )
        await self._quiet.wait()
        cutter.cancel()
        nothing_was_cut = not self._was_cut
        self.close()
        return nothing_was_cut

    def close(self) -> None:
        """Stop at once: nothing is answered any more, calls are cancelled."""
        self._stop_listening()
        if self._sweeper is not None:
            self._sweeper.cancel()
        for adopted in self._adopting:
            adopted.cancel()
        self._cut_all()

    def sweep(self) -> None:
        """Look at the time once for everybody."""
        for _ in self._swept():
            pass

    def _swept(self) -> Iterator[None]:
        """The same, a slice at a time."""
        now = self.coarse_now = self.now()
        self.idle_until = now + self.limits.idle_seconds
        self.heads.refresh(self.clock.wall())
        due = [one for one in self.open_connections if one.deadline <= now]
        for number, connection in enumerate(due, 1):
            if connection.deadline <= now:  # it may have gone on while others had their turn
                try:
                    connection.deadline_passed(now)
                except Exception:  # one connection's trouble must not keep the others' bounds from holding
                    log.exception("a connection's deadline could not be kept: %r", connection)
                    connection.cut()
            if number % SLICE == 0:
                yield

    def _new_connection(self) -> asyncio.Protocol:
        return cast("asyncio.Protocol", ServerConnection(self))

    # what connections call

    def admit(self, connection: ServerConnection) -> None:
        """Count the connection, and refuse it if it is one too many."""
        self.open_connections.add(connection)
        excess = len(self.open_connections) - self.limits.connections
        if excess > 0:
            self.refused += 1
            if excess > REFUSED_CONNECTIONS:
                connection.cut()
            else:
                connection.refuse_one_too_many()
        elif self.is_draining:
            connection.deadline = self.coarse_now + SWEEP_SECONDS

    def forget(self, connection: ServerConnection) -> None:
        """The connection is closed."""
        self.open_connections.discard(connection)
        if self.is_draining:
            self._check_quiet()

    def call_ended(self, task: asyncio.Task[None]) -> None:
        """The task is done."""
        self.tasks.discard(task)
        if self.is_draining:
            self._check_quiet()

    # the rest

    def _check_quiet(self) -> None:
        if not self.open_connections and not self.tasks and not self._adopting:
            self._quiet.set()

    def _stop_listening(self) -> None:
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener.close()

    def _cut_all(self) -> None:
        for connection in list(self.open_connections):
            self._was_cut |= connection.is_under_way
            connection.cut()
        for task in list(self.tasks):
            self._was_cut = True
            task.cancel()

    async def _cut_after(self, seconds: float) -> None:
        await self.clock.sleep(seconds)
        self._cut_all()
        await self.clock.sleep(CANCEL_SECONDS)
        self._quiet.set()

    async def _sweep_forever(self) -> None:
        while True:
            await self.clock.sleep(SWEEP_SECONDS)
            for _ in self._swept():
                await asyncio.sleep(0)


async def _bind(host: str, port: int, *, reuse_port: bool) -> list[socket.socket]:
    """Sockets bound to every address that `host` means."""
    host = host.removeprefix("[").removesuffix("]")
    if host == "localhost":
        return _bind_both_families(port, reuse_port=reuse_port)
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ListenError(f"'{host}' is no address of this machine ({error.strerror})") from error
    return [_bind_one(found[0][0], str(found[0][4][0]), port, reuse_port=reuse_port)]


def _bind_both_families(port: int, *, reuse_port: bool) -> list[socket.socket]:
    first = _bind_one(socket.AF_INET, "127.0.0.1", port, reuse_port=reuse_port)
    try:
        return [first, _bind_one(socket.AF_INET6, "::1", first.getsockname()[1], reuse_port=reuse_port)]
    except ListenError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRINUSE:
            first.close()
            raise
        return [first]  # a machine without IPv6 still has a localhost


def _bind_one(family: int, host: str, port: int, *, reuse_port: bool) -> socket.socket:
    place = f"[{host}]:{port}" if family == socket.AF_INET6 else f"{host}:{port}"
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise ListenError(f"{place} cannot be listened on: {error.strerror}") from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise ListenError(f"{place} is in use by another program; stop it or listen on another port") from error
        raise ListenError(f"{place} cannot be listened on: {error.strerror}") from error
    return sock
