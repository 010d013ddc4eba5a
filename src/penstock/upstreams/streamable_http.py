"""A server behind an http(s) URL, in either era.

Knows: which era a call goes over, when to ask the server again. Does not know: how either era's requests are written.
Invariants: a server is asked for its eras once, however many calls wait for it; a call is sent over the other era only when
it was not processed in the first.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, TypeVar

import msgspec

from penstock.clock import Clock, SystemClock
from penstock.errors import PenstockError, ServerError, ServerMisbehaved, ServerUnavailable
from penstock.protocol.errors import METHOD_NOT_FOUND
from penstock.protocol.subscriptions import LIST_CHANGED
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Answer, Call, Caller, Failure, Heard, Raw
from penstock.upstreams.eras import Eras
from penstock.upstreams.interface import Description
from penstock.upstreams.legacy_sse import LegacySse, SseSession
from penstock.upstreams.modern_feed import ModernFeed
from penstock.upstreams.sessions import LegacySession
from penstock.upstreams.single_flight import SingleFlight
from penstock.upstreams.stdio_eras import Modern, NotModern, SpeaksOnly
from penstock.upstreams.streamable_http_feed import FeedSide, LegacyFeed
from penstock.upstreams.streamable_http_handshake import NotLegacyAnswer, SpeaksSse
from penstock.upstreams.streamable_http_legacy import LegacyHttp
from penstock.upstreams.streamable_http_link import HttpLink
from penstock.upstreams.streamable_http_modern import ModernHttp, NotModernAnswer
from penstock.upstreams.streamable_http_reception import HttpCounts
from penstock.upstreams.streamable_http_settings import StreamableHttpSettings
from penstock.upstreams.streamable_http_start import QuickStart

__all__ = ["StreamableHttpSettings", "StreamableHttpUpstream"]

T = TypeVar("T")
_SWEEP_SECONDS: Final = 1.0
_ASK_AGAIN_SECONDS: Final = 30.0
_IN_VAIN_SECONDS: Final = 10.0
"""For as long, what did not fit even after the server was asked anew is taken for the call's own fault, not the era's: else any
client that knows what a server answers with a bare 400 makes all others' streams end, call by call."""
_NOBODY: Final = Caller(Era.MODERN, "", None)


