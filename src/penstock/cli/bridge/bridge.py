"""A client on stdin and stdout, and a gateway that speaks HTTP: every line becomes a request, every answer lines.

Knows: which era a line belongs to, how much may be under way, how it all ends. Does not know: headers, sessions, HTTP.
Invariants: lines are sent in the order in which they came, and nothing after an `initialize` before that is answered; what is
under way is bounded, as is what waits to be read by the client: then no more is read from it or from the gateway.
"""

import asyncio
import logging
from typing import Final

import msgspec

from penstock.cli.bridge.answers import refusal
from penstock.cli.bridge.flight import Flight, Side
from penstock.cli.bridge.legacy import LegacySide
from penstock.cli.bridge.lines import LineReader, TooLong
from penstock.cli.bridge.link import GatewayLink
from penstock.cli.bridge.modern import ModernSide
from penstock.cli.bridge.pipes import InputPipe, OutputPipe
from penstock.clock import Clock
from penstock.protocol.admission import is_modern
from penstock.protocol.envelopes import decode, decode_batch, encode_error, is_batch
from penstock.protocol.errors import INTERNAL_ERROR, LIMIT_EXCEEDED, reason_data
from penstock.protocol.messages import Fault, Message, Notification, Request
from penstock.protocol.meta import said_version
from penstock.protocol.versions import DEFAULT_LEGACY, writes_null_id

_log = logging.getLogger(__name__)
OUTPUT_BYTES: Final = 1024 * 1024
"""What may wait for a client that does not read, beyond the answer that came last."""
_INSIST_SECONDS: Final = (0.1, 0.4, 1.6)


class BridgeSettings(msgspec.Struct, frozen=True):
    """Bounds of one bridge."""

    line_bytes: int = 4 * 1024 * 1024
    """Of one message from the client."""
    requests: int = 256
    """Under way at the same time; subscriptions count."""
    receipts: int = 64
    """Notifications and replies whose taking over the gateway has not confirmed yet; beyond, no more is read."""
    grace_seconds: float = 5.0
    """For what is under way, after the end of input."""
    hurry_seconds: float = 1.0
    """The same after a signal; also for ending the session, and for the client to read what is left."""


