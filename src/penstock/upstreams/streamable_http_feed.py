"""Hear of changes at a legacy HTTP server: a session of our own, its stream, and `resources/subscribe`.

Knows: what has to be done again when the session is another one. Does not know: how sessions are opened, which of the two
transports has them, the modern era.
Invariants: every resource that is wanted is subscribed to in the session that is listened to, unless the server does not take it;
after a gap every list and resource counts as changed, as what was said meanwhile is lost.

Source: 2025-11-25 server/resources (subscriptions), server/tools, server/prompts.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Generic, Protocol, TypeVar

import msgspec

from penstock.clock import Clock
from penstock.errors import PenstockError, ServerError
from penstock.http.client import Response
from penstock.protocol.messages import Message, Notification
from penstock.protocol.subscriptions import CAPABILITY_OF, LIST_CHANGED, UPDATED
from penstock.upstreams.calls import PENSTOCK, Answer, Call, Caller, Failure, Heard, Raw

_log = logging.getLogger(__name__)
RETRY_SECONDS: Final = (1.0, 2.0, 5.0, 10.0, 30.0)
UNSUPPORTED_SECONDS: Final = 600.0
"""A server that has no such stream is asked again after this long."""
ANSWER_SECONDS: Final = 10.0
"""For a subscription that is renewed: nobody's deadline bounds it."""
HEALTHY_SECONDS: Final = 60.0
"""A stream that lasted as long ended for a reason of its own: it is opened again soon."""
_AT_ONCE: Final = 32
_FOR_NOW: Final = (401, 403, 408, 425, 429)
"""Refusals that say nothing of whether there is such a stream."""


class Losable(Protocol):
    """A session that may be lost."""

    on_lost: Callable[[], object] | None


class Stream(Protocol):
    """What is said in a session beside the calls."""

    @property
    def has_gap(self) -> bool:
        """Something may have been missed."""
        ...

    @property
    def is_open(self) -> asyncio.Event:
        """It has begun, once at least."""
        ...

    async def run(self) -> Response | None:
        """Hand on what comes, until the server refuses the stream: then its refusal, or None when it cannot be reached."""


S = TypeVar("S", bound=Losable)


class FeedSide(Protocol[S]):
    """Who has the sessions."""

    async def session_for(self, caller: Caller) -> S:
        """The session of a caller; opened when there is none."""
        ...

    def stream_of(
        self, session: S, take: Callable[[Message], None], missed: Callable[[], None], has_gap: bool
    ) -> Stream:
        """What is said in a session beside the calls.

        Args:
            take: takes the messages.
            missed: told when the stream is there, and others may have been missed before.
            has_gap: that may be so from the start.
        """
        ...

    def has_lost(self, session: S, refusal: Response) -> bool:
        """Whether a refused stream means that the server does not know the session any more."""
        ...

    def lose(self, session: S) -> None:
        """The server does not know the session any more."""


