"""Everything the call path needs, frozen and numbered: built beside the calls, swapped in with one reference.

Knows: hosted servers and their listings, view settings, names. Does not know: HTTP, who calls.
"""

import itertools
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

import msgspec

from penstock.gateway.hosting import HostedServer, LearnsTools
from penstock.gateway.listing import (
    KINDS,
    PROMPTS,
    RESOURCES,
    TEMPLATES,
    TOOLS,
    Item,
    ListKind,
    capabilities_of,
    input_schema_of,
)
from penstock.gateway.prepared import PreparedList
from penstock.gateway.route import Route, RouteMaker
from penstock.gateway.view import Identity, View
from penstock.identity.seal import Sealer
from penstock.protocol.methods import TASKS_EXTENSION
from penstock.protocol.names import prefixed_name
from penstock.protocol.param_headers import ANNOTATION as PARAM_ANNOTATION
from penstock.protocol.param_headers import Invalid, ParamHeader, param_header_rules
from penstock.protocol.subscriptions import LIST_CHANGED
from penstock.protocol.versions import Era

ANNOTATION: Final = PARAM_ANNOTATION.encode()
CALL_METHOD: Final = {TOOLS.method: "tools/call", PROMPTS.method: "prompts/get", RESOURCES.method: "resources/read"}
_NO_LISTING_YET: Final = b'{"tools":{"listChanged":true}}'
_CARRIED: Final = ("tools", "prompts", "resources", "completions", "logging")
"""Capabilities the gateway carries between all eras."""
_OWN_VIEW_ONLY: Final = ("experimental", "extensions")
_APPS: Final = "io.modelcontextprotocol/ui"
"""The one extension that needs nothing but tools and resources, so that it holds where several servers share a view."""


class ViewSettings(msgspec.Struct, frozen=True):
    """A selection someone wrote down."""

    name: str
    servers: tuple[str, ...]
    include: tuple[str, ...] = ()
    """Patterns over exposed names of tools and prompts; none means all."""
    exclude: tuple[str, ...] = ()


class Snapshot:
    """Views by path, and the servers behind them."""

    __slots__ = ("duplicates", "endpoints", "generation", "servers")

    def __init__(
        self,
        generation: int,
        endpoints: Mapping[str, View],
        servers: Mapping[str, HostedServer],
        duplicates: Sequence[str],
    ) -> None:
        self.generation: Final = generation
        self.endpoints: Final = endpoints
        """Request paths, with and without a slash at the end."""
        self.servers: Final = servers
        self.duplicates: Final = tuple(duplicates)
        """What more than one server offers, in words."""

    def __repr__(self) -> str:
        return f"<Snapshot {self.generation} | {len(self.servers)} servers, {len(self.endpoints) // 2} views>"


class SnapshotBuilder:
    """Turns servers and listings into snapshots; keeps what only numbers and seals them."""

    def __init__(self, maker: RouteMaker, sealer: Sealer, server_info: bytes) -> None:
        self._maker = maker
        self._sealer = sealer
        self._server_info = server_info
        self._generations = itertools.count(1)

    def build(self, servers: Mapping[str, HostedServer], views: Sequence[ViewSettings]) -> Snapshot:
        duplicates: list[str] = []
        endpoints: dict[str, View] = {}
        everything = ViewSettings("", tuple(servers))
        for server in servers.values():
            _add_endpoint(endpoints, self._build_view(ViewSettings(server.name, (server.name,)), [server], server, []))
        for settings in views:
            chosen = [servers[name] for name in settings.servers if name in servers]
            _add_endpoint(endpoints, self._build_view(settings, chosen, None, []))
        _add_endpoint(endpoints, self._build_view(everything, list(servers.values()), None, duplicates))
        return Snapshot(next(self._generations), endpoints, dict(servers), duplicates)

    def _build_view(
        self, settings: ViewSettings, servers: list[HostedServer], own: HostedServer | None, duplicates: list[str]
    ) -> View:
        identity = self._own_identity(own) if own is not None else self._joint_identity(servers)
        shown = {kind: _shown_items(kind, servers, settings, own is None, duplicates) for kind in KINDS}
        routes: dict[str, dict[str, Route]] = {"completion/complete": {}}
        for kind, method in CALL_METHOD.items():
            entries = shown[next(found for found in KINDS if found.method == kind)]
            routes[method] = {entry.exposed: self._route(entry, method) for entry in entries}
        return View(
            settings.name,
            servers,
            own=own,
            maker=self._maker,
            has_filters=bool(settings.exclude) or settings.include not in ((), ("*",)),
            identity=identity,
            routes=routes,
            templates=[(entry.key, entry.server) for entry in shown[TEMPLATES]],
            lists={kind.method: self._prepare(kind, shown[kind], servers, settings.name, identity) for kind in KINDS},
        )

    def _route(self, entry: "_Shown", method: str) -> Route:
        rules = _headers_to_check(entry) if method == "tools/call" and ANNOTATION in entry.raw else None
        return self._maker.make(entry.server, method, entry.key, param_headers=rules)

    def _prepare(
        self, kind: ListKind, shown: list["_Shown"], servers: list[HostedServer], view: str, identity: Identity
    ) -> PreparedList:
        parts = [server.listing.lists[kind.method] for server in servers if server.listing and _has_list(server, kind)]
        return PreparedList(
            kind,
            [entry.raw for entry in shown],
            view=view,
            public=bool(parts) and all(found.public for found in parts),
            server_info=identity.server_info,
            sealer=self._sealer,
        )

    def _own_identity(self, server: HostedServer) -> Identity:
        if server.listing is None:
            return Identity(self._server_info, _NO_LISTING_YET, _NO_LISTING_YET, "")
        said = server.listing.description
        capabilities = capabilities_of(said)
        kept = _carried(capabilities, _CARRIED + _OWN_VIEW_ONLY)
        return _identity(server.server_info or self._server_info, kept, said.instructions, server.has_tasks)

    def _joint_identity(self, servers: list[HostedServer]) -> Identity:
        union: dict[str, Any] = {}
        instructions = []
        for server in servers:
            if server.listing is None:
                continue
            said = server.listing.description
            for name, value in _carried(capabilities_of(said), _CARRIED).items():
                union[name] = union.get(name, {}) | _streamed(name, value)
            if said.instructions:
                instructions.append(f"# {server.name}\n\n{said.instructions}")
            apps = _carried(capabilities_of(said), ("extensions",)).get("extensions", {})
            if isinstance(apps, dict) and _APPS in apps:
                union.setdefault("extensions", {}).setdefault(_APPS, apps[_APPS])
        if not union:
            return Identity(self._server_info, _NO_LISTING_YET, _NO_LISTING_YET, "\n\n".join(instructions))
        has_tasks = any(server.has_tasks for server in servers)
        return _identity(self._server_info, union, "\n\n".join(instructions), has_tasks)


