"""One answer, taken in as its bytes come: head, body or event stream, within limits.

Knows: HTTP/1.1 framing of answers (httptools, and what it leaves lenient), content codings, event streams as bytes. Does
not know: sockets, who waits for the answer, what an event means.
"""

from collections.abc import Callable, Sequence
from typing import Final

import httptools

from penstock.http.client_decoding import Decoder, decoder_for
from penstock.http.client_messages import BadResponse, ResponseTooLarge
from penstock.http.client_repeat import is_event_stream
from penstock.http.limits import ClientLimits
from penstock.protocol.event_stream import Event, EventParser, EventTooLarge

OnEvent = Callable[[Event], bool]
"""Takes each event as it comes; True says it was the final one. Called synchronously: must not block."""

_FRAMING: Final = frozenset({b"connection", b"content-length", b"transfer-encoding"})
_COLLECT, _EVENTS, _DISCARD = range(3)
_MAX_PIECES: Final = 1024


def whole_event(read: bytes, start: int, stop: int) -> tuple[int, int] | None:
    """Where the data is of the one event of which this part consists, when it is written the way servers write theirs; None:
    parse it.

    Most streams are a single such event. Equal to what an `EventParser` between two events makes of the part, at a third
    of its cost.
    """
    if read.endswith(b"\r\n\r\n", start, stop):
        head = (
            22 if read.startswith(b"event: message\r\ndata: ", start) else 6 if read.startswith(b"data: ", start) else 0
        )
        stop -= 4
    elif read.endswith(b"\n\n", start, stop):
        head = (
            21 if read.startswith(b"event: message\ndata: ", start) else 6 if read.startswith(b"data: ", start) else 0
        )
        stop -= 2
    else:
        return None
    start += head
    if head == 0 or start > stop or read.find(b"\n", start, stop) >= 0 or read.find(b"\r", start, stop) >= 0:
        return None
    return start, stop


def safe_idle_seconds(keep_alive_seconds: float) -> float:
    """How long to let a connection idle that the server ends after so long: a request must not cross its closing."""
    return max(keep_alive_seconds - 1.0, keep_alive_seconds / 2)


