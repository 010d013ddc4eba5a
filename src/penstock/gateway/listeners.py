"""Who wants to hear of changes, and how they are told.

Knows: streams, the views they listen to, resources they subscribed to. Does not know: eras' edges, how servers tell.
Invariants: a listener hears only what it asked for; many changes of one list or resource within a moment are told once; telling
ten thousand listeners never holds up the calls for longer than a slice of them takes.

Source: 2026-07-28 basic/patterns/subscriptions.
"""

import asyncio
from collections.abc import Callable, Container, Coroutine, Iterator
from typing import Any, Final

import msgspec

from penstock.clock import Clock
from penstock.gateway.replay import EventSink
from penstock.protocol.envelopes import encode_result
from penstock.protocol.event_stream import encode_event
from penstock.protocol.subscriptions import closing_result, list_changed, task_changed, updated

SLICE: Final = 16
"""Listeners told in one turn of the loop: 23 µs each, most of it the kernel's, make a third of a millisecond."""
GATHER_SECONDS: Final = 0.05
"""Changes within this time are told together."""
MAX_PARENTS: Final = 32
"""How many levels up it is looked for who subscribed."""
PAUSE_SECONDS: Final = 0.5
"""Between one telling and the next, when changes do not stop."""
MAX_UPDATES: Final = 10_000
"""Parts of resources that wait to be told of; beyond it the resource is named that was subscribed to."""
MAX_UPDATES_SIZE: Final = 1024 * 1024
"""Characters of their URIs together, likewise: a server may make each as long as a message may be."""


class Listener:
    """One client's stream that changes of one view are told on."""

    __slots__ = ("_apart", "lists", "on_end", "stream", "subscription_id", "uris", "view")

    def __init__(
        self, view: str, lists: frozenset[str], stream: EventSink | None, subscription_id: bytes | None = None
    ) -> None:
        self.view: Final = view
        self.lists: Final = lists
        """Capabilities whose lists it wants to hear of."""
        self.uris: dict[str, str] = {}
        """Resources it has subscribed to, each with the name of its server."""
        self._apart: set[str] | None = None
        """Those of them of which it is told what a session of its own at the server hears, and nothing else."""
        self.stream = stream
        """None while a legacy client has none open."""
        self.subscription_id: Final = subscription_id
        """JSON bytes of a modern client's request id; None for a legacy client."""
        self.on_end: Callable[[], None] | None = None
        """Told once when the stream is ended by us."""

    def __repr__(self) -> str:
        era = "legacy" if self.subscription_id is None else "modern"
        return f"<Listener {era} {self.view or 'all'} {' '.join(sorted(self.lists))} | {len(self.uris)} resources>"

    def tell_list_changed(self, capability: str) -> None:
        """The list of that capability has changed."""
        if self.stream is not None and capability in self.lists:
            self.stream.send(encode_event(list_changed(capability, self.subscription_id)), droppable=True)

    def hear_apart(self, uri: str, *, apart: bool) -> None:
        """Whether a session of its own at the server hears of that resource, if it still subscribes to it."""
        if apart and uri in self.uris:
            self._apart = self._apart or set()
            self._apart.add(uri)
        elif self._apart is not None:
            self._apart.discard(uri)

    def hears_with_all(self, uri: str) -> bool:
        """Whether it is told what everybody is told of that resource."""
        return self._apart is None or uri not in self._apart

    def tell_apart(self, uri: str) -> bool:
        """Its own session has heard that a resource, or a part of one, has changed; False when it does not hear apart of it."""
        if self._apart is None or self._apart.isdisjoint(_with_parents(uri)):
            return False
        self.tell_updated(uri)
        return True

    def tell_updated(self, uri: str) -> None:
        """A resource has changed."""
        if self.stream is not None:
            self.stream.send(encode_event(updated(uri, self.subscription_id)), droppable=True)

    def tell_task(self, params: dict[str, msgspec.Raw], task_id: str) -> None:
        """A task has got on; what a server says of it, and the id by which the client knows it."""
        if self.stream is not None and self.subscription_id is not None:
            self.stream.send(encode_event(task_changed(params, task_id, self.subscription_id)))

    def end(self) -> None:
        """End the stream in good order: the gateway stops, or the view is gone."""
        stream, self.stream = self.stream, None
        on_end, self.on_end = self.on_end, None
        if on_end is not None:
            on_end()
        if stream is None:
            return
        if self.subscription_id is None:
            stream.finish()
        else:
            stream.finish(encode_event(encode_result(self.subscription_id, closing_result(self.subscription_id))))


