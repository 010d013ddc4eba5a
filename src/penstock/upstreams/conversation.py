"""What is said over one wire to a server, in either era: the pipes of a process, or HTTP+SSE.

Knows: messages, our ids and progress tokens, calls in flight. Does not know: what carries the messages, how that begins, or
begins again.
Invariants: each request has an id of ours that is never used twice; each call in flight is ended exactly once, by its answer,
by the wire's end, or by its cancellation; a notification reaches a call only if it can belong to no other, or to another of the
same client.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from functools import partial
from time import monotonic
from typing import Final

import msgspec

from penstock.errors import ServerBusy, ServerError, ServerMisbehaved
from penstock.protocol.envelopes import (
    decode,
    decode_batch,
    encode_notification,
    encode_request,
    is_batch,
    one_line,
)
from penstock.protocol.input_required import NOT_FOR_LEGACY
from penstock.protocol.messages import Fault, Message, Notification, Reply, Request
from penstock.protocol.meta import LOG_LEVEL, LOG_LEVELS, PROGRESS_TOKEN, encode_modern_meta
from penstock.protocol.methods import INPUT_REQUESTS
from penstock.protocol.subscriptions import CHANGES, LIST_CHANGED, UPDATED, subscription_of
from penstock.protocol.versions import LATEST_MODERN, Era
from penstock.upstreams.asking import AskingTurn
from penstock.upstreams.calls import Answer, Call, Caller, Failure, Heard, Raw, Result, Sink
from penstock.upstreams.conversation_flight import ConversationCounts, Flight
from penstock.upstreams.log_levels import RANKS, asking_for_logs, is_wanted
from penstock.upstreams.questions import Questions
from penstock.upstreams.turns import Habits, Turn, Turns
from penstock.upstreams.wire import Bounds, Wire

_NO_META: Final = Raw(b"{}")
_MAX_HELD: Final = 16
_HOLD_SECONDS: Final = 5.0
"""How long a request of the server may wait until it is clear whose call it is about."""
_encode_meta = msgspec.json.Encoder().encode


class Conversation:
    """Requests and answers over one wire, multiplexed."""

    __slots__ = (
        "_advice",
        "_bounds",
        "_client",
        "_counts",
        "_habits",
        "_held",
        "_held_timer",
        "_junk_in_a_row",
        "_last_id",
        "_leaving",
        "_log_level",
        "_loop",
        "_pending",
        "_questions",
        "_server",
        "_turns",
        "_wire",
        "complaint",
        "era",
        "heard",
        "is_closing",
        "version",
    )

    def __init__(
        self,
        server: str,
        wire: Wire,
        *,
        bounds: Bounds,
        counts: ConversationCounts,
        habits: Habits,
        advice: str,
        client: Caller | None = None,
    ) -> None:
        """
        Args:
            advice: what to do when calls wait too long for their turn, as the end of a sentence.
            client: whose conversation it is, if all calls are of one client session: then whatever the server says is for it.
        """
        self._server = server
        self._wire: Final = wire
        self._bounds: Final = bounds
        self._counts = counts
        self._advice = advice
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._pending: dict[bytes, Flight] = {}
        self._last_id = 0
        self._leaving = 0
        """Cancelled calls of which the server may still speak."""
        self._junk_in_a_row = 0
        self._log_level = len(LOG_LEVELS)
        self._habits = habits
        self._turns = Turns(habits)
        self._questions = Questions(self._tell, counts)
        self._held: list[Request] = []
        """Requests of the server that could be about any of several calls."""
        self._held_timer: asyncio.TimerHandle | None = None
        self.era: Era = Era.MODERN
        self.version: str = LATEST_MODERN
        self.is_closing = False
        self.complaint = ""
        """What the server did that made us end the wire; empty while it behaves."""
        self.heard: Heard | None = None
        """Takes what a legacy server says of changes in this very conversation; None: `Habits.heard` does."""

    def __repr__(self) -> str:
        return f"<Conversation {self._server} {self.version} | in flight {len(self._pending)}>"

    @property
    def is_open(self) -> bool:
        """Whether requests can be written."""
        return self._wire.is_writable and not self.complaint and not self.is_closing

    @property
    def in_flight(self) -> int:
        """Requests written and not answered, and calls that wait for their turn; what only listens does not count."""
        listening = sum(flight.call is not None and flight.call.hear is not None for flight in self._pending.values())
        return len(self._pending) - listening - self._leaving + self._turns.waiting

    async def call(self, call: Call) -> Answer:
        """Carry one call; cancelling the awaiting task tells the server.

        Raises:
            ServerError: see `Upstream.call`.
        """
        takes_turns = call.hear is None and self._client is None
        turn = self._turns.try_begin(call.caller.principal) if takes_turns else None
        if turn is None and takes_turns:
            turn = await self._wait_for_turn(call)
        asking = None if turn is None else AskingTurn(turn, self._habits, self._loop)
        try:
            params, token = self._params_of(call)
            flight = self.send(call.method, params, call=call, token=token)
            flight.turn, call.sent_at = asking, monotonic()
            try:
                reply = await flight.future
            except asyncio.CancelledError:
                self.cancel(flight, b"the caller cancelled the call")
                if self._is_left(asking):
                    asking = None
                raise
            finally:
                del flight  # an error of its future holds this frame
        finally:
            if asking is not None:
                asking.end()
            self._place_held()
        if (error := reply.error) is not None:
            return Failure(error.code, error.message, error.data, self.era)
        return Result(reply.result or b"{}", self.era)

    def _is_left(self, asking: AskingTurn | None) -> bool:
        """A server may log, and a legacy one ask, in the course of a call until it has read that it is cancelled. It names no
        call, and whose it is would be taken for another's: it is asked to answer once it has read on. So long the turn lasts.
        """
        if asking is None or not self.is_open:
            return False
        if not asking.is_at_work and not self._habits.asks_in_parallel:
            return False  # it awaits an answer, and so asks nothing else
        self._refuse_held()
        try:
            is_legacy = self.era is Era.LEGACY  # the modern era has no ping
            ping = self.send("ping", {}) if is_legacy else self.send("server/discover", {"_meta": self.modern_meta()})
        except ServerError:
            return False
        self._leaving += 1
        timer = self._loop.call_later(self._bounds.turn_seconds, ping.future.cancel)
        ping.future.add_done_callback(partial(self._left, asking, ping, timer))
        return True

    def _left(
        self, asking: AskingTurn, ping: Flight, timer: asyncio.TimerHandle, answered: asyncio.Future[Reply]
    ) -> None:
        timer.cancel()
        self._leaving -= 1
        if answered.cancelled():
            self.forget(ping)
        asking.end()

    def send(
        self, method: str, params: dict[str, Raw], *, call: Call | None = None, token: Raw | None = None
    ) -> Flight:
        """Write one request; its answer resolves the flight's future.

        `token` is the caller's own progress token; in `params` stands our id's number instead.

        Raises:
            ServerBusy: too many calls are in flight, or the server does not read what it is sent.
            ServerUnavailable: the wire is gone.
        """
        wire = self._wire
        if not self.is_open:
            raise self.why_over()
        pending = len(self._pending) - self._leaving
        if call is not None and pending >= self._bounds.max_in_flight:
            raise ServerBusy(self._server, f"{pending} calls are in flight, the most it is given at a time")
        if wire.unsent_bytes > self._bounds.max_unsent_bytes:
            raise ServerBusy(self._server, f"it does not read its input: {wire.unsent_bytes} bytes wait to be read")
        self._last_id += 1
        request_id = b"%d" % self._last_id
        if token is not None:
            params["_meta"] = self._meta_with_token(params.get("_meta"), request_id)
        flight = Flight(request_id, self._loop.create_future(), call, token)
        self._pending[request_id] = flight
        message = one_line(encode_request(request_id, method, params))  # raw slices of a caller may be pretty-printed
        wire.ask(message, partial(self._lost, flight), call.headers if call is not None else ())
        return flight

    def begin_again(self, *, subscribes: bool) -> None:
        """A new process of a legacy server may list other things, and knows of no subscription: tell, and subscribe again."""
        uris = list(self._habits.uris) if subscribes else []
        with contextlib.suppress(ServerBusy):  # one that does not even read what it is asked is not worth more
            for uri in uris:
                self.forget(self.send("resources/subscribe", {"uri": Raw(_encode_meta(uri))}))
        heard = self._habits.heard
        if heard is not None:
            for method in LIST_CHANGED.values():
                heard(method, {})
            for uri in uris:
                heard(UPDATED, {"uri": Raw(_encode_meta(uri))})

    def notify(self, method: str, params: dict[str, Raw]) -> None:
        """Write one notification; silently not, when the server is gone or does not read."""
        self._tell(encode_notification(method, params))

    def cancel(self, flight: Flight, reason: bytes) -> None:
        """Forget a request and tell the server so; without effect when it was answered."""
        if self._pending.pop(flight.id, None) is not None:
            self.notify("notifications/cancelled", {"requestId": Raw(flight.id), "reason": Raw(b'"%s"' % reason)})

    def forget(self, flight: Flight) -> None:
        """Let its answer come late, without a word to the server."""
        self._pending.pop(flight.id, None)

    def modern_meta(self, call: Call | None = None, rest: dict[str, Raw] | None = None) -> Raw:
        """`_meta` of a modern request: the caller's identity and capabilities, ours when nobody's call caused it."""
        if call is None:
            return Raw(encode_modern_meta(self.version, self._bounds.client_info, b"{}", rest))
        caller = call.caller
        return Raw(encode_modern_meta(self.version, caller.client_info, caller.modern_capabilities, rest))

    def why_over(self) -> ServerError:
        """Why nothing can be asked any more."""
        return self._wire.why_over(self.complaint, is_closing=self.is_closing)

    def close(self) -> None:
        """Nothing more is asked: we are about to end the wire, or it has ended."""
        self.is_closing = True
        self.end()

    def end(self) -> None:
        """The calls in flight will not be answered."""
        self._held.clear()
        self._questions.close()
        pending, self._pending = self._pending, {}
        for flight in pending.values():
            _fail(flight, self.why_over())

    # what the server says

    def received(self, body: bytes) -> None:
        """Callback of the wire: one message, or a batch where the era has them."""
        if self.era is Era.LEGACY and is_batch(body):
            batch = decode_batch(body)  # revision 2025-03-26 lets a server send batches
            messages: list[Message | Fault] = batch if isinstance(batch, list) else [batch]
        else:
            messages = [decode(body)]
        for message in messages:
            self._message_received(message)

    def give_up(self, complaint: str) -> None:
        """The server breaks the rules: nothing more is asked over this wire, which has ended or is to be killed."""
        self.complaint = self.complaint or complaint
        self.end()

    def _message_received(self, message: Message | Fault) -> None:
        if type(message) is Reply:
            self._junk_in_a_row = 0
            self._reply_received(message)
        elif type(message) is Notification:
            self._junk_in_a_row = 0
            self._notification_received(message)
        elif type(message) is Request:
            self._junk_in_a_row = 0
            self._request_received(message)
        elif type(message) is Fault:
            self._junk_received(message)

    def _reply_received(self, reply: Reply) -> None:
        flight = self._pending.pop(reply.id, None) if reply.id is not None else None
        if flight is None:
            self._counts.late_replies += 1
            return
        if flight.call is not None:
            flight.call.first_byte_at = monotonic()
        if not flight.future.done():
            flight.future.set_result(reply)

    def _junk_received(self, fault: Fault) -> None:
        flight = self._pending.pop(fault.id, None) if fault.id is not None else None
        if flight is not None:
            _fail(flight, ServerMisbehaved(self._server, f"its answer is no message: {fault.message}"))
            return
        self._counts.junk_lines += 1
        self._junk_in_a_row += 1
        if self._junk_in_a_row > self._bounds.junk_lines:
            self.give_up(f"it wrote {self._junk_in_a_row} {self._wire.lines} that are no messages")
            self._wire.kill()

    def _lost(self, flight: Flight, error: ServerError) -> None:
        """The request has not reached the server."""
        if self._pending.pop(flight.id, None) is not None:
            _fail(flight, error)

    def _notification_received(self, notification: Notification) -> None:
        if notification.method == "notifications/progress":
            self._progress_received(notification.params)
        elif notification.method == "notifications/message":
            self._log_received(notification.params)
        elif notification.method == "notifications/cancelled":
            self._questions.cancelled(notification.params)
        elif notification.method in CHANGES:
            self._change_received(notification)
        else:
            self._counts.other_notifications += 1

    def _change_received(self, notification: Notification) -> None:
        """A legacy server just says it; a modern one says to whom."""
        if self.era is Era.LEGACY:
            heard = self.heard or self._habits.heard
        else:
            subscription = subscription_of(notification.params)
            flight = self._pending.get(subscription) if subscription is not None else None
            heard = flight.call.hear if flight is not None and flight.call is not None else None
        if heard is None:
            self._counts.other_notifications += 1
        else:
            heard(notification.method, notification.params)

    def _progress_received(self, params: dict[str, Raw]) -> None:
        token = params.get(PROGRESS_TOKEN)
        flight = self._pending.get(bytes(token)) if token is not None else None
        if flight is None or flight.token is None or flight.call is None:
            self._counts.stray_progress += 1
            return
        flight.call.progress_at = monotonic()
        if flight.call.notify is not None:
            flight.call.notify("notifications/progress", params | {PROGRESS_TOKEN: flight.token})

    def _log_received(self, params: dict[str, Raw]) -> None:
        """A line of log carries no link to a call: it is that of the only call it can be about, or of nobody."""
        flight = self._flight_it_is_about() if not self._leaving else None
        call = flight.call if flight is not None else None
        sink = self._sink()
        if call is not None and call.notify is not None and is_wanted(call, params):
            call.notify("notifications/message", params)
        elif call is None and sink is not None:
            sink.notify("notifications/message", params)
        else:
            self._counts.stray_logs += 1

    def _sink(self) -> Sink | None:
        """The own stream of the client whose conversation it is, if it listens."""
        sink = self._client.sink if self._client is not None else None
        return sink if sink is not None and sink.is_open else None

    def _request_received(self, request: Request) -> None:
        if self.era is Era.MODERN:
            self._counts.refused_requests += (
                1  # modern servers MUST NOT ask on stdout, and clients MUST NOT answer there
            )
        elif (
            self._leaving or request.method not in INPUT_REQUESTS or not any(one.call for one in self._pending.values())
        ):
            sink = None if self._leaving else self._sink()
            self._questions.asked(request, sink.ask if sink is not None else None)
        else:
            self._habits.asks = True  # from now on there is only one call it can be about
            self._place(request)

    def _place(self, request: Request) -> None:
        """The request names no call: it is about the only one at work, or has to wait until there is only one."""
        flight = self._flight_it_is_about()
        if flight is not None and flight.call is not None:
            turn, ask = flight.turn, flight.call.ask
            self._questions.asked(request, ask if turn is None else turn.asking(ask))
        elif len(self._held) < _MAX_HELD:
            self._held.append(request)
            if self._held_timer is None:
                self._held_timer = self._loop.call_later(_HOLD_SECONDS, self._refuse_held)
        else:
            self._questions.asked(request, None)

    def _place_held(self) -> None:
        """A call has ended: what is held may be about the one that is left."""
        if self._held:
            held, self._held = self._held, []
            for request in held:
                self._place(request)

    def _refuse_held(self) -> None:
        if self._held_timer is not None:
            self._held_timer.cancel()
            self._held_timer = None
        held, self._held = self._held, []
        for request in held:
            self._questions.asked(request, None)

    def _flight_it_is_about(self) -> Flight | None:
        """The call that is at work, if there is just one; if none is, the only one that rests.

        Of one client's calls the latest: it makes no difference to the client over which of them it hears something.
        """
        if self._client is not None:
            calls = [
                flight for flight in self._pending.values() if flight.call is not None and flight.call.hear is None
            ]
            return calls[-1] if calls else None
        flights = [flight for flight in self._pending.values() if flight.turn is not None]
        at_work = [flight for flight in flights if flight.turn is not None and flight.turn.is_at_work]
        found = at_work or flights
        return found[0] if len(found) == 1 else None

    async def _wait_for_turn(self, call: Call) -> Turn:
        """With a server that asks, calls go one after the other.

        Raises:
            ServerBusy: too many wait, or the turn does not come.
        """
        seconds = self._bounds.turn_seconds
        if self._turns.waiting >= self._bounds.max_in_flight:
            raise ServerBusy(self._server, f"{self._turns.waiting} calls wait for their turn, the most that may")
        try:
            return await self._turns.begin(call.caller.principal, seconds)
        except TimeoutError:
            raise ServerBusy(
                self._server,
                f"it asks clients, so it is given one call at a time, and the one before took longer than {seconds:g} s; "
                f"{self._advice}",
            ) from None

    # inside

    def _params_of(self, call: Call) -> tuple[dict[str, Raw], Raw | None]:
        """The request's params in this process's era, and the caller's progress token."""
        params = dict(call.params)
        meta = call.meta
        token = meta.get(PROGRESS_TOKEN) if meta else None
        if self.era is Era.MODERN:
            rest = {key: value for key, value in meta.items() if key != PROGRESS_TOKEN} if meta else None
            params["_meta"] = self.modern_meta(call, asking_for_logs(call.caller, rest))
            return params, token
        for word in NOT_FOR_LEGACY:
            params.pop(word, None)
        if meta:
            self._lower_log_level(meta)
            rest = {key: value for key, value in meta.items() if key not in {PROGRESS_TOKEN, LOG_LEVEL}}
            if rest:
                params["_meta"] = Raw(_encode_meta(rest))
        return params, token

    def _lower_log_level(self, meta: Mapping[str, Raw]) -> None:
        """A legacy server has one level for all: the most talkative that any call asked for so far."""
        asked = meta.get(LOG_LEVEL)
        rank = RANKS.get(bytes(asked)) if asked is not None else None
        if rank is not None and asked is not None and rank < self._log_level:
            self._log_level = rank
            self.forget(self.send("logging/setLevel", {"level": asked}))  # some never answer it

    @staticmethod
    def _meta_with_token(meta: Raw | None, request_id: bytes) -> Raw:
        """`meta` with our id as progress token, spliced in."""
        body = bytes(meta or _NO_META)
        comma = b"" if body == b"{}" else b","
        return Raw(b'{"progressToken":' + request_id + comma + body[1:])

    def _tell(self, message: bytes) -> None:
        """Something that awaits no answer; a server that does not read needs none."""
        if self._wire.unsent_bytes <= self._bounds.max_unsent_bytes:
            self._wire.tell(one_line(message))


def _fail(flight: Flight, error: ServerError) -> None:
    if not flight.future.done():
        flight.future.set_exception(error)
        flight.future.exception()  # not everybody who asks waits: asyncio need not complain
