"""Hear of changes at a legacy HTTP server: a session of our own, its stream, and `resources/subscribe`.

Knows: what has to be done again when the session is another one. Does not know: how sessions are opened, which of the two
transports has them, the modern era.
Invariant: every resource that is wanted is subscribed to in the session that is listened to.

Source: 2025-11-25 server/resources (subscriptions), server/tools, server/prompts.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Generic, Protocol, TypeVar

import msgspec

from penstock.clock import Clock
from penstock.errors import ServerError
from penstock.http.client import Response
from penstock.protocol.messages import Message, Notification
from penstock.protocol.subscriptions import CAPABILITY_OF, LIST_CHANGED, UPDATED
from penstock.upstreams.interface import PENSTOCK, Answer, Call, Caller, Failure, Heard, Raw

_log = logging.getLogger(__name__)
RETRY_SECONDS: Final = (1.0, 2.0, 5.0, 10.0, 30.0)
UNSUPPORTED_SECONDS: Final = 600.0
HEALTHY_SECONDS: Final = 60.0
"""A stream that lasted as long ended for a reason of its own: it is opened again soon."""


class Losable(Protocol):
    """A session that may be lost."""

    on_lost: Callable[[], object] | None


class Stream(Protocol):
    """What is said in a session beside the calls."""

    async def run(self) -> Response | None:
        """Hand on what comes, until the server refuses the stream: then its refusal, or None when it cannot be reached."""


S = TypeVar("S", bound=Losable)


class FeedSide(Protocol[S]):
    """Who has the sessions."""

    async def session_for(self, caller: Caller) -> S:
        """The session of a caller; opened when there is none."""
        ...

    def stream_of(self, session: S, take: Callable[[Message], None]) -> Stream:
        """What is said in a session beside the calls."""
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
        self._keeper: asyncio.Task[None] = asyncio.get_running_loop().create_task(
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
        self._keeper.cancel()
        await asyncio.wait((self._keeper,))

    async def _keep(self) -> None:
        """Listen, and again, until cancelled."""
        failures, is_first = 0, not self._uris
        while True:
            began_at = self._clock.now()
            try:
                session = await self._side.session_for(PENSTOCK)
                if not is_first:
                    await self._catch_up()
                is_first = False
                self.is_listening = True
                refusal = await self._listen(session)
            except ServerError as error:
                _log.info("changes of server '%s' are not heard: %s", self._server, error.message)
                refusal = None
            except Exception:  # the task's top: a server whose changes are not heard is listed by the clock alone
                _log.exception("changes of server '%s' are not heard by an error of ours", self._server)
                refusal = None
            finally:
                self.is_listening = False
            failures = 1 if self._clock.now() - began_at >= HEALTHY_SECONDS else failures + 1
            await self._clock.sleep(_pause(refusal, failures))

    async def _listen(self, session: S) -> Response | None:
        """Until the server refuses the stream, or the session is lost."""
        stream = asyncio.ensure_future(self._side.stream_of(session, self._take).run())
        session.on_lost = stream.cancel
        try:
            await asyncio.wait((stream,))
        finally:
            session.on_lost = None
            stream.cancel()
        if stream.cancelled():
            return None
        refusal = stream.result()
        if refusal is not None and refusal.status != 405:
            self._side.lose(session)
        return refusal

    async def _catch_up(self) -> None:
        """The session is another one, or there was a gap: subscribe again, and take every list for changed."""
        for uri in list(self._uris):
            await self._call(_call_about("resources/subscribe", uri))
        for method in LIST_CHANGED.values():
            self._heard(method, {})

    def _take(self, message: Message) -> None:
        if isinstance(message, Notification) and (message.method in CAPABILITY_OF or message.method == UPDATED):
            self._heard(message.method, message.params)


def _call_about(method: str, uri: str) -> Call:
    return Call(method, {"uri": Raw(msgspec.json.encode(uri))}, caller=PENSTOCK, name=uri)


def _pause(refusal: Response | None, failures: int) -> float:
    if refusal is not None and refusal.status == 405:
        return UNSUPPORTED_SECONDS
    return RETRY_SECONDS[min(failures, len(RETRY_SECONDS)) - 1]
