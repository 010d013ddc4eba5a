"""One configured server as the gateway holds it, and the care for its listing.

Knows: an `Upstream`, its last listing, when to ask again. Does not know: views, HTTP, configuration files.
Invariant: at most one listing of a server is under way at any moment; clients never wait for one once there is any.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, NamedTuple, Protocol, runtime_checkable

import msgspec

from penstock.clock import Clock
from penstock.errors import NeedsAuthorization, PenstockError, ServerError, ServerTimedOut, forget_frames
from penstock.gateway.known_lists import KnownLists
from penstock.gateway.listing import TOOLS, Listing, capabilities_of, fetch_listing, input_schema_of
from penstock.policies.deadline import Deadline, DeadlineSettings
from penstock.protocol.subscriptions import CAPABILITY_OF, UPDATED, uri_of
from penstock.protocol.tasks import declares_tasks
from penstock.protocol.versions import Era
from penstock.upstreams.interface import Upstream

_log = logging.getLogger(__name__)


class HostSettings(msgspec.Struct, frozen=True):
    """What the gateway itself needs to know of a server; the rest is its upstream's affair."""

    name: str
    transport: str
    """"http", "stdio" or "built-in"."""
    target: str
    """URL or command, without secrets; for people."""
    fingerprint: str
    """Changes when the server must be opened anew: with its target, credentials or environment."""
    deadline: DeadlineSettings = DeadlineSettings()
    forward_headers: tuple[bytes, ...] = ()
    """Lower-case names of client headers this server may see."""
    list_seconds: float = 10.0
    """How long a client's list request waits for a server that was never listed before."""
    is_elsewhere: bool = False
    """Whether another worker has it: what that one has sealed and judged passes through as it is."""


class HostedServer:
    """A server with its listing and the calls it has in flight."""

    def __init__(self, settings: HostSettings, upstream: Upstream, known: Listing | None = None) -> None:
        self.settings: Final = settings
        self.name: Final = settings.name
        self.upstream: Final = upstream
        self.server_info: bytes
        """What it calls itself, a JSON object; empty when it has not said so yet."""
        self.listing = known
        self.is_stale = known is not None
        """Whether the listing is from an earlier run and not yet confirmed."""
        self.failure: PenstockError | None = None
        self.deadline: Final = Deadline(settings.name, settings.deadline)
        self._earlier: list[Deadline] = []
        """Deadlines under which calls went out before the settings changed."""
        self.checked_at = -1e9
        """Clock time of the last finished attempt to list."""
        self.attempts_failed = 0
        self.first_attempt = asyncio.Event()
        self.wait_until = float("inf")
        """Clock time after which nobody waits for the first listing any more."""
        self.refreshing: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<HostedServer {self.name} {self.state} [{self.in_flight} in flight]>"

    def with_settings(self, settings: HostSettings) -> "HostedServer":
        """The same server under other settings: its upstream, children and connections go on as they are."""
        renewed = HostedServer(settings, self.upstream, self.listing)
        renewed.is_stale, renewed.failure, renewed.checked_at = self.is_stale, self.failure, self.checked_at
        renewed.attempts_failed = self.attempts_failed
        if self.first_attempt.is_set():
            renewed.first_attempt.set()
        renewed._earlier = [*(deadline for deadline in self._earlier if deadline.running), self.deadline]
        return renewed

    @property
    def in_flight(self) -> int:
        """Calls under way, those included that began under earlier settings."""
        return len(self.deadline.running) + sum(len(deadline.running) for deadline in self._earlier)

    @property
    def has_tasks(self) -> bool:
        """Whether it has tasks of the modern era: one that speaks only legacy revisions has none, whatever it declares."""
        said = self.listing.description if self.listing is not None else None
        return said is not None and Era.MODERN in said.eras and declares_tasks(said.capabilities)

    @property
    def listing(self) -> Listing | None:
        """What it last said of itself and its lists."""
        return self._listing

    @listing.setter
    def listing(self, listing: Listing | None) -> None:
        self._listing = listing
        said = b"" if listing is None else bytes(listing.description.server_info)
        self.server_info = said if len(said) > 2 else b""  # many calls need it, and they do not ask for it anew

    @property
    def state(self) -> str:
        """One of: ready, starting, failed, needs authorization."""
        if self.failure is not None:
            return "needs authorization" if isinstance(self.failure, NeedsAuthorization) else "failed"
        return "ready" if self.first_attempt.is_set() and self.listing is not None else "starting"

    def is_pending(self, now: float) -> bool:
        """Never listed, and the first attempt is young: a list request waits for it."""
        return self.listing is None and not self.first_attempt.is_set() and now < self.wait_until


class News(NamedTuple):
    """What a server has said: exactly one of the two is set."""

    capability: str = ""
    """Whose list has changed."""
    uri: str = ""
    """Of a resource that was updated."""