class Listeners:
    """All of one worker."""

    __slots__ = (
        "_by_resource",
        "_by_view",
        "_clock",
        "_in_background",
        "_is_over",
        "_is_telling",
        "_is_telling_updates",
        "_pending",
        "_told",
        "_told_at",
        "_updates",
        "_updates_size",
    )

    def __init__(self, clock: Clock, in_background: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self._clock = clock
        self._in_background = in_background
        self._by_view: dict[str, dict[Listener, None]] = {}
        self._by_resource: dict[tuple[str, str], dict[Listener, None]] = {}
        self._pending: dict[tuple[str, str], None] = {}
        """Views and capabilities whose change is still to be told."""
        self._updates: dict[tuple[str, str], None] = {}
        """Servers and resources whose update is still to be told."""
        self._updates_size = 0
        self._is_telling = self._is_telling_updates = False
        self._told_at = -PAUSE_SECONDS
        self._told = 0
        """Messages so far."""
        self._is_over = False
        """The gateway stops: nobody listens any more."""

    def __repr__(self) -> str:
        return f"<Listeners [{len(self)}] {len(self._by_resource)} resources>"

    def __len__(self) -> int:
        return sum(len(listeners) for listeners in self._by_view.values())

    def add(self, listener: Listener) -> None:
        """Tell it from now on of changed lists."""
        if self._is_over:
            listener.end()
        else:
            self._by_view.setdefault(listener.view, {})[listener] = None

    def discard(self, listener: Listener) -> None:
        """Tell it nothing more of lists."""
        found = self._by_view.get(listener.view)
        if found is not None:
            found.pop(listener, None)
            if not found:
                del self._by_view[listener.view]

    def subscribe(self, listener: Listener, server: str, uri: str) -> None:
        """Tell it of updates of that resource."""
        listener.uris[uri] = server
        self._by_resource.setdefault((server, uri), {})[listener] = None

    def unsubscribe(self, listener: Listener, uri: str) -> str | None:
        """Stop that; returns the resource's server when nobody wants to hear of it any more."""
        server = listener.uris.pop(uri, None)
        listener.hear_apart(uri, apart=False)
        found = self._by_resource.get((server, uri)) if server is not None else None
        if server is None or found is None:
            return None
        found.pop(listener, None)
        if found:
            return None
        del self._by_resource[server, uri]
        return server

    def is_wanted(self, server: str, uri: str) -> bool:
        """Whether anybody subscribed to that resource."""
        return (server, uri) in self._by_resource

    def list_changed(self, view: str, capability: str) -> None:
        """Tell the view's listeners soon."""
        if view in self._by_view:
            self._pending[view, capability] = None
            if not self._is_telling:
                self._is_telling = True
                self._in_background(self._tell())

    @property
    def resources(self) -> int:
        """Resources somebody subscribed to."""
        return len(self._by_resource)

    def subscribed(self, view: str, servers: Container[str] | None) -> list[tuple[Listener, str]]:
        """What the view's listeners subscribed to at these servers, or at all."""
        return [
            (listener, uri)
            for (server, uri), found in self._by_resource.items()
            if servers is None or server in servers
            for listener in found
            if listener.view == view
        ]

    def updated(self, server: str, uri: str) -> None:
        """Tell those who subscribed to the resource, or to one it is a part of: in the next turn of the loop, or soon."""
        known = next((one for one in _with_parents(uri) if (server, one) in self._by_resource), None)
        if known is None:
            return
        if len(self._updates) >= MAX_UPDATES or self._updates_size + len(uri) > MAX_UPDATES_SIZE:
            uri = known
        if (server, uri) not in self._updates:
            self._updates[server, uri] = None
            self._updates_size += len(uri)
        if not self._is_telling_updates:
            self._is_telling_updates = True
            self._in_background(self._tell_updates())

    def end_all(self, view: str | None = None) -> list[Listener]:
        """End all streams in good order, and return whose they were; of one view, or all, and then for good."""
        self._is_over = self._is_over or view is None
        names = [view] if view is not None else list(self._by_view)
        ended = [listener for name in names for listener in self._by_view.pop(name, {})]
        for listener in ended:
            listener.end()
        return ended

    async def _tell(self) -> None:
        """Runs while there is something to tell."""
        try:
            while self._pending:
                rest = self._told_at + PAUSE_SECONDS - self._clock.now()
                await self._clock.sleep(max(GATHER_SECONDS, rest))
                pending, self._pending = self._pending, {}
                for view, capability in pending:
                    for listener in list(self._by_view.get(view, ())):
                        listener.tell_list_changed(capability)
                        await self._breathe()
                self._told_at = self._clock.now()
        finally:
            self._is_telling = False

    async def _tell_updates(self) -> None:
        """Likewise; the first at once, and the more there is to tell the longer what comes then is gathered."""
        try:
            while self._updates:
                updates, self._updates, self._updates_size = self._updates, {}, 0
                before = self._told
                for server, uri in updates:
                    await self._tell_updated(server, uri)
                await self._clock.sleep(GATHER_SECONDS if self._told - before <= SLICE else PAUSE_SECONDS)
        finally:
            self._is_telling_updates = False

    async def _tell_updated(self, server: str, uri: str) -> None:
        told: set[Listener] = set()
        for candidate in _with_parents(uri):
            for listener in list(self._by_resource.get((server, candidate), ())):
                if listener in told or not listener.hears_with_all(candidate):
                    continue
                if listener.uris.get(candidate) == server:
                    told.add(listener)
                    listener.tell_updated(uri)
                    await self._breathe()

    async def _breathe(self) -> None:
        """After a slice of messages, let others have their turn."""
        self._told += 1
        if self._told % SLICE == 0:
            await asyncio.sleep(0)


def _with_parents(uri: str) -> Iterator[str]:
    """The URI, and those of which it names a part, with and without a slash at the end."""
    yield uri
    cut = uri.rfind("/")
    for _ in range(MAX_PARENTS):
        if cut <= 0 or uri[cut - 1] in "/:":
            return
        if cut + 1 < len(uri):
            yield uri[: cut + 1]
        yield uri[:cut]
        cut = uri.rfind("/", 0, cut)
