"""One worker among several: its door for the others, and its way to theirs.

Knows: what workers ask of each other beside calls. Does not know: calls; those are the gateway's, whoever hands them over.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from penstock.assemble.conversions import door_limits, sibling_limits
from penstock.clock import Clock
from penstock.config.settings import LimitsSettings
from penstock.control.admin import Admin, Reloaded
from penstock.control.supervisor import WorkerPlace
from penstock.errors import PenstockError, ServerError
from penstock.gateway.admittance import Admittance
from penstock.gateway.gateway import Gateway
from penstock.gateway.hops import Hops
from penstock.gateway.worker import Worker
from penstock.http.client import RequestFailed, Response
from penstock.http.passage import Passage
from penstock.http.server import Exchange, HttpServer

_log = logging.getLogger(__name__)
RELOAD: Final = "/-/reload"
ANSWER_SECONDS: Final = 5.0
LAST_SECONDS: Final = 5.0
"""What the others may take, after the drain, to let go of their servers."""


class Siblings:
    """See the module."""

    def __init__(self, place: WorkerPlace, gateway: Gateway, limits: LimitsSettings, clock: Clock) -> None:
        self._place = place
        self._gateway = gateway
        self._limits = limits
        self._clock = clock
        self._inner = Worker(gateway.context, Admittance(is_internal=True))
        self._passage = Passage(place.passage, place.passages) if place.passage is not None else None
        self._hops = gateway.context.hops = Hops(
            place.index,
            place.siblings,
            clock=clock,
            limits=sibling_limits(limits),
            in_background=gateway.in_background,
            passage=self._passage,
            header_bytes=limits.header_bytes,
        )
        self._page: Callable[[str, str], bytes | None] = lambda _path, _query: None
        self._reload: Callable[[], Awaitable[Reloaded]] | None = None
        self._door: HttpServer | None = None

    def __repr__(self) -> str:
        return f"<Siblings of worker {self._place.index} of {self._place.count}>"

    async def listen(self, admin: Admin, reload: Callable[[], Awaitable[Reloaded]]) -> HttpServer:
        """Open the door for the others."""
        self._page, self._reload = admin.own_page, reload
        self._door = await HttpServer.start_at(
            self._take, self._place.listener, limits=door_limits(self._limits), clock=self._clock
        )
        return self._door

    def take_clients(self, server: HttpServer) -> None:
        """Let the others pass connections to that server."""
        if self._passage is not None:
            self._passage.open(server.adopt)

    @property
    def is_first(self) -> bool:
        """See `WorkerPlace`."""
        return self._place.is_first

    @property
    def count(self) -> int:
        """How many others there should be."""
        return self._place.count - 1

    async def ask(self, target: str) -> list[bytes]:
        """The pages of all others that can be reached."""
        return await self._ask_all(b"GET", target)

    async def reload(self) -> None:
        """Let all others read the configuration again."""
        await self._ask_all(b"POST", RELOAD)

    async def drain(self, until: float, hurry: asyncio.Event) -> bool:
        """Let the others' calls end that are under way here; True if nothing was cut.

        The first waits until all others have ended: their calls to stdio servers come through it, and so does the end of their
        sessions there.
        """
        self._keep_clients()
        if self._place.is_first:
            await self._others_gone(until - self._clock.now() + LAST_SECONDS, hurry)
        self._gateway.listeners.end_all()  # some were opened again meanwhile
        return self._door is None or await self._door.drain(max(until - self._clock.now(), 0.0))

    async def _others_gone(self, seconds: float, hurry: asyncio.Event) -> None:
        loop, gone = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._place.others_gone, gone.set)
        waiting = [loop.create_task(event.wait()) for event in (gone, hurry)]
        try:
            await asyncio.wait(waiting, timeout=max(seconds, 0.0), return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.remove_reader(self._place.others_gone)
            for task in waiting:
                task.cancel()

    async def close(self) -> None:
        """End the connections to the others."""
        self._keep_clients()
        await self._hops.close()

    def _keep_clients(self) -> None:
        if self._passage is not None:
            self._passage.close()

    def _take(self, exchange: Exchange) -> None:
        path = exchange.request.path
        if path == RELOAD and self._reload is not None:
            exchange.spawn(self._answer_reload(exchange, self._reload))
        elif (page := self._page(path, exchange.request.query.decode("latin-1"))) is not None:
            exchange.respond(200, page, b"application/octet-stream")
        else:
            self._inner(exchange)

    @staticmethod
    async def _answer_reload(exchange: Exchange, reload: Callable[[], Awaitable[Reloaded]]) -> None:
        try:
            await reload()
        except PenstockError as error:
            _log.error("configuration not taken up, the old one stays: %s", error.message)
        exchange.respond(204)

    async def _ask_all(self, method: bytes, path: str) -> list[bytes]:
        others = [number for number in range(self._place.count) if number != self._place.index]
        answers = await asyncio.gather(*(self._ask(number, method, path) for number in others))
        return [answer.body for answer in answers if answer is not None and answer.status < 300]

    async def _ask(self, worker: int, method: bytes, path: str) -> Response | None:
        """None from one that is away, or does not answer in time."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self._hops.ask(worker, method, path.encode())
        except (RequestFailed, ServerError) as error:
            _log.warning("worker %d cannot be asked: %s", worker, error)
        except TimeoutError:
            _log.warning("worker %d did not answer within %g s", worker, ANSWER_SECONDS)
        return None