class Catalogue:
    """Keeps the listings of all hosted servers good enough, behind the calls."""

    MIN_AGE_SECONDS: Final = 5.0
    """A list request never triggers a refresh of a listing younger than this, whatever its server says."""
    RETRY_SECONDS: Final = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
    TICK_SECONDS: Final = 0.5
    SETTLE_SECONDS: Final = 0.05
    """A server that says its lists have changed often says so several times."""
    AGAIN_SECONDS: Final = 1.0
    """Between listings of a server that does not stop saying so."""
    LOOK_SECONDS: Final = 1.0
    FIRST_LISTING_SECONDS: Final = 120.0
    """A package runner may have to download a server first."""

    def __init__(
        self,
        clock: Clock,
        known: KnownLists,
        *,
        on_change: Callable[[], None],
        on_news: Callable[[HostedServer, News], None],
    ) -> None:
        """
        Args:
            on_change: some listing is another one than before.
            on_news: a server has said something its listeners want to hear; of changed lists once the new ones are there.
        """
        self._clock = clock
        self._known = known
        self._on_change = on_change
        self._on_news = on_news
        self._hosts: dict[str, HostedServer] = {}
        self._changed: dict[str, set[str]] = {}
        """Capabilities whose lists a server has said to have changed, while it is being listed again for that."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._retries: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        pending = sum(host.listing is None for host in self._hosts.values())
        return f"<Catalogue {len(self._hosts)} servers | {pending} never listed | {len(self._tasks)} refreshing>"

    def start(self) -> None:
        """Begin to retry failing servers in the background."""
        self._retries = asyncio.create_task(self._retry_failing(), name="catalogue retries")

    def replace(self, hosts: dict[str, HostedServer]) -> None:
        """Care for these servers from now on; new ones are listed at once."""
        gone = [host for name, host in self._hosts.items() if hosts.get(name) is not host]
        self._hosts = dict(hosts)
        for host in gone:
            if host.refreshing is not None:
                host.refreshing.cancel()
        for host in hosts.values():
            if not host.first_attempt.is_set():
                self.refresh(host)

    def refresh(self, host: HostedServer) -> asyncio.Task[None]:
        """List a server behind the calls; joins a listing that is already under way."""
        if host.refreshing is None:
            if not host.first_attempt.is_set():
                host.wait_until = min(host.wait_until, self._clock.now() + host.settings.list_seconds)
            task = asyncio.create_task(self._refresh(host), name=f"list {host.name}")
            host.refreshing = task
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return host.refreshing

    def heard(self, name: str, method: str, params: dict[str, msgspec.Raw]) -> None:
        """A server says that something has changed."""
        host = self._hosts.get(name)
        if host is None:
            return
        capability = CAPABILITY_OF.get(method)
        if capability is None:
            uri = uri_of(params) if method == UPDATED else None
            if uri is not None:
                self._on_news(host, News(uri=uri))
            return
        changed = self._changed.get(name)
        if changed is not None:
            changed.add(capability)
            return
        self._changed[name] = {capability}
        task = asyncio.create_task(self._list_again(name), name=f"list {name} again")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _list_again(self, name: str) -> None:
        """Lists have changed: fetch them, then tell; what changes meanwhile is fetched once more, but not without a pause."""
        try:
            await self._clock.sleep(self.SETTLE_SECONDS)
            while self._changed[name]:
                changed, self._changed[name] = self._changed[name], set()
                host = await self._listed_again(name)
                if host is not None:
                    for capability in sorted(changed):
                        self._on_news(host, News(capability=capability))
                if self._changed[name]:
                    await self._clock.sleep(self.AGAIN_SECONDS)
        finally:
            del self._changed[name]

    async def _listed_again(self, name: str) -> HostedServer | None:
        """The server, once it has its new lists; None when it has not: who is told once it has sees that they differ."""
        listed = None
        while (host := self._hosts.get(name)) is not None and host is not listed:
            if host.refreshing is not None:
                await asyncio.wait((host.refreshing,))  # it may have begun before the change
                if self._hosts.get(name) is not host:
                    continue  # a reload has opened it anew, or given it other settings: that one is to be listed
            done, _ = await asyncio.wait((self.refresh(host),), timeout=host.settings.list_seconds)
            if not done:
                return None
            listed = host
        return host if host is not None and host.failure is None else None

    def refresh_if_aged(self, hosts: Iterable[HostedServer]) -> None:
        """Called by each list request: refresh behind it what is no longer fresh."""
        now = self._clock.now()
        for host in hosts:
            if host.refreshing is not None or host.listing is None or host.failure is not None:
                continue
            if now - host.checked_at >= max(self.MIN_AGE_SECONDS, host.listing.fresh_seconds):
                self.refresh(host)

    async def wait_for_first(self, hosts: Iterable[HostedServer]) -> None:
        """Until each server has been listed once, has failed to be, or has had its time."""
        for host in hosts:
            now = self._clock.now()
            if host.is_pending(now) and self._hosts.get(host.name) is host:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(host.wait_until - now):
                        await host.first_attempt.wait()

    async def look_again(self) -> None:
        """For somebody who looks now: ask those that failed once more, unless they have just been; at most LOOK_SECONDS."""
        now = self._clock.now()
        failed = (host for host in self._hosts.values() if host.failure is not None)
        asked = [self.refresh(host) for host in failed if now - host.checked_at >= self.RETRY_SECONDS[0]]
        if asked:
            await asyncio.wait(asked, timeout=self.LOOK_SECONDS)

    async def close(self) -> None:
        self._hosts = {}  # nobody is listed any more, whatever is heard from now on
        if self._retries is not None:
            self._retries.cancel()
        tasks = [*self._tasks, *([self._retries] if self._retries else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _refresh(self, host: HostedServer) -> None:
        changed = False
        try:
            listing = await self._fetch(host)
        except PenstockError as error:
            self._note_failure(host, error)
        except Exception:  # the top of a task nobody awaits: the server shows as failed, and is asked again
            _log.exception("listing server '%s' failed by an error of ours", host.name)
            self._note_failure(host, ServerError(host.name, "listing it failed by an error of ours; see the log"))
        else:
            changed = self._note_listing(host, listing)
        finally:
            host.checked_at = self._clock.now()
            host.refreshing = None
            host.first_attempt.set()
        if changed and host.listing is not None:
            loop = asyncio.get_running_loop()
            fingerprint = host.settings.fingerprint
            await loop.run_in_executor(None, self._known.save, host.name, fingerprint, host.listing)

    async def _fetch(self, host: HostedServer) -> Listing:
        seconds = self.FIRST_LISTING_SECONDS if host.listing is None else host.settings.list_seconds
        try:
            async with asyncio.timeout(seconds):
                return await fetch_listing(host.upstream, wall=self._clock.wall(), started_at=self._clock.now())
        except TimeoutError as error:
            raise ServerTimedOut(
                host.name, f"expected its lists within {seconds:g} s; it is asked again behind"
            ) from error

    def _note_failure(self, host: HostedServer, error: PenstockError) -> None:
        changed = host.failure is None or host.failure.message != error.message
        forget_frames(error)  # they hold the host, which is to hold the error
        host.failure = error
        host.attempts_failed += 1
        if changed:
            _log.warning("%s", error.message)
            self._on_change()

    def _note_listing(self, host: HostedServer, listing: Listing) -> bool:
        """Take a listing over; returns whether it differs from the one before."""
        listing = _without_unusable_tools(host, listing)
        if _tells_of_changes(listing):
            host.upstream.hear(partial(self.heard, host.name))
        before, recovered = host.listing, host.failure is not None
        first = host.is_stale or before is None
        host.failure, host.attempts_failed, host.is_stale = None, 0, False
        if before is not None and before.same_as(listing):
            listing = msgspec.structs.replace(before, listed_at=listing.listed_at)
        host.listing = listing
        if (first or recovered) and not host.settings.is_elsewhere:  # the worker that has it says so
            tools = len(listing.items(TOOLS))
            _log.info("server '%s' is ready: %d tool%s", host.name, tools, "" if tools == 1 else "s")
        changed = before is None or not before.same_as(listing)
        if changed or first or recovered:
            self._on_change()
        return changed

    async def _retry_failing(self) -> None:
        while True:
            await self._clock.sleep(self.TICK_SECONDS)
            now = self._clock.now()
            for host in self._hosts.values():
                if host.failure is None or host.refreshing is not None:
                    continue
                wait = self.RETRY_SECONDS[min(host.attempts_failed, len(self.RETRY_SECONDS)) - 1]
                if now - host.checked_at >= wait:
                    self.refresh(host)


@runtime_checkable
class LearnsTools(Protocol):
    """An upstream that must know the tools' schemas to write `Mcp-Param-*` headers."""

    def learn_tools(self, tools: list[tuple[str, msgspec.Raw]]) -> dict[str, str]:
        """Take (name, inputSchema) pairs; returns the tools that must be left out, each with the reason."""
        ...


def _tells_of_changes(listing: Listing) -> bool:
    """Whether the server says that it will say so when something changes."""
    for raw in capabilities_of(listing.description).values():
        if b'"listChanged"' in bytes(raw) or b'"subscribe"' in bytes(raw):
            return True
    return False


def _without_unusable_tools(host: HostedServer, listing: Listing) -> Listing:
    """The listing without tools whose header annotations are invalid, as a client over HTTP must have it."""
    tools = listing.lists.get(TOOLS.method)
    if tools is None or not isinstance(host.upstream, LearnsTools):
        return listing
    reasons = host.upstream.learn_tools([(item.key, input_schema_of(item)) for item in tools.items])
    if not reasons:
        return listing
    for name, reason in reasons.items():
        _log.warning("server '%s': tool '%s' is left out: %s", host.name, name, reason)
    kept = tuple(item for item in tools.items if item.key not in reasons)
    return msgspec.structs.replace(
        listing, lists=listing.lists | {TOOLS.method: msgspec.structs.replace(tools, items=kept)}
    )
