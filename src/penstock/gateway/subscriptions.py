"""Resources that clients subscribed to: one subscription at the server for each, however many listen.

Knows: listeners, hosted servers. Does not know: eras, streams.
Invariants: a server is subscribed to a resource while somebody listens to it, and not for long after; of one resource it is
told one thing at a time, so that the end of a subscription never overtakes the next one.
"""

import asyncio
from collections.abc import Callable, Container, Coroutine, Iterable
from typing import Any, Final

from penstock.clock import Clock
from penstock.errors import ServerError, ServerTimedOut
from penstock.gateway.hosting import HostedServer
from penstock.gateway.listeners import Listener, Listeners
from penstock.upstreams.calls import Failure
from penstock.upstreams.single_flight import SingleFlight

MAX_RESOURCES: Final = 10_000
"""Resources of all servers that can be subscribed to at a time."""
ANSWER_SECONDS: Final = 10.0
"""How long a server may take to answer: nobody's deadline bounds what many listeners share."""
AGAIN_SECONDS: Final = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Pauses while a server that was opened anew cannot be subscribed to."""
AT_ONCE: Final = 64
"""Subscriptions renewed at a time."""
Refusal = Failure | ServerError


class Subscriptions:
    """All of one worker."""

    __slots__ = (
        "_active",
        "_answer_seconds",
        "_clock",
        "_ending",
        "_flights",
        "_hosts",
        "_in_background",
        "_listeners",
        "_most",
    )

    def __init__(
        self,
        listeners: Listeners,
        in_background: Callable[[Coroutine[Any, Any, None]], None],
        clock: Clock,
        *,
        most: int = MAX_RESOURCES,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._listeners = listeners
        self._in_background = in_background
        self._clock = clock
        self._most = most
        self._answer_seconds = answer_seconds
        self._active: dict[tuple[str, str], HostedServer] = {}
        """What servers were told, and who they are."""
        self._ending: dict[tuple[str, str], asyncio.Event] = {}
        """What servers are just told to end."""
        self._flights: SingleFlight[Refusal | None] = SingleFlight("subscription")
        self._hosts: dict[str, HostedServer] = {}
        """The servers there are, by name."""

    def __repr__(self) -> str:
        return f"<Subscriptions [{len(self._active)}]>"

    def __len__(self) -> int:
        return len(self._active)

    async def subscribe(self, listener: Listener, host: HostedServer, uri: str) -> Refusal | None:
        """Let it hear of updates of that resource; why it cannot, or None when it does."""
        key = host.name, uri
        if listener.uris.get(uri, host.name) != host.name:
            self.unsubscribe(listener, uri)  # another server has the resource by now
        if not self._listeners.is_wanted(*key) and self._listeners.resources >= self._most:
            return ServerError(host.name, f"{self._most} resources are subscribed to, the most that may")
        self._listeners.subscribe(listener, host.name, uri)
        refusal: Refusal | None = None
        try:
            while refusal is None and key not in self._active and uri in listener.uris:
                refusal = await self._flights.run(key, lambda: self._begin(host, uri))
                await asyncio.sleep(0)  # a flight that has just landed may have found that nobody wanted it
        except BaseException:
            self.unsubscribe(listener, uri)
            raise
        if refusal is not None:
            self.unsubscribe(listener, uri)
        return refusal

    def unsubscribe(self, listener: Listener, uri: str) -> None:
        """It hears of that resource no longer."""
        server = self._listeners.unsubscribe(listener, uri)
        host = self._active.pop((server, uri), None) if server is not None else None
        if host is not None:
            self._end(host, uri)

    def release(self, listener: Listener) -> None:
        """It hears of nothing any more."""
        self._listeners.discard(listener)
        for uri in list(listener.uris):
            self.unsubscribe(listener, uri)

    def leave(self, view: str, servers: Container[str] | None = None) -> None:
        """The view's listeners hear no more of resources of these servers, or of any."""
        for listener, uri in self._listeners.subscribed(view, servers):
            self.unsubscribe(listener, uri)

    def end_view(self, view: str) -> None:
        """The view is gone: its streams end in good order."""
        for listener in self._listeners.end_all(view):
            self.release(listener)
        self.leave(view)

    def renew(self, hosts: Iterable[HostedServer]) -> None:
        """These are the servers from now on; those that were opened anew know of no subscription."""
        self._hosts = {host.name: host for host in hosts}
        anew: dict[str, list[str]] = {}
        for (server, uri), before in self._active.items():
            host = self._hosts.get(server, before)
            self._active[server, uri] = host
            if host.upstream is not before.upstream:
                anew.setdefault(server, []).append(uri)
        for server, uris in anew.items():
            self._in_background(self._again(self._hosts[server], uris))

    async def close(self) -> None:
        """Ask nothing more."""
        await self._flights.close()

    async def _begin(self, host: HostedServer, uri: str) -> Refusal | None:
        key = host.name, uri
        while (ending := self._ending.get(key)) is not None:
            await ending.wait()
        if not self._listeners.is_wanted(*key):
            return None
        refusal = await self._ask(host, uri)
        if isinstance(refusal, ServerTimedOut):
            self._end(host, uri)  # it may have taken it all the same
        elif refusal is None and not self._listeners.is_wanted(*key):
            self._end(host, uri)  # they have all gone meanwhile
        elif refusal is None:
            current = self._active[key] = self._hosts.get(host.name, host)
            if current.upstream is not host.upstream:
                self._in_background(self._again(current, [uri]))
        return refusal

    async def _ask(self, host: HostedServer, uri: str) -> Refusal | None:
        try:
            async with asyncio.timeout(self._answer_seconds):
                return await host.upstream.subscribe(uri)
        except TimeoutError:
            return ServerTimedOut(host.name, f"it did not answer a subscription within {self._answer_seconds:g} s")
        except ServerError as error:
            return error

    async def _again(self, host: HostedServer, uris: list[str]) -> None:
        """Subscribe at a server opened anew: once it was listed, as only then it is known how; until it takes or refuses it."""
        failures = 0
        while uris := [uri for uri in uris if self._is_at(host, uri)]:
            host = self._hosts.get(host.name, host)  # other settings may have come
            await host.first_attempt.wait()
            if host.failure is None and not host.is_stale:
                uris = await self._ask_again(host, uris)
            if uris:
                await self._clock.sleep(AGAIN_SECONDS[min(failures, len(AGAIN_SECONDS) - 1)])
                failures += 1

    async def _ask_again(self, host: HostedServer, uris: list[str]) -> list[str]:
        """Those of the resources that have to be asked for once more."""
        left = []
        for at in range(0, len(uris), AT_ONCE):
            some = uris[at : at + AT_ONCE]
            refusals = await asyncio.gather(*(self._ask(host, uri) for uri in some))
            left += [uri for uri, refusal in zip(some, refusals, strict=True) if not self._settle(host, uri, refusal)]
        return left

    def _is_at(self, host: HostedServer, uri: str) -> bool:
        """Whether the resource is still wanted, and of that server."""
        active = self._active.get((host.name, uri))
        return active is not None and active.upstream is host.upstream

    def _settle(self, host: HostedServer, uri: str, refusal: Refusal | None) -> bool:
        """Whether nothing is left to be done about a resource that was asked for again."""
        if refusal is None and not self._is_at(host, uri):
            self._end(host, uri)
        elif isinstance(refusal, Failure) and self._is_at(host, uri):
            del self._active[host.name, uri]  # whoever subscribes to it the next time hears why
        return not isinstance(refusal, ServerError)

    def _end(self, host: HostedServer, uri: str) -> None:
        self._in_background(self._tell_end(host, uri, self._ending.setdefault((host.name, uri), asyncio.Event())))

    async def _tell_end(self, host: HostedServer, uri: str, ended: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(self._answer_seconds):
                await host.upstream.unsubscribe(uri)
        except (ServerError, TimeoutError):
            return  # it is gone, and its subscriptions with it
        finally:
            self._ending.pop((host.name, uri), None)
            ended.set()
