"""The admin port: what operators and the other verbs ask of a running gateway.

Knows: the gateway's state, JSON answers. Does not know: how a configuration is read (it is handed `reload`), sockets. Loopback
by default; `Host` and `Origin` are judged as on the data port, and what changes anything takes POST with a JSON body, so that no
web page can do it behind a user's back.
"""

import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qs, unquote

import msgspec

from penstock.control.explaining import explain_tool
from penstock.control.worker_pages import Refusal, Siblings, WorkerPages
from penstock.errors import PenstockError
from penstock.gateway.admittance import Admittance
from penstock.gateway.gateway import Gateway
from penstock.gateway.hosting import HostedServer
from penstock.gateway.listing import PROMPTS, RESOURCES, TEMPLATES, TOOLS
from penstock.http.server import Exchange
from penstock.telemetry.exposition import CONTENT_TYPE, Gauge

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
        refusal: Callable[[], Refusal | None] = lambda: None,
        siblings: Siblings | None = None,
    ) -> None:
        """`refusal`: of the newest configuration, while it is not taken up."""
        self._gateway = gateway
        self._admittance = admittance
        self._reload = reload
        self._disabled = disabled
        """Names and targets of servers that are configured but not enabled."""
        self._refusal = refusal
        self._workers = WorkerPages(gateway, gauges, refusal, siblings)
        self.own_page: Final = self._workers.own
        """Takes path and query; gives what this worker tells the others of itself."""
        self._pages: dict[str, Callable[[dict[str, str]], Awaitable[dict[str, Any]]]] = {
            "/api/v1/servers": self._servers,
            "/api/v1/tools": self._tools,
            "/api/v1/explain": self._explain,
            "/health/detailed": self._health,
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
            exchange.spawn(self._answer_metrics(exchange))
        else:
            exchange.spawn(self._answer_page(exchange))

    async def _answer_metrics(self, exchange: Exchange) -> None:
        exchange.respond(200, await self._workers.metrics(), CONTENT_TYPE)

    async def _servers(self, query: dict[str, str]) -> dict[str, Any]:
        """Each server with its state and what it offers, in configuration order; then those that are switched off."""
        if query.get("ask_failed"):
            await self._gateway.catalogue.look_again()
        snapshot = self._gateway.context.snapshot
        rows = [describe_server(server) for server in snapshot.servers.values()]
        rows += [_disabled_row(name, target) for name, target in self._disabled().items()]
        return {
            "generation": snapshot.generation,
            "servers": rows,
            "duplicates": list(snapshot.duplicates),
            "configuration": _configuration(self._refusal()),
        }

    async def _answer_page(self, exchange: Exchange) -> None:
        path = exchange.request.path
        query = {key: values[-1] for key, values in parse_qs(exchange.request.query.decode("latin-1")).items()}
        page = self._pages.get(path)
        if page is None and path.startswith("/api/v1/servers/") and path.endswith("/log"):
            name = unquote(path.removeprefix("/api/v1/servers/").removesuffix("/log"))
            page = partial(self._log, name)  # one page for each server, made when asked for
        try:
            body = await page(query) if page is not None else None
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

    async def _log(self, name: str, query: dict[str, str]) -> dict[str, Any]:
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

    async def _tools(self, query: dict[str, str]) -> dict[str, Any]:
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

    async def _explain(self, query: dict[str, str]) -> dict[str, Any]:
        return await explain_tool(self._gateway, self._workers, query.get("tool", ""))

    async def _health(self, _query: dict[str, str]) -> dict[str, Any]:
        health = await self._workers.health()
        is_ok = health.workers == self._workers.workers and health.refusal is None
        return {
            "status": "ok" if is_ok and all(state == "ready" for state in health.servers.values()) else "degraded",
            "generation": self._gateway.context.snapshot.generation,
            "configuration": _configuration(health.refusal),
            "workers": {"configured": self._workers.workers, "answering": health.workers},
            "servers": health.servers,
            "calls_in_flight": health.calls_in_flight,
            "sessions": health.sessions,
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
        "listed_at": _time(listing.listed_at) if listing else None,
        "stale": server.is_stale,
        "detail": state,
    }


def _configuration(refusal: Refusal | None) -> dict[str, Any]:
    """Whether the file as it is now is what is served."""
    if refusal is None:
        return {"taken_up": True}
    return {"taken_up": False, "refused_at": _time(refusal.at), "error": refusal.reason}


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


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
