"""Serve over one stream in each direction: standard input and output, or HTTP+SSE of 2024-11-05.

Knows: the SDK's transports, and gates that answer a message before the server sees it. Does not know: what the server holds.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
from mcp.server.lowlevel import Server
from mcp.server.sse import SseServerTransport
from mcp.server.stdio import stdio_server
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCRequest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount, Route

Gate = Callable[[JSONRPCRequest], JSONRPCRequest | JSONRPCError]
"""The request that the server is to see, or the error that is its answer."""

LOOPBACK = ["127.0.0.1:*", "localhost:*", "[::1]:*"]


async def serve_stdio(server: Server[Any], gate: Gate) -> None:
    """Serve until standard input closes."""
    await _serve(server, stdio_server(), gate)


def sse_app(server: Server[Any], gate: Gate) -> Starlette:
    """`GET /sse` announces where to post to."""
    transport = SseServerTransport(
        "/messages/",
        security_settings=TransportSecuritySettings(
            enable_dns_rebinding_protection=True,
            allowed_hosts=LOOPBACK,
            allowed_origins=[f"http://{host}" for host in LOOPBACK],
        ),
    )

    async def stream(request: Any) -> Response:
        await _serve(server, transport.connect_sse(request.scope, request.receive, request._send), gate)
        return Response()

    return Starlette(
        routes=[Route("/sse", endpoint=stream, methods=["GET"]), Mount("/messages/", app=transport.handle_post_message)]
    )


async def _serve(server: Server[Any], transport: AbstractAsyncContextManager[Any], gate: Gate) -> None:
    async with transport as (arriving, leaving), anyio.create_task_group() as group:
        passed_on, passed = anyio.create_memory_object_stream[Any]()

        async def pass_on() -> None:
            async with passed_on:
                async for item in arriving:
                    request = item.message if isinstance(item, SessionMessage) else None
                    judged = gate(request) if isinstance(request, JSONRPCRequest) else None
                    if isinstance(judged, JSONRPCError):
                        await leaving.send(SessionMessage(judged))
                    else:
                        await passed_on.send(item if judged is None else SessionMessage(judged, item.metadata))

        group.start_soon(pass_on)
        await server.run(passed, leaving, server.create_initialization_options())
        group.cancel_scope.cancel()