class AnswerReader:
    """Callbacks for httptools: raising one of our errors in them stops the parser and fails the request.

    A subclass feeds the parser, and learns from `_answer` that the awaiter can go on, from `_finish` that the message ended.
    """

    __slots__ = (
        "_body",
        "_decoder",
        "_events",
        "_has_begun",
        "_has_moved",
        "_head_done",
        "_headers",
        "_interim",
        "_is_head",
        "_is_long_read",
        "_keep_alive",
        "_keep_alive_header",
        "_length_digits",
        "_limits",
        "_mode",
        "_on_event",
        "_parser",
        "_pieces",
        "_repeated",
        "_size",
        "_status",
        "is_busy",
        "keep_alive_seconds",
        "on_keep_alive",
        "on_stream",
    )

    def __init__(self, limits: ClientLimits) -> None:
        self.keep_alive_seconds: float | None = None
        """How long the server said it keeps an idle connection."""
        self.on_keep_alive: Callable[[float], None] | None = None
        """Told how long it is safe to let the connection idle, when the server says so or changes it."""
        self.on_stream: Callable[[], object] | None = None
        """Told when an answer turns out to be an event stream, before its first event."""
        self._limits: Final = limits
        self._length_digits: Final = len(str(limits.response_bytes))
        self._parser: httptools.HttpResponseParser | None = None
        self._keep_alive_header = b""
        self.is_busy = False
        """An answer is still to end."""
        self._reset(None)

    def _answer(self, body: bytes) -> None:
        """The awaiter has what it needs."""
        raise NotImplementedError

    def _finish(self) -> None:
        """The message ended where its framing says."""
        raise NotImplementedError

    def _reset(self, on_event: OnEvent | None) -> None:
        """Before each request."""
        self._on_event = on_event
        self._mode = _COLLECT
        self._headers: dict[bytes, bytes] = {}
        self._body = b""
        self._pieces: list[bytes] | None = None
        """Of a body that came in more than one."""
        self._size = 0
        self._decoder: Decoder | None = None
        self._events: EventParser | None = None
        self._interim = self._status = self._repeated = 0
        self._head_done = self._has_begun = self._has_moved = self._is_head = self._is_long_read = self._keep_alive = (
            False
        )

    def _forget(self) -> None:
        """Drop what the answer's bytes went to, callback included; what still comes is not looked at."""
        self._mode = _DISCARD
        self._on_event = self._events = self._decoder = self._pieces = None
        self._body = b""

    def _whole_body(self) -> bytes:
        """Of a message that has ended; empty when its bytes went elsewhere.

        Raises:
            BadResponse: compressed data is cut off.
        """
        if self._decoder is not None:
            self._decoder.finish()
        return self._body if self._pieces is None else b"".join(self._pieces)

    def _ends_by_closing(self) -> bool:
        """Whether the connection's end is the regular end of the answer."""
        headers = self._headers
        return self._head_done and b"content-length" not in headers and b"transfer-encoding" not in headers

    # httptools callbacks

    def on_message_begin(self) -> None:
        if not self.is_busy:
            raise BadResponse("the server sent more than one answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head_done:
            if name.lower() in _FRAMING:
                self._keep_alive = False  # the parser would take a trailer's word for the answers that follow
            return  # trailers
        headers = self._headers
        name = name.lower()
        if name not in headers:
            headers[name] = value.rstrip()
            return
        self._repeated += 1
        if self._repeated > self._limits.header_fields:
            self._refuse_fields()
        headers[name] = headers[name] + b", " + value.rstrip()

    def on_headers_complete(self) -> None:
        parser = self._parser
        if parser is None or not self.is_busy:
            raise BadResponse("the server sent more than one answer")
        status = parser.get_status_code()
        headers = self._headers
        if self._is_long_read or len(headers) > 64:
            self._check_head_size()
        if status < 200:
            self._skip_interim()
            return
        self._status = status
        self._head_done = True
        self._keep_alive = parser.should_keep_alive()
        if b"transfer-encoding" in headers:
            self._check_transfer_encoding(parser)
        if b"keep-alive" in headers:
            self._note_keep_alive(headers[b"keep-alive"])
        if self._mode == _COLLECT:
            if self._on_event is not None and status < 300 and is_event_stream(headers):
                self._mode = _EVENTS
                if self.on_stream is not None:
                    self.on_stream()
            if b"content-encoding" in headers:
                self._start_decoding(headers[b"content-encoding"])
            elif len(headers.get(b"content-length", b"")) >= self._length_digits:
                self._check_content_length()
        if self._is_head:
            self._finish_head_request(parser)

    def on_body(self, data: bytes) -> None:
        self._has_moved = True
        if not self.is_busy:
            raise BadResponse("the server sent a body where none belongs")
        if self._mode == _DISCARD:
            return
        if self._decoder is None:
            self._take(data)
            return
        for piece in self._decoder.feed(data):
            self._take(piece)
            if self._mode == _DISCARD:
                return

    def on_message_complete(self) -> None:
        if not self.is_busy:
            return
        if self._head_done:
            self._finish()
        else:
            self._headers = {}  # the end of a 1xx answer; the real one follows

    # where the body goes

    def _take(self, data: bytes) -> None:
        if self._mode == _EVENTS:
            self._take_events(data)
            return
        pieces = self._pieces
        if pieces is not None:
            pieces.append(data)
            size = self._size = self._size + len(data)
            if len(pieces) >= _MAX_PIECES:  # a server that sends byte by byte must not cost an object for each
                pieces[:] = [b"".join(pieces)]
        elif self._body:
            self._pieces = [self._body, data]
            size = self._size = len(self._body) + len(data)
        else:
            self._body = data  # most bodies come in one piece, and are handed on as they are
            size = len(data)
        if size > self._limits.response_bytes:
            self._refuse_body()

    def _take_events(self, data: bytes) -> None:
        on_event = self._on_event
        assert on_event is not None
        for event in self._parse_events(data):
            if on_event(event):
                self._forget()
                self._answer(b"")
                return
            if self._mode == _DISCARD:  # the callback closed the connection
                return

    def _parse_events(self, data: bytes) -> Sequence[Event]:
        parser = self._events
        if parser is None:
            found = whole_event(data, 0, len(data))
            if found is not None and len(data) <= self._limits.event_bytes:
                self._has_begun = True
                return (Event(data[found[0] : found[1]]),)
            parser = self._events = EventParser(self._limits.event_bytes)
            if self._has_begun:
                parser.feed(b"\n")  # no event; tells it that the stream's first bytes, where a mark may be, are over
        try:
            return parser.feed(data)
        except EventTooLarge as error:
            raise ResponseTooLarge(f"an event is larger than {self._limits.event_bytes} bytes") from error

    # rarer parts of a head

    def _skip_interim(self) -> None:
        self._interim += 1
        if self._interim > self._limits.interim_answers:
            raise BadResponse(f"the server sent more than {self._limits.interim_answers} interim answers")

    def _check_head_size(self) -> None:
        headers, limits = self._headers, self._limits
        if len(headers) + self._repeated > limits.header_fields:
            self._refuse_fields()
        if sum(len(name) + len(value) + 4 for name, value in headers.items()) > limits.header_bytes:
            raise ResponseTooLarge(f"the answer's head is larger than {limits.header_bytes} bytes")

    def _check_transfer_encoding(self, parser: httptools.HttpResponseParser) -> None:
        """Framing that two readers could read differently is refused (RFC 9112 6.1); llhttp refuses it beside a length."""
        headers = self._headers
        if headers[b"transfer-encoding"].lower() != b"chunked":
            raise BadResponse("the answer's transfer-encoding is not 'chunked'")
        if b"connection" in headers and parser.get_http_version() != "1.1":
            raise BadResponse("an HTTP/1.0 answer cannot be chunked")

    def _check_content_length(self) -> None:
        """Refuse early what would be refused late."""
        is_body = self._mode == _COLLECT and not self._is_head
        if is_body and int(self._headers[b"content-length"]) > self._limits.response_bytes:
            self._refuse_body()

    def _refuse_body(self) -> None:
        raise ResponseTooLarge(f"the answer's body is larger than {self._limits.response_bytes} bytes")

    def _refuse_fields(self) -> None:
        raise ResponseTooLarge(f"the answer has more than {self._limits.header_fields} header fields")

    def _start_decoding(self, content_encoding: bytes) -> None:
        limits = self._limits
        self._decoder = decoder_for(
            content_encoding,
            max_bytes=None if self._mode == _EVENTS else limits.response_bytes,
            ratio=limits.inflate_ratio,
        )

    def _finish_head_request(self, parser: httptools.HttpResponseParser) -> None:
        """An answer to HEAD ends with its head, whatever its framing says: the parser would wait for a body."""
        self._keep_alive = b"connection" not in self._headers and parser.get_http_version() == "1.1"
        self._parser = httptools.HttpResponseParser(self)
        self._decoder = None
        self._finish()

    def _note_keep_alive(self, value: bytes) -> None:
        if value == self._keep_alive_header:
            return
        self._keep_alive_header = value
        self.keep_alive_seconds = None
        for parameter in value.split(b","):
            name, _, number = parameter.strip().partition(b"=")
            if name.lower() == b"timeout" and number.isdigit() and len(number) < 10:
                self.keep_alive_seconds = float(number)
                if self.on_keep_alive is not None:
                    self.on_keep_alive(safe_idle_seconds(self.keep_alive_seconds))