class Bridge:
    """Carries one client's messages until it ends."""

    def __init__(
        self, link: GatewayLink, fds: tuple[int, int], clock: Clock, settings: BridgeSettings | None = None
    ) -> None:
        """`fds`: read from, written to; both stay open."""
        self._settings: Final = settings or BridgeSettings()
        self._link: Final = link
        self._input: Final = InputPipe(fds[0])
        self._output: Final = OutputPipe(fds[1], high=OUTPUT_BYTES, on_full=self._hold)
        self._legacy: Final = LegacySide(link, self._output, clock)
        self._modern: Final = ModernSide(link)
        self._lines: Final = LineReader(self._settings.line_bytes)
        self._flights: set[Flight] = set()
        self._receipts: Final = asyncio.Semaphore(self._settings.receipts)
        self._insisting: set[asyncio.Task[None]] = set()
        """One for each request that was cancelled and has not ended."""
        self._speaks_modern = False

    def __repr__(self) -> str:
        return f"<Bridge [{len(self._flights)} under way] {self._legacy!r} {self._link!r} {self._output!r}>"

    async def run(self, stop: asyncio.Event) -> None:
        """Carry messages until the input ends, `stop` is set, or nobody reads the output; then end in good order."""
        loop = asyncio.get_running_loop()
        reading = loop.create_task(self._read())
        hurried = loop.create_task(_any_of(stop, self._output.broken))
        try:
            await asyncio.wait((reading, hurried), return_when=asyncio.FIRST_COMPLETED)
            if not hurried.done():
                await self._settle(self._settings.grace_seconds, hurried)
            reading.cancel()
            if hurried.done() and not self._output.broken.is_set():
                await self._settle(self._settings.hurry_seconds)
            await self._end()
        finally:
            for task in (reading, hurried):
                task.cancel()
            await asyncio.wait((reading, hurried))
        if not reading.cancelled():
            reading.result()

    # from the client

    async def _read(self) -> None:
        while chunk := await self._input.read():
            for line in self._lines.feed(chunk):
                await self._take(line)
        for line in self._lines.finish():
            await self._take(line)

    async def _take(self, line: bytes | TooLong) -> None:
        await self._output.room()
        if isinstance(line, TooLong):
            text = f"the message is longer than {self._settings.line_bytes} bytes (limits.body_bytes)"
            self._output.write(refusal(line.id, LIMIT_EXCEEDED, text, "too_large", null_id=self._null_id))
            return
        message = decode(line)
        try:
            await self._dispatch(message, line)
        except Exception:  # a fault of ours, which must neither end the bridge nor leave the client waiting
            _log.exception("a message could not be taken")
            if isinstance(message, Request):
                self._output.write(encode_error(message.id, INTERNAL_ERROR, "Internal error", null_id=False))

    async def _dispatch(self, message: Message | Fault, line: bytes) -> None:
        if isinstance(message, Request):
            await self._request(message, line)
        elif isinstance(message, Notification):
            await self._notification(message, line)
        elif isinstance(message, Fault):
            await self._fault(message, line)
        elif self._legacy.session is not None:
            await self._send(self._flight(self._legacy, line, message))
        else:
            _log.warning("the client answered what nobody asked it; left out")

    async def _request(self, request: Request, line: bytes) -> None:
        if self._is_crowded(request.id):
            return
        if not is_modern(None, request):
            flight = self._flight(self._legacy, line, request, request.id)
            if request.method == "initialize":
                await self._initialize(flight)
            else:
                await self._send(flight)
            return
        self._speaks_modern = True
        refused = self._modern.refusal(request)
        if refused is not None:
            self._output.write(refused)
        else:
            await self._send(self._flight(self._modern, line, request, request.id))

    async def _initialize(self, flight: Flight) -> None:
        """Everything after it depends on its answer."""
        await self._legacy.end(self._settings.hurry_seconds)  # of a client that begins anew
        if await flight.write():
            await flight.run()

    async def _notification(self, notification: Notification, line: bytes) -> None:
        cancelled = self._cancelled_by(notification)
        for flight in cancelled:
            if flight.side is self._modern:
                flight.cancel()
        fresh = [flight for flight in cancelled if not flight.is_cancelled]
        if cancelled and not fresh:
            return
        says_version = said_version(notification.params.get("_meta")) is not None
        is_ours = says_version or (self._legacy.session is None and self._speaks_modern)
        if is_ours and notification.method == "notifications/cancelled":
            return  # of a request that has ended
        for flight in fresh:
            flight.is_cancelled = True
        await self._send(self._flight(self._modern if is_ours else self._legacy, line, notification))
        if fresh:
            task = asyncio.get_running_loop().create_task(self._insist(fresh, notification, line))
            self._insisting.add(task)
            task.add_done_callback(self._insisting.discard)

    async def _insist(self, cancelled: list[Flight], notification: Notification, line: bytes) -> None:
        """Say it again while it has no effect: on a connection of its own it may have overtaken the request."""
        for pause in _INSIST_SECONDS:
            tasks = [flight.task for flight in cancelled if flight.task is not None and not flight.task.done()]
            if not tasks:
                return
            _, left = await asyncio.wait(tasks, timeout=pause)
            if left:
                await self._send(self._flight(self._legacy, line, notification))

    def _cancelled_by(self, notification: Notification) -> list[Flight]:
        """The requests under way that a notification cancels."""
        asked = notification.params.get("requestId")
        if notification.method != "notifications/cancelled" or asked is None:
            return []
        return [flight for flight in self._flights if bytes(asked) in flight.ids]

    async def _fault(self, fault: Fault, line: bytes) -> None:
        """No message; but 2025-03-26 has batches."""
        if is_batch(line) and self._legacy.version in {None, DEFAULT_LEGACY} and not self._speaks_modern:
            items = decode_batch(line)
            if not isinstance(items, Fault):
                ids = [item.id for item in items if isinstance(item, Request)]
                if not ids or not self._is_crowded(*ids):
                    await self._send(self._flight(self._legacy, line, None, *ids))
                return
            fault = items
        data = reason_data(fault.reason) if fault.reason else None
        self._output.write(encode_error(fault.id, fault.code, fault.message, data, null_id=self._null_id))

    @property
    def _null_id(self) -> bool:
        """Whether an error about something without a readable id says so."""
        return not self._speaks_modern and writes_null_id(self._legacy.version or DEFAULT_LEGACY)

    def _is_crowded(self, *ids: bytes) -> bool:
        """Whether no more can be under way; then that was answered."""
        bound = self._settings.requests
        if sum(1 for flight in self._flights if flight.ids) < bound:
            return False
        text = f"{bound} requests are under way, the most there may be at a time; wait for an answer and send it again"
        for one in ids:
            self._output.write(refusal(one, 429, text, "too_many_requests"))
        return True

    # under way

    def _flight(self, side: Side, line: bytes, message: Message | None, *ids: bytes) -> Flight:
        return Flight(self._link, self._output, side, line, message, *ids)

    async def _send(self, flight: Flight) -> None:
        """Write it, and let its answer come."""
        if not flight.ids:
            await self._receipts.acquire()
        if not await flight.write():
            self._landed(flight)
            return
        self._flights.add(flight)
        task = flight.task = asyncio.get_running_loop().create_task(self._carry(flight))
        task.add_done_callback(lambda _task: self._landed(flight))

    def _landed(self, flight: Flight) -> None:
        self._flights.discard(flight)
        if not flight.ids:
            self._receipts.release()

    @staticmethod
    async def _carry(flight: Flight) -> None:
        try:
            await flight.run()
        except Exception:  # a fault of ours, which must not leave the client waiting
            _log.exception("%r could not be carried on", flight)
            flight.refuse(INTERNAL_ERROR, "Internal error", "internal_error")

    def _hold(self, is_full: bool) -> None:
        """The client does not read, or reads again."""
        if is_full:
            self._link.pause()
        else:
            self._link.resume()

    # the end

    async def _settle(self, seconds: float, unless: asyncio.Task[None] | None = None) -> None:
        """Let what is under way end, but for what would never, within that time or until `unless` is done."""
        for flight in [flight for flight in self._flights if flight.is_long_lived]:
            flight.cancel()
        tasks = [flight.task for flight in self._flights if flight.task is not None]
        if not tasks:
            return
        settled = asyncio.get_running_loop().create_task(_all_of(tasks))
        waits = [settled] if unless is None else [settled, unless]
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        settled.cancel()

    async def _end(self) -> None:
        """Cut what is left, end the session, and let the client read what it still will."""
        for task in self._insisting:
            task.cancel()
        for flight in list(self._flights):
            flight.refuse(503, "the client's input ended, or it was told to stop, before the answer came", "stopped")
            flight.cancel()
        await self._legacy.end(self._settings.hurry_seconds)
        self._link.close()
        await self._output.drained(self._settings.hurry_seconds)
        self._input.close()
        self._output.close()


async def _all_of(tasks: list[asyncio.Task[None]]) -> None:
    await asyncio.wait(tasks)


async def _any_of(*events: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
