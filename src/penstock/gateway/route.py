"""Where a call goes: decided when the snapshot is built, looked up when the call comes.

Knows: hosted servers, policies, cells. Does not know: HTTP, eras, how views name things.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec

from penstock.gateway.hosting import HostedServer
from penstock.gateway.pipeline import fold, fold_start
from penstock.policies.interface import Handle, Policy, Start
from penstock.protocol.param_headers import ParamHeader
from penstock.telemetry.cells import Cell, CellRegistry
from penstock.upstreams.interface import QuickUpstream

UNLISTED: Final = "(unlisted)"
"""Label of calls to names no list holds, so that clients cannot invent metrics."""


class Way(NamedTuple):
    """A server's folded pipeline, shared by all its routes."""

    server: HostedServer
    handle: Handle
    start: Start | None


class Route:
    """One name of one server, with its folded pipeline."""

    __slots__ = ("cell", "handle", "method", "name", "name_json", "param_headers", "server", "start")

    def __init__(
        self,
        server: HostedServer,
        method: str,
        name: str,
        way: "Way",
        cell: Cell,
        param_headers: tuple[ParamHeader, ...] | None = None,
    ) -> None:
        self.server: Final = server
        self.method: Final = method
        self.name: Final = name
        """The server's own name, or the URI."""
        self.name_json: Final = msgspec.Raw(msgspec.json.encode(name))
        self.handle: Final = way.handle
        self.start: Final = way.start
        """Sends a call at once where that is possible; None where it never is."""
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
        self._ways: dict[str, Way] = {}

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
        return Route(server, method, name, self._way_to(server), cell, param_headers)

    def _way_to(self, server: HostedServer) -> Way:
        known = self._ways.get(server.name)
        if known is None or known.server is not server:
            policies, upstream = self._policies_of(server), server.upstream
            start = fold_start(policies, upstream.start) if isinstance(upstream, QuickUpstream) else None
            known = self._ways[server.name] = Way(server, fold(policies, upstream.call), start)
        return known

    def forget(self, servers: set[str]) -> None:
        """Let go of what was folded for servers that are gone."""
        for name in servers:
            self._ways.pop(name, None)
