"""Settings into a running process.

Knows: every room. Does not know: how settings were written down or typed; it is handed them, and a way to read them again.
"""

import asyncio
import logging
import signal
import socket
import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import uvloop

from penstock import __version__
from penstock.assemble.conversions import (
    admittance_of,
    host_settings,
    server_limits,
    views_of,
    waiting_for_start,
)
from penstock.assemble.gauges import gauges_of
from penstock.assemble.siblings import Siblings
from penstock.assemble.upstreams import UpstreamFactory
from penstock.clock import Clock, SystemClock
from penstock.config.settings import Settings
from penstock.control.admin import Admin, Reloaded, describe_server
from penstock.control.supervisor import WorkerPlace
from penstock.control.worker_pages import Refusal
from penstock.errors import ListenError, PenstockError
from penstock.gateway.admittance import Admittance
from penstock.gateway.gateway import Gateway, GatewaySettings, ServerPlan
from penstock.gateway.hosting import HostSettings
from penstock.gateway.known_lists import KnownLists
from penstock.gateway.worker import Worker
from penstock.http.server import Handler, HttpServer
from penstock.http.tls import server_context
from penstock.identity.keys import load_or_create
from penstock.identity.seal import Sealer
from penstock.machine import raise_descriptor_limit, tune_allocator, tune_collector
from penstock.telemetry.cells import CellRegistry
from penstock.telemetry.exposition import Gauge
from penstock.upstreams.demo import demo_upstream

_log = logging.getLogger(__name__)
SERVER_INFO: Final = msgspec.json.encode({"name": "penstock", "title": "Penstock", "version": __version__})
DEMO: Final = "demo"
HURRY_SECONDS: Final = 0.3
"""What servers are given to be let go of, twice, after a second signal."""

Inside = Callable[[Callable[[], Awaitable[socket.socket]], asyncio.Event], Awaitable[None]]
"""Takes a way to connect, and what is set when it is time to end."""


class ReadyReport(msgspec.Struct, frozen=True):
    """What a started gateway has to show."""

    url: str
    admin_url: str
    generation: int
    servers: list[dict[str, Any]]
    """Rows as `GET /api/v1/servers` has them."""


class RunOptions(msgspec.Struct, frozen=True):
    """What is not configuration."""

    state_dir: Path
    """Where keys and last known lists are kept."""
    demo: bool = False
    on_listening: Callable[[str, str], None] = lambda _url, _admin: None
    """Told the data and admin URLs once connections are accepted."""
    on_ready: Callable[[ReadyReport], None] = lambda _report: None
    """Told once when the servers have been listed, or had `ready_seconds` to be."""
    ready_seconds: float = 5.0
    place: WorkerPlace | None = None
    """Among several workers; None for the only one."""
    workers: int = 1
    """How many processes serve."""
    inside: Inside | None = None
    """Instead of listening anywhere: runs beside the gateway, which ends with it."""
    watch_seconds: float = 1.0
    """How often the configuration file is looked at."""
    refusal: Refusal | None = None
    """Of the newest configuration, when this one starts with an older."""


def run(settings: Settings, reload: Callable[[], Settings], options: RunOptions) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code.

    Raises:
        PenstockError: it could not start; the message says why.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_Process(settings, reload, options).serve())


