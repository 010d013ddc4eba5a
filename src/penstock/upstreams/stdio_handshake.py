"""Agree with a fresh stdio process on era and revision.

Knows: the order in which things are asked, and for how long. Does not know: how answers are judged, processes, restarts.
Invariant: `initialize` is sent at most once to a process, and never after the server showed itself modern.

A process that does not speak yet (`npx` may download for half a minute) cannot be told from one that ignores
`server/discover`. So after a bounded time `initialize` is sent behind it on the same pipe, and the answers decide.
"""

import asyncio
from typing import Any

from penstock.clock import Clock
from penstock.errors import ServerError, ServerMisbehaved, ServerUnavailable
from penstock.protocol.client_capabilities import Askable, declared
from penstock.protocol.messages import Reply
from penstock.protocol.versions import LATEST_LEGACY, LATEST_MODERN, Era, era_of
from penstock.upstreams.calls import Raw
from penstock.upstreams.child_process import ChildProcess
from penstock.upstreams.conversation import Conversation
from penstock.upstreams.conversation_flight import Flight
from penstock.upstreams.stdio_eras import Agreement, Modern, SpeaksOnly, judge_discover, judge_initialize
from penstock.upstreams.stdio_settings import StdioSettings
from penstock.upstreams.turns import Habits


class EraMemory:
    """What was learned of a server's era; one for all its processes, for as long as it is configured."""

    __slots__ = ("era", "habits", "is_learned", "version")

    def __init__(self, protocol: str) -> None:
        self.is_learned = protocol == "auto"
        """False when the configuration pins a revision: then nothing is probed or forgotten."""
        self.version = "" if self.is_learned else protocol
        self.era = None if self.is_learned else era_of(protocol)
        self.habits = Habits()

    def __repr__(self) -> str:
        return f"<EraMemory {self.era.value if self.era else 'unknown'}{'' if self.is_learned else ' pinned'}>"

    def learn(self, era: Era) -> None:
        """Skip the probe from now on."""
        if self.is_learned:
            self.era = era

    def forget(self) -> None:
        """Probe again: what was learned has stopped to fit."""
        if self.is_learned:
            self.era = None


