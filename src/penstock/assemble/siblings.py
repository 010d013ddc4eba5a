"""One worker among several: its door for the others, and its way to theirs.

Knows: what workers ask of each other beside calls. Does not know: calls; those are the gateway's, whoever hands them over.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from penstock.assemble.conversions import client_limits, server_limits
from penstock.clock import Clock
from penstock.config.settings import LimitsSettings
from penstock.control.admin import Admin, Reloaded
from penstock.control.supervisor import WorkerPlace
from penstock.errors import PenstockError
from penstock.gateway.admittance import Admittance
from penstock.gateway.gateway import Gateway
from penstock.gateway.hops import Hops
from penstock.gateway.worker import Worker
from penstock.http.server import Exchange, HttpServer

_log = logging.getLogger(__name__)
METRICS: Final = "/-/metrics"
RELOAD: Final = "/-/reload"
ANSWER_SECONDS: Final = 10.0


class Siblings:
    """See the module."""

    def __init__(self, place: WorkerPlace, gateway: Gateway, limits: LimitsSettings, clock: Clock) -> None:
        self._place = place
        self._limits = limits
        self._clock = clock
        self._inner = Worker(gateway.context, Admittance(is_internal=True))
        self._hops = gateway.context.hops = Hops(
            place.index, place.siblings, clock=clock, limits=client_limits(limits), in_background=gateway.in_background
        )
        self._metrics: Callable[[], bytes] = bytes
        self._reload: Callable[[], Awaitable[Reloaded]] | None = None

    def __repr__(self) -> str:
        return f"<Siblings of worker {self._place.index} of {self._place.count}>"

    async def listen(self, admin: Admin, reload: Callable[[], Awaitable[Reloaded]]) -> HttpServer:
        """Open the door for the others."""
        self._metrics, self._reload = admin.metrics, reload
        return await HttpServer.start_at(
            self._take, self._place.listener, limits=server_limits(self._limits), clock=self._clock
        )

    async def metrics(self) -> list[bytes]:
        """Those of all others that can be reached."""
        return await self._ask_all(b"GET", METRICS)

    async def reload(self) -> None:
        """Let all others read the configuration again."""
        await self._ask_all(b"POST", RELOAD)

    async def close(self) -> None:
        """End the connections to the others."""
        await self._hops.close()

    def _take(self, exchange: Exchange) -> None:
        path = exchange.request.path
        if path == METRICS:
            exchange.respond(200, self._metrics(), b"text/plain")
        elif path == RELOAD and self._reload is not None:
            exchange.spawn(self._answer_reload(exchange, self._reload))
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
        asked = (self._hops.ask(number, method, path.encode()) for number in others)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answers = await asyncio.gather(*asked, return_exceptions=True)
        except TimeoutError:
            _log.warning("a worker did not answer within %g s", ANSWER_SECONDS)
            return []
        return [answer.body for answer in answers if not isinstance(answer, BaseException)]
