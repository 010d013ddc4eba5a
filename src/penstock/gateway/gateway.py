"""The running whole: servers, catalogue, snapshot; and how a new configuration takes the old one's place.

Knows: everything of this room. Does not know: where configuration comes from, which transports exist (it is handed ready
upstreams). Invariant: a reload never closes a server that did not change, and one that is gone is closed only when its last
call has ended or the drain time is over.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any, Final

import msgspec

from penstock.clock import Clock
from penstock.gateway.context import GatewayContext
from penstock.gateway.hosting import Catalogue, HostedServer, HostSettings, News
from penstock.gateway.known_lists import KnownLists
from penstock.gateway.listeners import Listeners
from penstock.gateway.parking import Parking
from penstock.gateway.replay import Replay
from penstock.gateway.request_states import RequestStates
from penstock.gateway.route import RouteMaker
from penstock.gateway.session_sink import SessionSink
from penstock.gateway.sessions import ClientSession, Sessions
from penstock.gateway.snapshot import SnapshotBuilder, ViewSettings
from penstock.gateway.subscriptions import Subscriptions
from penstock.gateway.task_ids import TaskIds
from penstock.gateway.task_watch import TaskWatches
from penstock.identity.seal import Sealer
from penstock.policies.deadline import DeadlineSweep
from penstock.policies.interface import Policy
from penstock.telemetry.cells import CellRegistry
from penstock.upstreams.interface import Upstream

_log = logging.getLogger(__name__)


HELD_ANSWERS: Final = 1024
"""Answers of legacy clients that have lost their connection, kept for them to fetch."""
HELD_SECONDS: Final = 300.0
SESSIONS_SWEEP_SECONDS: Final = 30.0
"""Or a quarter of the time a session may rest, if that is less."""


class ServerPlan(msgspec.Struct, frozen=True):
    """A server that should be there, and how to open it if it is not."""

    settings: HostSettings
    open: Callable[[], Upstream]


class GatewaySettings(msgspec.Struct, frozen=True):
    """Bounds of the gateway itself."""

    server_info: bytes
    """JSON of Penstock's own `serverInfo`."""
    sessions: int = 10_000
    session_idle_seconds: float = 1800.0
    """After this long without a request a session is forgotten here; its id stays valid."""
    parked_calls: int = 256
    """Calls that wait for their clients to answer a server."""
    parked_seconds: float = 600.0
    drain_seconds: float = 30.0
    worker: int = 0
    """This worker's number."""


