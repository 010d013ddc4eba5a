"""Hear of changes at a modern server: one `subscriptions/listen`, kept open whatever becomes of its stream.

Knows: the filter, acknowledgements, when to listen again. Does not know: transports; it sends calls like everybody else.
Invariants: at most two listens at a time, and two only until the newer one is acknowledged or refused; a resource that the
server does not take never ends what it tells of others; after a gap every list and resource counts as changed, as what was said
meanwhile is lost.

Source: 2026-07-28 basic/patterns/subscriptions.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import msgspec

from penstock.clock import Clock
from penstock.errors import ServerError, ServerMisbehaved, ServerTimedOut, forget_frames
from penstock.protocol.errors import INVALID_PARAMS, METHOD_NOT_FOUND
from penstock.protocol.subscriptions import ACKNOWLEDGED, LIST_CHANGED, UPDATED, Filter, read_honoured, write_filter
from penstock.protocol.versions import Era
from penstock.upstreams.calls import PENSTOCK, Answer, Call, Failure, Heard, Raw, Result

_log = logging.getLogger(__name__)
RETRY_SECONDS: Final = (1.0, 2.0, 5.0, 10.0, 30.0)
UNSUPPORTED_SECONDS: Final = 600.0
"""A server that refused to be listened to is asked again after this long."""
ACKNOWLEDGE_SECONDS: Final = 10.0
HEALTHY_SECONDS: Final = 30.0
"""A listen that lasted as long ended for a reason of its own: the next one comes soon."""
_SLICE: Final = 64
_NOT_HEARD: Final = Failure(METHOD_NOT_FOUND, "the server is not listened to any more", None, Era.MODERN)
_encode = msgspec.json.Encoder().encode
Outcome = Failure | ServerError | None
"""Of a subscription; None when it was taken."""


class _Listen:
    """One `subscriptions/listen` under way."""

    __slots__ = ("acknowledged", "ended_with", "honoured", "task", "wanted")

    def __init__(self, wanted: Filter) -> None:
        self.wanted: Final = wanted
        self.honoured: Filter | None = None
        self.acknowledged = asyncio.Event()
        """Or it has ended before."""
        self.task: asyncio.Task[Answer | ServerError] | None = None
        self.ended_with: Failure | ServerError | None = None
        """Its outcome, once its task is let go of."""

    @property
    def outcome(self) -> Failure | ServerError | None:
        """Why it came to its end; None while it goes on, and when that was in good order or by us."""
        if self.task is None:
            return self.ended_with
        if not self.task.done() or self.task.cancelled():
            return None
        answer = self.task.result()
        return None if isinstance(answer, Result) else answer

    @property
    def refusal(self) -> Failure | None:
        """The server's error, if it took nothing of it."""
        outcome = self.outcome
        return outcome if self.honoured is None and isinstance(outcome, Failure) else None

    @property
    def is_refused_for_resources(self) -> bool:
        """Whether it may be that the server just does not take one of the resources."""
        refusal = self.refusal
        return refusal is not None and refusal.code != METHOD_NOT_FOUND and bool(self.wanted.uris)


