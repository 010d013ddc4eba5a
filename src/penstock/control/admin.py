"""The admin port: what operators and the other verbs ask of a running gateway.

Knows: the gateway's state, JSON answers. Does not know: how a configuration is read (it is handed `reload`), sockets. Loopback
by default; `Host` and `Origin` are judged as on the data port, and what changes anything takes POST with a JSON body, so that no
web page can do it behind a user's back.
"""

import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qs, unquote

import msgspec

from penstock.control.explaining import explain_tool
from penstock.errors import PenstockError
from penstock.gateway.admittance import Admittance
from penstock.gateway.gateway import Gateway
from penstock.gateway.hosting import HostedServer
from penstock.gateway.listing import PROMPTS, RESOURCES, TEMPLATES, TOOLS
from penstock.http.server import Exchange
from penstock.telemetry.exposition import CONTENT_TYPE, Gauge, merged, render

_log = logging.getLogger(__name__)
_MAX_LOG_LINES: Final = 1_000


class Reloaded(msgspec.Struct, frozen=True):
    """What a reload did."""

    generation: int
    changes: list[str]


class Admin:
    """The admin port's handler."""

    def __init__(
        self,
        gateway: Gateway,
        *,
        admittance: Admittance,
        reload: Callable[[], Awaitable[Reloaded]],
        disabled: Callable[[], dict[str, str]],
        gauges: tuple[Gauge, ...],
        siblings: Callable[[], Awaitable[list[bytes]]] | None = None,
    ) -> None:
        """`siblings`: gives the metrics of the other workers, where there are any."""
        self._gateway = gateway
        self._admittance = admittance
        self._reload = reload
        self._disabled = disabled
        """Names and targets of servers that are configured but not enabled."""
        self._gauges = gauges
        self._siblings = siblings
        self._pages: dict[str, Callable[[dict[str, str]], dict[str, Any]]] = {
            "/api/v1/servers": lambda _query: self.servers(),
            "/api/v1/tools": self._tools,
            "/api/v1/explain": self._explain,
            "/health/detailed": lambda _query: self._health(),
        }

    def __repr__(self) -> str:
        return f"<Admin of {self._gateway!r}>"

    def __call__(self, exchange: Exchange) -> None:
        request = exchange.request
        refusal = self._admittance.refusal(request.headers)
        if refusal is not None:
            _answer(exchange, 403, {"error": refusal})
        elif request.path == "/api/v1/reload":
            self._start_reload(exchange)
        elif request.method not in {b"GET", b"HEAD"}:
            _answer(exchange, 405, {"error": "expected GET"})
        elif request.path == "/metrics":
            if self._siblings is None:
                exchange.respond(200, self.metrics(), CONTENT_TYPE)
            else:
                exchange.spawn(self._answer_merged(exchange, self._siblings))
        else:
            self._page(exchange)

    def metrics(self) -> bytes:
        """This worker's own."""
        return render(self._gateway.cells, self._gauges)

    async def _answer_merged(self, exchange: Exchange, siblings: Callable[[], Awaitable[list[bytes]]]) -> None:
        exchange.respond(200, merged([self.metrics(), *await siblings()]), CONTENT_TYPE)

    def servers(self) -> dict[str, Any]:
        """Each server with its state and what it offers, in configuration order; then those that are switched off."""
        snapshot = self._gateway.context.snapshot
        rows = [describe_server(server) for server in snapshot.servers.values()]
        rows += [_disabled_row(name, target) for name, target in self._disabled().items()]
        return {"generation": snapshot.generation, "servers": rows, "duplicates": list(snapshot.duplicates)}

    def _page(self, exchange: Exchange) -> None:
        path = exchange.request.path
        query = {key: values[-1] for key, values in parse_qs(exchange.request.query.decode("latin-1")).items()}
        page = self._pages.get(path)
        if page is None and path.startswith("/api/v1/servers/") and path.endswith("/log"):
            name = unquote(path.removeprefix("/api/v1/servers/").removesuffix("/log"))
            page = lambda asked: self._log(name, asked)  # noqa: E731  # one page for each server, made when asked for
        try:
            body = page(query) if page is not None else None
        except LookupError as error:
            _answer(exchange, 404, {"error": str(error.args[0])})
            return
        except ValueError as error:
            _answer(exchange, 400, {"error": f"a query parameter is no number: {error}"})
            return
        if body is None:
            _answer(exchange, 404, {"error": "not found"})
        else:
            _answer(exchange, 200, body)

    def _log(self, name: str, query: dict[str, str]) -> dict[str, Any]:
        server = self._gateway.context.snapshot.servers.get(name)
        if server is None and name in self._disabled():
            raise LookupError(f"server '{name}' is disabled; 'penstock enable {name}' switches it on")
        if server is None:
            raise LookupError(f"there is no server '{name}'; 'penstock list' shows those there are")
        after = query.get("after")
        total = server.upstream.state().get("stderr_lines")
        if total is None:  # several children: their lines stand in groups, and have no common count
            total = len(server.upstream.recent_log(_MAX_LOG_LINES))
        wanted = total - int(after) if after is not None else int(query.get("lines", "100"))
        lines = server.upstream.recent_log(min(wanted, _MAX_LOG_LINES))
        return {"lines": lines, "cursor": total, "transport": server.settings.transport}

    def _tools(self, query: dict[str, str]) -> dict[str, Any]:
        words = query.get("q", "").lower().split()
        snapshot = self._gateway.context.snapshot
        defined = {server.name: _tools_of(server) for server in snapshot.servers.values()}
        found = []
        for exposed, route in snapshot.endpoints["/mcp"].routes["tools/call"].items():
            tool = _decoded(defined[route.server.name].get(route.name))
            text = f"{exposed} {tool.get('title', '')} {tool.get('description', '')}".lower()
            if all(word in text for word in words):
                found.append(
                    {
                        "name": exposed,
                        "server": route.server.name,
                        "own_name": route.name,
                        "title": tool.get("title"),
                        "description": tool.get("description"),
                        "input_schema": tool.get("inputSchema"),
                    }
                )
        return {"tools": found}

    def _explain(self, query: dict[str, str]) -> dict[str, Any]:
        return explain_tool(self._gateway, query.get("tool", ""))

    def _health(self) -> dict[str, Any]:
        snapshot = self._gateway.context.snapshot
        states = {server.name: server.state for server in snapshot.servers.values()}
        return {
            "status": "ok" if all(state == "ready" for state in states.values()) else "degraded",
            "generation": snapshot.generation,
            "servers": states,
            "calls_in_flight": self._gateway.calls_in_flight,
            "sessions": len(self._gateway.context.sessions),
        }

    def _start_reload(self, exchange: Exchange) -> None:
        request = exchange.request
        if request.method != b"POST" or not request.headers.get(b"content-type", b"").startswith(b"application/json"):
            _answer(exchange, 405, {"error": "expected POST with content-type application/json"})
            return
        exchange.spawn(self._answer_reload(exchange))

    async def _answer_reload(self, exchange: Exchange) -> None:
        try:
            done = await self._reload()
        except PenstockError as error:
            _answer(exchange, 422, {"error": error.message})
        else:
            _answer(exchange, 200, msgspec.to_builtins(done))


