"""Hear of changes at a modern server: one `subscriptions/listen`, kept open whatever becomes of its stream.

Knows: the filter, acknowledgements, when to listen again. Does not know: transports; it sends calls like everybody else.
Invariants: at most two listens at a time, and two only until the newer one is acknowledged; after a gap every list counts as
changed, as what was said meanwhile is lost.

Source: 2026-07-28 basic/patterns/subscriptions.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import msgspec

from penstock.clock import Clock
from penstock.errors import ServerError
from penstock.protocol.errors import INVALID_PARAMS, METHOD_NOT_FOUND
from penstock.protocol.messages import Fault
from penstock.protocol.subscriptions import ACKNOWLEDGED, LIST_CHANGED, Filter, read_filter, write_filter
from penstock.protocol.versions import Era
from penstock.upstreams.interface import PENSTOCK, Answer, Call, Failure, Heard, Raw

_log = logging.getLogger(__name__)
RETRY_SECONDS: Final = (1.0, 2.0, 5.0, 10.0, 30.0)
UNSUPPORTED_SECONDS: Final = 600.0
"""A server that refused to be listened to is asked again after this long."""
ACKNOWLEDGE_SECONDS: Final = 10.0
_decode_params = msgspec.json.Decoder(dict[str, Raw]).decode


class _Listen:
    """One `subscriptions/listen` under way."""

    __slots__ = ("acknowledged", "honoured", "task", "wanted")

    def __init__(self, wanted: Filter) -> None:
        self.wanted: Final = wanted
        self.honoured: Filter | None = None
        self.acknowledged = asyncio.Event()
        """Or it has ended before."""
        self.task: asyncio.Task[Answer | ServerError] | None = None

    def answer(self) -> Answer | ServerError | None:
        """How it has ended; None while it goes on, or when we ended it."""
        return self.task.result() if self.task is not None and _is_over(self) else None


class ModernFeed:
    """Changes of one server."""

    __slots__ = ("_clock", "_current", "_heard", "_is_stale", "_keeper", "_send", "_server", "_uris", "_waiting")

    def __init__(
        self,
        server: str,
        send: Callable[[Call], Awaitable[Answer]],
        heard: Heard,
        clock: Clock,
        uris: Iterable[str] = (),
    ) -> None:
        """`uris`: resources that are to be subscribed to from the start."""
        self._server: Final = server
        self._send: Final = send
        self._heard: Final = heard
        self._clock: Final = clock
        self._uris: dict[str, None] = dict.fromkeys(uris)
        self._waiting: dict[str, asyncio.Future[Failure | ServerError | None]] = {}
        """Subscriptions that are not acknowledged yet."""
        self._current: _Listen | None = None
        self._is_stale = asyncio.Event()
        """Other resources are wanted than the current listen names."""
        self._keeper: asyncio.Task[None] = asyncio.get_running_loop().create_task(
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
        self._uris[uri] = None
        future = self._waiting.get(uri)
        if future is None:
            future = self._waiting[uri] = asyncio.get_running_loop().create_future()
        self._is_stale.set()
        refusal = await asyncio.shield(future)
        if refusal is not None:
            self._uris.pop(uri, None)
        if isinstance(refusal, ServerError):
            raise refusal
        return refusal

    async def unsubscribe(self, uri: str) -> None:
        """See `Upstream`."""
        if self._uris.pop(uri, self) is None:
            self._is_stale.set()

    async def close(self) -> None:
        """Stop listening."""
        self._keeper.cancel()
        await asyncio.wait((self._keeper,))
        self._answer_waiting(Failure(METHOD_NOT_FOUND, "the server is not listened to any more", None, Era.MODERN))

    async def _keep(self) -> None:
        """Listen, and again, until cancelled."""
        failures, has_heard = 0, False
        previous: _Listen | None = None
        try:
            while True:
                listen = await self._begin()
                if previous is not None:
                    await _end(previous)
                previous = listen
                if listen.honoured is not None:
                    if failures and has_heard:
                        self._tell_all(listen.honoured)
                    failures, has_heard = 0, True
                    await self._until_stale_or_over(listen)
                    if not _is_over(listen):
                        continue
                self._current = None
                pause = self._pause(listen, failures)
                await _end(listen)
                previous = None
                await self._rest(pause)
                failures += 1
        finally:
            self._current = None
            if previous is not None:
                await _end(previous)

    async def _begin(self) -> _Listen:
        """Ask, and wait for the acknowledgement or the end of it."""
        self._is_stale.clear()
        listen = _Listen(Filter(frozenset(LIST_CHANGED), tuple(self._uris)))

        def hear(method: str, params: dict[str, Raw]) -> None:
            if method == ACKNOWLEDGED:
                honoured = read_filter(params.get("notifications"))
                listen.honoured = Filter(frozenset(), ()) if isinstance(honoured, Fault) else honoured
                listen.acknowledged.set()
            elif listen.honoured is not None and (self._current is listen or self._current is None):
                self._heard(method, params)

        params = {"notifications": Raw(write_filter(listen.wanted))}
        call = Call("subscriptions/listen", params, caller=PENSTOCK, hear=hear)
        listen.task = asyncio.get_running_loop().create_task(self._ask(call, listen))
        try:
            async with asyncio.timeout(ACKNOWLEDGE_SECONDS):
                await listen.acknowledged.wait()
        except TimeoutError:
            pass
        except BaseException:
            await _end(listen)
            raise
        self._note(listen)
        return listen

    async def _ask(self, call: Call, listen: _Listen) -> Answer | ServerError:
        try:
            return await self._send(call)
        except ServerError as error:
            return error
        finally:
            listen.acknowledged.set()

    def _note(self, listen: _Listen) -> None:
        """Answer those that wait for what this listen has asked."""
        if listen.honoured is not None:
            self._current = listen
            for uri in listen.wanted.uris:
                refused = uri not in listen.honoured.uris
                self._answer(uri, _not_honoured(uri) if refused else None)
            return
        answer = listen.answer()
        if isinstance(answer, Failure | ServerError):
            self._answer_waiting(answer)
        else:
            self._answer_waiting(Failure(METHOD_NOT_FOUND, "the server does not acknowledge it", None, Era.MODERN))

    async def _until_stale_or_over(self, listen: _Listen) -> None:
        assert listen.task is not None
        stale = asyncio.ensure_future(self._is_stale.wait())
        try:
            await asyncio.wait((stale, listen.task), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stale.cancel()

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
        answer = listen.answer()
        if isinstance(answer, Failure) and listen.honoured is None:
            _log.info("server '%s' cannot be listened to: %s", self._server, answer.message[:200])
            return UNSUPPORTED_SECONDS
        return RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)]

    def _tell_all(self, honoured: Filter) -> None:
        for capability in sorted(honoured.lists):
            self._heard(LIST_CHANGED[capability], {})

    def _answer_waiting(self, failure: Failure | ServerError) -> None:
        for uri in list(self._waiting):
            self._answer(uri, failure)

    def _answer(self, uri: str, refusal: Failure | ServerError | None) -> None:
        future = self._waiting.pop(uri, None)
        if future is not None and not future.done():
            future.set_result(refusal)


def _is_over(listen: _Listen) -> bool:
    return listen.task is not None and listen.task.done() and not listen.task.cancelled()


async def _end(listen: _Listen) -> None:
    """The task is let go of: it holds the listen, and a cycle would keep what its connection had."""
    task, listen.task = listen.task, None
    if task is not None:
        task.cancel()
        await asyncio.wait((task,))


def _not_honoured(uri: str) -> Failure:
    return Failure(INVALID_PARAMS, f"the server does not tell of updates of {uri[:200]}", None, Era.MODERN)
