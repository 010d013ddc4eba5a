"""Calls to a server over HTTP+SSE, the transport of 2024-11-05: conversations, and whose they are.

Knows: how a conversation begins, who shares it, when the next one may be tried. Does not know: what is said in it
(conversation), streams and POSTs (legacy_sse_wire), how it was found out that the server speaks this.
Invariants: a client session has a conversation of its own, or shares one with its equals, never both; a call is sent a second
time only when the server had forgotten the conversation, as it then was not processed.

Source: 2024-11-05 basic/transports, basic/lifecycle. Why so many conversations: docs/decisions/017.
"""

import asyncio
import random
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec

from penstock.clock import Clock
from penstock.errors import ServerError, ServerUnavailable
from penstock.http.client import Response
from penstock.protocol.client_capabilities import declared
from penstock.protocol.messages import Message, Notification
from penstock.protocol.subscriptions import UPDATED
from penstock.protocol.versions import LATEST_LEGACY, Era
from penstock.upstreams.backoff import Backoff
from penstock.upstreams.calls import PENSTOCK, Answer, Call, Caller, Heard, Raw
from penstock.upstreams.conversation import Conversation
from penstock.upstreams.conversation_flight import ConversationCounts
from penstock.upstreams.interface import Description
from penstock.upstreams.legacy_sse_settings import LegacySseSettings
from penstock.upstreams.legacy_sse_wire import SseForgotten, SseWire
from penstock.upstreams.own_subscriptions import OwnSubscriptions
from penstock.upstreams.sessions import Key, SessionBook
from penstock.upstreams.single_flight import SingleFlight
from penstock.upstreams.stdio_eras import Agreement, judge_initialize
from penstock.upstreams.streamable_http_feed import Stream
from penstock.upstreams.streamable_http_handshake import NotLegacyAnswer
from penstock.upstreams.streamable_http_link import HttpLink
from penstock.upstreams.streamable_http_settings import StreamableHttpSettings
from penstock.upstreams.turns import Habits

_ADVICE: Final = "clients of a legacy revision that keep a session are not held up by others"


class SseSession:
    """One conversation, and what it may be found by."""

    __slots__ = (
        "began_at",
        "description",
        "ended",
        "id",
        "in_flight",
        "key",
        "last_used",
        "on_lost",
        "own",
        "talk",
        "version",
        "wire",
    )

    def __init__(self, key: Key, target: bytes, wire: SseWire, talk: Conversation, agreement: Agreement) -> None:
        self.key: Final = key
        self.id: Final[bytes | None] = target
        """Where its messages go: the server's name of it."""
        self.wire: Final = wire
        self.talk: Final = talk
        self.version: Final = agreement.version
        self.description: Final[Description] = agreement.description
        self.in_flight = 0
        self.last_used = 0.0
        self.began_at = 0.0
        self.ended: Final = asyncio.Event()
        self.on_lost: Callable[[], object] | None = None
        """Told when it is over: whoever listens in it."""
        self.own: OwnSubscriptions | None = None
        """What its client has subscribed to in it; None when it is no client's own."""

    @property
    def is_in_use(self) -> bool:
        """Calls are under way, or somebody listens in it."""
        return self.in_flight > 0 or self.on_lost is not None or (self.own is not None and self.own.is_in_use)

    def __repr__(self) -> str:
        return f"<SseSession {self.key[0]} {self.talk!r}>"


class _Changes:
    """What is said in a conversation beside the calls."""

    def __init__(
        self, session: SseSession, take: Callable[[Message], None], missed: Callable[[], None], has_gap: bool
    ) -> None:
        self._session = session
        self._missed = missed
        self.has_gap = has_gap
        """See `Stream`."""
        self.is_open = asyncio.Event()
        """See `Stream`."""
        session.talk.heard = lambda method, params: take(Notification(method, params))

    async def run(self) -> Response | None:
        """See `Stream`."""
        self.is_open.set()
        if self.has_gap:
            self.has_gap = False
            self._missed()
        await self._session.ended.wait()
        return None


