"""Several gateways in one process that are joined as workers are: each has a public port, and a Unix socket for the others."""

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from penstock.clock import SystemClock
from penstock.gateway.admittance import Admittance
from penstock.gateway.hops import TELLING, Hops, Telling
from penstock.gateway.worker import Worker
from penstock.http.client import HttpClient
from penstock.http.limits import ClientLimits, ServerLimits
from penstock.http.server import Exchange, HttpServer
from penstock.protocol.event_stream import Event
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Caller
from penstock.upstreams.in_memory import CallContext, InMemoryServer, InMemoryUpstream
from tests.unit.gateway.asking import FORM, LegacyClient
from tests.unit.gateway.conftest import Running, gateway_in, plan_of

Fill = Callable[[InMemoryServer, int], None]
"""Gives the server its tools; it is told which worker it belongs to."""


class Bound(InMemoryUpstream):
    """A server that keeps something for each legacy session, as one does that issues session ids."""

    is_binding = True
    """False while it does not, as before a server becomes one of the other era."""

    def binds(self, caller: Caller) -> bool:
        return self.is_binding and caller.session is not None


class Joined:
    """One worker."""

    def __init__(self, index: int, running: Running, hops: Hops, listener: socket.socket) -> None:
        self.index, self.running, self.hops, self.listener = index, running, hops, listener
        self.door: HttpServer | None = None
        self.knocks: list[Exchange] = []
        """What the others have handed over; how a new connection greets is not among it."""
        self.desk: InMemoryUpstream = InMemoryUpstream("none", InMemoryServer("none"))
        self._inner = Worker(running.gateway.context, Admittance(is_internal=True))

    async def open(self) -> None:
        """Be there for the others."""
        self.door = await HttpServer.start_at(
            self._take, self.listener.dup(), limits=ServerLimits(), clock=SystemClock()
        )

    def leave(self) -> None:
        """As when the process dies: its connections are cut, and its socket has a queue nobody looks at."""
        if self.door is not None:
            self.door.close()

    def heard(self, word: str) -> int:
        """How many requests that hold the word came from others."""
        return sum(word.encode() in exchange.request.body for exchange in self.knocks)

    def _take(self, exchange: Exchange) -> None:
        if exchange.request.path != "/health":
            self.knocks.append(exchange)
        self._inner(exchange)

    async def serve(self, fill: Fill, *, era: Era = Era.LEGACY, binds: bool = False) -> None:
        """One server, `desk`."""
        server = InMemoryServer("desk", era=era)
        fill(server, self.index)
        self.desk = (Bound if binds else InMemoryUpstream)("desk", server)
        await self.running.gateway.apply({"desk": plan_of("desk", lambda: self.desk)}, ())
        await self.running.listed()


def at(worker: Joined, client: LegacyClient) -> LegacyClient:
    """The same client, whose requests reach that worker."""
    return LegacyClient(worker.running, client.headers)


@asynccontextmanager
async def listening(worker: Joined, client: LegacyClient, last_event_id: str = "") -> AsyncIterator[list[Event]]:
    """The session's stream beside its calls, or the rest of one, opened at that worker: events as they come."""
    heard: list[Event] = []

    def take(event: Event) -> bool:
        if event.data:
            heard.append(Event(bytes(event.data), event.event, event.id, event.retry_ms))
        return False

    headers = client.headers | {"accept": "text/event-stream"}
    if last_event_id:
        headers["last-event-id"] = last_event_id
    async with HttpClient() as http:
        url = worker.running.url + "/mcp"
        task = asyncio.create_task(http.request("GET", url, headers, on_event=take, timeout=10))
        try:
            yield heard
        finally:
            task.cancel()
            await asyncio.wait((task,))


@asynccontextmanager
async def workers_in(
    folder: Path,
    fill: Fill | None = None,
    *,
    count: int = 2,
    limits: ClientLimits | None = None,
    telling: Telling = TELLING,
    **serve: Any,
) -> AsyncIterator[list[Joined]]:
    """Workers that have one server each, made by `fill`."""
    async with AsyncExitStack() as stack:
        sockets = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hops-")))
        paths = [sockets / f"{index}.sock" for index in range(count)]
        workers = []
        for index, path in enumerate(paths):
            running = await stack.enter_async_context(gateway_in(folder / str(index), worker=index))
            hops = running.gateway.context.hops = Hops(
                index,
                paths,
                clock=SystemClock(),
                limits=limits or ClientLimits(),
                in_background=running.gateway.in_background,
                telling=telling,
            )
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(path))
            listener.listen()
            listener.setblocking(False)
            worker = Joined(index, running, hops, listener)
            await worker.open()
            stack.callback(worker.leave)
            stack.push_async_callback(hops.close)
            workers.append(worker)
            if fill is not None:
                await worker.serve(fill, **serve)
        yield workers


# --- what the servers can do ---


def desk(server: InMemoryServer, index: int) -> None:
    """A tool for each thing a call may do."""

    @server.tool("work", input_schema={"type": "object"})
    async def do(arguments: dict[str, Any], context: CallContext) -> Any:
        return await TOOLS[arguments.get("do", "say")](index, arguments, context)

    @server.resource("desk://paper", name="paper")
    async def paper(_arguments: dict[str, Any], _context: CallContext) -> Any:
        return f"paper of {index}"


async def say(index: int, _arguments: dict[str, Any], _context: CallContext) -> Any:
    return f"by {index}"


async def ask(index: int, _arguments: dict[str, Any], context: CallContext) -> Any:
    reply = await context.ask("elicitation/create", FORM)
    return f"{reply['content']['name']} by {index}"


async def never(_index: int, _arguments: dict[str, Any], context: CallContext) -> Any:
    context.progress(1)
    await asyncio.Event().wait()


async def log(index: int, _arguments: dict[str, Any], context: CallContext) -> Any:
    context.log("debug", "a detail")
    return f"by {index}"


async def count(index: int, arguments: dict[str, Any], context: CallContext) -> Any:
    for number in range(arguments["to"]):
        context.progress(number + 1, message="x" * arguments.get("size", 0))
        if number % 20 == 19:
            await asyncio.sleep(0)
    return f"by {index}"


async def large(index: int, arguments: dict[str, Any], context: CallContext) -> Any:
    if arguments.get("stream"):
        context.progress(1)
    return f"{index}" * arguments["size"]


TOOLS = {"say": say, "ask": ask, "never": never, "log": log, "count": count, "large": large}