class LegacyFeed(Generic[S]):
    """Changes of one server."""

    __slots__ = (
        "_call",
        "_clock",
        "_heard",
        "_keeper",
        "_server",
        "_side",
        "_uris",
        "is_listening",
    )

    def __init__(
        self,
        server: str,
        side: FeedSide[S],
        *,
        call: Callable[[Call], Awaitable[Answer]],
        heard: Heard,
        clock: Clock,
        uris: Iterable[str] = (),
    ) -> None:
        """`uris`: resources that are to be subscribed to from the start."""
        self._server: Final = server
        self._side: Final = side
        self._call = call
        self._heard: Final = heard
        self._clock: Final = clock
        self._uris: dict[str, None] = dict.fromkeys(uris)
        self.is_listening = False
        self._keeper: asyncio.Task[None] | None = asyncio.get_running_loop().create_task(
            self._keep(), name=f"changes of {server}"
        )

    def __repr__(self) -> str:
        state = "listening" if self.is_listening else "not listening"
        return f"<LegacyFeed {self._server} {state} | {len(self._uris)} resources>"

    @property
    def uris(self) -> tuple[str, ...]:
        """What is subscribed to."""
        return tuple(self._uris)

    async def subscribe(self, uri: str) -> Failure | None:
        """See `Upstream`."""
        answer = await self._call(_call_about("resources/subscribe", uri))
        if isinstance(answer, Failure):
            return answer
        self._uris[uri] = None
        return None

    async def unsubscribe(self, uri: str) -> None:
        """See `Upstream`."""
        if self._uris.pop(uri, self) is None:
            await self._call(_call_about("resources/unsubscribe", uri))

    async def close(self) -> None:
        """Stop listening."""
        keeper = self._keeper
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait((keeper,))
            self._keeper = None  # a cancelled task holds its frames, and those hold us

    async def _keep(self) -> None:
        """Listen, and again, until cancelled."""
        failures, has_gap = 0, bool(self._uris)
        session: S | None = None
        while True:
            began_at = self._clock.now()
            refusal: Response | None = None
            try:
                before, session = session, await self._side.session_for(PENSTOCK)
                if has_gap or (before is not None and session is not before):
                    has_gap = True
                    await self._subscribe_again()
                    session = await self._side.session_for(PENSTOCK)  # that may have shown that it was lost
                refusal, has_gap = await self._listen(session, has_gap)
            except PenstockError as error:
                _log.info("changes of server '%s' are not heard: %s", self._server, error)
                has_gap = True
            except Exception:  # the task's top: a server whose changes are not heard is listed by the clock alone
                _log.exception("changes of server '%s' are not heard by an error of ours", self._server)
                has_gap = True
            failures = 1 if self._clock.now() - began_at >= HEALTHY_SECONDS else failures + 1
            await self._clock.sleep(_pause(refusal, failures))

    async def _listen(self, session: S, has_gap: bool) -> tuple[Response | None, bool]:
        """Until the server refuses the stream, or the session is lost: its refusal, and whether anything may have been missed."""
        opened = self._side.stream_of(session, self._take, self._tell_all, has_gap)
        stream = asyncio.ensure_future(opened.run())
        session.on_lost = stream.cancel
        self.is_listening = True
        try:
            await asyncio.wait((stream,))
        finally:
            self.is_listening = False
            session.on_lost = None
            stream.cancel()
        if stream.cancelled():
            return None, True
        refusal = stream.result()
        if refusal is not None and self._side.has_lost(session, refusal):
            self._side.lose(session)
            return None, True
        return refusal, opened.has_gap or opened.is_open.is_set()

    async def _subscribe_again(self) -> None:
        """In a session that may know of nothing."""
        uris = list(self._uris)
        for at in range(0, len(uris), _AT_ONCE):
            await asyncio.gather(*(self._subscribe_once_more(uri) for uri in uris[at : at + _AT_ONCE]))

    async def _subscribe_once_more(self, uri: str) -> None:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await self._call(_call_about("resources/subscribe", uri))
        except (ServerError, TimeoutError) as error:
            said = str(error) or f"no answer within {ANSWER_SECONDS:g} s"
        else:
            if not isinstance(answer, Failure):
                return
            said = answer.message
        _log.info("server '%s' does not tell of updates of %s any more: %s", self._server, uri[:200], said[:200])

    def _tell_all(self) -> None:
        """Something may have been missed."""
        for method in LIST_CHANGED.values():
            self._heard(method, {})
        for uri in list(self._uris):
            self._heard(UPDATED, {"uri": Raw(msgspec.json.encode(uri))})

    def _take(self, message: Message) -> None:
        if isinstance(message, Notification) and (message.method in CAPABILITY_OF or message.method == UPDATED):
            self._heard(message.method, message.params)


def _call_about(method: str, uri: str) -> Call:
    return Call(method, {"uri": Raw(msgspec.json.encode(uri))}, caller=PENSTOCK, name=uri)


def _pause(refusal: Response | None, failures: int) -> float:
    if refusal is not None and 400 <= refusal.status < 500 and refusal.status not in _FOR_NOW:
        return UNSUPPORTED_SECONDS
    return RETRY_SECONDS[min(failures, len(RETRY_SECONDS)) - 1]
