"""Calls to a legacy HTTP server: sessions, and streams that outlive their connections.

Knows: which requests make up the life of a session, what a lost session looks like. Does not know: the modern era, how eras
are detected, which session is whose (`sessions`).
Invariants: `initialize` is sent once for each session and never cancelled; a call is sent a second time only when its session
was lost, as it then was not processed; cancelling a call is a notification, never the end of its connection.

Source: basic/transports of 2025-03-26, 2025-06-18 and 2025-11-25; basic/lifecycle; basic/utilities/cancellation.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final

from penstock.clock import Clock
from penstock.errors import PenstockError, ServerError, ServerMisbehaved, ServerUnavailable
from penstock.http.client import ConnectionLost, RequestFailed, Response
from penstock.protocol.client_capabilities import declared
from penstock.protocol.envelopes import encode_notification, encode_request
from penstock.protocol.messages import Message
from penstock.protocol.meta import LOG_LEVELS
from penstock.protocol.versions import LATEST_LEGACY, Era
from penstock.upstreams.calls import Answer, Call, Caller, Failure, Heard, Raw
from penstock.upstreams.exclusive_sessions import ExclusiveSessions
from penstock.upstreams.log_levels import log_rank
from penstock.upstreams.questions import Questions
from penstock.upstreams.sessions import STATELESS, Key, LegacySession, SessionBook
from penstock.upstreams.single_flight import SingleFlight
from penstock.upstreams.streamable_http_feed import Stream
from penstock.upstreams.streamable_http_handshake import HttpHandshake, NotLegacyAnswer
from penstock.upstreams.streamable_http_legacy_flight import SessionSide
from penstock.upstreams.streamable_http_legacy_requests import LegacyRequests
from penstock.upstreams.streamable_http_link import HttpLink, content_length
from penstock.upstreams.streamable_http_listening import SessionListening, is_lost
from penstock.upstreams.streamable_http_modern import MODERN_ERRORS
from penstock.upstreams.streamable_http_reception import HttpCounts, Reception
from penstock.upstreams.streamable_http_refusals import (
    error_reply,
    failed_request,
    is_event_stream,
    is_json,
    refusal,
    speaks_of_session,
)
from penstock.upstreams.streamable_http_settings import StreamableHttpSettings
from penstock.upstreams.streamable_http_stream import SHORTEST_RETRY_SECONDS

_VERSION_HEADER_SINCE: Final = "2025-06-18"
_DEFAULT_RETRY_SECONDS: Final = 1.0
_ENDED_AT_ONCE: Final = 64


class _SessionLost(PenstockError):
    """The server does not know the session any more."""


class LegacyHttp:
    """The legacy side of one server."""

    __slots__ = (
        "_background",
        "_book",
        "_clock",
        "_counts",
        "_handshake",
        "_link",
        "_opening",
        "_pools",
        "_settings",
        "listening",
        "requests",
        "version",
    )

    def __init__(self, link: HttpLink, settings: StreamableHttpSettings, counts: HttpCounts, clock: Clock) -> None:
        self._link, self._settings, self._counts, self._clock = link, settings, counts, clock
        self._book: SessionBook[LegacySession] = SessionBook(
            shares_all=settings.sessions == "shared",
            max_own=settings.max_sessions,
            idle_seconds=settings.session_idle_seconds,
        )
        self._opening: SingleFlight[LegacySession] = SingleFlight(f"session at {link.name}")
        self._handshake = HttpHandshake(link, settings, counts)
        self._pools = ExclusiveSessions(
            link.name,
            open=self._open,
            close=self._close,
            settings=settings.exclusive_sessions,
            clock=clock,
        )
        self.requests: Final = LegacyRequests(self._book, self._pools, clock.now)
        self.listening: Final = SessionListening(link, settings, counts, clock, lose=self.lose, carry=self._carry)
        self._background: set[asyncio.Task[object]] = set()
        self.version = LATEST_LEGACY
        """What `initialize` asks for when the caller has no revision of its own to ask for."""

    def __repr__(self) -> str:
        return f"<LegacyHttp {self._link.name} {self._book!r} | background {len(self._background)}>"

    async def call(self, call: Call) -> Answer:
        """Carry one call over its caller's session.

        Raises:
            NotLegacyAnswer: the server is not legacy, or no longer; the call was not processed.
            ServerError: see `Upstream.call`.
        """
        for _ in range(2):  # one that forgot its session has not processed the call
            session = await self.session_for(call.caller)
            has_ended = False
            try:
                answer = await self._carry(session, call)
                has_ended = True
                return answer
            except _SessionLost:
                self.lose(session)
                self._pools.drop_idle(session)
            finally:
                self.requests.give_back(session, discard=not has_ended and bool(call.sent_at))
        raise ServerMisbehaved(self._link.name, "it forgot a session it had just opened; see its log")

    async def session_for(self, caller: Caller) -> LegacySession:
        """The session of a caller; opened when there is none. To be given back.

        Raises:
            NotLegacyAnswer, ServerError: as for `call`.
        """
        session = self.requests.session_of(caller)
        if session is not None:
            return session
        key = self._book.key_for(caller)
        if caller.can_be_asked and key == caller.shared_key:
            return await self._pools.for_caller(caller).borrow()
        return await self._opening.run(key, lambda: self._open(key, caller))

    def binds(self, caller: Caller) -> bool:
        """Whether that caller has a session to itself."""
        return self._book.key_for(caller)[0] == "own"

    async def close_session(self, name: str) -> None:
        """End the session of a client session, if it has one; bounded, and whatever the server says."""
        await self._opening.settled(("own", name))  # else it would be kept for a client that is gone
        session = self._book.take_own(name)
        if session is not None and not session.is_over:
            session.hang_up()
            await self._tell_end(session)

    def stream_of(
        self, session: LegacySession, take: Callable[[Message], None], missed: Callable[[], None], has_gap: bool
    ) -> Stream:
        """The session's own stream; see `FeedSide`."""
        return self.listening.stream_of(session, take, missed, has_gap)

    has_lost = staticmethod(is_lost)

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
        """Tell the session of that caller alone, if it has one."""
        key = self._book.key_for(caller)
        session = self._book.find(key, self._clock.now()) if key[0] == "own" else None
        if session is not None:
            self._in_background(self._tell(session, encode_notification("notifications/roots/list_changed", {})))

    def lose(self, session: LegacySession) -> None:
        """The server does not know the session any more."""
        if not session.is_over:
            self._counts.lost_sessions += 1
            self._book.remove(session)
            session.hang_up()

    def sweep(self) -> None:
        """End sessions nobody used for long."""
        for session in self._book.take_idle(self._clock.now()):
            self._close(session)
        self._pools.sweep()

    def forget(self) -> None:
        """The server is another one than before: its sessions mean nothing now."""
        for session in self._book.take_all():
            session.hang_up()
        self._in_background(self._pools.close())
        self._book.issues_ids = None

    def state(self) -> dict[str, Any]:
        """JSON-ready facts."""
        return {
            "sessions": len(self._book) + len(self._pools),
            "streams": self._link.streams,
            "issues_session_ids": self._book.issues_ids,
            "background": len(self._background),
        }

    async def close(self) -> None:
        """End all sessions within `close_seconds`, then whatever still runs."""
        await self._opening.close()
        await self._pools.close()
        sessions = [session for session in self._book.take_all() if not session.is_over]
        for session in sessions:
            session.hang_up()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.close_seconds):
                for first in range(0, len(sessions), _ENDED_AT_ONCE):
                    await asyncio.gather(*map(self._tell_end, sessions[first : first + _ENDED_AT_ONCE]))
                if self._background:
                    await asyncio.wait(self._background)
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    # opening and ending sessions

    async def _open(self, key: Key, caller: Caller) -> LegacySession:
        is_own = key[0] == "own"
        version = caller.revision if is_own and self._settings.protocol == "auto" else self.version
        info = caller.client_info if is_own and caller.client_info else self._settings.client_info
        askable = caller.askable if is_own else caller.askable._replace(roots_changes=False)
        capabilities = declared(askable, version)
        who = self._link.who_asks(caller)
        agreement, session_id = await self._handshake.initialize(
            self.requests.next_id(), version, info, capabilities, who
        )
        head = b"" if session_id is None else b"mcp-session-id: %b\r\n%b" % (session_id, who)
        if agreement.version >= _VERSION_HEADER_SINCE:
            head += b"mcp-protocol-version: %b\r\n" % agreement.version.encode()
        if session_id is None and is_own:  # it keeps none: what was agreed on with this client is not for all others
            return await self._open(STATELESS, caller)
        key = STATELESS if session_id is None else key
        session = LegacySession(key, session_id, agreement.version, agreement.description, head)
        session.questions = Questions(lambda message: self._in_background(self._tell(session, message)), self._counts)
        session.side = SessionSide(self, self.requests, session)
        session.post_head = self._link.post_head + head
        try:
            await self._settle_in(session, caller if is_own else None)
        except BaseException:
            self._book.remove(session)
            self._close(session)
            raise
        return session

    async def _settle_in(self, session: LegacySession, client: Caller | None) -> None:
        await self._tell(session, encode_notification("notifications/initialized", {}), strict=True)
        if session.is_exclusive:
            self._book.issues_ids = True
        else:
            for surplus in self._book.add(session, self._clock.now()):
                self._close(surplus)
        await self.listening.listen(session, client)

    def _close(self, session: LegacySession) -> None:
        """End a session: for us at once, whatever becomes of telling the server."""
        if not session.is_over:
            session.hang_up()
            self._in_background(self._tell_end(session))

    async def _tell_end(self, session: LegacySession) -> None:
        """What the server is still to hear in a session, and that it is over."""
        if session.id is None:
            return
        if session.last_words:
            await self._tell(session, session.last_words)
        head = self._link.delete_head + session.head + b"\r\n"
        try:
            async with asyncio.timeout(self._settings.close_seconds):
                await self._link.send(head, b"", None)
        except (RequestFailed, ServerError, TimeoutError):
            return  # it ends by the server's own time limit then

    # a call

    async def _carry(self, session: LegacySession, call: Call) -> Answer:
        rank = log_rank(call)
        if rank is not None and rank < session.log_rank:
            await self._set_level(session, rank)
        head, body, request_id = self.requests.write(session, call)
        reception = self.reception(request_id, session, call)
        session.calls[request_id] = call
        try:
            came: Response | RequestFailed
            try:
                came = await self._link.send(head, body, reception.on_event, call, detach=True)
            except RequestFailed as error:
                came = error.with_traceback(None)  # it would hold this frame, and this frame it
            return await self.conclude(session, call, reception, came)
        except asyncio.CancelledError:
            if call.sent_at and reception.reply is None:
                self.cancel(session, reception.id)
            raise
        finally:
            session.calls.pop(request_id, None)

    async def conclude(
        self, session: LegacySession, call: Call, reception: Reception, came: Response | RequestFailed
    ) -> Answer:
        """The answer to a call, from what came first and what can still be had."""
        name = self._link.name
        if not isinstance(came, Response):
            if not reception.last_event_id:
                raise failed_request(name, came) from came
            came = await self._resume(session, call, reception)
        elif reception.reply is None and came.status == 200:
            if is_event_stream(came):
                if not reception.last_event_id:
                    raise ServerMisbehaved(name, "it ended the event stream without an answer; see its log")
                came = await self._resume(session, call, reception)
            elif is_json(came):
                reception.take(came.body)
        call.first_byte_at = came.first_byte_at
        answer = reception.answer()
        return answer if answer is not None else self._refused(session, came, reception.id)

    async def unusual(
        self, session: LegacySession, call: Call, reception: Reception, came: Response | RequestFailed
    ) -> Answer:
        """What becomes of a flight whose answer is not ordinary."""
        if not (isinstance(came, ConnectionLost) and came.unprocessed):
            try:
                answer = await self.conclude(session, call, reception, came)
            except _SessionLost:
                self.lose(session)
                self._pools.drop_idle(session)
            except asyncio.CancelledError:
                if reception.reply is None:
                    self.cancel(session, reception.id)
                self.requests.landed(session, reception.id)
                raise
            except BaseException:
                self.requests.landed(session, reception.id, discard=True)
                raise
            else:
                self.requests.landed(session, reception.id)
                return answer
        self.requests.landed(session, reception.id)
        return await self.call(call)

    def _refused(self, session: LegacySession, response: Response, request_id: bytes) -> Failure:
        name = self._link.name
        if session.id is not None and (response.status == 404 or speaks_of_session(response)):
            raise _SessionLost
        if response.status in (401, 403):
            raise refusal(name, self._link.url, response)
        reply = error_reply(response)
        if reply is not None and reply.error is not None:
            if reply.error.code in MODERN_ERRORS:
                raise NotLegacyAnswer(f"answered with error {reply.error.code}, which only modern servers have")
            if reply.id == request_id:
                return Failure(reply.error.code, reply.error.message, reply.error.data, Era.LEGACY)
        raise refusal(name, self._link.url, response)

    async def _resume(self, session: LegacySession, call: Call, reception: Reception) -> Response:
        """Take up a call's stream again, until its answer is there."""
        name, tries = self._link.name, 0
        while tries < self._settings.resume_tries:
            asked = _DEFAULT_RETRY_SECONDS if reception.retry_ms is None else reception.retry_ms / 1000
            pause = min(max(asked, SHORTEST_RETRY_SECONDS), self._settings.max_retry_seconds)
            if call.poll is not None and reception.retry_ms is not None:
                call.poll(int(pause * 1000))
            await self._clock.sleep(pause)
            self._counts.resumed_streams += 1
            seen = reception.seen
            head = b"%b%blast-event-id: %b\r\n\r\n" % (self._link.get_head, session.head, reception.last_event_id)
            try:
                response = await self._link.send(head, b"", reception.on_event, detach=True)
            except RequestFailed:
                tries += 1
                continue
            if reception.reply is not None:
                return response
            if response.status != 200 or not is_event_stream(response):
                raise ServerUnavailable(
                    name, f"it closed the call's stream and refused to resume it (HTTP {response.status}); see its log"
                )
            tries = 0 if reception.seen > seen else tries + 1
        raise ServerUnavailable(name, f"it closed the call's stream, and {tries} reconnections brought nothing")

    def cancel(self, session: LegacySession, request_id: bytes) -> None:
        """Tell the server that a call's answer is not wanted any more."""
        self._counts.cancelled += 1
        params = {"requestId": Raw(request_id), "reason": Raw(b'"the caller cancelled the call"')}
        cancelled = encode_notification("notifications/cancelled", params)
        if session.is_exclusive:  # until it has read that, what it asks and logs would be taken for the next call's
            session.last_words = cancelled
            self.requests.give_back(session, discard=True)
        else:
            self._in_background(self._tell(session, cancelled))

    # what else is said

    async def _set_level(self, session: LegacySession, rank: int) -> None:
        """A session has one level for all: the most talkative any of its calls asked for so far."""
        before, session.log_rank = session.log_rank, rank
        if b'"logging"' not in bytes(session.description.capabilities):
            return
        params = {"level": Raw(b'"%b"' % LOG_LEVELS[rank].encode())}
        try:
            is_taken = await self._tell(session, encode_request(self.requests.next_id(), "logging/setLevel", params))
        except asyncio.CancelledError:
            session.log_rank = before
            raise
        if not is_taken:
            session.log_rank = before  # the next call that wants it tries again

    async def _tell(self, session: LegacySession, body: bytes, *, strict: bool = False) -> bool:
        """POST something whose answer does not matter; `strict`: but for its status. Whether the server has taken it."""
        head = self._link.post_head + session.head + content_length(body)
        try:
            async with asyncio.timeout(self._settings.background_seconds):
                response = await self._link.send(head, body, lambda _: True)
        except TimeoutError:
            return False
        except RequestFailed as error:
            if strict:
                raise failed_request(self._link.name, error) from error
            return False
        except ServerError:
            if strict:
                raise
            return False
        if strict and response.status >= 400:
            raise refusal(self._link.name, self._link.url, response)
        return response.status < 400

    def _in_background(self, work: Coroutine[Any, Any, object]) -> None:
        if len(self._background) >= self._settings.max_background:
            self._counts.background_dropped += 1
            work.close()
            return
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def reception(self, request_id: bytes, session: LegacySession | None, call: Call | None) -> Reception:
        questions: Questions | None = None
        heard: Heard | None = None
        if session is not None:
            questions, heard = session.questions, partial(self.listening.tell, session=session)
        name, counts = self._link.name, self._counts
        return Reception(name, request_id, Era.LEGACY, counts, call=call, questions=questions, heard=heard)