class LegacySse:
    """The HTTP+SSE side of one server."""

    __slots__ = (
        "_backoff",
        "_book",
        "_clock",
        "_counts",
        "_dropped",
        "_ended_at",
        "_habits",
        "_last_error",
        "_link",
        "_lost_sessions",
        "_opening",
        "_retry_at",
        "_settings",
        "heard",
        "version",
    )

    def __init__(
        self,
        link: HttpLink,
        settings: StreamableHttpSettings,
        clock: Clock,
        random_number: Callable[[], float] = random.random,
    ) -> None:
        self._link, self._clock = link, clock
        self._settings = LegacySseSettings(http=settings)
        self._book: SessionBook[SseSession] = SessionBook(
            shares_all=settings.sessions == "shared",
            max_own=settings.max_sessions,
            idle_seconds=settings.session_idle_seconds,
        )
        self._opening: SingleFlight[SseSession] = SingleFlight(f"conversation with {link.name}")
        self._counts = ConversationCounts()
        self._habits = Habits()
        self._backoff = Backoff(
            first_seconds=self._settings.first_delay_seconds,
            longest_seconds=self._settings.longest_delay_seconds,
            healthy_seconds=self._settings.healthy_seconds,
            random=random_number,
        )
        self._ended_at = self._retry_at = -1e9
        self._last_error = ""
        self._lost_sessions = self._dropped = 0
        self.heard: Heard | None = None
        """Takes what the server says of changes in conversations that are no listener's."""
        self.version = LATEST_LEGACY
        """What `initialize` asks for when the caller has no revision of its own to ask for."""

    def __repr__(self) -> str:
        return f"<LegacySse {self._link.name} {self._book!r}>"

    async def call(self, call: Call) -> Answer:
        """Carry one call in its caller's conversation.

        Raises:
            NotLegacyAnswer: the server does not speak this transport, or no longer; the call was not processed.
            ServerError: see `Upstream.call`.
        """
        session = await self.session_for(call.caller)
        try:
            return await self._carry(session, call)
        except SseForgotten:
            self.lose(session)
            return await self._carry(await self.session_for(call.caller), call)

    async def session_for(self, caller: Caller) -> SseSession:
        """The conversation of a caller; opened when there is none.

        Raises:
            NotLegacyAnswer, ServerError: as for `call`.
        """
        key = self._book.key_for(caller)
        session = self._book.find(key, self._clock.now())
        if session is not None and not session.talk.is_open:  # it was given up, and its stream has not noticed yet
            self._over(session)
            session = None
        return session or await self._opening.run(key, lambda: self._open(key, caller))

    def binds(self, caller: Caller) -> bool:
        """Whether that caller has a conversation to itself."""
        return self._book.key_for(caller)[0] == "own"

    async def subscribe_apart(self, caller: Caller, uri: str) -> None:
        """See `SubscribesApart`."""
        session = await self.session_for(caller)
        if session.own is not None:
            await session.own.subscribe(uri)

    async def unsubscribe_apart(self, caller: Caller, uri: str) -> None:
        """See `SubscribesApart`."""
        session = self._book.find(self._book.key_for(caller), self._clock.now())
        if session is not None and session.own is not None:
            await session.own.unsubscribe(uri)

    def roots_changed(self, caller: Caller) -> None:
        """Tell the conversation of that caller alone, if it has one."""
        key = self._book.key_for(caller)
        session = self._book.find(key, self._clock.now()) if key[0] == "own" else None
        if session is not None:
            session.talk.notify("notifications/roots/list_changed", {})

    async def close_session(self, name: str) -> None:
        """End the conversation of a client session, if it has one."""
        await self._opening.settled(("own", name))  # else it would be kept for a client that is gone
        session = self._book.take_own(name)
        if session is not None:
            self._end(session)

    def stream_of(
        self, session: SseSession, take: Callable[[Message], None], missed: Callable[[], None], has_gap: bool
    ) -> Stream:
        """What is said in a conversation beside the calls."""
        return _Changes(session, take, missed, has_gap)

    def has_lost(self, session: SseSession, refusal: Response) -> bool:
        """Such a stream is never refused: it is the conversation itself."""
        return False

    def lose(self, session: SseSession) -> None:
        """The server does not know the conversation any more."""
        if self._book.remove(session):
            self._lost_sessions += 1
            self._end(session)

    def sweep(self) -> None:
        """End conversations nobody used for long."""
        for session in self._book.take_idle(self._clock.now()):
            self._end(session)

    def forget(self) -> None:
        """The server is another one than before: its conversations mean nothing now."""
        for session in self._book.take_all():
            self._end(session)

    def state(self) -> dict[str, Any]:
        """JSON-ready facts."""
        return {
            "transport": "legacy_sse",
            "sessions": len(self._book),
            "issues_session_ids": True,
            "lost_sessions": self._lost_sessions,
            "background_dropped": self._dropped,
            **msgspec.to_builtins(self._counts),
        }

    async def close(self) -> None:
        """End all conversations."""
        await self._opening.close()
        self.forget()
        await asyncio.sleep(0)  # lets their tasks end

    # opening and ending

    async def _open(self, key: Key, caller: Caller) -> SseSession:
        await self._wait_for_next_attempt()
        began_at = self._clock.now()
        is_own = key[0] == "own"
        is_ours = key == PENSTOCK.shared_key  # what is asked there says nothing of how calls are to be made
        wire = SseWire(self._link, self._settings, self._count_dropped)
        talk = Conversation(
            self._link.name,
            wire,
            bounds=self._settings,
            counts=self._counts,
            habits=Habits() if is_ours else self._habits,
            advice=_ADVICE,
            client=caller if is_own or is_ours else None,
        )
        talk.era = Era.LEGACY
        wire.received, wire.on_over = talk.received, talk.end
        try:
            target = await wire.open()
            agreement = await self._agree(wire, talk, caller, is_own=is_own)
            if not talk.is_open:
                raise talk.why_over()
        except BaseException as error:
            talk.close()
            wire.close()
            if isinstance(error, ServerError):
                self._note_end(began_at, error)
            raise
        session = SseSession(key, target, wire, talk, agreement)
        session.began_at = began_at
        if not is_ours:
            talk.heard = partial(self._tell, session)
        if is_own and caller.sink is not None:
            session.own = OwnSubscriptions(self._link.name, caller, caller.sink, partial(self._carry, session))
        wire.on_over = lambda: self._over(session)
        for surplus in self._book.add(session, self._clock.now()):
            self._end(surplus)
        if session.own is not None:
            session.own.renew()
        return session

    async def _wait_for_next_attempt(self) -> None:
        """A server that fails again and again is left alone for a while."""
        seconds, patience = self._retry_at - self._clock.now(), self._settings.open_wait_seconds
        if seconds > patience:
            raise ServerUnavailable(self._link.name, f"{self._last_error}; it is tried again in {seconds:.0f} s")
        if seconds > 0:
            await self._clock.sleep(seconds)

    async def _agree(self, wire: SseWire, talk: Conversation, caller: Caller, *, is_own: bool) -> Agreement:
        name, http = self._link.name, self._settings.http
        version = caller.revision if is_own and http.protocol == "auto" else self.version
        info = caller.client_info if is_own and caller.client_info else http.client_info
        askable = caller.askable if is_own else caller.askable._replace(roots_changes=False)
        params = {
            "protocolVersion": Raw(b'"%b"' % version.encode()),
            "capabilities": Raw(declared(askable, version)),
            "clientInfo": Raw(info),
        }
        flight = talk.send("initialize", params)
        try:
            async with asyncio.timeout(http.handshake_seconds):
                reply = await flight.future
        except TimeoutError:
            raise ServerUnavailable(name, f"it did not answer initialize within {http.handshake_seconds:g} s") from None
        agreement = judge_initialize(reply)
        if isinstance(agreement, str):
            raise NotLegacyAnswer(agreement)
        talk.version = agreement.version
        talk.notify("notifications/initialized", {})
        await wire.flush()
        return agreement

    def _over(self, session: SseSession) -> None:
        """Its stream has ended: calls in flight are told why, and the next one opens another."""
        self._note_end(session.began_at, session.talk.why_over())
        self._book.remove(session)
        self._end(session)

    def _tell(self, session: SseSession, method: str, params: dict[str, Raw]) -> None:
        """A conversation has heard of a change. What its client has subscribed to in it is for that client alone."""
        own = session.own
        if self.heard is not None and (method != UPDATED or own is None or not own.heard(params)):
            self.heard(method, params)

    def _end(self, session: SseSession) -> None:
        if session.own is not None:
            session.own.close()
            session.own = session.talk.heard = None  # they hold the session
        session.talk.close()
        session.wire.close()
        session.ended.set()
        if session.on_lost is not None:
            session.on_lost()

    def _note_end(self, began_at: float, error: ServerError) -> None:
        """Many that end together, or began before the last one ended, are one failure."""
        self._last_error = error.message.removeprefix(f"server '{self._link.name}': ")
        if began_at >= self._ended_at:
            now = self._ended_at = self._clock.now()
            self._retry_at = now + self._backoff.delay_after(now - began_at)

    def _count_dropped(self) -> None:
        self._dropped += 1

    # a call

    @staticmethod
    async def _carry(session: SseSession, call: Call) -> Answer:
        session.in_flight += 1
        try:
            return await session.talk.call(call)
        finally:
            session.in_flight -= 1
