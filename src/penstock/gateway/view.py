"""A named selection of servers with its own endpoint: who is found under which name, and what its lists say.

Knows: routes, prepared lists. Does not know: HTTP, eras of the caller, how it came to be (`snapshot.py` builds it).
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from penstock.gateway.hosting import HostedServer
from penstock.gateway.known_call import KnownCalls
from penstock.gateway.listing import KINDS
from penstock.gateway.prepared import PreparedList
from penstock.gateway.route import Route, RouteMaker
from penstock.protocol.uri_templates import matches


class Identity(msgspec.Struct, frozen=True):
    """What a view says of itself in `server/discover` and `initialize`; raw JSON ready to splice."""

    server_info: bytes
    capabilities: bytes
    """For legacy clients."""
    modern_capabilities: bytes
    instructions: str
    has_tasks: bool = False
    """Whether a server of the view has tasks of the modern era."""


class View:
    """One endpoint."""

    __slots__ = (
        "_filters",
        "_maker",
        "_templates",
        "identity",
        "known",
        "lists",
        "name",
        "own",
        "routes",
        "server_names",
        "servers",
    )

    def __init__(
        self,
        name: str,
        servers: Sequence[HostedServer],
        *,
        own: HostedServer | None,
        maker: RouteMaker,
        has_filters: bool,
        identity: Identity,
        routes: Mapping[str, dict[str, Route]],
        templates: Sequence[tuple[str, HostedServer]],
        lists: Mapping[str, PreparedList],
    ) -> None:
        self.name: Final = name
        """Empty for the default view."""
        self.servers: Final = tuple(servers)
        self.server_names: Final = frozenset(server.name for server in servers)
        self.own: Final = own
        """The server whose own view this is, with unprefixed names; None for a selection."""
        self.identity: Final = identity
        self.routes: Final = routes
        """Method, then exposed name or URI."""
        self.lists: Final = lists
        """Prepared lists by method."""
        self.known: Final = KnownCalls()
        """Calls that were judged under this view."""
        self._maker: Final = maker
        self._filters: Final = has_filters
        self._templates: Final = tuple(templates)

    def __repr__(self) -> str:
        counts = " ".join(f"{len(found)} {method}" for method, found in self.routes.items())
        return f"<View {self.name or '(all)'} {len(self.servers)} servers | {counts}>"

    def find(self, method: str, name: str) -> Route | None:
        """The route of a tool or prompt by its exposed name, or of a resource by its URI; None when nobody has it."""
        route = self.routes[method].get(name)
        if route is not None:
            return route
        return self._find_uri(method, name) if method == "resources/read" else self._find_unlisted(method, name)

    def changed_lists(self, later: "View") -> set[str]:
        """Capabilities whose lists differ in a later form of the view."""
        return {
            kind.capability
            for kind in KINDS
            if self.lists[kind.method].fingerprint != later.lists[kind.method].fingerprint
        }

    def ttl_ms(self, method: str, wall: float) -> int:
        """For how long the view's list is fresh: as long as the first of its parts to grow old."""
        least = 2**53
        for server in self.servers:
            if server.listing is not None and method in server.listing.lists:
                age_ms = int((wall - server.listing.listed_at) * 1000)
                least = min(least, server.listing.lists[method].ttl_ms - max(0, age_ms))
        return max(0, least) if least < 2**53 else 0

    def task_route(self, method: str, server: HostedServer, name: str) -> Route:
        """The route of a request about a task; `name` is how the server knows the task."""
        return self._maker.make(server, method, name, listed=False)

    def find_template(self, template: str) -> Route | None:
        """The route of a `ref/resource` completion: the server that listed the template, or serves the URI."""
        for listed, server in self._templates:
            if listed == template:
                return self._maker.make(server, "completion/complete", template)
        return self._find_uri("completion/complete", template)

    def _find_uri(self, method: str, uri: str) -> Route | None:
        for template, server in self._templates:
            if matches(template, uri):
                return self._maker.make(server, method, uri)
        return self._maker.make(self.own, method, uri, listed=False) if self.own is not None else None

    def _find_unlisted(self, method: str, name: str) -> Route | None:
        """Names a server has not listed (yet) are for the server to judge; a filtered view shows only what it selects."""
        if self.own is not None:
            return self._maker.make(self.own, method, name, listed=False)
        if self._filters:
            return None
        prefix, separator, own_name = name.partition("_")
        if not separator or not own_name:
            return None
        for server in self.servers:
            if server.name == prefix:
                return self._maker.make(server, method, own_name, listed=False)
        return None
