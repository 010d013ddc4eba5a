"""Streams on which clients hear of changes: `subscriptions/listen`, and the GET stream of a legacy session.

Knows: exchanges, views, listeners. Does not know: who changes what, or how servers are asked.
Invariant: the acknowledgement is the first thing a modern client hears, and names no more than it asked for.

Source: 2026-07-28 basic/patterns/subscriptions; 2025-11-25 basic/transports, server/resources.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from penstock.gateway.context import GatewayContext
from penstock.gateway.edges.head import HeadFacts
from penstock.gateway.edges.modern_tasks import LACKING, find_task
from penstock.gateway.hosting import HostedServer
from penstock.gateway.listeners import Listener
from penstock.gateway.replay import LISTEN, is_of_call
from penstock.gateway.sessions import ClientSession
from penstock.gateway.subscriptions import Refusal
from penstock.gateway.task_watch import TaskWatch
from penstock.gateway.view import View
from penstock.http.server import Exchange
from penstock.protocol.admission import Refusal as Refused
from penstock.protocol.envelopes import encode_error
from penstock.protocol.errors import INVALID_REQUEST, METHOD_NOT_FOUND, RESOURCE_NOT_FOUND
from penstock.protocol.event_stream import encode_event
from penstock.protocol.messages import Fault, Request
from penstock.protocol.subscriptions import LIST_CHANGED, Filter, acknowledgement, read_filter
from penstock.protocol.tasks import declares_tasks
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Caller, Failure
from penstock.upstreams.interface import SubscribesApart

SUBSCRIBE_SECONDS: Final = 5.0
"""How long a listener waits for the servers of its resources before it is acknowledged without them."""
FIRST_PRIMED: Final = "2025-11-25"
"""First revision whose clients take an event that has an id and nothing else."""
MAX_LEGACY_URIS: Final = 1_000
"""Resources one legacy session subscribes to."""
_NO_STREAM: Final = Refused(INVALID_REQUEST, "Invalid request: subscriptions/listen needs 'Accept: text/event-stream'")


class Listening:
    """Opens and closes them."""

    def __init__(self, context: GatewayContext) -> None:
        self._context = context

    def __repr__(self) -> str:
        return f"<Listening {self._context.listeners!r}>"

    def listen(
        self, exchange: Exchange, view: View, request: Request, facts: HeadFacts, caller: Caller
    ) -> Refused | None:
        """A modern client's `subscriptions/listen`; why it is refused, or None."""
        wanted = read_filter(request.params.get("notifications"))
        if isinstance(wanted, Fault):
            return Refused(wanted.code, wanted.message)
        if wanted.tasks and view.identity.has_tasks and not declares_tasks(caller.capabilities):
            return LACKING
        if not facts.takes_stream:
            return _NO_STREAM
        if wanted.uris or wanted.tasks or self._context.is_pending(view):
            task = exchange.spawn(self._open_later(exchange, view, request.id, wanted, caller))
            exchange.on_disconnect = task.cancel
        else:
            self._open(exchange, Listener(view.name, wanted.lists & _offered(view).lists, None, request.id), ())
        return None

    def open_stream(self, exchange: Exchange, view: View, session: ClientSession) -> None:
        """The GET stream of a legacy session; the newest one is the one that is written to."""
        listener = self.listener_of(view, session)
        before = listener.stream
        stream = listener.stream = self._context.replay.open(session.key, LISTEN, exchange.open_stream())
        if session.caller.revision >= FIRST_PRIMED:
            stream.prime()
        if before is not None:
            before.finish()
        self._context.listeners.add(listener)

    def resume(self, exchange: Exchange, view: View, session: ClientSession, event_id: bytes) -> None:
        """GET with `Last-Event-ID`: the rest of a stream. One of a call of which nothing is kept ends at once; one that was
        listened to begins anew.
        """
        found = self._context.replay.find(session.key, event_id)
        if found is not None:
            stream, number = found
            stream.resume(number, exchange.open_stream())
        elif is_of_call(event_id):
            exchange.open_stream().finish()
        else:
            self.open_stream(exchange, view, session)

    @staticmethod
    def listener_of(view: View, session: ClientSession) -> Listener:
        """What a legacy session wants to hear of: all lists, and the resources it subscribes to."""
        if session.listener is None:
            session.listener = Listener(view.name, frozenset(LIST_CHANGED), None)
        return session.listener

    async def subscribe(self, view: View, session: ClientSession, uri: str) -> Refusal | None:
        """A legacy client's `resources/subscribe`."""
        if session.is_over:  # ended by another request while this one waited for its turn
            return Failure(INVALID_REQUEST, "the session has ended: initialize again", None, Era.LEGACY)
        listener = self.listener_of(view, session)
        if len(listener.uris) >= MAX_LEGACY_URIS and uri not in listener.uris:
            return Failure(
                INVALID_REQUEST, f"{MAX_LEGACY_URIS} resources are subscribed to, the most that may", None, Era.LEGACY
            )
        refusal = await self._subscribe(view, listener, uri)
        if refusal is None:
            await self._subscribe_apart(view, session, uri)
        return refusal

    def unsubscribe(self, view: View, session: ClientSession, uri: str) -> None:
        """A legacy client's `resources/unsubscribe`."""
        server = self._server_of(view, session, uri)
        if session.listener is not None:
            self._context.subscriptions.unsubscribe(session.listener, uri)
        if server is not None and isinstance(server.upstream, SubscribesApart):
            self._context.in_background(server.upstream.unsubscribe_apart(session.caller, uri))

    async def _subscribe_apart(self, view: View, session: ClientSession, uri: str) -> None:
        """In the client's own session at the server too, where there is one, unless the client has left meanwhile."""
        server = self._server_of(view, session, uri)
        if server is not None and isinstance(server.upstream, SubscribesApart) and not session.is_over:
            await server.upstream.subscribe_apart(session.caller, uri)

    @staticmethod
    def _server_of(view: View, session: ClientSession, uri: str) -> HostedServer | None:
        """Where the session is subscribed to a resource."""
        name = session.listener.uris.get(uri) if session.listener is not None else None
        return next((server for server in view.servers if server.name == name), None)

    async def _open_later(
        self, exchange: Exchange, view: View, request_id: bytes, wanted: Filter, caller: Caller
    ) -> None:
        """What is offered is known once the servers were listed, and what is honoured once they were asked."""
        listed = await self._context.listed_view(view.name) if self._context.is_pending(view) else view
        if listed is None:
            self._refuse_removed(exchange, request_id)
            return
        offered = _offered(listed)
        listener = Listener(view.name, wanted.lists & offered.lists, None, request_id)
        watches = self._watches(listed, listener, wanted.tasks, caller)
        try:
            async with asyncio.timeout(SUBSCRIBE_SECONDS), asyncio.TaskGroup() as group:
                for uri in wanted.uris if offered.uris else ():
                    group.create_task(self._subscribe(listed, listener, uri))
                for watch in watches:
                    group.create_task(watch.begin(self._context.task_watches))
        except TimeoutError:
            pass  # acknowledged are those that were had
        except BaseException:
            self._release(listener, watches)
            raise
        exchange.release()
        if self._context.has_view(view.name):
            self._open(exchange, listener, watches)
        else:
            self._release(listener, watches)
            self._refuse_removed(exchange, request_id)

    def _open(self, exchange: Exchange, listener: Listener, watches: Sequence[TaskWatch]) -> None:
        context = self._context
        assert listener.subscription_id is not None, "modern listeners have one"
        stream = listener.stream = exchange.open_stream()
        exchange.on_disconnect = lambda: self._release(listener, watches)
        listener.on_end = lambda: _close(watches)
        exchange.request.body = b""  # it was read, and would be kept for as long as somebody listens
        tasks = tuple(token for watch in watches for token in watch.honoured)
        honoured = Filter(listener.lists, tuple(listener.uris), tasks)
        stream.send(encode_event(acknowledgement(listener.subscription_id, honoured)))
        context.listeners.add(listener)
        for watch in watches:
            if watch.honoured:
                watch.on_over(lambda: self._end(listener))
            else:
                watch.close()  # it has not answered in time, or tells of none

    def _watches(self, view: View, listener: Listener, tokens: tuple[str, ...], caller: Caller) -> list[TaskWatch]:
        """One for each server that has some of the tasks."""
        found: dict[HostedServer, dict[str, str]] = {}
        for token in tokens:
            task = find_task(self._context, view, token, caller)
            if task is not None:
                found.setdefault(task[0], {})[task[1].task] = token
        return [TaskWatch(server, mine, caller, listener.tell_task) for server, mine in found.items()]

    def _release(self, listener: Listener, watches: Sequence[TaskWatch]) -> None:
        self._context.subscriptions.release(listener)
        _close(watches)

    def _end(self, listener: Listener) -> None:
        """A server tells no more of tasks: the client may begin anew."""
        listener.end()
        self._context.subscriptions.release(listener)

    @staticmethod
    def _refuse_removed(exchange: Exchange, request_id: bytes) -> None:
        body = encode_error(request_id, METHOD_NOT_FOUND, "this view has just been removed", null_id=False)
        exchange.respond(404, body)

    async def _subscribe(self, view: View, listener: Listener, uri: str) -> Refusal | None:
        route = view.find("resources/read", uri)
        if route is None:
            return Failure(RESOURCE_NOT_FOUND, f"no server of this view has the resource {uri[:200]}", None, Era.LEGACY)
        return await self._context.subscriptions.subscribe(listener, route.server, uri)


def _close(watches: Sequence[TaskWatch]) -> None:
    for watch in watches:
        watch.close()


def _offered(view: View) -> Filter:
    """What the view says it tells of."""
    capabilities = msgspec.json.decode(view.identity.capabilities)
    lists = frozenset(name for name in LIST_CHANGED if name in capabilities)
    resources = capabilities.get("resources")
    return Filter(lists, ("*",) if isinstance(resources, dict) and resources.get("subscribe") is True else ())
