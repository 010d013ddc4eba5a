"""Resources that clients subscribed to: one subscription at the server for each, however many listen.

Knows: listeners, hosted servers. Does not know: eras, streams.
Invariant: a server is subscribed to a resource while somebody listens to it, and not for long after.
"""

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

from penstock.errors import ServerError
from penstock.gateway.hosting import HostedServer
from penstock.gateway.listeners import Listener, Listeners
from penstock.upstreams.interface import Failure
from penstock.upstreams.single_flight import SingleFlight

MAX_RESOURCES: Final = 10_000
"""Resources of all servers that can be subscribed to at a time."""
Refusal = Failure | ServerError


class Subscriptions:
    """All of one worker."""

    __slots__ = ("_active", "_flights", "_in_background", "_listeners")

    def __init__(self, listeners: Listeners, in_background: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self._listeners = listeners
        self._in_background = in_background
        self._active: dict[tuple[str, str], HostedServer] = {}
        """What servers were told, and who they are."""
        self._flights: SingleFlight[Refusal | None] = SingleFlight("subscription")

    def __repr__(self) -> str:
        return f"<Subscriptions [{len(self._active)}]>"

    def __len__(self) -> int:
        return len(self._active)

    async def subscribe(self, listener: Listener, host: HostedServer, uri: str) -> Refusal | None:
        """Let it hear of updates of that resource; why it cannot, or None when it does."""
        if uri in listener.uris:
            return None
        if len(self._active) >= MAX_RESOURCES:
            return ServerError(host.name, f"{MAX_RESOURCES} resources are subscribed to, the most that may")
        key = host.name, uri
        self._listeners.subscribe(listener, host.name, uri)
        refusal: Refusal | None = None
        if key not in self._active:
            try:
                refusal = await self._flights.run(key, lambda: self._begin(host, uri))
            except BaseException:
                self._listeners.unsubscribe(listener, uri)
                raise
        if refusal is not None:
            self._listeners.unsubscribe(listener, uri)
        return refusal

    def unsubscribe(self, listener: Listener, uri: str) -> None:
        """It hears of that resource no longer."""
        server = self._listeners.unsubscribe(listener, uri)
        host = self._active.pop((server, uri), None) if server is not None else None
        if host is not None:
            self._in_background(self._end(host, uri))

    def release(self, listener: Listener) -> None:
        """It hears of nothing any more."""
        self._listeners.discard(listener)
        for uri in list(listener.uris):
            self.unsubscribe(listener, uri)

    def renew(self, hosts: Iterable[HostedServer]) -> None:
        """These servers were opened anew: they know of no subscription."""
        renewed = {host.name: host for host in hosts}
        for (server, uri), before in list(self._active.items()):
            host = renewed.get(server)
            if host is not None and host.upstream is not before.upstream:
                self._active[server, uri] = host
                self._in_background(self._again(host, uri))

    async def _begin(self, host: HostedServer, uri: str) -> Refusal | None:
        try:
            refusal = await host.upstream.subscribe(uri)
        except ServerError as error:
            return error
        if refusal is None:
            key = host.name, uri
            if self._listeners.is_wanted(*key):
                self._active[key] = host
            else:  # they have all gone meanwhile
                self._in_background(self._end(host, uri))
        return refusal

    async def _again(self, host: HostedServer, uri: str) -> None:
        try:
            refused = await host.upstream.subscribe(uri) is not None
        except ServerError:
            refused = True
        if refused:
            self._active.pop((host.name, uri), None)

    @staticmethod
    async def _end(host: HostedServer, uri: str) -> None:
        try:
            await host.upstream.unsubscribe(uri)
        except ServerError:
            return  # it is gone, and its subscriptions with it
