"""An event stream to one client: framing, a bounded queue, a comment when it is quiet.

Knows: chunked framing, which events may be lost. Does not know: what events mean.
Invariant: while the client does not read, at most `stream_queue_events` events and `stream_queue_bytes` bytes wait; to
stay within, the oldest droppable events go first; an event that is not droppable is never lost while the connection
lives, and a reader so slow that those alone exceed the bound is cut off.
"""

from collections import deque
from typing import Protocol

from penstock.http.limits import ServerLimits

COMMENT = b": still here\n\n"


class StreamLink(Protocol):
    """What a stream asks of its connection."""

    def write_stream(self, data: bytes) -> None:
        """Send bytes; called only while the client reads."""

    def complete_answer(self) -> None:
        """Nothing more will be sent than what waits."""

    def end_stream(self) -> None:
        """All of the stream has been handed over."""

    def cut(self) -> None:
        """Give the client up at once."""

    def coarse_now(self) -> float:
        """Seconds, at most one sweep old."""


class EventStream:
    """The body of a `text/event-stream` response."""

    __slots__ = ("_bytes", "_chunked", "_limits", "_link", "_paused", "_queue", "dropped", "is_finished", "quiet_since")

    def __init__(self, link: StreamLink | None, limits: ServerLimits, *, chunked: bool, paused: bool) -> None:
        self._link = link
        self._limits = limits
        self._chunked = chunked
        self._paused = paused
        self._queue: deque[tuple[bytes, bool]] = deque()
        self._bytes = 0
        self.dropped = 0
        """Events given up because the client read too slowly."""
        self.is_finished = False
        self.quiet_since = 0.0 if link is None else link.coarse_now()

    @classmethod
    def closed(cls) -> "EventStream":
        """A stream that goes nowhere: its client is gone."""
        return cls(None, ServerLimits(), chunked=False, paused=False)

    def __repr__(self) -> str:
        state = "finished" if self.is_finished else "closed" if self._link is None else "open"
        paused = " paused" if self._paused else ""
        return f"<EventStream {state}{paused} [{len(self._queue)} waiting {self._bytes} B | dropped {self.dropped}]>"

    @property
    def is_open(self) -> bool:
        """Whether what is sent may still reach the client."""
        return self._link is not None and not self.is_finished

    def send(self, event: bytes, *, droppable: bool = False) -> None:
        """Send one encoded event, or keep it while the client is slow; nothing happens once the client is gone."""
        link = self._link
        if link is None or self.is_finished or not event:
            return
        if not self._paused:
            self.quiet_since = link.coarse_now()
            link.write_stream(b"%x\r\n%b\r\n" % (len(event), event) if self._chunked else event)
            return
        self._queue.append((event, droppable))
        self._bytes += len(event)
        if len(self._queue) > self._limits.stream_queue_events or self._bytes > self._limits.stream_queue_bytes:
            self._make_room()

    def finish(self, event: bytes = b"") -> None:
        """Send the last event, whatever is waiting, and end the response."""
        link = self._link
        if link is None or self.is_finished:
            return
        self.is_finished = True
        link.complete_answer()
        if self._paused:
            if event:
                self._queue.append((event, False))
                self._bytes += len(event)
            return
        self._write_end(link, event)

    def send_comment(self) -> None:
        """Show proxies and clients that the stream lives; skipped while the client does not read."""
        if self._link is not None and not self._paused and not self.is_finished:
            self.send(COMMENT)

    def pause(self) -> None:
        """The client is not reading."""
        self._paused = True

    def resume(self) -> None:
        """The client reads again: hand over what waits, as long as it does."""
        self._paused = False
        queue = self._queue
        while queue and not self._paused and self._link is not None:
            event, _ = queue.popleft()
            self._bytes -= len(event)
            self._link.write_stream(b"%x\r\n%b\r\n" % (len(event), event) if self._chunked else event)
        if self.is_finished and not queue and self._link is not None:
            self._write_end(self._link, b"")

    def close(self) -> None:
        """The client is gone: forget what waits."""
        self._link = None
        self._queue.clear()
        self._bytes = 0

    def _write_end(self, link: StreamLink, event: bytes) -> None:
        self._link = None
        if not self._chunked:
            link.write_stream(event)
        elif event:
            link.write_stream(b"%x\r\n%b\r\n0\r\n\r\n" % (len(event), event))
        else:
            link.write_stream(b"0\r\n\r\n")
        link.end_stream()

    def _make_room(self) -> None:
        limits = self._limits
        kept: deque[tuple[bytes, bool]] = deque()
        count, size = len(self._queue), self._bytes
        for event, droppable in self._queue:
            if droppable and (count > limits.stream_queue_events or size > limits.stream_queue_bytes):
                count -= 1
                size -= len(event)
                self.dropped += 1
            else:
                kept.append((event, droppable))
        self._queue, self._bytes = kept, size
        too_many = count > limits.stream_queue_events or size > limits.stream_queue_bytes
        if too_many and count > 1 and self._link is not None:
            self._link.cut()
