"""A server that is a child process and speaks over its standard streams.

Knows: which child takes which call. Does not know: how children live (stdio_instance) or what is said to them
(conversation).
Invariant: never more children than `instances` says, or `max_sessions` and one when each client session has its own.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Any, Final

import msgspec

from penstock.clock import Clock, SystemClock
from penstock.errors import ServerBusy, ServerUnavailable
from penstock.protocol.client_capabilities import EVERYTHING, Askable
from penstock.protocol.versions import Era
from penstock.upstreams.calls import PENSTOCK, Answer, Call, Caller, Failure, Heard, Raw
from penstock.upstreams.child_guard import ChildGuard
from penstock.upstreams.conversation_flight import ConversationCounts
from penstock.upstreams.interface import Description
from penstock.upstreams.modern_feed import ModernFeed
from penstock.upstreams.stdio_handshake import EraMemory
from penstock.upstreams.stdio_instance import StdioInstance
from penstock.upstreams.stdio_settings import StdioSettings

__all__ = ["StdioSettings", "StdioUpstream"]

_SWEEPS_PER_IDLE_TIME: Final = 4


class StdioUpstream:
    """One configured stdio server."""

    def __init__(
        self,
        name: str,
        settings: StdioSettings,
        *,
        guard: ChildGuard,
        clock: Clock | None = None,
        random_number: Callable[[], float] = random.random,
    ) -> None:
        self._name = name
        self._settings = settings
        self._guard = guard
        self._clock: Clock = clock or SystemClock()
        self._random = random_number
        self._memory = EraMemory(settings.protocol)
        self._counts = ConversationCounts()
        self._is_closed = False
        self._feed: ModernFeed | None = None
        self._sessions: dict[str, StdioInstance] = {}
        self._sweeper: asyncio.Task[None] | None = None
        count = settings.instances if isinstance(settings.instances, int) else 1
        self._instances = [self._new_instance() for _ in range(max(1, count))]
        """Those that everybody, or every caller without a session, shares."""
        self._instances[0].has_subscriptions = True

    def __repr__(self) -> str:
        running = sum(instance.talk is not None for instance in self._all())
        in_flight = sum(instance.in_flight for instance in self._all())
        return f"<StdioUpstream {self._name} [{running} running of {len(self._all())}] in flight {in_flight}>"

    @property
    def name(self) -> str:
        """As configured."""
        return self._name

    async def call(self, call: Call) -> Answer:
        """Send one request to a child; see `Upstream.call`."""
        instance = self._instance_for(call.caller)
        talk = instance.talk or await instance.ready()
        try:
            return await talk.call(call)
        finally:
            instance.idle_since = self._clock.now()

    async def describe(self, caller: Caller | None = None) -> Description:
        """What the server said when the running child was started; starts one when none runs."""
        self._refuse_when_closed()
        instance = self._instances[0] if caller is None else self._instance_for(caller)
        if instance.description is None:
            await instance.ready()
        if instance.description is None:
            raise ServerUnavailable(self._name, f"it ended as soon as it was ready; {instance.last_error}")
        return instance.description

    def binds(self, caller: Caller) -> bool:
        """When each session has a process of its own."""
        return self._settings.instances == "per_session" and caller.session is not None

    def roots_changed(self, caller: Caller) -> None:
        """See `Upstream`: when each session has a process of its own."""
        instance = self._sessions.get(caller.session) if caller.session is not None else None
        if instance is not None and instance.talk is not None and instance.talk.era is Era.LEGACY:
            instance.talk.notify("notifications/roots/list_changed", {})

    def hear(self, heard: Heard) -> None:
        """Tell of changes; see `Upstream`."""
        self._memory.habits.heard = heard
        if self._memory.era is Era.MODERN and self._feed is None and not self._is_closed:
            self._feed = ModernFeed(self._name, self.call, self._tell, self._clock)

    async def subscribe(self, uri: str) -> Failure | None:
        """See `Upstream`."""
        if self._feed is not None:
            return await self._feed.subscribe(uri)
        answer = await self._ask_about("resources/subscribe", uri)
        if isinstance(answer, Failure):
            return answer
        self._memory.habits.uris[uri] = None
        return None

    async def unsubscribe(self, uri: str) -> None:
        """See `Upstream`."""
        if self._feed is not None:
            await self._feed.unsubscribe(uri)
        elif self._memory.habits.uris.pop(uri, self) is None:
            await self._ask_about("resources/unsubscribe", uri)

    async def close_session(self, session: str) -> None:
        """End the child of a client session, if it has one."""
        instance = self._sessions.pop(session, None)
        if instance is not None:
            await instance.close()

    def state(self) -> dict[str, Any]:
        """JSON-ready facts; the command's name only, as its arguments may hold secrets."""
        era = self._memory.era
        return {
            "transport": "stdio",
            "command": self._settings.command[0] if self._settings.command else "",
            "protocol": self._settings.protocol,
            "eras": [era.value] if era is not None else [],
            "spoken_with": {caller.value: era.value if era is not None else None for caller in Era},
            "instances": [instance.state() for instance in self._instances],
            "sessions": [instance.state() for instance in self._sessions.values()],
            "in_flight": sum(instance.in_flight for instance in self._all()),
            "restarts": sum(instance.restarts for instance in self._all()),
            "last_error": next((instance.last_error for instance in self._all() if instance.last_error), ""),
            **({"stderr_lines": self._instances[0].stderr.total_lines} if len(self._all()) == 1 else {}),
            **msgspec.to_builtins(self._counts),
        }

    def recent_log(self, lines: int) -> list[str]:
        """The last lines of stderr; with several children each child's lines stand together, with its number."""
        everybody = self._all()
        if len(everybody) == 1:
            return everybody[0].stderr.lines(lines)
        return [f"[{number}] {line}" for number, one in enumerate(everybody) for line in one.stderr.lines(lines)]

    async def close(self) -> None:
        """End all children; at most five seconds."""
        self._is_closed = True
        feed, self._feed = self._feed, None
        if feed is not None:
            await feed.close()
        everybody = self._all()
        self._sessions.clear()
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.wait((self._sweeper,))
        await asyncio.gather(*(instance.close() for instance in everybody))

    def _tell(self, method: str, params: dict[str, Raw]) -> None:
        heard = self._memory.habits.heard
        if heard is not None:
            heard(method, params)

    async def _ask_about(self, method: str, uri: str) -> Answer:
        """To the first child: with several, each would say the same."""
        self._refuse_when_closed()
        talk = self._instances[0].talk or await self._instances[0].ready()
        return await talk.call(Call(method, {"uri": Raw(msgspec.json.encode(uri))}, caller=PENSTOCK, name=uri))

    # which child

    def _all(self) -> list[StdioInstance]:
        return [*self._instances, *self._sessions.values()]

    def _new_instance(self, askable: Askable = EVERYTHING) -> StdioInstance:
        return StdioInstance(
            self._name,
            settings=self._settings,
            askable=askable,
            memory=self._memory,
            counts=self._counts,
            guard=self._guard,
            clock=self._clock,
            random=self._random,
        )

    def _instance_for(self, caller: Caller) -> StdioInstance:
        self._refuse_when_closed()
        if self._settings.instances == "per_session" and caller.session is not None:
            return self._sessions.get(caller.session) or self._open_session(caller.session, caller.askable)
        if len(self._instances) == 1:
            return self._instances[0]
        # Least busy; among equals one that runs. So a fleet starts as the load needs it.
        return min(self._instances, key=lambda instance: (instance.in_flight, instance.talk is None))

    def _open_session(self, session: str, askable: Askable) -> StdioInstance:
        if len(self._sessions) >= self._settings.max_sessions:
            raise ServerBusy(
                self._name,
                f"{len(self._sessions)} client sessions have a process of their own, the most that may; end one, or wait "
                f"{self._settings.session_idle_seconds:g} s for an idle one to be ended",
            )
        instance = self._sessions[session] = self._new_instance(askable)
        if self._sweeper is None:
            self._sweeper = asyncio.create_task(self._sweep_for_ever(), name=f"stdio {self._name} sweeper")
        return instance

    def _refuse_when_closed(self) -> None:
        if self._is_closed:
            raise ServerUnavailable(self._name, "it is being stopped")

    async def sweep(self) -> None:
        """End the children of sessions that made no call for long."""
        idle_before = self._clock.now() - self._settings.session_idle_seconds
        for session, instance in list(self._sessions.items()):
            # looked at one by one, as ending a child takes a while, in which another session may make a call
            if (
                instance.in_flight == 0
                and instance.idle_since <= idle_before
                and self._sessions.get(session) is instance
            ):
                await self.close_session(session)

    async def _sweep_for_ever(self) -> None:
        while True:
            await self._clock.sleep(self._settings.session_idle_seconds / _SWEEPS_PER_IDLE_TIME)
            await self.sweep()
