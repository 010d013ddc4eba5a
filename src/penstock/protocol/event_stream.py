"""Server-sent events: bytes to events and back.

Knows: the WHATWG event stream format. Does not know: JSON, HTTP, reconnecting.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html, sections 9.2.5 and 9.2.6.
"""

from typing import Final, NamedTuple

from penstock.protocol.envelopes import one_line

_BOM: Final = b"\xef\xbb\xbf"
_MAX_PIECES: Final = 1024
"""So many parts of a line that came one by one are made into one."""


class EventTooLarge(Exception):
    """An event of the stream is larger than the limit."""


class Event(NamedTuple):
    """One dispatched event."""

    data: bytes | memoryview
    """The data lines joined by LF; may be empty (an event that only carries an id). A view only for who asked for views."""
    event: bytes = b"message"
    id: bytes | None = None
    """As said by this very event; `EventParser.last_event_id` remembers the last one."""
    retry_ms: int | None = None


class EventParser:
    """Turns the chunks of one stream into events, however they are cut.

    What has not been ended by an empty line when the stream ends is no event, as the standard has it.
    """

    __slots__ = (
        "_after_cr",
        "_at_start",
        "_data",
        "_id",
        "_joined",
        "_name",
        "_partial",
        "_partial_bytes",
        "_retry_ms",
        "_size",
        "last_event_id",
        "max_event_bytes",
        "retry_ms",
    )

    def __init__(self, max_event_bytes: int) -> None:
        self.max_event_bytes: Final = max_event_bytes
        """Bound of all lines of one event, and of any one line."""
        self.last_event_id = b""
        """The last id the stream gave, also by an event without data; empty if none."""
        self.retry_ms: int | None = None
        """The reconnection time the stream asked for last."""
        self._partial: list[bytes] = []
        self._partial_bytes = 0
        self._after_cr = False
        self._at_start = True
        self._data: list[bytes] = []
        self._name = b""
        self._id: bytes | None = None
        self._retry_ms: int | None = None
        self._size = 0
        self._joined = 0
        """How many of the parts, from the first on, were made of many."""

    def __repr__(self) -> str:
        return f"<EventParser pending {self._size + self._partial_bytes} bytes | last id {self.last_event_id!r}>"

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that became complete with this chunk.

        Raises:
            EventTooLarge: an event grew beyond `max_event_bytes`; the parser must not be fed again.
        """
        if self._at_start:
            chunk = self._without_bom(chunk)
        if self._after_cr and chunk:
            self._after_cr = False
            if chunk[0] == 10:
                chunk = chunk[1:]
        if b"\r" in chunk:
            self._after_cr = chunk[-1] == 13
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        events: list[Event] = []
        if b"\n" in chunk:
            if self._partial:
                self._partial.append(chunk)
                chunk = b"".join(self._partial)
                self._partial = []
                self._partial_bytes = self._joined = 0
            lines = chunk.split(b"\n")
            chunk = lines.pop()
            for line in lines:
                if line:
                    self._take(line)
                else:
                    self._dispatch(events)
        if chunk:
            if len(self._partial) - self._joined >= _MAX_PIECES:  # a piece of two bytes costs forty
                self._partial[self._joined :] = [b"".join(self._partial[self._joined :])]
                self._joined += 1
            self._partial.append(chunk)
            self._partial_bytes += len(chunk)
            if self._size + self._partial_bytes > self.max_event_bytes:
                raise EventTooLarge(f"an event of the stream is larger than {self.max_event_bytes} bytes")
        return events

    def _without_bom(self, chunk: bytes) -> bytes:
        """Drop one byte order mark at the very start, wherever it is cut."""
        start = b"".join(self._partial) + chunk
        self._partial = []
        self._partial_bytes = 0
        if len(start) < 3 and _BOM.startswith(start):
            if start:
                self._partial = [start]
                self._partial_bytes = len(start)
            return b""
        self._at_start = False
        return start.removeprefix(_BOM)

    def _take(self, line: bytes) -> None:
        """Process one line that is not empty."""
        if line[0] == 58:  # a comment
            return
        self._size += len(line)
        if self._size > self.max_event_bytes:
            raise EventTooLarge(f"an event of the stream is larger than {self.max_event_bytes} bytes")
        field, _, value = line.partition(b":")
        if value[:1] == b" ":
            value = value[1:]
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._name = value
        elif field == b"id":
            if b"\0" not in value:
                self._id = self.last_event_id = value
        elif field == b"retry" and value.isdigit() and len(value) < 16:
            self._retry_ms = self.retry_ms = int(value)

    def _dispatch(self, events: list[Event]) -> None:
        """An empty line ends the event; without data there is none."""
        if self._data:
            data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
            events.append(Event(data, self._name or b"message", self._id, self._retry_ms))
            self._data = []
        self._name = b""
        self._id = None
        self._retry_ms = None
        self._size = 0


def encode_event(data: bytes, *, event: bytes = b"message", id: bytes | None = None) -> bytes:
    """One event with its empty line.

    Line breaks in `data` (JSON, where they are whitespace) become spaces, so that no data can start a line of its own.

    Raises:
        ValueError: a line break or NUL in `event` or `id`, which would let them write lines of their own.
    """
    head = b"event: %b\n" % event
    if id is not None:
        head = b"%bid: %b\n" % (head, id)
    if head.count(b"\n") != 1 + (id is not None) or b"\r" in head or b"\0" in head:
        raise ValueError(f"an event's name and id must be free of line breaks and NUL, got {head!r}")
    return b"%bdata: %b\n\n" % (head, one_line(data))