class ModernFeed:
    """Changes of one server."""

    __slots__ = (
        "_acknowledge_seconds",
        "_clock",
        "_current",
        "_heard",
        "_is_closed",
        "_is_stale",
        "_keeper",
        "_send",
        "_server",
        "_uris",
        "_waiting",
    )

    def __init__(
        self,
        server: str,
        send: Callable[[Call], Awaitable[Answer]],
        heard: Heard,
        clock: Clock,
        uris: Iterable[str] = (),
        *,
        acknowledge_seconds: float = ACKNOWLEDGE_SECONDS,
    ) -> None:
        """`uris`: resources that are to be subscribed to from the start."""
        self._server: Final = server
        self._send: Final = send
        self._heard: Final = heard
        self._clock: Final = clock
        self._acknowledge_seconds: Final = acknowledge_seconds
        self._uris: dict[str, None] = dict.fromkeys(uris)
        self._waiting: dict[str, asyncio.Future[Outcome]] = {}
        """Subscriptions that are not acknowledged yet."""
        self._current: _Listen | None = None
        """The one that was acknowledged last."""
        self._is_stale = asyncio.Event()
        """Other resources are wanted than the current listen names."""
        self._is_closed = False
        self._keeper: asyncio.Task[None] | None = asyncio.get_running_loop().create_task(
            self._keep(), name=f"changes of {server}"
        )

    def __repr__(self) -> str:
        state = "listening" if self._current is not None else "not listening"
        return f"<ModernFeed {self._server} {state} | {len(self._uris)} resources>"

    @property
    def is_listening(self) -> bool:
        """Whether the server has acknowledged."""
        return self._current is not None

    @property
    def uris(self) -> tuple[str, ...]:
        """What is subscribed to."""
        return tuple(self._uris)

    async def subscribe(self, uri: str) -> Failure | None:
        """See `Upstream`."""
        if self._is_closed:
            return _NOT_HEARD
        self._uris[uri] = None
        future = self._waiting.get(uri)
        if future is None:
            future = self._waiting[uri] = asyncio.get_running_loop().create_future()
        self._is_stale.set()
        outcome = await asyncio.shield(future)
        if isinstance(outcome, ServerError):
            try:
                raise outcome
            finally:
                del future, outcome  # else this frame and the error hold each other
        return outcome

    async def unsubscribe(self, uri: str) -> None:
        """See `Upstream`."""
        if uri in self._uris:
            del self._uris[uri]
            self._answer(uri, _NOT_HEARD)
            if self._current is not None:  # else the next listen just leaves it out
                self._is_stale.set()

    async def close(self) -> None:
        """Stop listening."""
        self._is_closed = True
        keeper = self._keeper
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait((keeper,))
            self._keeper = None  # a cancelled task holds its frames, and those hold us
        for uri in list(self._waiting):
            self._answer(uri, _NOT_HEARD)

    async def _keep(self) -> None:
        """Listen, and again, until cancelled."""
        failures, has_gap, began_at = 0, False, 0.0
        try:
            while True:
                before = self._current
                listen = await self._begin(tuple(self._uris))
                if self._current is None and listen.is_refused_for_resources:
                    listen = await self._begin(())  # its lists at least
                if before is None and self._current is not None:
                    began_at = self._clock.now()
                    if has_gap:
                        await self._tell_all(self._current)
                over = listen if self._current is None else await self._until_stale_or_over(self._current)
                if over is not None:
                    self._current, has_gap = None, True
                    if over.honoured is not None and self._clock.now() - began_at >= HEALTHY_SECONDS:
                        failures = 0
                    await self._rest(self._pause(over, failures))
                    failures += 1
        finally:
            current, self._current = self._current, None
            if current is not None:
                await _end(current)

    async def _begin(self, uris: tuple[str, ...]) -> _Listen:
        """Ask, and wait for the acknowledgement or the end of it; one that is not acknowledged has ended then."""
        self._is_stale.clear()
        listen = _Listen(Filter(frozenset(LIST_CHANGED), uris))

        def hear(method: str, params: dict[str, Raw]) -> None:
            if method == ACKNOWLEDGED:
                listen.honoured = read_honoured(params.get("notifications"), listen.wanted)
                listen.acknowledged.set()
            elif listen.honoured is not None and (self._current is listen or self._current is None):
                self._heard(method, params)

        params = {"notifications": Raw(write_filter(listen.wanted))}
        call = Call("subscriptions/listen", params, caller=PENSTOCK, hear=hear)
        listen.task = asyncio.get_running_loop().create_task(self._ask(call, listen))
        try:
            async with asyncio.timeout(self._acknowledge_seconds):
                await listen.acknowledged.wait()
        except TimeoutError:
            pass
        except BaseException:
            await _end(listen)
            raise
        await self._note(listen)
        return listen

    async def _ask(self, call: Call, listen: _Listen) -> Answer | ServerError:
        try:
            return await self._send(call)
        except ServerError as error:
            forget_frames(error)  # they hold the listen, which is to hold the error
            return error
        except Exception:  # the task's top: a server whose changes are not heard is listed by the clock alone
            _log.exception("changes of server '%s' are not heard by an error of ours", self._server)
            return ServerMisbehaved(self._server, "listening to it failed by an error of ours; see the log")
        finally:
            listen.acknowledged.set()

    async def _note(self, listen: _Listen) -> None:
        """Answer those that wait for what this listen has asked."""
        if listen.honoured is not None:
            previous, self._current = self._current, listen
            taken = frozenset(listen.honoured.uris)
            for uri in listen.wanted.uris:
                self._answer(uri, None if uri in taken else _not_honoured(uri))
            if previous is not None:
                await _end(previous)
            return
        outcome = listen.outcome or ServerTimedOut(
            self._server, f"it did not acknowledge subscriptions/listen within {self._acknowledge_seconds:g} s"
        )
        for uri in listen.wanted.uris:
            self._answer(uri, outcome)
        await _end(listen)

    async def _until_stale_or_over(self, listen: _Listen) -> _Listen | None:
        """The listen, if it is over."""
        assert listen.task is not None
        stale = asyncio.ensure_future(self._is_stale.wait())
        try:
            await asyncio.wait((stale, listen.task), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stale.cancel()
        return listen if listen.task.done() else None

    async def _rest(self, seconds: float) -> None:
        """Wait, but not when somebody wants to know whether it can subscribe."""
        pause = asyncio.ensure_future(self._clock.sleep(seconds))
        stale = asyncio.ensure_future(self._is_stale.wait())
        try:
            await asyncio.wait((pause, stale), return_when=asyncio.FIRST_COMPLETED)
        finally:
            pause.cancel()
            stale.cancel()

    def _pause(self, listen: _Listen, failures: int) -> float:
        if listen.refusal is not None:
            _log.info("server '%s' cannot be listened to: %s", self._server, listen.refusal.message[:200])
            return UNSUPPORTED_SECONDS
        return RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)]

    async def _tell_all(self, listen: _Listen) -> None:
        honoured = listen.honoured or listen.wanted
        for capability in sorted(honoured.lists):
            self._heard(LIST_CHANGED[capability], {})
        for number, uri in enumerate(honoured.uris, 1):
            self._heard(UPDATED, {"uri": Raw(_encode(uri))})
            if number % _SLICE == 0:
                await asyncio.sleep(0)

    def _answer(self, uri: str, outcome: Outcome) -> None:
        future = self._waiting.pop(uri, None)
        if future is None:
            return
        if outcome is not None:
            self._uris.pop(uri, None)
        if not future.done():
            future.set_result(outcome)


async def _end(listen: _Listen) -> None:
    """The task is let go of: it holds the listen, and a cycle would keep what its connection had."""
    task = listen.task
    if task is not None:
        task.cancel()
        await asyncio.wait((task,))
        listen.ended_with, listen.task = listen.outcome, None


def _not_honoured(uri: str) -> Failure:
    return Failure(INVALID_PARAMS, f"the server does not tell of updates of {uri[:200]}", None, Era.MODERN)
