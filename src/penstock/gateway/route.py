"""Where a call goes: decided when the snapshot is built, looked up when the call comes.

Knows: hosted servers, policies, cells. Does not know: HTTP, eras, how views name things.
"""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from penstock.gateway.hosting import HostedServer
from penstock.gateway.pipeline import fold
from penstock.policies.interface import Handle, Policy
from penstock.protocol.param_headers import ParamHeader
from penstock.telemetry.cells import Cell, CellRegistry

UNLISTED: Final = "(unlisted)"
"""Label of calls to names no list holds, so that clients cannot invent metrics."""


class Route:
    """One name of one server, with its folded pipeline."""

    __slots__ = ("cell", "handle", "method", "name", "name_json", "param_headers", "server")

    def __init__(
        self,
        server: HostedServer,
        method: str,
        name: str,
        handle: Handle,
        cell: Cell,
        param_headers: tuple[ParamHeader, ...] | None = None,
    ) -> None:
        self.server: Final = server
        self.method: Final = method
        self.name: Final = name
        """The server's own name, or the URI."""
        self.name_json: Final = msgspec.Raw(msgspec.json.encode(name))
        self.handle: Final = handle
        self.cell: Final = cell
        self.param_headers: Final = param_headers
        """`Mcp-Param-*` headers to hold against the arguments here, where the server cannot; None for nearly all tools."""

    def __repr__(self) -> str:
        return f"<Route {self.method} {self.server.name} {self.name}>"


class RouteMaker:
    """Makes routes; all routes of a server share one folded pipeline."""

    def __init__(self, cells: CellRegistry, policies_of: Callable[[HostedServer], Sequence[Policy]]) -> None:
        self._cells = cells
        self._policies_of = policies_of
        self._handles: dict[str, tuple[HostedServer, Handle]] = {}

    def make(
        self,
        server: HostedServer,
        method: str,
        name: str,
        *,
        listed: bool = True,
        param_headers: tuple[ParamHeader, ...] | None = None,
    ) -> Route:
        label = name if listed else UNLISTED
        if method != "tools/call":
            label = ""  # prompts and URIs are too many to count one by one
        cell = self._cells.cell(server.name, method, label)
        return Route(server, method, name, self._handle_of(server), cell, param_headers)

    def _handle_of(self, server: HostedServer) -> Handle:
        known = self._handles.get(server.name)
        if known is None or known[0] is not server:
            known = self._handles[server.name] = (server, fold(self._policies_of(server), server.upstream.call))
        return known[1]

    def forget(self, servers: set[str]) -> None:
        """Let go of what was folded for servers that are gone."""
        for name in servers:
            self._handles.pop(name, None)
