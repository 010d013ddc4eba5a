"""Why a tool is where it is: `penstock explain`.

Knows: snapshot, routes, cells. Does not know: HTTP.
"""

from difflib import get_close_matches
from typing import Any, Final

from penstock.clock import Clock
from penstock.control.worker_pages import Calls, WorkerPages
from penstock.gateway.gateway import Gateway
from penstock.gateway.hosting import HostedServer
from penstock.gateway.route import Route
from penstock.gateway.view import View
from penstock.telemetry.histogram import Histogram

MAX_NEAR: Final = 5
_NOT_ASKED: Final = "not known yet: the server is asked at the first such call"


async def explain_tool(gateway: Gateway, workers: WorkerPages, name: str) -> dict[str, Any]:
    """Route, era on each edge, sessions, bounds, what its calls cost and the last error.

    Raises:
        LookupError: no server has the tool; the message names near ones.
    """
    snapshot = gateway.context.snapshot
    tools = snapshot.endpoints["/mcp"].routes["tools/call"]
    route = tools.get(name) or _unique_bare(tools, name)
    if route is None:
        near = [exposed for exposed in tools if name and name in exposed][:MAX_NEAR] or get_close_matches(
            name, tools, MAX_NEAR
        )
        down = [
            f"; server {one.name!r} is {one.state}{_why(one)}"
            for one in snapshot.servers.values()
            if _could_have(one, name)
        ]
        raise LookupError(f"no tool is named '{name}'" + (f"; near: {', '.join(near)}" if near else "") + "".join(down))
    server = route.server
    exposed = next(key for key, found in tools.items() if found is route)
    state = server.upstream.state()
    calls = await workers.calls(route.cell)
    return {
        "tool": exposed,
        "own_name": route.name,
        "server": server.name,
        "state": server.state,
        "transport": server.settings.transport,
        "target": server.settings.target,
        "endpoints": {
            path: there
            for path, view in sorted(snapshot.endpoints.items())
            if not path.endswith("/") and (there := _name_in(view, route))
        },
        "eras": {
            "server": state["eras"],
            "modern_client": state["spoken_with"]["modern"] or _NOT_ASKED,
            "legacy_client": state["spoken_with"]["legacy"] or _NOT_ASKED,
        },
        "list_is_stale": server.is_stale,
        "deadline": {
            "without_progress_seconds": server.settings.deadline.idle_seconds,
            "in_all_seconds": server.settings.deadline.total_seconds,
        },
        "pipeline": ["deadline", "forward"],
        "calls": {
            "outcomes": calls.outcomes,
            "overhead_ms": _quantiles(calls.overhead.histogram()),
            "upstream_ms": _quantiles(calls.upstream.histogram()),
        },
        "last_error": server.failure.message if server.failure else _last_error(calls, state, gateway.context.clock),
        "server_detail": state,
    }


def _name_in(view: View, route: Route) -> str | None:
    """What the tool is called there; None where it is left out."""
    tools = view.routes["tools/call"].items()
    return next((name for name, found in tools if found.server is route.server and found.name == route.name), None)


def _could_have(server: HostedServer, tool: str) -> bool:
    """Whether it may have a tool of that name, and cannot say so now."""
    return server.state != "ready" and tool.startswith(f"{server.name}_")


def _why(server: HostedServer) -> str:
    return f": {server.failure.message.removeprefix(f'server {server.name!r}: ')}" if server.failure else ""


def _last_error(calls: Calls, state: dict[str, Any], clock: Clock) -> str:
    """What went wrong with the last call that failed, or else with its server; and how long ago."""
    if calls.failed is not None:
        return f"{calls.failed[0]:.0f} s ago: {calls.failed[1]}"
    said, at = state["last_error"], state.get("last_error_at")
    return f"{clock.wall() - at:.0f} s ago: {said}" if said and at else str(said)


def _unique_bare(tools: dict[str, Route], name: str) -> Route | None:
    found = [route for route in tools.values() if route.name == name]
    return found[0] if len(found) == 1 else None


def _quantiles(histogram: Histogram) -> dict[str, float]:
    return {f"p{share:g}": round(histogram.quantile(share / 100) * 1000, 3) for share in (50, 95, 99)}