class StreamableHttpUpstream:
    """One configured HTTP server."""

    def __init__(
        self,
        name: str,
        settings: StreamableHttpSettings,
        *,
        tls: ssl.SSLContext | None = None,
        clock: Clock | None = None,
        remembered: Mapping[str, Any] | None = None,
    ) -> None:
        """
        Args:
            tls: context of the server's trust domain; needed for https.
            remembered: what `eras.export()` gave earlier for this configuration.

        Raises:
            ConfigError: the URL or a header cannot be used.
        """
        self._name = name
        self._settings = settings
        self._clock: Clock = clock or SystemClock()
        self._counts = HttpCounts()
        self._link = HttpLink(name, settings, tls, self._clock)
        self._modern = ModernHttp(self._link, settings, self._counts)
        self._legacy_http = LegacyHttp(self._link, settings, self._counts, self._clock)
        self._legacy_sse = LegacySse(self._link, settings, self._clock)
        self._legacy: LegacyHttp | LegacySse = self._legacy_http
        """The legacy transport that is spoken."""
        self.eras: Final = Eras(settings.protocol, remembered)
        self._choice = self.eras.choice
        self._probing: SingleFlight[None] = SingleFlight(f"probe of {name}")
        self._why_not: dict[Era, str] = {}
        self._description: Description | None = None
        self._quick = QuickStart(
            self._link.pool, self._choice, self._counts, modern=self._modern, legacy=self._legacy_http
        )
        self.start: Final = self._quick.start
        """See `QuickUpstream.start`."""
        self._sweeper: asyncio.Task[None] | None = None
        self._is_closed = False
        self._heard: Heard | None = None
        self._feed: ModernFeed | LegacyFeed[Any] | None = None
        self._reopening: asyncio.Task[None] | None = None
        """The end of the feed before, and the begin of the next one."""
        self._replaced: ModernFeed | LegacyFeed[Any] | None = None
        """The feed before: a task that is cancelled before its first step closes nothing."""
        self._asking: asyncio.Task[None] | None = None
        """Which era to speak with those callers that nobody has brought here yet."""
        self._in_vain_until = 0.0
        """Until then it is not asked anew."""
        self._last_error = ""
        self._last_error_at = 0.0
        self._take_versions()

    def __repr__(self) -> str:
        stats = self._link.pool.stats()
        return f"<StreamableHttpUpstream {self._name} [{stats.busy} busy {stats.idle} idle] {self.eras!r}>"

    @property
    def name(self) -> str:
        """As configured."""
        return self._name

    async def call(self, call: Call) -> Answer:
        """Send one request in the era of its caller if the server has it; see `Upstream.call`."""
        self._counts.calls += 1
        return await self.follow(call, self._send(call))

    async def follow(self, call: Call, work: Coroutine[Any, Any, Answer]) -> Answer:
        """What a side does about an answer that is not ordinary, and what there is to try beyond that."""
        try:
            return await work
        except (NotModernAnswer, NotLegacyAnswer) as misfit:
            if call.hear is not None:  # that it cannot be listened to says nothing of its era: calls will tell
                return Failure(METHOD_NOT_FOUND, f"it {misfit}", None, Era.MODERN)
            return await self._try_anew(call.caller, misfit, lambda: self._send(call))
        except ServerError as error:
            self._note(error)
            raise
        except asyncio.CancelledError:
            if self._is_closed and not _is_being_cancelled():  # what it shared with others was ended
                raise self._gone() from None
            raise

    async def describe(self, caller: Caller | None = None) -> Description:
        """What the server says of itself in the era it is spoken to for this caller; see `Upstream.describe`."""
        caller = caller or _NOBODY
        try:
            return await self._describe(caller)
        except (NotModernAnswer, NotLegacyAnswer) as misfit:
            return await self._try_anew(caller, misfit, lambda: self._describe(caller))
        except ServerError as error:
            self._note(error)
            raise

    def learn_tools(self, tools: list[tuple[str, Raw]]) -> dict[str, str]:
        """Take the rules for `Mcp-Param-*` from the (name, inputSchema) pairs of a complete `tools/list`.

        Returns:
            The tools that must be left out of the list, each with the reason: their `x-mcp-header` is invalid.
        """
        return self._modern.requests.learn_tools(tools)

    def binds(self, caller: Caller) -> bool:
        """When each session has one of its own at the server.

        While it is not known which era is spoken with such a caller, that is asked meanwhile: whoever sends the caller's calls
        elsewhere because of our answer would never let us find out.
        """
        era = self._choice[caller.era]
        if era is None and self._asking is None and not self._is_closed:
            self._asking = asyncio.get_running_loop().create_task(self._ask_era(caller), name=f"{self._name} era")
        return era is not Era.MODERN and self._legacy.binds(caller)

    def roots_changed(self, caller: Caller) -> None:
        """See `Upstream`."""
        if self._choice[caller.era] is Era.LEGACY:
            self._legacy.roots_changed(caller)

    def hear(self, heard: Heard) -> None:
        """Tell of changes; see `Upstream`. The server was described before."""
        self._heard = self._legacy_http.listening.heard = self._legacy_sse.heard = self._modern.heard = heard
        if self._feed is None and self._reopening is None and not self._is_closed:
            self._feed = self._open_feed()

    async def subscribe(self, uri: str) -> Failure | None:
        """See `Upstream`."""
        if self._reopening is not None:
            raise ServerUnavailable(self._name, "it is just being asked what it speaks by now; subscribe again")
        if self._feed is None:
            return Failure(METHOD_NOT_FOUND, f"server '{self._name}' does not tell of changes", None, Era.MODERN)
        return await self._feed.subscribe(uri)

    async def unsubscribe(self, uri: str) -> None:
        """See `Upstream`."""
        if self._reopening is not None:
            await asyncio.wait((self._reopening,))
        if self._feed is not None:
            await self._feed.unsubscribe(uri)

    async def subscribe_apart(self, caller: Caller, uri: str) -> None:
        """See `SubscribesApart`: where the session is the caller's own."""
        if self._choice[caller.era] is Era.LEGACY and self._legacy.binds(caller):
            with contextlib.suppress(
                PenstockError
            ):  # it is told what the gateway hears, and calls find out what is wrong
                await self._legacy.subscribe_apart(caller, uri)

    async def unsubscribe_apart(self, caller: Caller, uri: str) -> None:
        """See `SubscribesApart`."""
        if self._choice[caller.era] is Era.LEGACY and self._legacy.binds(caller):
            await self._legacy.unsubscribe_apart(caller, uri)

    async def close_session(self, session: str) -> None:
        """End the server's session that belongs to a client session, if there is one; bounded."""
        await self._legacy.close_session(session)

    def state(self) -> dict[str, Any]:
        """JSON-ready facts; no header, no query of the URL, no session id."""
        return {
            "transport": "streamable_http",
            "url": self._link.url,
            "protocol": self._settings.protocol,
            "eras": [era.value for era in self.eras.spoken()],
            "spoken_with": {
                caller.value: era.value if era is not None else None for caller, era in self._choice.items()
            },
            "versions": {era.value: self.eras.version(era) for era in self.eras.spoken()},
            "connections": msgspec.to_builtins(self._link.pool.stats()),
            "resent": self._link.resent,
            "last_error": self._last_error,
            "last_error_at": self._last_error_at,
            **msgspec.to_builtins(self._counts),
            **self._legacy.state(),
        }

    def recent_log(self, lines: int) -> list[str]:
        """Nothing: its log is on its own machine."""
        return []

    async def close(self) -> None:
        """End sessions and connections. Idempotent; at most `close_seconds` and a moment."""
        self._is_closed = True
        self._quick.close()
        feed, self._feed = self._feed, None
        if feed is not None:
            await feed.close()
        if self._reopening is not None:
            self._reopening.cancel()
            await asyncio.wait((self._reopening,))
        if self._replaced is not None:
            await self._replaced.close()
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait((self._asking,))
        await self._probing.close()
        await self._legacy_sse.close()
        await self._legacy_http.close()
        sweeper, self._sweeper = self._sweeper, None  # its end holds its frame, and that holds us
        if sweeper is not None:
            sweeper.cancel()
            await asyncio.wait((sweeper,))
        await self._link.pool.close(loans_too=True)

    # changes

    def _open_feed(self, uris: tuple[str, ...] = ()) -> ModernFeed | LegacyFeed[Any] | None:
        era = self._choice[Era.MODERN]
        if era is None:
            return None
        if era is Era.MODERN:
            return ModernFeed(self._name, self.call, self._tell, self._clock, uris)
        side: FeedSide[Any] = self._legacy
        return LegacyFeed(self._name, side, call=self.call, heard=self._tell, clock=self._clock, uris=uris)

    async def _reopen(self, feed: ModernFeed | LegacyFeed[Any]) -> None:
        """Hear of changes in the era the server turns out to have by now; until then ask again, but not often."""
        await feed.close()
        self._replaced = None
        while self._feed is None:
            try:
                await self._ready(_NOBODY)
            except PenstockError:
                await self._clock.sleep(_ASK_AGAIN_SECONDS)
            else:
                self._feed = self._open_feed(feed.uris)
                for method in LIST_CHANGED.values():
                    self._tell(method, {})
        self._reopening = None

    def _tell(self, method: str, params: dict[str, Raw]) -> None:
        if self._heard is not None:
            self._heard(method, params)

    # which era

    async def _send(self, call: Call) -> Answer:
        era = await self._ready(call.caller)
        if era is Era.MODERN:
            return await self._modern.call(call)
        try:
            return await self._legacy.call(call)
        except SpeaksSse:
            self._use(self._legacy_sse)
            return await self._legacy.call(call)

    async def _describe(self, caller: Caller) -> Description:
        is_unknown = self._choice[caller.era] is None
        era = await self._ready(caller)
        if era is Era.LEGACY:
            session = await self._session_for(caller)
            return msgspec.structs.replace(session.description, eras=self.eras.spoken(era) or (era,))
        description = self._description if is_unknown else None  # the probe just made has asked already
        if description is None:
            found = await self._modern.discover(caller)
            if not isinstance(found, Modern):
                raise NotModernAnswer(self._words(found))
            _, version, description = found.agreement
            self.eras.found(Era.MODERN, version, description.versions)
        return msgspec.structs.replace(description, eras=self.eras.spoken(era) or (era,))

    async def _ready(self, caller: Caller) -> Era:
        """The era to speak with this caller; asks the server when that is not known."""
        if self._is_closed:
            raise self._gone()
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().create_task(self._sweep_for_ever(), name=f"{self._name} sweeper")
            self._quick.open(self)
        era = self._choice[caller.era]
        if era is None:
            await self._probing.run(caller.era, lambda: self._probe(caller))
            era = self._choice[caller.era]
            if era is None:
                raise self._speaks_nothing()
        return era

    async def _ask_era(self, caller: Caller) -> None:
        try:
            await self._ready(caller)
        except PenstockError:
            pass  # the next call finds out for itself, and has somebody to tell
        finally:
            self._asking = None

    async def _probe(self, caller: Caller) -> None:
        """Ask until it is known which era to speak with callers of that one's era."""
        try:
            if self._link.url.endswith("/sse") and not self.eras.spoken():
                await self._probe_sse(caller)
            while (era := self.eras.next_probe(caller.era)) is not None:
                if era is Era.MODERN:
                    await self._probe_modern()
                else:
                    await self._probe_legacy(caller)
            if not self.eras.spoken():
                raise self._speaks_nothing()
        except ServerError:
            if not self.eras.spoken():
                self.eras.forget()  # half an answer says little: what gave it may be gone the next time
            raise

    async def _probe_modern(self) -> None:
        found = await self._modern.discover()
        if isinstance(found, Modern):
            _, version, self._description = found.agreement
            self.eras.found(Era.MODERN, version, self._description.versions)
            self._take_versions()
            return
        self._why_not[Era.MODERN] = self._words(found)
        self.eras.missing(Era.MODERN)
        if isinstance(found, SpeaksOnly):
            version_in_common = found.common(Era.LEGACY)
            if version_in_common is None:
                self.eras.missing(Era.LEGACY)
                self._why_not[Era.LEGACY] = "names no legacy revision"
            else:
                self._legacy.version = version_in_common

    async def _probe_legacy(self, caller: Caller) -> None:
        """The handshake is the question: its session is used by the call that asked."""
        try:
            session = await self._session_for(caller)
        except NotLegacyAnswer as error:
            self._why_not[Era.LEGACY] = error.message
            self.eras.missing(Era.LEGACY)
        else:
            self.eras.found(Era.LEGACY, session.version)

    async def _probe_sse(self, caller: Caller) -> None:
        """A URL that looks like one of HTTP+SSE is asked for that first: by a GET, which does no harm if it is none."""
        try:
            session = await self._legacy_sse.session_for(caller)
        except NotLegacyAnswer:
            return
        self._use(self._legacy_sse)
        self.eras.missing(Era.MODERN)
        self._why_not[Era.MODERN] = "speaks the HTTP+SSE transport of 2024-11-05"
        self.eras.found(Era.LEGACY, session.version)

    async def _session_for(self, caller: Caller) -> LegacySession | SseSession:
        """The caller's session over the transport that turns out to be the server's; it is not kept from others."""
        if self._legacy is self._legacy_http:
            try:
                session = await self._legacy_http.session_for(caller)
            except SpeaksSse:
                self._use(self._legacy_sse)
            else:
                self._legacy_http.requests.give_back(session)
                return session
        return await self._legacy_sse.session_for(caller)

    def _use(self, legacy: LegacyHttp | LegacySse) -> None:
        """Speak that transport from now on; of the other nothing is open then."""
        if legacy is not self._legacy:
            legacy.version = self._legacy.version
            self._legacy = legacy
            self._reopen_feed()

    async def _try_anew(self, caller: Caller, misfit: Exception, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What was known of the server has stopped to fit: ask it again, then do the work once more."""
        if self.eras.pinned is None and self._clock.now() >= self._in_vain_until:
            self._counts.reprobes += 1
            self._forget(sessions_too=isinstance(misfit, NotLegacyAnswer))
            try:
                return await work()
            except (NotModernAnswer, NotLegacyAnswer) as again:
                misfit = again
                self._in_vain_until = self._clock.now() + _IN_VAIN_SECONDS
            except ServerError as error:
                self._note(error)
                raise
        pinned = f" 'protocol' pins it to {self._settings.protocol};" if self.eras.pinned is not None else ""
        hopeless = ServerMisbehaved(self._name, f"it {misfit};{pinned} see its log")
        self._note(hopeless)
        raise hopeless from misfit

    def _forget(self, *, sessions_too: bool) -> None:
        """`sessions_too` unless the server may still know them: it was another era that has stopped to fit."""
        self.eras.forget()
        self._description = None
        self._take_versions()
        self._reopen_feed()  # it listens in an era that may not be the server's any more
        if sessions_too:
            self._legacy.forget()
            self._use(self._legacy_http)

    def _reopen_feed(self) -> None:
        feed, self._feed = self._feed, None
        if feed is not None:
            self._replaced = feed
            self._reopening = asyncio.get_running_loop().create_task(
                self._reopen(feed), name=f"changes of {self._name}"
            )

    def _take_versions(self) -> None:
        self._modern.requests.use(self.eras.version(Era.MODERN))
        self._legacy.version = self.eras.version(Era.LEGACY)

    def _speaks_nothing(self) -> ServerError:
        modern = self._why_not.get(Era.MODERN, "was not asked in the modern era")
        legacy = self._why_not.get(Era.LEGACY, "was not asked to initialize")
        return ServerMisbehaved(
            self._name, f"it speaks no revision of MCP that Penstock speaks: it {modern}; it {legacy}"
        )

    @staticmethod
    def _words(found: SpeaksOnly | NotModern) -> str:
        if isinstance(found, NotModern):
            return found.why
        return f"supports only {', '.join(found.supported[:8]) or 'nothing'}"

    def _gone(self) -> ServerError:
        return ServerUnavailable(self._name, "it has been removed or is shutting down")

    def _note(self, error: ServerError) -> None:
        self._last_error, self._last_error_at = error.message, self._clock.wall()

    async def _sweep_for_ever(self) -> None:
        while True:
            await self._clock.sleep(_SWEEP_SECONDS)
            self._link.pool.sweep()
            self._legacy.sweep()


def _is_being_cancelled() -> bool:
    """Whether the current task is; its name would stay in a frame that its own error holds, and keep both."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
