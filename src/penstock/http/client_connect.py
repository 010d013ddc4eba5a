"""Opening a connection: name look-up, several addresses, TLS, one deadline over all.

Knows: addresses and sockets' errors. Does not know: requests, pools, which addresses are allowed.
"""

import asyncio
import ipaddress
import socket
import ssl
from pathlib import Path
from typing import Final, cast

from penstock.http.client_connection import ClientConnection
from penstock.http.client_messages import ConnectionLost
from penstock.http.client_url import DEFAULT_PORTS, Origin
from penstock.http.limits import ClientLimits

_QUEUE_SECONDS: Final = 0.01
"""Before a Unix socket whose queue is full is tried again."""
_HEAD_START_SECONDS: Final = 0.25
"""How long one address is tried alone before the next joins (RFC 8305, section 5)."""


async def connect(
    origin: Origin,
    *,
    limits: ClientLimits,
    tls: ssl.SSLContext | None = None,
    deadline_seconds: float | None = None,
) -> ClientConnection:
    """Open one connection within `limits.connect_seconds`, or less when `deadline_seconds` says so.

    Args:
        tls: the trust domain's context; needed for https, ignored for http.

    Raises:
        ConnectionLost: always with `unprocessed`; the reason names the host and what went wrong.
        ValueError: https without a context.
    """
    if origin.scheme == "https" and tls is None:
        raise ValueError(f"{origin}: https needs a TLS context")
    seconds = limits.connect_seconds if deadline_seconds is None else min(deadline_seconds, limits.connect_seconds)
    try:
        async with asyncio.timeout(seconds):
            return await _Opening(origin, limits, tls if origin.scheme == "https" else None).run()
    except OSError as error:
        raise ConnectionLost(f"cannot connect to {origin}: {_why(error, seconds)}", unprocessed=True) from error


async def connect_over(sock: socket.socket, origin: Origin, *, limits: ClientLimits) -> ClientConnection:
    """A connection over a Unix socket that is connected already; `origin` is what it is called in messages."""
    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_unix_connection(
        lambda: cast("asyncio.Protocol", ClientConnection(origin, limits, loop)), sock=sock
    )
    return cast("ClientConnection", protocol)


async def connect_unix(path: Path, *, limits: ClientLimits) -> ClientConnection:
    """A connection to the worker that listens at that path; its errors call it by the file's name.

    Raises:
        ConnectionLost: nobody does.
    """
    origin = Origin("http", f"worker-{path.stem}", DEFAULT_PORTS["http"])
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(limits.connect_seconds):
            while True:
                try:
                    _, protocol = await loop.create_unix_connection(
                        lambda: cast("asyncio.Protocol", ClientConnection(origin, limits, loop)), str(path)
                    )
                    return cast("ClientConnection", protocol)
                except BlockingIOError:  # its queue is full, and the system does not let us wait for a place
                    await asyncio.sleep(_QUEUE_SECONDS)
    except OSError as error:  # TimeoutError is one
        why = _why(error, limits.connect_seconds)
        raise ConnectionLost(f"cannot connect to {origin}: {why}", unprocessed=True) from error


class _Opening:
    """One attempt to connect, over all addresses of the name."""

    def __init__(self, origin: Origin, limits: ClientLimits, tls: ssl.SSLContext | None) -> None:
        self._origin, self._limits, self._tls = origin, limits, tls
        self._loop = asyncio.get_running_loop()

    async def run(self) -> ClientConnection:
        addresses = await self._addresses()
        if len(addresses) == 1:
            return await self._open(addresses[0])
        is_local = all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in addresses)
        return await self._race(addresses, None if is_local else _HEAD_START_SECONDS)

    async def _addresses(self) -> list[str]:
        """Of the host; families take turns, so that one that does not work costs one head start."""
        host = self._origin.host
        try:
            return [str(ipaddress.ip_address(host))]
        except ValueError:
            pass
        found = await self._loop.getaddrinfo(host, self._origin.port, type=socket.SOCK_STREAM)
        ordered = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        first = [address for address in ordered if (":" in address) == (":" in ordered[0])]
        second = [address for address in ordered if address not in first]
        for index, address in enumerate(second):
            first.insert(2 * index + 1, address)
        return first

    async def _open(self, address: str) -> ClientConnection:
        origin = self._origin
        _, protocol = await self._loop.create_connection(
            lambda: cast("asyncio.Protocol", ClientConnection(origin, self._limits, self._loop)),
            address,
            origin.port,
            ssl=self._tls,
            server_hostname=None if self._tls is None else origin.host,
        )
        return cast("ClientConnection", protocol)

    async def _race(self, addresses: list[str], head_start: float | None) -> ClientConnection:
        """The first address that answers; the next is tried when one fails, or after a head start."""
        waiting = list(addresses)
        running: set[asyncio.Task[ClientConnection]] = set()
        error: OSError | None = None
        try:
            while waiting or running:
                if waiting:
                    running.add(self._loop.create_task(self._open(waiting.pop(0))))
                done, running = await asyncio.wait(
                    running, timeout=head_start if waiting else None, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    failure = task.exception()
                    if failure is None:
                        running |= done - {task}  # to be closed, should two have come at once
                        return task.result()
                    if not isinstance(failure, OSError):
                        raise failure
                    error = error or failure
        finally:
            await _give_up(running)
        raise error or OSError("the name has no address")


async def _give_up(tasks: set[asyncio.Task[ClientConnection]]) -> None:
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, ClientConnection):
            result.close()


def _why(error: OSError, seconds: float) -> str:
    if isinstance(error, TimeoutError) and error.errno is None:
        return f"no connection within {seconds:g} s"
    if isinstance(error, socket.gaierror):
        return f"the name cannot be resolved ({error.strerror})"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({getattr(error, 'reason', '') or error})"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there (connection refused)"
    return error.strerror or str(error) or type(error).__name__