class Handshake:
    """One handshake on one process."""

    __slots__ = (
        "_askable",
        "_child",
        "_clock",
        "_give_up_at",
        "_memory",
        "_server",
        "_settings",
        "_talk",
        "has_probed",
    )

    def __init__(
        self,
        server: str,
        talk: Conversation,
        child: ChildProcess,
        *,
        settings: StdioSettings,
        askable: Askable,
        memory: EraMemory,
        clock: Clock,
    ) -> None:
        """`askable`: what is declared to a legacy server."""
        self._server = server
        self._talk = talk
        self._child = child
        self._settings = settings
        self._askable = askable
        self._memory = memory
        self._clock = clock
        self._give_up_at = clock.now() + settings.start_seconds
        self.has_probed = False
        """Whether the process was asked something a legacy server need not understand."""

    def __repr__(self) -> str:
        return f"<Handshake {self._server} {'probing' if self.has_probed else 'direct'}>"

    async def run(self) -> Agreement:
        """Agree, and leave the conversation ready for calls.

        Raises:
            ServerError: the process ended, stayed silent or answered what no server of either era answers.
        """
        try:
            agreement = await self._agree()
        except ServerError:
            if self._child.returncode is None:
                self._memory.forget()  # it lives, and does not answer as remembered
            raise
        self._talk.era, self._talk.version = agreement.era, agreement.version
        if agreement.era is Era.LEGACY:
            self._talk.notify("notifications/initialized", {})
        self._memory.learn(agreement.era)
        return agreement

    async def _agree(self) -> Agreement:
        if self._memory.era is Era.LEGACY:
            return await self._initialize()
        discover = self._ask_discover()
        if self._memory.era is Era.MODERN:
            return await self._modern(discover)
        self.has_probed = True
        await self._wait((discover,), self._settings.probe_seconds)
        if discover.future.done():
            return await self._after_discover(discover)
        return await self._settle(discover, self._ask_initialize(LATEST_LEGACY))

    def _ask_discover(self) -> Flight:
        self._talk.version = (
            self._memory.version if self._memory.era is Era.MODERN and self._memory.version else LATEST_MODERN
        )
        return self._talk.send("server/discover", {"_meta": self._talk.modern_meta()})

    def _ask_initialize(self, version: str) -> Flight:
        params = {
            "protocolVersion": Raw(b'"%s"' % version.encode()),
            "capabilities": Raw(declared(self._askable, version)),
            "clientInfo": Raw(self._settings.client_info),
        }
        return self._talk.send("initialize", params)

    async def _modern(self, discover: Flight) -> Agreement:
        """The server is known, or said by the configuration, to be modern."""
        verdict = judge_discover(await self._answer(discover), self._talk.version)
        if isinstance(verdict, Modern):
            return verdict.agreement
        if isinstance(verdict, SpeaksOnly):
            raise self._nothing_in_common(verdict)
        hint = "remembered as modern" if self._memory.is_learned else f"pinned to {self._memory.version} by 'protocol'"
        raise ServerMisbehaved(self._server, f"it is {hint}, but {verdict.why}")

    async def _initialize(self, version: str = "") -> Agreement:
        """The server is legacy."""
        flight = self._ask_initialize(version or self._memory.version or LATEST_LEGACY)
        self._talk.era = Era.LEGACY  # its requests and batches are allowed from here on
        agreement = judge_initialize(await self._answer(flight))
        if isinstance(agreement, str):
            raise ServerMisbehaved(self._server, f"it {agreement}")
        return agreement

    async def _after_discover(self, discover: Flight) -> Agreement:
        """The usual way: the probe was answered in time."""
        asked = self._talk.version
        verdict = judge_discover(discover.future.result(), asked)
        if isinstance(verdict, Modern):
            return verdict.agreement
        if not isinstance(verdict, SpeaksOnly):
            return await self._initialize()
        version = verdict.common(Era.LEGACY)
        if version is None:
            raise self._nothing_in_common(verdict)
        return await self._initialize(version)

    async def _settle(self, discover: Flight, initialize: Flight) -> Agreement:
        """Both questions are on the pipe: a handshake that succeeded counts, then a description, then words of refusal."""
        self._talk.era = Era.LEGACY
        await self._wait((discover, initialize), self._remaining())
        if not initialize.future.done() and discover.future.done():
            await self._wait((initialize,), min(self._remaining(), self._settings.probe_seconds))
        legacy = (
            judge_initialize(initialize.future.result()) if initialize.future.done() else "did not answer initialize"
        )
        if isinstance(legacy, Agreement):
            self._talk.forget(discover)
            return legacy
        if not discover.future.done():
            await self._wait((discover,), min(self._remaining(), self._settings.probe_seconds))
        if not discover.future.done():
            raise self._too_slow() if not initialize.future.done() else ServerMisbehaved(self._server, f"it {legacy}")
        verdict = judge_discover(discover.future.result(), LATEST_MODERN)
        if isinstance(verdict, Modern):
            return verdict.agreement
        if isinstance(verdict, SpeaksOnly):
            raise self._nothing_in_common(verdict)
        raise ServerMisbehaved(self._server, f"it {verdict.why} and {legacy}")

    async def _answer(self, flight: Flight) -> Reply:
        await self._wait((flight,), self._remaining())
        if not flight.future.done():
            raise self._too_slow()
        return flight.future.result()

    async def _wait(self, flights: tuple[Flight, ...], seconds: float) -> None:
        await wait_for_any(tuple(flight.future for flight in flights), seconds, self._clock)

    def _remaining(self) -> float:
        return max(0.0, self._give_up_at - self._clock.now())

    def _too_slow(self) -> ServerError:
        last_line = self._child.stderr.last_line()
        said = f"; its last line on stderr: {last_line}" if last_line else "; it wrote nothing to stderr"
        seconds = f"{self._settings.start_seconds:g} s"
        return ServerUnavailable(self._server, f"it did not answer the handshake within {seconds} of its start{said}")

    def _nothing_in_common(self, verdict: SpeaksOnly) -> ServerError:
        theirs = ", ".join(verdict.supported[:8]) or "none"
        return ServerMisbehaved(self._server, f"it supports no revision Penstock speaks (it says: {theirs})")


async def wait_for_any(futures: tuple[asyncio.Future[Any], ...], seconds: float, clock: Clock) -> None:
    """Return when one of the futures is done, or after that time; the futures themselves are left alone."""
    timer = asyncio.ensure_future(clock.sleep(seconds))
    try:
        await asyncio.wait((*futures, timer), return_when=asyncio.FIRST_COMPLETED)
    finally:
        timer.cancel()
