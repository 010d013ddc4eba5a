"""What a worker holds at this moment, as gauges of the metrics page: one for each thing that is bounded and must be let go of.

Knows: the gateway, its HTTP servers. Does not know: how gauges are written. Reading them changes nothing and costs calls nothing.
"""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

from penstock.gateway.gateway import Gateway
from penstock.http.server import HttpServer
from penstock.telemetry.exposition import Gauge


def gauges_of(gateway: Gateway, servers: Sequence[HttpServer]) -> tuple[Gauge, ...]:
    """`servers`: those that take clients' connections; read anew at each scrape."""
    context = gateway.context
    return (
        Gauge("penstock_calls_in_flight", "Calls under way.", lambda: [("", gateway.calls_in_flight)]),
        Gauge(
            "penstock_connections",
            "Open connections of clients.",
            lambda: [("", sum(server.connections for server in servers if server.addresses))],
        ),
        Gauge("penstock_sessions", "Known legacy sessions.", lambda: [("", len(context.sessions))]),
        Gauge(
            "penstock_parked_calls",
            "Calls and questions that wait for their clients to answer.",
            lambda: [("", len(gateway.parking))],
        ),
        Gauge("penstock_listeners", "Clients that listen to changes.", lambda: [("", len(gateway.listeners))]),
        Gauge(
            "penstock_subscriptions",
            "Resources that servers were subscribed to.",
            lambda: [("", len(context.subscriptions))],
        ),
        Gauge(
            "penstock_replay_streams",
            "Streams of legacy clients that can be taken up again.",
            lambda: [("", len(context.replay))],
        ),
        Gauge("penstock_replay_bytes", "Bytes kept for that.", lambda: [("", context.replay.kept_bytes)]),
        Gauge("penstock_tasks", "Tasks of the event loop.", lambda: [("", len(asyncio.all_tasks()))]),
        Gauge("penstock_generation", "Number of the snapshot.", lambda: [("", context.snapshot.generation)]),
        Gauge(
            "penstock_server_ready",
            "1 for each server that could be listed.",
            lambda: [(name, float(server.state == "ready")) for name, server in context.snapshot.servers.items()],
            "server",
        ),
        Gauge(
            "penstock_upstream_connections",
            "Open connections to each HTTP server, streams that are listened to included.",
            lambda: list(_connections(gateway)),
            "server",
        ),
        Gauge(
            "penstock_upstream_sessions",
            "Legacy sessions at each server; over stdio the processes that client sessions have to themselves.",
            lambda: list(_sessions(gateway)),
            "server",
        ),
    )


def _states(gateway: Gateway) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, server in gateway.context.snapshot.servers.items():
        yield name, server.upstream.state()


def _connections(gateway: Gateway) -> Iterator[tuple[str, float]]:
    for name, state in _states(gateway):
        pool = state.get("connections")
        if pool is not None:
            yield name, float(pool["busy"] + pool["idle"] + state["streams"])


def _sessions(gateway: Gateway) -> Iterator[tuple[str, float]]:
    for name, state in _states(gateway):
        sessions = state.get("sessions")
        if sessions is not None:
            yield name, float(sessions if isinstance(sessions, int) else len(sessions))