class _Process:
    """One gateway process from start to end."""

    def __init__(self, settings: Settings, reload: Callable[[], Settings], options: RunOptions) -> None:
        self._settings = settings
        self._read_again = reload
        self._options = options
        self._clock: Clock = SystemClock()
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._servers: list[HttpServer] = []
        self._refusal: Refusal | None = options.refusal
        self._seen = _stamp(settings.file)
        """The file as it was taken up, or nearly: an edit that comes while we start is not missed."""

    async def serve(self) -> int:
        raise_descriptor_limit()
        tune_allocator()
        place = self._options.place
        factory = UpstreamFactory(self._settings.limits, self._clock, place)
        gateway = self._gateway()
        siblings = Siblings(place, gateway, self._settings.limits, self._clock) if place is not None else None
        try:
            await gateway.apply(self._plans(self._settings, factory), views_of(self._settings))
            worker = Worker(gateway.context, admittance_of(self._settings))
            if self._options.inside is not None:
                await self._run_inside(self._options.inside, gateway, worker, factory)
                return 0
            admin = self._admin(gateway, worker, factory, siblings)
            if siblings is not None:
                self._servers.append(await siblings.listen(admin, partial(self._reload, gateway, worker, factory)))
            data_servers = await self._listen(worker, self._settings.listen.data, tls=self._tls())
            if siblings is not None and data_servers:
                siblings.take_clients(data_servers[0])
            admin_addresses = self._settings.listen.admin if place is None or place.is_first else ()
            admin_servers = await self._listen(admin, admin_addresses, tls=None)
            self._hook_signals(gateway, worker, factory)
            self._options.on_listening(self._url(data_servers, "/mcp"), self._url(admin_servers, ""))
            background = [
                asyncio.create_task(self._report_ready(gateway, data_servers, admin_servers)),
                asyncio.create_task(self._watch_file(gateway, worker, factory)),
            ]
            await self._stop.wait()
            for task in background:
                task.cancel()
            await self._drain(gateway, worker, data_servers, siblings)
        finally:
            for server in self._servers:
                server.close()
            await self._let_go(gateway, factory)
            if siblings is not None:
                await siblings.close()
        return 0

    async def _run_inside(self, inside: Inside, gateway: Gateway, worker: Worker, factory: UpstreamFactory) -> None:
        """Serve one client in this process, on no address."""
        server = HttpServer.start_private(worker, limits=server_limits(self._settings.limits), clock=self._clock)
        self._servers.append(server)
        self._hook_signals(gateway, worker, factory)
        watching = asyncio.create_task(self._watch_file(gateway, worker, factory))
        try:
            await inside(server.join, self._stop)
        finally:
            watching.cancel()

    def _gateway(self) -> Gateway:
        state = self._options.state_dir
        limits = self._settings.limits
        return Gateway(
            GatewaySettings(
                SERVER_INFO,
                sessions=limits.sessions,
                session_idle_seconds=limits.session_idle,
                parked_calls=limits.parked_calls,
                parked_seconds=limits.parked,
                drain_seconds=limits.drain,
                worker=self._options.place.index if self._options.place is not None else 0,
            ),
            sealer=Sealer(load_or_create(state)),
            known=KnownLists(state / "lists"),
            clock=self._clock,
            cells=CellRegistry(),
        )

    def _plans(self, settings: Settings, factory: UpstreamFactory) -> dict[str, ServerPlan]:
        plans = {
            name: ServerPlan(host_settings(config, settings.limits, self._options.place), factory.opener(config))
            for name, config in settings.servers.items()
            if config.enabled
        }
        if self._options.demo and DEMO not in plans:
            demo = HostSettings(DEMO, "built-in", "the demo server", f"demo {__version__}")
            plans[DEMO] = ServerPlan(demo, lambda: demo_upstream(DEMO))
        return plans

    def _admin(self, gateway: Gateway, worker: Worker, factory: UpstreamFactory, siblings: Siblings | None) -> Admin:
        async def reload() -> Reloaded:
            done = await self._reload(gateway, worker, factory)
            if siblings is not None:
                await siblings.reload()
            return done

        return Admin(
            gateway,
            admittance=Admittance(hosts=[host for host, _ in self._settings.listen.admin]),
            reload=reload,
            siblings=siblings,
            refusal=lambda: self._refusal,
            disabled=lambda: {
                name: config.target for name, config in self._settings.servers.items() if not config.enabled
            },
            gauges=(*gauges_of(gateway, self._servers), self._taken_up_gauge()),
        )

    def _taken_up_gauge(self) -> Gauge:
        return Gauge(
            "penstock_configuration_taken_up",
            "0 while the configuration of before is served, as the newest cannot be used.",
            lambda: [("", float(self._refusal is None))],
        )

    async def _listen(
        self, handler: Handler, addresses: tuple[tuple[str, int], ...], *, tls: ssl.SSLContext | None
    ) -> list[HttpServer]:
        limits = server_limits(self._settings.limits)
        started = []
        for host, port in addresses:
            server = await HttpServer.start(
                handler, host=host, port=port, limits=limits, tls=tls, reuse_port=port != 0, clock=self._clock
            )
            self._servers.append(server)
            started.append(server)
        return started

    def _tls(self) -> ssl.SSLContext | None:
        listen = self._settings.listen
        if listen.tls_cert is None or listen.tls_key is None:
            return None
        try:
            return server_context(listen.tls_cert, listen.tls_key)
        except (OSError, ssl.SSLError) as error:
            files = f"{listen.tls_cert} and {listen.tls_key}"
            raise ListenError(f"listen.tls_cert, listen.tls_key: {files} cannot be used: {error}") from error

    def _url(self, servers: list[HttpServer], path: str) -> str:
        if not servers:
            return ""
        host, port = servers[0].addresses[0]
        scheme = "https" if path and self._settings.listen.tls_cert else "http"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{path}"

    async def _report_ready(self, gateway: Gateway, data: list[HttpServer], admin: list[HttpServer]) -> None:
        servers = gateway.context.snapshot.servers
        try:
            async with asyncio.timeout(self._options.ready_seconds):
                for server in servers.values():
                    await server.first_attempt.wait()
        except TimeoutError:
            pass  # the report shows who is still starting
        rows = [describe_server(server) for server in servers.values()]
        generation = gateway.context.snapshot.generation
        self._options.on_ready(ReadyReport(self._url(data, "/mcp"), self._url(admin, ""), generation, rows))
        tune_collector()

    async def _reload(self, gateway: Gateway, worker: Worker, factory: UpstreamFactory) -> Reloaded:
        """Read the configuration again and make it so; on any error the old one stays, whole."""
        async with self._reloading:
            try:
                changes = await self._take_up(gateway, worker, factory)
            except PenstockError as error:
                self._refusal = Refusal(error.message, self._clock.wall())
                raise
            self._refusal = None
        for change in changes:
            _log.info("configuration: %s", change)
        return Reloaded(gateway.context.snapshot.generation, changes)

    async def _take_up(self, gateway: Gateway, worker: Worker, factory: UpstreamFactory) -> list[str]:
        settings = await asyncio.get_running_loop().run_in_executor(None, self._read_again)
        plans = self._plans(settings, factory)
        changes = await gateway.apply(plans, views_of(settings), disabled=settings.servers.keys() - plans.keys())
        worker.admittance = admittance_of(settings)
        waiting = waiting_for_start(self._settings, settings)
        if waiting:
            changes.append(f"at the next start take effect: {', '.join(waiting)}")
        self._settings = settings
        return changes

    async def _watch_file(self, gateway: Gateway, worker: Worker, factory: UpstreamFactory) -> None:
        """Take up an edit of the file within about a second."""
        while True:
            await self._clock.sleep(self._options.watch_seconds)
            stamp = _stamp(self._settings.file)
            if stamp == self._seen:
                continue
            self._seen = stamp
            try:
                await self._reload(gateway, worker, factory)
            except PenstockError as error:
                _log.error("configuration not taken up, the old one stays: %s", error.message)

    def _hook_signals(self, gateway: Gateway, worker: Worker, factory: UpstreamFactory) -> None:
        loop = asyncio.get_running_loop()

        async def reload_logged() -> None:
            try:
                await self._reload(gateway, worker, factory)
            except PenstockError as error:
                _log.error("configuration not taken up, the old one stays: %s", error.message)

        def end() -> None:
            if self._stop.is_set():
                _log.warning("a second signal: ending at once")
                for server in self._servers:
                    server.close()
                self._hurry.set()
            self._stop.set()

        if self._options.place is not None:
            loop.add_reader(self._options.place.alive, self._orphaned)
        loop.add_signal_handler(signal.SIGTERM, end)
        loop.add_signal_handler(signal.SIGINT, end)
        loop.add_signal_handler(signal.SIGHUP, lambda: gateway.in_background(reload_logged()))

    def _orphaned(self) -> None:
        """The supervisor is gone: nobody would ever end us."""
        if self._options.place is not None:
            asyncio.get_running_loop().remove_reader(self._options.place.alive)
        _log.error("the supervisor is gone: stopping")
        self._stop.set()

    async def _let_go(self, gateway: Gateway, factory: UpstreamFactory) -> None:
        """End sessions and children in good order, but not once a second signal has come."""
        closing = asyncio.create_task(gateway.close())
        hurried = asyncio.create_task(self._hurry.wait())
        await asyncio.wait((closing, hurried), return_when=asyncio.FIRST_COMPLETED)
        if hurried.done():
            for _ in range(2):  # a moment for those that need no more, and one for those killed then
                await asyncio.wait((closing,), timeout=HURRY_SECONDS)
                factory.kill()
            closing.cancel()
        hurried.cancel()
        await asyncio.wait((closing, hurried))
        await factory.close()
        if not closing.cancelled():
            closing.result()

    async def _drain(
        self, gateway: Gateway, worker: Worker, servers: list[HttpServer], siblings: Siblings | None
    ) -> None:
        worker.is_draining = True
        gateway.listeners.end_all()  # they would be waited for, and so would calls whose clients are away
        gateway.parking.close()
        seconds = self._settings.limits.drain
        until = self._clock.now() + seconds
        if siblings is None or siblings.is_first:
            _log.info("stopping: calls under way have %g s to end", seconds)
        ended = await asyncio.gather(*(server.drain(seconds) for server in servers))
        if siblings is not None:
            ended.append(await siblings.drain(until, self._hurry))
        if not all(ended):
            cut = "by a second signal" if self._hurry.is_set() else f"at the deadline of {seconds:g} s"
            _log.warning("stopped with calls cut %s", cut)


def _stamp(file: str | None) -> tuple[int, int] | None:
    if file is None:
        return None
    try:
        status = Path(file).stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino
