"""Streams of legacy clients that outlive their connections: what was sent, and what could not be, is kept for a while.

Knows: event ids, bounds. Does not know: what events mean, who sends them.
Invariants: ids are unique in a session, across workers; what belongs to one stream is never sent on another; never more than
`MAX_EVENTS` events and `MAX_BYTES` of one stream, and `MAX_TOTAL` of all, are kept, whoever is there to read them; an answer
nobody fetches is kept for a while.

Source: 2025-11-25 basic/transports, "Resumability and Redelivery".
"""

from collections import OrderedDict, deque
from typing import Final, Protocol

from penstock.gateway.eviction import oldest_idle
from penstock.gateway.parking import Parking
from penstock.http.server import EventStream

MAX_EVENTS: Final = 64
MAX_BYTES: Final = 256 * 1024
"""Of one stream; a call's answer larger than that is kept alone."""
MAX_TOTAL: Final = 16 * 1024 * 1024
"""Of all streams of a worker; the oldest without a client go first."""
MAX_NUMBER_DIGITS: Final = 18
"""Of an event's number; no stream lives to see more."""
CALL: Final = b"c"
LISTEN: Final = b"g"


class EventSink(Protocol):
    """Where events go: a stream, whether it is kept or not."""

    @property
    def is_open(self) -> bool:
        """Whether what is sent may reach the client now."""
        ...

    def send(self, event: bytes, *, droppable: bool = False) -> None:
        """Send one encoded event."""

    def finish(self, event: bytes = b"") -> None:
        """Send the last event, and end the stream."""


class KeptStream:
    """A stream whose events have ids, so that a client that lost its connection can ask for the rest."""

    __slots__ = (
        "_bytes",
        "_events",
        "_inner",
        "_last",
        "_store",
        "id",
        "is_forgotten",
        "is_over",
        "is_primed",
        "place",
        "session",
    )

    def __init__(self, store: "Replay", session: str, id: bytes, inner: EventStream) -> None:
        self._store: Final = store
        self.session: Final = session
        self.id: Final = id
        """Beginning of its events' ids."""
        self._inner = inner
        self._events: deque[tuple[int, bytes]] = deque()
        self._bytes = 0
        self._last = 0
        self.is_over = False
        """Its last event has been sent, or is kept."""
        self.is_forgotten = False
        """Nothing is kept any more: it goes on as a stream that cannot be taken up again."""
        self.is_primed = False
        """The client knows how to come back."""
        self.place = ""
        """Where it is held, once it is over and its client away."""

    def __repr__(self) -> str:
        state = "over" if self.is_over else "open" if self.is_open else "without a client"
        return f"<KeptStream {self.id.decode()} {state} | {len(self._events)} events {self._bytes} B>"

    @property
    def is_open(self) -> bool:
        """See `EventSink`."""
        return self._inner.is_open

    @property
    def kept_bytes(self) -> int:
        """How much is kept."""
        return self._bytes

    def prime(self) -> None:
        """Give the client an id to come back with before there is anything to say."""
        self.is_primed = True
        self._inner.send(self._next(b"data: \n\n"))

    def send(self, event: bytes, *, droppable: bool = False) -> None:
        """See `EventSink`."""
        if self.is_over:
            return
        kept = self._next(event)
        self._keep(kept)
        self._inner.send(kept, droppable=droppable)

    def finish(self, event: bytes = b"") -> None:
        """See `EventSink`; what reached no client waits for it."""
        if self.is_over:
            return
        self.is_over = True
        last = self._next(event) if event else b""
        if self._inner.is_open:
            self._inner.finish(last)
            self._store.forget(self)
        elif last and not self.is_forgotten and self._store.hold(self):
            self._keep(last)
        else:
            self._store.forget(self)

    def expire(self) -> None:
        """See `Parked`: nobody has come for the rest."""
        self._store.forget(self)

    def interrupt(self, retry_ms: int) -> None:
        """End the connection, and let the client come back for the rest after that time."""
        self._inner.finish(b"retry: %d\ndata: \n\n" % retry_ms)

    def resume(self, after: int, stream: EventStream) -> None:
        """The client is back on another connection, and has seen the events up to that number."""
        before, self._inner = self._inner, stream
        before.finish()
        for number, event in self._events:
            if number > after:
                stream.send(event)
        if self.is_over:
            stream.finish()
            self._store.forget(self)

    def _next(self, event: bytes) -> bytes:
        self._last += 1
        return b"id: %b.%d\n%b" % (self.id, self._last, event)

    def forget(self) -> None:
        """Keep nothing from now on."""
        self.is_forgotten = True
        self.drop()

    def drop(self) -> int:
        """Let go of what is kept so far; returns its bytes."""
        size, self._bytes = self._bytes, 0
        self._events.clear()
        return size

    def _keep(self, event: bytes) -> None:
        if self.is_forgotten:
            return
        events = self._events
        events.append((self._last, event))
        grown = len(event)
        self._bytes += grown
        while len(events) > 1 and (len(events) > MAX_EVENTS or self._bytes > MAX_BYTES):
            size = len(events.popleft()[1])
            self._bytes -= size
            grown -= size
        self._store.grew(self, grown)


class Replay:
    """The kept streams of one worker, by the beginning of their ids."""

    __slots__ = ("_by_session", "_count", "_holding", "_keeping", "_max_total", "_streams", "_total", "_worker")

    def __init__(self, holding: Parking, *, max_total: int = MAX_TOTAL) -> None:
        """`holding` bounds, in number and time, the answers that wait for their clients."""
        self._holding: Final = holding
        self._worker: Final = holding.worker
        self._by_session: dict[str, set[bytes]] = {}
        self._streams: dict[tuple[str, bytes], KeptStream] = {}
        self._keeping: OrderedDict[tuple[str, bytes], KeptStream] = OrderedDict()
        """Those of them that keep something: oldest first, but for those that were looked at for room."""
        self._count = 0
        self._max_total: Final = max_total
        self._total = 0

    def __repr__(self) -> str:
        return f"<Replay [{len(self._streams)} streams] {self._total} B>"

    def __len__(self) -> int:
        return len(self._streams)

    @property
    def kept_bytes(self) -> int:
        """Of all streams."""
        return self._total

    def open(self, session: str, kind: bytes, inner: EventStream) -> KeptStream:
        """A stream of that client session; `session` is its name."""
        self._count += 1
        stream = KeptStream(self, session, b"%d.%b%d" % (self._worker, kind, self._count), inner)
        self._streams[session, stream.id] = stream
        self._by_session.setdefault(session, set()).add(stream.id)
        return stream

    def find(self, session: str, event_id: bytes) -> tuple[KeptStream, int] | None:
        """The stream an event of that session belongs to, and the event's number; None when nothing of it is kept."""
        stream_id, _, number = event_id.rpartition(b".")
        stream = self._streams.get((session, stream_id))
        if stream is None or not number.isdigit() or len(number) > MAX_NUMBER_DIGITS:
            return None
        return stream, int(number)

    def grew(self, stream: KeptStream, by: int) -> None:
        """A stream keeps more than before: make room."""
        self._total += by
        self._keeping.setdefault((stream.session, stream.id), stream)
        while self._total > self._max_total:
            self._make_room(stream)

    def _make_room(self, growing: KeptStream) -> None:
        """Forget the oldest stream without a client; where the next few all have theirs, what is kept for the oldest."""
        keeping = self._keeping
        idle = oldest_idle(keeping, lambda stream: not stream.is_open and stream is not growing)
        if idle is not None:
            self.forget(keeping[idle])
        elif len(keeping) == 1:  # it is too large by itself
            self.forget(growing)
        else:
            keeping.move_to_end((growing.session, growing.id))
            self._total -= keeping.popitem(last=False)[1].drop()

    def hold(self, stream: KeptStream) -> bool:
        """Keep a stream that is over for its client; False when too many are kept."""
        stream.place = self._holding.enter(stream) or ""
        return bool(stream.place)

    def forget(self, stream: KeptStream) -> None:
        """Nothing of it is needed any more."""
        self._holding.leave(stream.place)
        key = stream.session, stream.id
        if self._streams.pop(key, None) is None:
            return
        self._keeping.pop(key, None)
        self._total -= stream.kept_bytes
        stream.forget()
        ids = self._by_session[stream.session]
        ids.discard(stream.id)
        if not ids:
            del self._by_session[stream.session]

    def forget_session(self, session: str) -> None:
        """The session is over."""
        for stream_id in list(self._by_session.get(session, ())):
            self.forget(self._streams[session, stream_id])


def worker_of_event(event_id: bytes) -> int | None:
    """The worker that has the stream of an event; None when the id is none of ours."""
    parts = event_id.split(b".")
    return int(parts[0]) if len(parts) == 3 and parts[0].isdigit() and len(parts[0]) < 5 else None


def is_of_call(event_id: bytes) -> bool:
    """Whether the event was one of a call's stream, not of one that is listened to."""
    parts = event_id.split(b".")
    return len(parts) == 3 and parts[1].startswith(CALL)
