"""Requests to servers: connecting, and a small client for programs that make few of them.

Knows: names, addresses, TLS, a list of idle connections per origin. Does not know: MCP, pools with bounds and checks (that
is `upstreams/pool.py`), redirects and proxies (neither is followed).
"""

import asyncio
import ssl

from penstock.http.client_connection import ClientConnection, OnEvent
from penstock.http.client_messages import BadResponse, ConnectionLost, RequestFailed, Response, ResponseTooLarge
from penstock.http.client_url import Origin, parse_url
from penstock.http.limits import ClientLimits

__all__ = [
    "BadResponse",
    "ClientConnection",
    "ConnectionLost",
    "OnEvent",
    "Origin",
    "RequestFailed",
    "Response",
    "ResponseTooLarge",
    "connect",
    "parse_url",
]


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
    """
    loop = asyncio.get_running_loop()
    seconds = limits.connect_seconds if deadline_seconds is None else min(deadline_seconds, limits.connect_seconds)
    if origin.scheme == "https" and tls is None:
        raise ValueError(f"{origin}: https needs a TLS context")
    context = tls if origin.scheme == "https" else None
    try:
        async with asyncio.timeout(seconds):
            _, connection = await loop.create_connection(
                lambda: ClientConnection(origin, limits, loop),
                origin.host,
                origin.port,
                ssl=context,
                server_hostname=origin.host if context is not None else None,
            )
    except OSError as error:
        raise ConnectionLost(f"cannot connect to {origin}: {error}", unprocessed=True) from error
    return connection
