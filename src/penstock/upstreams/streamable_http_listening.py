"""Listen to the sessions at a legacy HTTP server: to each by one GET stream, however many wait for what comes on it.

Knows: whose session is listened to from when on. Does not know: how a stream is kept open, what is said on it (aside), how
sessions are opened.
Invariant: a session has at most one stream of its own at a time, as servers refuse a second one.

Source: 2025-11-25 basic/transports, "Listening for Messages from the Server".
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from penstock.clock import Clock
from penstock.http.client import Response
from penstock.protocol.messages import Message, Request
from penstock.protocol.subscriptions import UPDATED
from penstock.upstreams.calls import PENSTOCK, Answer, Call, Caller, Heard, Raw
from penstock.upstreams.own_subscriptions import OwnSubscriptions
from penstock.upstreams.sessions import LegacySession
from penstock.upstreams.streamable_http_aside import Aside
from penstock.upstreams.streamable_http_feed import Stream
from penstock.upstreams.streamable_http_link import HttpLink
from penstock.upstreams.streamable_http_reception import HttpCounts
from penstock.upstreams.streamable_http_refusals import speaks_of_session
from penstock.upstreams.streamable_http_settings import StreamableHttpSettings
from penstock.upstreams.streamable_http_stream import SessionStream

Task = asyncio.Task[Response | None]


class SessionListening:
    """Opens the streams of one server's sessions."""

    __slots__ = ("_carry", "_clock", "_counts", "_link", "_lose", "_ours", "_settings", "heard")

    def __init__(
        self,
        link: HttpLink,
        settings: StreamableHttpSettings,
        counts: HttpCounts,
        clock: Clock,
        *,
        lose: Callable[[LegacySession], None],
        carry: Callable[[LegacySession, Call], Awaitable[Answer]],
    ) -> None:
        """
        Args:
            lose: told of a session the server does not know any more.
            carry: sends a request in a session.
        """
        self._link, self._settings, self._counts, self._clock = link, settings, counts, clock
        self._lose: Final = lose
        self._carry: Final = carry
        self.heard: Heard = _ignore
        """Takes what the server says of changes."""
        self._ours: tuple[SessionStream, Task] | None = None
        """The stream of the gateway's own session, until somebody waits for changes on it."""

    def __repr__(self) -> str:
        return f"<SessionListening {self._link.name}>"

    def tell(self, method: str, params: dict[str, Raw], session: LegacySession) -> None:
        """A session has heard of a change. What its client has subscribed to in it is for that client alone."""
        if method != UPDATED or session.own is None or not session.own.heard(params):
            self.heard(method, params)

    async def listen(self, session: LegacySession, client: Caller | None) -> None:
        """Hear what the server says beside the calls, from the first call on; without, if it takes too long or is refused.

        `client`: whose session it is; None when it belongs to nobody for long.
        """
        if session.id is None or (session.key[0] == "shared" and session.key != PENSTOCK.shared_key):
            return  # one that many callers share: what names no call could be about any of them
        sink = client.sink if client is not None else None
        aside = Aside(session, sink, self.tell, self._counts)
        stream = SessionStream(self._link, session, aside.take, settings=self._settings, clock=self._clock)
        task = session.listening = asyncio.get_running_loop().create_task(self._listen_on(session, stream))
        if session.key == PENSTOCK.shared_key:
            self._ours = stream, task
        await self._until_open(stream, task)
        if client is not None and sink is not None and stream.is_open.is_set() and not task.done():
            own = session.own = OwnSubscriptions(self._link.name, client, sink, partial(self._carry, session))
            stream.missed = own.missed
            own.renew()

    async def _until_open(self, stream: SessionStream, task: Task) -> None:
        is_open = asyncio.ensure_future(stream.is_open.wait())
        try:
            await asyncio.wait(
                (is_open, task), timeout=self._settings.stream_seconds, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            is_open.cancel()

    def stream_of(
        self, session: LegacySession, take: Callable[[Message], None], missed: Callable[[], None], has_gap: bool
    ) -> Stream:
        """The stream of a session, for somebody who waits for changes; the one that is open, if there is one.

        Requests on it are answered here, unless `take` hands them on.
        """
        ours, self._ours = self._ours, None
        if ours is not None and session.listening is ours[1]:
            return _Adopted(*ours, missed, has_gap)

        def take_aside(message: Message) -> None:
            if isinstance(message, Request) and session.questions is not None:
                session.questions.asked(message, None)  # about no call of which we know: nobody can be asked
            else:
                take(message)

        settings, clock = self._settings, self._clock
        return SessionStream(
            self._link, session, take_aside, missed=missed, has_gap=has_gap, settings=settings, clock=clock
        )

    async def _listen_on(self, session: LegacySession, stream: SessionStream) -> Response | None:
        refusal = await stream.run()
        if refusal is not None and is_lost(session, refusal):
            self._lose(session)
        if session.own is not None:
            session.own.close()
            session.own = None
        return refusal


class _Adopted:
    """A stream that was open before anybody waited for changes on it. What it says of them has been told all the while."""

    __slots__ = ("_stream", "_task")

    def __init__(self, stream: SessionStream, task: Task, missed: Callable[[], None], has_gap: bool) -> None:
        self._stream: Final = stream
        self._task: Final = task
        stream.missed = missed
        if has_gap:
            stream.note_gap()

    def __repr__(self) -> str:
        return f"<Adopted {self._stream!r}>"

    @property
    def has_gap(self) -> bool:
        """See `Stream`."""
        return self._stream.has_gap

    @property
    def is_open(self) -> asyncio.Event:
        """See `Stream`."""
        return self._stream.is_open

    async def run(self) -> Response | None:
        """See `Stream`; ends the stream when it is cancelled."""
        return await self._task


def is_lost(session: LegacySession, refusal: Response) -> bool:
    """Whether a refused stream means that the server does not know the session any more.

    A 404 does so only where a stream has been there: some servers have no GET at all, and say so in this way.
    """
    return session.id is not None and (speaks_of_session(refusal) or (refusal.status == 404 and session.had_stream))


def _ignore(_method: str, _params: dict[str, Raw]) -> None:
    """Nobody hears it."""
