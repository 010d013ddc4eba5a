"""Keep one child of a stdio server running: start, shake hands, notice its end, start it again.

Knows: when to start and to wait. Does not know: what is said on the pipes, which caller belongs to which instance.
Invariant: at most one process at a time; the previous one is reaped before the next is started. Whoever waits for a process
learns the outcome of the next attempt, or that it takes too long.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Any, Final

from penstock.clock import Clock
from penstock.errors import ServerBusy, ServerError, ServerUnavailable
from penstock.protocol.client_capabilities import Askable
from penstock.protocol.versions import Era
from penstock.upstreams.backoff import Backoff
from penstock.upstreams.child_guard import ChildGuard
from penstock.upstreams.child_output import StderrTail
from penstock.upstreams.child_process import (
    ChildCommand,
    ChildFailedToStart,
    ChildProcess,
    StopTimes,
    child_environment,
)
from penstock.upstreams.conversation import Conversation
from penstock.upstreams.conversation_flight import ConversationCounts
from penstock.upstreams.interface import Description
from penstock.upstreams.stdio_eras import Agreement
from penstock.upstreams.stdio_handshake import EraMemory, Handshake, wait_for_any
from penstock.upstreams.stdio_settings import StdioSettings
from penstock.upstreams.stdio_wire import ChildWire

log = logging.getLogger("penstock.upstreams")

_MARGIN_SECONDS: Final = 5.0
"""How much longer than the handshake may take a call waits for it, so that it learns why the handshake failed."""


class StdioInstance:
    """One place for a child; the child in it changes when it dies."""

    __slots__ = (
        "_agreement",
        "_askable",
        "_backoff",
        "_clock",
        "_counts",
        "_guard",
        "_handshake",
        "_is_closed",
        "_memory",
        "_next_start_at",
        "_outcome",
        "_server",
        "_settings",
        "_supervisor",
        "_talk",
        "_waiting",
        "_wire",
        "has_run",
        "has_subscriptions",
        "idle_since",
        "last_error",
        "ready_since",
        "restarts",
        "stderr",
    )

    def __init__(
        self,
        server: str,
        *,
        settings: StdioSettings,
        askable: Askable,
        memory: EraMemory,
        counts: ConversationCounts,
        guard: ChildGuard,
        clock: Clock,
        random: Callable[[], float],
    ) -> None:
        self._server = server
        self._settings = settings
        self._askable = askable
        self._memory = memory
        self._counts = counts
        self._guard = guard
        self._clock = clock
        self._backoff = Backoff(
            first_seconds=settings.first_delay_seconds,
            longest_seconds=settings.longest_delay_seconds,
            healthy_seconds=settings.healthy_seconds,
            random=random,
        )
        self._talk: Conversation | None = None
        self._wire = ChildWire(server, settings.line_bytes)
        """Of the latest process."""
        self._agreement: Agreement | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._outcome: asyncio.Future[ServerError | None] | None = None
        """Of the attempt that is being made, or comes next; None as its result means success."""
        self._next_start_at = 0.0
        self._handshake: Handshake | None = None
        self._waiting = 0
        self._is_closed = False
        self.has_run = False
        self.has_subscriptions = False
        """It is the one of its server that is subscribed to resources: several would each tell the same."""
        self.stderr = StderrTail(settings.stderr_bytes)
        self.last_error = ""
        self.restarts = 0
        self.ready_since = 0.0
        self.idle_since = clock.now()

    def __repr__(self) -> str:
        return f"<StdioInstance {self._server} {self._word()} | in flight {self.in_flight} | restarts {self.restarts}>"

    @property
    def talk(self) -> Conversation | None:
        """The conversation, when calls can be made at once."""
        talk = self._talk
        return talk if self._agreement is not None and talk is not None and talk.is_open else None

    @property
    def description(self) -> Description | None:
        """What the running process said of itself."""
        return self._agreement.description if self._agreement is not None and self.talk is not None else None

    @property
    def in_flight(self) -> int:
        """Calls the child works on, and calls that wait for it to be ready."""
        return self._waiting + (self._talk.in_flight if self._talk is not None else 0)

    async def ready(self) -> Conversation:
        """Start the child if that was never done, and wait until calls can be made.

        Raises:
            ServerError: the attempt to start failed, or takes longer than a call may wait.
        """
        if self._waiting >= self._settings.max_in_flight:
            raise ServerBusy(self._server, f"{self._waiting} calls wait for it to start, the most that may")
        self._waiting += 1
        try:
            return await self._wait_until_ready()
        finally:
            self._waiting -= 1
            self.idle_since = self._clock.now()

    async def close(self) -> None:
        """End the child and stop watching over it. Idempotent."""
        self._is_closed = True
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            supervisor.cancel()
            await asyncio.wait((supervisor,))
        self._tell_waiting(ServerUnavailable(self._server, "it is being stopped"))

    def state(self) -> dict[str, Any]:
        """JSON-ready facts."""
        child = self._wire.child
        is_ready = self.talk is not None
        return {
            "state": self._word(),
            "pid": child.pid if child is not None and child.returncode is None else None,
            "era": self._agreement.era.value if self._agreement is not None else None,
            "revision": self._agreement.version if self._agreement is not None else None,
            "restarts": self.restarts,
            "uptime_seconds": round(self._clock.now() - self.ready_since, 1) if is_ready else 0.0,
            "in_flight": self.in_flight,
            "unsent_bytes": child.unsent_bytes if child is not None else 0,
            "last_error": self.last_error,
            "stderr_bytes": self.stderr.total_bytes,
        }

    def _word(self) -> str:
        if self._is_closed:
            return "closed"
        if self._supervisor is None:
            return "not started"
        if self.talk is not None:
            return "running"
        return "starting" if self._next_start_at <= self._clock.now() else "waiting to restart"

    # those who wait

    async def _wait_until_ready(self) -> Conversation:
        # A server that never ran gets its whole time to start; one that ran before is expected back soon.
        settings = self._settings
        patience = settings.restart_wait_seconds if self.has_run else settings.start_seconds + _MARGIN_SECONDS
        give_up_at = self._clock.now() + patience
        while (talk := self.talk) is None:
            if self._is_closed:
                raise ServerUnavailable(self._server, "it is being stopped")
            outcome = self._start_supervisor()
            if self._next_start_at > self._clock.now() and not self.has_run:
                raise ServerUnavailable(self._server, self.last_error)  # why waiting would hardly help
            if self._next_start_at > give_up_at:
                seconds = self._next_start_at - self._clock.now()
                raise ServerUnavailable(self._server, f"{self.last_error}; it is started again in {seconds:.0f} s")
            await wait_for_any((outcome,), give_up_at - self._clock.now(), self._clock)
            if not outcome.done():
                why = f"; before that: {self.last_error}" if self.last_error else ""
                raise ServerUnavailable(self._server, f"it was not ready within {patience:g} s{why}")
            error = outcome.result()
            if error is not None:
                raise type(error)(self._server, self._words_of(error))
        return talk

    def _start_supervisor(self) -> asyncio.Future[ServerError | None]:
        if self._outcome is None:
            self._outcome = asyncio.get_running_loop().create_future()
        if self._supervisor is None:
            self._supervisor = asyncio.create_task(self._supervise(), name=f"stdio {self._server}")
        return self._outcome

    def _tell_waiting(self, error: ServerError | None) -> None:
        outcome, self._outcome = self._outcome, None
        if outcome is not None:
            outcome.set_result(error)

    # the life of the child

    async def _supervise(self) -> None:
        """Start, wait for the end, start again, until cancelled."""
        while True:
            began_at = self._clock.now()
            await self._run_once()
            delay = self._backoff.delay_after(self._clock.now() - began_at)
            self._next_start_at = self._clock.now() + delay
            await self._clock.sleep(delay)
            self.restarts += 1

    async def _run_once(self) -> None:
        """One process from its start to its end."""
        try:
            await self._begin()
            if self.has_run and self._talk is not None and self._talk.era is Era.LEGACY:
                self._talk.begin_again(subscribes=self.has_subscriptions)
            self.has_run = True
            self.ready_since = self._clock.now()
            self._tell_waiting(None)
            talk, child = self._talk, self._wire.child
            assert talk is not None
            assert child is not None
            await asyncio.wait((child.ended,))  # not `await ended`: our own cancellation must not cancel it
            self.last_error = self._words_of(talk.why_over())
            log.warning("server '%s': %s; it is started again", self._server, self.last_error)
        except ServerError as error:
            self._attempt_failed(error)
        except Exception as error:  # the task's top: a defect of ours must not leave a server without its keeper
            self._attempt_failed(ServerUnavailable(self._server, f"starting it failed: {error!r}"))
        finally:
            self._agreement = None
            await self._end_child()

    def _attempt_failed(self, error: ServerError) -> None:
        """Say so to those who wait; the next attempt has its own."""
        self.last_error = self._words_of(error)
        self._tell_waiting(error)

    async def _begin(self) -> None:
        """Start a process and agree with it; a second one when the first fell over a question it did not know."""
        try:
            await self._attempt()
        except ServerError:
            if not self._fell_over_the_probe():
                raise
            self._memory.learn(Era.LEGACY)
            try:
                await self._attempt()
            except ServerError:
                self._memory.forget()
                raise

    async def _attempt(self) -> None:
        await self._end_child()
        settings = self._settings
        wire = self._wire = ChildWire(self._server, settings.line_bytes)
        talk = wire.talk = Conversation(
            self._server,
            wire,
            bounds=settings,
            counts=self._counts,
            habits=self._memory.habits,
            advice=f'give it more processes: servers.{self._server}.instances = N, or "per_session"',
        )
        child = wire.child = ChildProcess(
            wire,
            guard=self._guard,
            stderr=self.stderr,
            line_limit=settings.line_bytes,
            stop_times=StopTimes(settings.close_seconds, settings.terminate_seconds),
        )
        child.ended.add_done_callback(wire.process_ended)
        self._talk = talk
        self._handshake = None
        command = ChildCommand(settings.command, child_environment(settings.env, os.environ), settings.cwd)
        try:
            await child.start(command)
        except ChildFailedToStart as error:
            raise ServerUnavailable(self._server, str(error)) from error
        self._handshake = Handshake(
            self._server, talk, child, settings=settings, askable=self._askable, memory=self._memory, clock=self._clock
        )
        self._agreement = await self._handshake.run()

    def _fell_over_the_probe(self) -> bool:
        child = self._wire.child
        has_probed = self._handshake is not None and self._handshake.has_probed
        return has_probed and child is not None and child.returncode is not None

    async def _end_child(self) -> None:
        talk, child = self._talk, self._wire.child
        if talk is not None and child is not None:
            talk.close()
            await child.stop()

    def _words_of(self, error: ServerError) -> str:
        return error.message.removeprefix(f"server '{self._server}': ")