class Gateway:
    """One worker's gateway. Use: construct, `apply` plans, serve, `close`."""

    def __init__(
        self, settings: GatewaySettings, *, sealer: Sealer, known: KnownLists, clock: Clock, cells: CellRegistry
    ) -> None:
        self._settings = settings
        self._known = known
        self._clock = clock
        self._sweep = DeadlineSweep()
        self._maker = RouteMaker(cells, self._policies_of)
        self._builder = SnapshotBuilder(self._maker, sealer, settings.server_info)
        self._views: Sequence[ViewSettings] = ()
        self._servers: dict[str, HostedServer] = {}
        self._dirty = False
        self._background: set[asyncio.Task[None]] = set()
        self.cells: Final = cells
        self.catalogue: Final = Catalogue(clock, known, on_change=self._mark_dirty, on_news=self._tell)
        self.listeners: Final = Listeners(clock, self.in_background)
        self._subscriptions = Subscriptions(self.listeners, self.in_background, clock)
        self.parking: Final = Parking(
            clock,
            self.in_background,
            limit=settings.parked_calls,
            seconds=settings.parked_seconds,
            worker=settings.worker,
        )
        held = Parking(clock, self.in_background, limit=HELD_ANSWERS, seconds=HELD_SECONDS, worker=settings.worker)
        self._replay = Replay(held)
        sessions = Sessions(
            sealer,
            clock,
            settings.sessions,
            idle_seconds=settings.session_idle_seconds,
            on_known=self._welcome,
            on_end=self._release,
        )
        self.context: Final = GatewayContext(
            self._builder.build({}, ()),
            self.catalogue,
            sessions=sessions,
            request_states=RequestStates(sealer, clock),
            task_ids=TaskIds(sealer, clock),
            task_watches=TaskWatches(),
            parking=self.parking,
            replay=self._replay,
            listeners=self.listeners,
            subscriptions=self._subscriptions,
            clock=clock,
            keeper=self,
        )
        self.catalogue.start()
        self.in_background(self._forget_idle_sessions())

    def __repr__(self) -> str:
        return f"<Gateway {self.context.snapshot!r} | {self._sweep!r}>"

    @property
    def calls_in_flight(self) -> int:
        return len(self._sweep)

    async def apply(
        self, plans: Mapping[str, ServerPlan], views: Sequence[ViewSettings], *, disabled: Collection[str] = ()
    ) -> list[str]:
        """Make it so: open what is new, keep what is unchanged, let go of what is gone. Returns the changes in words.

        One at a time: the caller sees to that. `disabled`: of the servers that are gone, those that may come back.

        Raises:
            PenstockError: a server could not be opened; then nothing has changed.
        """
        opened = await self._open_new(plans)
        changes, servers, gone = [], {}, []
        for name, plan in plans.items():
            current = self._servers.get(name)
            if current is not None and current.settings == plan.settings:
                servers[name] = current
                continue
            changes.append(f"{'changed' if current else 'added'} {name}")
            if current is not None and name not in opened:
                servers[name] = current.with_settings(plan.settings)
                self.in_background(self._forget_when_idle(current))
            else:
                servers[name] = opened[name]
                if current is not None:
                    gone.append(current)
            self._sweep.add(servers[name].deadline)
        for name, server in self._servers.items():
            if name not in plans:
                changes.append(f"{'disabled' if name in disabled else 'removed'} {name}")
                gone.append(server)
        if list(views) != list(self._views):
            changes.append("views changed")
        before, self._servers, self._views = self._servers, servers, views
        self._maker.forget({name for name, server in before.items() if servers.get(name) is not server})
        self.catalogue.replace(servers)
        self._rebuild()
        self._subscriptions.renew(servers.values())
        for server in gone:
            self.in_background(self._close_when_idle(server))
        return changes

    async def _open_new(self, plans: Mapping[str, ServerPlan]) -> dict[str, HostedServer]:
        """All servers that are new, or must be opened anew; if one cannot be, none is."""
        opened: dict[str, HostedServer] = {}
        load = self._known.load
        try:
            for name, plan in plans.items():
                fingerprint = plan.settings.fingerprint
                current = self._servers.get(name)
                if current is None or current.settings.fingerprint != fingerprint:
                    known = await asyncio.get_running_loop().run_in_executor(None, load, name, fingerprint)
                    opened[name] = HostedServer(plan.settings, plan.open(), known)
        except BaseException:
            for server in opened.values():
                self.in_background(server.upstream.close())
            raise
        return opened

    def settle(self) -> None:
        """Build the snapshot now if listings have changed since the last one."""
        if self._dirty:
            self._rebuild()

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something nobody waits for; it is cancelled at `close`."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background_done)

    async def close(self) -> None:
        """Close all servers, side by side; bounded by what an upstream's `close` takes."""
        await self.catalogue.close()
        await self._subscriptions.close()
        self._sweep.close()
        for task in list(self._background):
            task.cancel()
        closing = [server.upstream.close() for server in self._servers.values()]
        await asyncio.gather(*closing, *self._background, return_exceptions=True)

    def _policies_of(self, server: HostedServer) -> Sequence[Policy]:
        return [server.deadline]

    def _mark_dirty(self) -> None:
        """Many listings may change in one turn of the loop: build once for all of them."""
        if not self._dirty:
            self._dirty = True
            asyncio.get_running_loop().call_soon(self.settle)

    def _rebuild(self) -> None:
        self._dirty = False
        before = self.context.snapshot
        after = self.context.snapshot = self._builder.build(self._servers, self._views)
        for path, view in after.endpoints.items():
            earlier = before.endpoints.get(path)
            if earlier is not None:
                for capability in earlier.changed_lists(view):
                    self.listeners.list_changed(view.name, capability)
                if gone := earlier.server_names - view.server_names:
                    self._subscriptions.leave(view.name, gone)
        for path in before.endpoints.keys() - after.endpoints.keys():
            self._subscriptions.end_view(before.endpoints[path].name)

    def _tell(self, host: HostedServer, news: News) -> None:
        """A server has said that something has changed."""
        if news.uri:
            self.listeners.updated(host.name, news.uri)
            return
        self.settle()
        for view in self.context.snapshot.endpoints.values():
            if any(server.name == host.name for server in view.servers):
                self.listeners.list_changed(view.name, news.capability)

    async def _forget_idle_sessions(self) -> None:
        seconds = min(SESSIONS_SWEEP_SECONDS, self._settings.session_idle_seconds / 4)
        while True:
            await self._clock.sleep(seconds)
            self.context.sessions.sweep()
            if self.context.hops is not None:
                self.context.hops.sweep()

    def _welcome(self, session: ClientSession) -> None:
        """A client session is there: servers may reach it beside its calls."""
        session.caller.sink = SessionSink(session, self.parking)

    def _release(self, session: ClientSession) -> None:
        """A client session has ended, or is forgotten."""
        self._replay.forget_session(session.key)
        session.caller.sink = None  # it holds the session
        if session.listener is not None:
            self._subscriptions.release(session.listener)
            session.listener.end()

    async def _forget_when_idle(self, server: HostedServer) -> None:
        """Go on watching the time of its last calls."""
        while server.deadline.running:
            await self._clock.sleep(0.1)
        self._sweep.forget(server.deadline)

    async def _close_when_idle(self, server: HostedServer) -> None:
        deadline = self._clock.now() + self._settings.drain_seconds
        try:
            while server.in_flight and self._clock.now() < deadline:
                await self._clock.sleep(0.1)
        finally:
            await server.upstream.close()
        self.in_background(self._forget_when_idle(server))

    def _background_done(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.warning("work in the background failed: %s", error)
