"""What one server offers: its lists and what it says of itself, fetched and kept.

Knows: the list methods, pagination, an `Upstream`. Does not know: views, prefixes, other servers.

Bounds: 100 pages and 10,000 items a list; a server that repeats a cursor is cut off there.
"""

import asyncio
from typing import Final

import msgspec

from penstock.errors import ServerError, ServerMisbehaved
from penstock.protocol.versions import Era
from penstock.upstreams.calls import PENSTOCK, Call, Failure
from penstock.upstreams.interface import Description, Upstream

MAX_PAGES: Final = 100
MAX_ITEMS: Final = 10_000


class ListKind(msgspec.Struct, frozen=True):
    """One of the four lists: where it comes from and what its items are called."""

    method: str
    field: str
    """Key of the items in the result."""
    key: str
    """Field of an item that identifies it."""
    capability: str


TOOLS: Final = ListKind("tools/list", "tools", "name", "tools")
PROMPTS: Final = ListKind("prompts/list", "prompts", "name", "prompts")
RESOURCES: Final = ListKind("resources/list", "resources", "uri", "resources")
TEMPLATES: Final = ListKind("resources/templates/list", "resourceTemplates", "uriTemplate", "resources")
KINDS: Final = (TOOLS, PROMPTS, RESOURCES, TEMPLATES)
KIND_OF: Final = {kind.method: kind for kind in KINDS}


class Item(msgspec.Struct, frozen=True):
    """One tool, prompt, resource or template."""

    key: str
    raw: msgspec.Raw
    """Its JSON object as the server sent it, owned."""


class ItemList(msgspec.Struct, frozen=True):
    """One complete list, all pages joined."""

    items: tuple[Item, ...] = ()
    ttl_ms: int = 0
    public: bool = False
    """Whether the server allows it to be shared between principals."""


class Listing(msgspec.Struct, frozen=True):
    """All a server offers, at one moment."""

    description: Description
    lists: dict[str, ItemList]
    """By method; a list whose capability the server lacks is absent."""
    listed_at: float
    """Seconds since 1970."""

    def items(self, kind: ListKind) -> tuple[Item, ...]:
        found = self.lists.get(kind.method)
        return found.items if found is not None else ()

    def same_as(self, other: "Listing") -> bool:
        """Whether clients would see no difference."""
        return self.description == other.description and self.lists == other.lists

    @property
    def fresh_seconds(self) -> float:
        """How long the server itself calls its shortest-lived list fresh."""
        return min((found.ttl_ms for found in self.lists.values()), default=0) / 1000


class _Page(msgspec.Struct):
    """The part of a list result that is ours to read."""

    nextCursor: str | None = None  # the wire's name
    ttlMs: float = 0
    cacheScope: str = "private"


_decode_page: Final = msgspec.json.Decoder(_Page).decode
_decode_items: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_list: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_capabilities: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_ITEM_KEY: Final = {
    key: msgspec.json.Decoder(msgspec.defstruct("ItemKey", [("key", str)], rename={"key": key})).decode
    for key in ("name", "uri", "uriTemplate")
}


def capabilities_of(description: Description) -> dict[str, msgspec.Raw]:
    """The server's capabilities by name; empty when what it sent is no object."""
    try:
        return _decode_capabilities(description.capabilities)
    except msgspec.DecodeError:
        return {}


class _ToolSchema(msgspec.Struct):
    inputSchema: msgspec.Raw = msgspec.Raw(b"{}")  # the wire's name


_decode_tool_schema: Final = msgspec.json.Decoder(_ToolSchema).decode


def input_schema_of(tool: Item) -> msgspec.Raw:
    """A tool's `inputSchema`; `{}` when it has none."""
    return _decode_tool_schema(tool.raw).inputSchema


async def fetch_listing(upstream: Upstream, *, wall: float, started_at: float) -> Listing:
    """Ask a server for everything it offers, its lists side by side.

    Raises:
        ServerError: it could not be reached or described. A single list that fails fails the listing: half a truth would
            silently take tools away from clients, while the last known good one keeps them.
    """
    description = await upstream.describe(PENSTOCK)
    capabilities = capabilities_of(description)
    kinds = [kind for kind in KINDS if kind.capability in capabilities]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_fetch_list(upstream, kind, started_at)) for kind in kinds]
    except (
        BaseExceptionGroup
    ) as failed:  # not `except*`: Pythons before 3.11.4 wrap what is raised there in a group again
        server_errors, others = failed.split(ServerError)
        if server_errors is None or others is not None:
            raise
        raise server_errors.exceptions[0] from None
    results = ((kind.method, task.result()) for kind, task in zip(kinds, tasks, strict=True))
    return Listing(description, {method: found for method, found in results if found is not None}, wall)


async def _fetch_list(upstream: Upstream, kind: ListKind, started_at: float) -> ItemList | None:
    """All pages of one list; None when the server does not know the method after all."""
    items: list[Item] = []
    seen: set[str] = set()
    cursor: str | None = None
    ttl_ms, public = 2**53, True
    for _ in range(MAX_PAGES):
        params = {} if cursor is None else {"cursor": msgspec.Raw(msgspec.json.encode(cursor))}
        answer = await upstream.call(Call(kind.method, params, caller=PENSTOCK, started_at=started_at))
        if isinstance(answer, Failure):
            if answer.code == -32601:
                return None
            raise ServerMisbehaved(upstream.name, f"{kind.method} failed: {answer.message[:200]} ({answer.code})")
        page = _read_page(upstream.name, kind, answer.raw, items)
        ttl_ms = min(ttl_ms, max(0, int(page.ttlMs))) if answer.era is Era.MODERN else 0
        public = public and page.cacheScope == "public"
        cursor = page.nextCursor
        if cursor is None or cursor in seen or len(items) >= MAX_ITEMS:
            break
        seen.add(cursor)
    return ItemList(tuple(items[:MAX_ITEMS]), ttl_ms, public)


def _read_page(server: str, kind: ListKind, raw: bytes, items: list[Item]) -> _Page:
    """Append a page's items; items that have no usable key are left out."""
    try:
        page = _decode_page(raw)
        entries = _decode_list(_decode_items(raw)[kind.field])
    except (msgspec.DecodeError, KeyError) as error:
        raise ServerMisbehaved(
            server, f"expected an object with a list '{kind.field}' from {kind.method}, got {raw[:80]!r}"
        ) from error
    key_of = _ITEM_KEY[kind.key]
    for entry in entries:
        owned = msgspec.Raw(bytes(entry))
        try:
            items.append(Item(key_of(owned).key, owned))  # type: ignore[attr-defined]
        except msgspec.DecodeError:
            continue
    return page