def describe_server(server: HostedServer) -> dict[str, Any]:
    """One server's row in `list`."""
    state = server.upstream.state()
    listing = server.listing
    listed_at = datetime.fromtimestamp(listing.listed_at, UTC).isoformat(timespec="seconds") if listing else None
    counts = {
        name: len(listing.items(kind)) if listing else 0
        for name, kind in (("tools", TOOLS), ("prompts", PROMPTS), ("resources", RESOURCES), ("templates", TEMPLATES))
    }
    return {
        "name": server.name,
        "state": server.state,
        "transport": server.settings.transport,
        "target": server.settings.target,
        "eras": state["eras"],
        **counts,
        "error": server.failure.message if server.failure else None,
        "listed_at": listed_at,
        "stale": server.is_stale,
        "detail": state,
    }


def _disabled_row(name: str, target: str) -> dict[str, Any]:
    counts = dict.fromkeys(("tools", "prompts", "resources", "templates"), 0)
    row = {"name": name, "state": "disabled", "transport": "", "target": target, "eras": [], **counts}
    return row | {"error": None, "listed_at": None, "stale": False, "detail": {}}


def _tools_of(server: HostedServer) -> dict[str, msgspec.Raw]:
    return {item.key: item.raw for item in server.listing.items(TOOLS)} if server.listing is not None else {}


def _decoded(definition: msgspec.Raw | None) -> dict[str, Any]:
    """A tool's definition; empty when the listing has changed since the snapshot was built."""
    tool: dict[str, Any] = msgspec.json.decode(definition) if definition is not None else {}
    return tool


def _answer(exchange: Exchange, status: int, body: dict[str, Any]) -> None:
    exchange.respond(status, msgspec.json.encode(body))