class _Shown(msgspec.Struct, frozen=True):
    """An item as one view shows it."""

    server: HostedServer
    key: str
    exposed: str
    raw: bytes


def _shown_items(
    kind: ListKind, servers: list[HostedServer], settings: ViewSettings, prefixed: bool, duplicates: list[str]
) -> list[_Shown]:
    """In configuration order, then each server's own; of duplicates the first is shown."""
    taken: dict[str, str] = {}
    shown = []
    for server in servers:
        if server.listing is None:
            continue
        for item in server.listing.items(kind):
            rename = prefixed and kind.key == "name"
            exposed = prefixed_name(server.name, item.key) if rename else item.key
            if kind.key == "name" and not _is_selected(exposed, settings):
                continue
            if exposed in taken:
                duplicates.append(f"{kind.field} '{exposed}': '{taken[exposed]}' is used, '{server.name}' is not")
                continue
            taken[exposed] = server.name
            raw = _renamed(item.raw, exposed) if rename else bytes(item.raw)
            shown.append(_Shown(server, item.key, exposed, raw))
    return shown


def _headers_to_check(tool: _Shown) -> tuple[ParamHeader, ...] | None:
    """The rules of a tool whose server never sees the client's headers: one of the legacy era, or one not reached over HTTP."""
    server = tool.server
    if server.listing is None or (
        Era.MODERN in server.listing.description.eras and isinstance(server.upstream, LearnsTools)
    ):
        return None
    rules = param_header_rules(input_schema_of(Item(tool.key, msgspec.Raw(tool.raw))))
    return None if isinstance(rules, Invalid) else rules or None


def _is_selected(exposed: str, settings: ViewSettings) -> bool:
    if settings.include and not any(fnmatchcase(exposed, pattern) for pattern in settings.include):
        return False
    return not any(fnmatchcase(exposed, pattern) for pattern in settings.exclude)


def _renamed(raw: msgspec.Raw, name: str) -> bytes:
    fields = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    fields["name"] = msgspec.Raw(msgspec.json.encode(name))
    return msgspec.json.encode(fields)


def _carried(capabilities: dict[str, msgspec.Raw], names: Sequence[str]) -> dict[str, Any]:
    """The capabilities of those names; of lists clients are told when they change, whether the server tells us or not."""
    kept: dict[str, Any] = {}
    for name in names:
        if name not in capabilities:
            continue
        value = msgspec.json.decode(capabilities[name])
        if isinstance(value, dict):
            value |= _streamed(name, value)
            if name == "extensions":
                value = {key: inner for key, inner in value.items() if key != TASKS_EXTENSION}
        kept[name] = value
    return kept


def _identity(server_info: bytes, carried: dict[str, Any], instructions: str, has_tasks: bool) -> Identity:
    """Of tasks of the modern era only modern clients are told."""
    legacy = modern = msgspec.json.encode(carried)
    if has_tasks:
        extensions = carried.get("extensions")
        named = (extensions if isinstance(extensions, dict) else {}) | {TASKS_EXTENSION: {}}
        modern = msgspec.json.encode(carried | {"extensions": named})
    return Identity(server_info, legacy, modern, instructions, has_tasks)


def _streamed(name: str, value: Any) -> dict[str, bool]:
    """What is said on streams beside the calls."""
    told = {"listChanged": True} if name in LIST_CHANGED else {}
    return told | ({"subscribe": True} if isinstance(value, dict) and value.get("subscribe") is True else {})


def _has_list(server: HostedServer, kind: ListKind) -> bool:
    return server.listing is not None and kind.method in server.listing.lists


def _add_endpoint(endpoints: dict[str, View], view: View) -> None:
    path = f"/mcp/{view.name}" if view.name else "/mcp"
    endpoints[path] = endpoints[path + "/"] = view
