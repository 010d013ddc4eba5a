"""One connection to a server: one request at a time, callbacks only.

Knows: HTTP/1.1 framing of answers (httptools, plus what it leaves lenient), limits, event streams as bytes. Does not know:
pools, names and addresses, MCP, what an event means.
Invariant: a connection is offered for another request only when the last answer ended exactly where its framing said and
nothing came after it; whatever breaks that closes it.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Final, cast

import httptools

from penstock.http.client_decoding import Decoder, decoder_for
from penstock.http.client_messages import BadResponse, ConnectionLost, RequestFailed, Response, ResponseTooLarge
from penstock.http.client_url import Origin
from penstock.http.limits import ClientLimits
from penstock.protocol.event_stream import Event, EventParser, EventTooLarge

OnEvent = Callable[[Event], bool]
"""Takes each event as it comes; True says it was the final one. Called synchronously: must not block."""

_ONE_WRITE_BYTES: Final = 64 * 1024
"""A body up to this goes out in one piece with its head: the kernel is the dearest part of a small call."""
_PIECE_BYTES: Final = 256 * 1024
_IDLE, _COLLECT, _EVENTS, _DISCARD = range(4)


class ClientConnection(asyncio.Protocol):
    """One connection; made by `connect`."""

    __slots__ = (
        "_body",
        "_buffer",
        "_busy",
        "_closed",
        "_decoder",
        "_drain_until",
        "_events",
        "_first_byte_at",
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
        "_loop",
        "_mode",
        "_on_event",
        "_parser",
        "_paused",
        "_quiet_bytes",
        "_repeated",
        "_status",
        "_transport",
        "_unsent",
        "_waiter",
        "_watch",
        "detach_on_cancel",
        "idle_since",
        "keep_alive_seconds",
        "on_closed",
        "on_settled",
        "origin",
        "requests_done",
    )

    def __init__(self, origin: Origin, limits: ClientLimits, loop: asyncio.AbstractEventLoop) -> None:
        self.origin: Final = origin
        self.on_closed: Callable[[ClientConnection], None] | None = None
        """Called once when the connection is gone, whoever ended it; never from inside `close()`."""
        self.on_settled: Callable[[ClientConnection], None] | None = None
        """Called once, then forgotten, when an answer that outlived its awaiter (early finish, `detach_on_cancel`) has
        ended: the connection is then idle or closed. Not called when it ended together with its awaiter."""
        self.detach_on_cancel = False
        """When set, cancelling the awaiter lets the request run on, unobserved, for `limits.detached_seconds`."""
        self.keep_alive_seconds: float | None = None
        """How long the server said it keeps an idle connection."""
        self.idle_since: float = loop.time()
        self.requests_done = 0
        self._limits: Final = limits
        self._length_digits: Final = len(str(limits.response_bytes))
        self._loop: Final = loop
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._waiter: asyncio.Future[Response] | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._keep_alive_header = b""
        self._unsent: memoryview | None = None
        self._paused = self._closed = self._busy = False
        self._reset(None)
        self._mode = _IDLE

    def __repr__(self) -> str:
        state = "closed" if self.is_closed() else "idle" if not self._busy else "busy" if self._waiter else "draining"
        return f"<ClientConnection {self.origin} {state} | requests {self.requests_done}>"

    # what a pool asks

    def is_idle(self) -> bool:
        """Whether it can take a request now."""
        return not self._busy and not self.is_closed()

    def is_closed(self) -> bool:
        """Whether it will never take a request again."""
        return self._closed or self._transport is None or self._transport.is_closing()

    def has_expired(self, now: float) -> bool:
        """Whether the server's own keep-alive limit is over, or so close that a request could cross its closing."""
        limit = self.keep_alive_seconds
        return limit is not None and not self._busy and now - self.idle_since >= max(limit - 1.0, limit / 2)

    def close(self) -> None:
        """End it: at once when a request is on the way, else in good order. Idempotent."""
        if self._busy:
            self._fail(ConnectionLost(f"the connection to {self.origin} was closed here"))
        elif not self._closed:
            self._closed = True
            if self._transport is not None:
                self._transport.close()

    # the request

    async def request(self, head: bytes, body: bytes = b"", on_event: OnEvent | None = None) -> Response:
        """Write one request, return its answer.

        Args:
            head: request line and header lines, Content-Length and the empty line included.
            body: as long as the head says.
            on_event: takes the events of a successful `text/event-stream` answer. When it returns True the answer is
                returned at once with an empty body; the connection becomes idle when the stream has ended (bounded, see
                `on_settled`). A stream that ends without that is returned normally. Without it a stream is a body.

        Raises:
            ConnectionLost: it ended before the answer was complete; `unprocessed` says when repeating is safe.
            ResponseTooLarge, BadResponse: the answer breaks a limit or the rules.
            CancelledError: the connection is closed, unless `detach_on_cancel`.
        """
        if self._busy:
            raise RuntimeError(f"{self!r} takes one request at a time")
        transport = self._transport
        if transport is None or self._closed or transport.is_closing():
            raise ConnectionLost(f"the connection to {self.origin} was already closed", unprocessed=True)
        self._reset(on_event)
        self._busy = True
        self._is_head = head.startswith(b"HEAD ")
        waiter: asyncio.Future[Response] = self._loop.create_future()
        self._waiter = waiter
        if len(body) <= _ONE_WRITE_BYTES:
            transport.write(head + body)
        else:
            transport.write(head)
        if transport.is_closing():
            self._abort()
            raise ConnectionLost(f"the connection to {self.origin} was closed by the server", unprocessed=True)
        if len(body) > _ONE_WRITE_BYTES:
            self._unsent = memoryview(body)
            self._write_on()
        try:
            return await waiter
        except asyncio.CancelledError:
            self._abandon()
            raise

    def _reset(self, on_event: OnEvent | None) -> None:
        self._on_event = on_event
        self._mode = _COLLECT
        self._headers: dict[bytes, bytes] = {}
        self._body = b""
        self._buffer: bytearray | None = None
        self._decoder: Decoder | None = None
        self._events: EventParser | None = None
        self._first_byte_at = self._drain_until = 0.0
        self._quiet_bytes = self._interim = self._status = self._repeated = 0
        self._head_done = self._has_moved = self._is_head = self._is_long_read = self._keep_alive = False

    def _write_on(self) -> None:
        """Write a long body piece by piece, as long as the transport takes it."""
        transport, unsent = self._transport, self._unsent
        while unsent is not None and transport is not None and not self._paused and not transport.is_closing():
            transport.write(unsent[:_PIECE_BYTES])
            unsent = self._unsent = unsent[_PIECE_BYTES:] if len(unsent) > _PIECE_BYTES else None

    def _abandon(self) -> None:
        """The awaiter was cancelled."""
        if not self._busy or self._closed:
            return
        self._waiter = None
        if not self.detach_on_cancel:
            self._abort()
            return
        self._stop_taking()
        self._outlive(self._limits.detached_seconds)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are transports in all but their base class
        self._parser = httptools.HttpResponseParser(self)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        parser = self._parser
        if not self._busy or self._closed or parser is None:
            self._abort()  # nothing was asked: whatever this is, it must not become the answer to the next request
            return
        if self._first_byte_at == 0.0:
            self._first_byte_at = self._loop.time()
        self._is_long_read = self._quiet_bytes + len(data) > self._limits.header_bytes
        try:
            parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            self._fail(error.__context__ or error)
        except httptools.HttpParserUpgrade:
            self._fail(BadResponse("the server switched protocols without being asked"))
        except httptools.HttpParserError as error:
            self._fail(BadResponse(f"the answer of {self.origin} is not valid HTTP/1.1: {error}"))
        else:
            if self._busy:
                self._await_rest(len(data))

    def eof_received(self) -> None:
        self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc)
        self._transport = self._parser = self._unsent = None
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        on_closed, self.on_closed = self.on_closed, None
        if on_closed is not None:
            on_closed(self)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._write_on()

    # httptools callbacks: raising one of our errors stops the parser and fails the request

    def on_message_begin(self) -> None:
        if not self._busy:
            raise BadResponse("the server sent more than one answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head_done:
            return  # trailers
        headers = self._headers
        name = name.lower()
        if name not in headers:
            headers[name] = value.rstrip()
            return
        self._repeated += 1
        if self._repeated > self._limits.header_fields:
            raise ResponseTooLarge(f"the answer has more than {self._limits.header_fields} header fields")
        headers[name] = headers[name] + b", " + value.rstrip()

    def on_headers_complete(self) -> None:
        parser = self._parser
        if parser is None or not self._busy:
            raise BadResponse("the server sent more than one answer")
        status = parser.get_status_code()
        if status < 200:
            self._skip_interim()
            return
        headers = self._headers
        self._status = status
        self._head_done = True
        self._keep_alive = parser.should_keep_alive()
        if self._is_long_read or len(headers) > 64:
            self._check_head_size()
        if b"transfer-encoding" in headers:
            self._check_transfer_encoding(parser)
        if b"keep-alive" in headers:
            self._note_keep_alive(headers[b"keep-alive"])
        if self._mode == _COLLECT:
            if self._on_event is not None and status < 300:
                content_type = headers.get(b"content-type", b"")
                if content_type[:17].lower() == b"text/event-stream":
                    self._events = EventParser(self._limits.event_bytes)
                    self._mode = _EVENTS
            if b"content-encoding" in headers:
                self._start_decoding(headers[b"content-encoding"])
            elif len(headers.get(b"content-length", b"")) >= self._length_digits:
                self._check_content_length()
        if self._is_head:
            self._finish_head_request()

    def on_body(self, data: bytes) -> None:
        self._has_moved = True
        if self._mode == _DISCARD:
            return
        if not self._busy:
            raise BadResponse("the server sent a body where none belongs")
        if self._decoder is None:
            self._take(data)
            return
        for piece in self._decoder.feed(data):
            self._take(piece)
            if self._mode == _DISCARD:
                return

    def on_message_complete(self) -> None:
        if not self._busy:
            return
        if not self._head_done:
            self._headers = {}  # the end of a 1xx answer; the real one follows
            return
        self._finish()

    # taking in an answer

    def _take(self, data: bytes) -> None:
        if self._mode == _EVENTS:
            self._take_events(data)
        elif not self._body and self._buffer is None:
            self._body = data
            if len(data) > self._limits.response_bytes:
                self._refuse_body()
        else:
            buffer = self._buffer
            if buffer is None:
                buffer = self._buffer = bytearray(self._body)
            buffer += data
            if len(buffer) > self._limits.response_bytes:
                self._refuse_body()

    def _take_events(self, data: bytes) -> None:
        parser, on_event = self._events, self._on_event
        assert parser is not None
        assert on_event is not None
        try:
            events = parser.feed(data)
        except EventTooLarge as error:
            raise ResponseTooLarge(f"an event is larger than {self._limits.event_bytes} bytes") from error
        for event in events:
            if on_event(event):
                self._stop_taking()
                self._answer(b"")
                return
            if self._mode == _DISCARD:  # the callback closed the connection
                return

    def _stop_taking(self) -> None:
        """What still comes of this answer is read and forgotten."""
        self._mode = _DISCARD
        self._on_event = self._events = self._decoder = self._buffer = None
        self._body = b""

    def _answer(self, body: bytes) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(Response(self._status, self._headers, body, self._first_byte_at))

    def _finish(self) -> None:
        """The answer ended where its framing says."""
        if self._decoder is not None:
            self._decoder.finish()
        has_outlived = self._waiter is None
        if self._mode == _COLLECT:
            self._answer(self._body if self._buffer is None else bytes(self._buffer))
            self._body = b""
            self._buffer = None
        else:
            self._answer(b"")
        self._on_event = self._events = self._decoder = None
        self._mode = _IDLE
        self._busy = False
        self.idle_since = self._loop.time()
        self.requests_done += 1
        if not self._keep_alive or self._unsent is not None:
            self._close_after_answer()
        if has_outlived:
            self._settle()

    def _finish_head_request(self) -> None:
        """An answer to HEAD ends with its head, whatever its framing says: the parser would wait for a body."""
        self._parser = httptools.HttpResponseParser(self)
        self._keep_alive = self._keep_alive or b"connection" not in self._headers
        self._finish()

    def _close_after_answer(self) -> None:
        self._closed = True
        if self._transport is not None:
            if self._unsent is not None:
                self._transport.abort()
            else:
                self._transport.close()

    def _await_rest(self, size: int) -> None:
        """After a read that did not complete the answer."""
        if self._has_moved:
            self._has_moved = False
            self._quiet_bytes = 0
        else:
            self._quiet_bytes += size
            if self._quiet_bytes > self._limits.header_bytes:
                what = "trailer" if self._head_done else "head"
                self._fail(ResponseTooLarge(f"the answer's {what} is larger than {self._limits.header_bytes} bytes"))
                return
        if self._waiter is None and self._drain_until == 0.0:
            self._outlive(self._limits.finish_grace_seconds)

    # endings

    def _end(self, exc: Exception | None) -> None:
        """The server sends no more."""
        if self._closed and not self._busy:
            return
        self._closed = True
        if not self._busy:
            return
        headers = self._headers
        ends_by_closing = (
            exc is None
            and self._head_done
            and b"content-length" not in headers
            and b"transfer-encoding" not in headers
        )
        if ends_by_closing:
            try:
                self._finish()
            except RequestFailed as error:
                self._fail(error)
            return
        how = f" ({exc.strerror or exc})" if isinstance(exc, OSError) else ""
        when = "before its answer was complete" if self._first_byte_at else "before it answered"
        lost = ConnectionLost(f"{self.origin} closed the connection {when}{how}")
        lost.__cause__ = exc
        self._fail(lost)

    def _fail(self, error: BaseException) -> None:
        waiter, self._waiter = self._waiter, None
        self._abort()
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)

    def _abort(self) -> None:
        """Close without waiting for anything, and forget the request."""
        self._closed = True
        was_busy, self._busy = self._busy, False
        had_awaiter = self._waiter is not None
        self._waiter = self._unsent = None
        self._stop_taking()
        if self._transport is not None:
            self._transport.abort()
        if was_busy and not had_awaiter:
            self._settle()

    def _settle(self) -> None:
        on_settled, self.on_settled = self.on_settled, None
        if on_settled is not None:
            on_settled(self)

    def _outlive(self, seconds: float) -> None:
        """Let an answer nobody waits for run on for that long."""
        self._drain_until = until = self._loop.time() + seconds
        if self._watch is not None:
            if self._watch.when() <= until:
                return  # it looks again by itself: one timer serves many requests
            self._watch.cancel()
        self._watch = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        self._watch = None
        if not self._busy or self._waiter is not None or self._drain_until == 0.0:
            return
        left = self._drain_until - self._loop.time()
        if left > 0.001:
            self._watch = self._loop.call_later(left, self._look)
        else:
            self._abort()

    # rarer parts of a head

    def _skip_interim(self) -> None:
        self._interim += 1
        self._headers = {}
        if self._interim > self._limits.interim_answers:
            raise BadResponse(f"the server sent more than {self._limits.interim_answers} interim answers")

    def _check_head_size(self) -> None:
        headers, limits = self._headers, self._limits
        if len(headers) + self._repeated > limits.header_fields:
            raise ResponseTooLarge(f"the answer has more than {limits.header_fields} header fields")
        if sum(len(name) + len(value) + 4 for name, value in headers.items()) > limits.header_bytes:
            raise ResponseTooLarge(f"the answer's head is larger than {limits.header_bytes} bytes")

    def _check_transfer_encoding(self, parser: httptools.HttpResponseParser) -> None:
        """Whatever frames an answer in a way two readers could read differently is refused (RFC 9112 6.1)."""
        headers = self._headers
        if headers[b"transfer-encoding"].lower() != b"chunked":
            raise BadResponse("the answer's transfer-encoding is not 'chunked'")
        if b"content-length" in headers:
            raise BadResponse("the answer has both transfer-encoding and content-length")
        if b"connection" in headers and parser.get_http_version() != "1.1":
            raise BadResponse("an HTTP/1.0 answer cannot be chunked")

    def _check_content_length(self) -> None:
        if self._mode == _COLLECT and not self._is_head:
            if int(self._headers[b"content-length"]) > self._limits.response_bytes:
                self._refuse_body()

    def _refuse_body(self) -> None:
        raise ResponseTooLarge(f"the answer's body is larger than {self._limits.response_bytes} bytes")

    def _start_decoding(self, content_encoding: bytes) -> None:
        limits = self._limits
        self._decoder = decoder_for(
            content_encoding,
            max_bytes=None if self._mode == _EVENTS else limits.response_bytes,
            ratio=limits.inflate_ratio,
        )

    def _note_keep_alive(self, value: bytes) -> None:
        if value == self._keep_alive_header:
            return
        self._keep_alive_header = value
        self.keep_alive_seconds = None
        for parameter in value.split(b","):
            name, _, number = parameter.strip().partition(b"=")
            if name.lower() == b"timeout" and number.isdigit() and len(number) < 10:
                self.keep_alive_seconds = float(number)
