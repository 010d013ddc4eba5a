"""A server made of Python functions, in this process: the fake of every upstream, and what `--demo` is built on.

Knows: faults that were ordered. Does not know: what its functions do (`in_memory_server`), other upstreams.
Invariant: it takes and gives exactly what a real upstream does: calls in, notifications and one answer out, `ServerError`s.
"""

import asyncio
from collections import deque
from time import monotonic
from typing import Any, Final, NamedTuple

import msgspec

from penstock.clock import Clock, SystemClock
from penstock.errors import ServerError, ServerUnavailable
from penstock.protocol.errors import INTERNAL_ERROR
from penstock.protocol.versions import LATEST_LEGACY, LATEST_MODERN, Era
from penstock.upstreams.calls import Answer, Call, Caller, Failure, Heard, Raw, Result
from penstock.upstreams.in_memory_server import CallContext, InMemoryServer, InputRequired, Refused, ToolFailed
from penstock.upstreams.interface import Description

__all__ = ["CallContext", "InMemoryServer", "InMemoryUpstream", "InputRequired", "Refused", "Step", "ToolFailed"]

_encode = msgspec.json.Encoder(order="deterministic").encode
_CALLS_KEPT: Final = 10_000


class Step(NamedTuple):
    """What happens to one call before, or instead of, being answered."""

    delay_seconds: float = 0.0
    error: ServerError | None = None
    answer: Answer | None = None
    wait_for: asyncio.Event | None = None


class InMemoryUpstream:
    """An `InMemoryServer` behind the interface of all upstreams, with faults to order."""

    def __init__(self, name: str, server: InMemoryServer, *, clock: Clock | None = None) -> None:
        self._name = name
        self.server = server
        self._clock: Clock = clock or SystemClock()
        self._steps: deque[Step] = deque()
        self.every_call: Step = Step()
        """What happens to calls for which no step was ordered."""
        self.calls: deque[Call] = deque(maxlen=_CALLS_KEPT)
        """Calls that came, oldest first."""
        self.cancelled: deque[Call] = deque(maxlen=_CALLS_KEPT)
        """Calls that were cancelled before they were answered."""
        self.closed_sessions: list[str] = []
        self.subscribed: set[str] = set()
        """URIs whose updates are told."""
        self._heard: Heard | None = None
        self.in_flight = 0
        self._last_error = ""
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<InMemoryUpstream {self._name} | calls {len(self.calls)} in flight {self.in_flight}>"

    @property
    def name(self) -> str:
        """As configured."""
        return self._name

    def order(self, *steps: Step) -> None:
        """Let these happen to the next calls, one each."""
        self._steps.extend(steps)

    async def call(self, call: Call) -> Answer:
        """Answer one request; see `Upstream.call`."""
        step = self._begin(call)
        self.in_flight += 1
        try:
            early = await self._take(step)
            return early if early is not None else await self._answer(call)
        except asyncio.CancelledError:
            self.cancelled.append(call)
            raise
        except ServerError as error:
            self._last_error = error.message
            raise
        finally:
            self.in_flight -= 1

    async def describe(self, caller: Caller | None = None) -> Description:
        """What the server is."""
        self._refuse_when_closed()
        await self._take(self.every_call)
        server = self.server
        return Description(
            eras=(server.era,),
            versions=(LATEST_MODERN if server.era is Era.MODERN else LATEST_LEGACY,),
            server_info=Raw(_encode(server.info)),
            capabilities=Raw(_encode(server.capabilities)),
            instructions=server.instructions,
            ttl_ms=server.ttl_ms,
        )

    async def close_session(self, session: str) -> None:
        """Note that the session has ended."""
        self.closed_sessions.append(session)

    def binds(self, caller: Caller) -> bool:
        """It keeps nothing for sessions."""
        return False

    def roots_changed(self, caller: Caller) -> None:
        """It keeps nothing for sessions."""

    def hear(self, heard: Heard) -> None:
        """See `Upstream`."""
        self._heard = heard

    def announce(self, method: str, **params: Any) -> None:
        """Let the server say that something has changed."""
        if self._heard is not None:
            self._heard(method, {key: Raw(_encode(value)) for key, value in params.items()})

    async def subscribe(self, uri: str) -> Failure | None:
        """Every resource that can be read can be subscribed to."""
        self._refuse_when_closed()
        await self._take(self.every_call)
        try:
            self.server.find_resource(uri)
        except Refused as error:
            return Failure(error.code, str(error), _encode(error.data), self.server.era)
        self.subscribed.add(uri)
        return None

    async def unsubscribe(self, uri: str) -> None:
        """See `Upstream`."""
        self.subscribed.discard(uri)

    def state(self) -> dict[str, Any]:
        """JSON-ready facts."""
        return {
            "transport": "in_memory",
            "eras": [self.server.era.value],
            "spoken_with": {caller.value: self.server.era.value for caller in Era},
            "in_flight": self.in_flight,
            "last_error": self._last_error,
        }

    def recent_log(self, lines: int) -> list[str]:
        """Nothing: there is no stderr."""
        return []

    async def close(self) -> None:
        """Refuse calls from now on."""
        self._is_closed = True

    def _begin(self, call: Call) -> Step:
        self._refuse_when_closed()
        self.calls.append(call)
        call.sent_at = monotonic()
        return self._steps.popleft() if self._steps else self.every_call

    def _refuse_when_closed(self) -> None:
        if self._is_closed:
            raise ServerUnavailable(self._name, "it is being stopped")

    async def _take(self, step: Step) -> Answer | None:
        if step.delay_seconds > 0:
            await self._clock.sleep(step.delay_seconds)
        if step.wait_for is not None:
            await step.wait_for.wait()
        if step.error is not None:
            raise step.error
        return step.answer

    async def _answer(self, call: Call) -> Answer:
        era = self.server.era
        try:
            result = await self.server.answer(call)
        except Refused as error:
            data = None if error.data is None else _encode(error.data)
            return Failure(error.code, str(error), data, era)
        except ServerError:
            raise
        except Exception as error:  # the top of a server: what a function of it raises is its answer
            return Failure(INTERNAL_ERROR, f"Internal error: {error!r}", None, era)
        finally:
            call.first_byte_at = monotonic()
        return Result(_encode(result), era)
