"""One connection to a server: one request at a time, callbacks only.

Knows: a transport, who waits, deadlines of its own. Does not know: pools, names and addresses, MCP, what an event means;
how an answer is read is in `client_answer`.
Invariant: a connection is offered for another request only when the last answer ended exactly where its framing said and
nothing came after it; whatever breaks that closes it.
"""

import asyncio
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any, Final, cast

import httptools

from penstock.http import tcp
from penstock.http.client_answer import AnswerReader, OnEvent, safe_idle_seconds, whole_event
from penstock.http.client_awaited import Waiter, awaited
from penstock.http.client_messages import BadResponse, ConnectionLost, RequestFailed, Response, ResponseTooLarge
from penstock.http.client_repeat import RepeatedHead
from penstock.http.client_url import Origin
from penstock.http.limits import ClientLimits
from penstock.http.messages import LARGE_BYTES
from penstock.protocol.event_stream import Event

_ONE_WRITE_BYTES: Final = 64 * 1024
"""A body up to this goes out in one piece with its head: the kernel is the dearest part of a small call."""
_PIECE_BYTES: Final = 256 * 1024
_H: Final = ord("H")
_MAX_LEARNT: Final = 16
"""Heads learnt in a row that did not come again: then the server's are all different, and learning is given up."""


class ClientConnection(AnswerReader):
    """One connection; made by `connect`. An `asyncio.Protocol` in all but name: that has no compiled form."""

    __slots__ = (
        "_drain_until",
        "_first_byte_at",
        "_is_used",
        "_learnt",
        "_loop",
        "_paused",
        "_quiet_bytes",
        "_repeated_head",
        "_transport",
        "_unsent",
        "_waiter",
        "_watch",
        "detach_on_cancel",
        "idle_since",
        "is_over",
        "on_closed",
        "on_settled",
        "origin",
        "requests_done",
    )

    def __init__(self, origin: Origin, limits: ClientLimits, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limits)
        self.origin: Final = origin
        self.on_closed: Callable[[ClientConnection], None] | None = None
        """Called once when the connection is gone, whoever ended it; never from inside `close()`."""
        self.on_settled: Callable[[ClientConnection], None] | None = None
        """Called once, then forgotten, when an answer that outlived its awaiter (early finish, `detach_on_cancel`) has
        ended: the connection is then idle or closed. Not called when it ended together with its awaiter."""
        self.detach_on_cancel = False
        """When set, cancelling the awaiter lets the request run on, unobserved, for `limits.detached_seconds`."""
        self.idle_since: float = monotonic()
        """Monotonic seconds."""
        self.requests_done = 0
        self._loop: Final = loop
        self._transport: asyncio.Transport | None = None
        self._waiter: Waiter | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._unsent: memoryview | None = None
        self._repeated_head: RepeatedHead | None = None
        self._learnt = 0
        self._first_byte_at = self._drain_until = 0.0
        self._quiet_bytes = 0
        self._paused = False
        self._is_used = True
        self.is_over = False
        """It will never take a request again; see `is_closed`."""

    def __repr__(self) -> str:
        state = "closed" if self.is_closed() else "idle" if not self.is_busy else "busy" if self._waiter else "draining"
        return f"<ClientConnection {self.origin} {state} | requests {self.requests_done}>"

    # what a pool asks

    def is_idle(self) -> bool:
        """Whether it can take a request now."""
        return not self.is_busy and not self.is_closed()

    def is_closed(self) -> bool:
        """Whether it will never take a request again."""
        return self.is_over

    def has_expired(self, now: float) -> bool:
        """Whether the server's own keep-alive limit is over, or so close that a request could cross its closing."""
        limit = self.keep_alive_seconds
        return limit is not None and not self.is_busy and now - self.idle_since >= safe_idle_seconds(limit)

    def close(self) -> None:
        """End it: at once when a request is on the way, else in good order. Idempotent."""
        if self.is_busy:
            self._fail(ConnectionLost(f"the connection to {self.origin} was closed here"))
        elif not self.is_over:
            self.is_over = True
            if self._transport is not None:
                self._transport.close()

    # the request

    def request(self, head: bytes, body: bytes = b"", on_event: OnEvent | None = None) -> Coroutine[Any, Any, Response]:
        """Write one request, return its answer: `begin`, and wait.

        Raises what `begin` raises, and what it says its future may.
        """
        return awaited(self, self._loop, head, body, on_event)

    def begin(self, waiter: Waiter, head: bytes, body: bytes = b"", on_event: OnEvent | None = None) -> None:
        """Write one request; `waiter` takes its answer, and calls `abandon` when it does not want it any more.

        Args:
            head: request line and header lines, Content-Length and the empty line included.
            body: as long as the head says.
            on_event: takes the events of a successful `text/event-stream` answer. When it returns True the answer is
                returned at once with an empty body; the connection becomes idle when the stream has ended (bounded, see
                `on_settled`). A stream that ends without that is returned normally. Without it a stream is a body. What
                it raises is raised here, and closes the connection.

        Raises:
            ConnectionLost: it ended before the answer was complete; `unprocessed` says when repeating is safe.
            ResponseTooLarge, BadResponse: the answer breaks a limit or the rules.
            CancelledError: the connection is closed, unless `detach_on_cancel`.
        """
        if self.is_busy:
            raise RuntimeError(f"{self!r} takes one request at a time")
        transport = self._transport
        if transport is None or self.is_over or transport.is_closing():
            self.is_over = True  # `connection_lost` comes a turn later: till then no pool may lend it again
            raise ConnectionLost(f"the connection to {self.origin} was already closed", unprocessed=True)
        if self._is_used:  # an answer with a repeated head leaves nothing to reset
            self._reset(on_event)
            self._is_used = False
            self._drain_until = 0.0
            self._quiet_bytes = 0
        else:
            self._on_event = on_event
        self._first_byte_at = 0.0
        self.is_busy = True
        self._is_head = head[0] == _H  # no other method begins so
        self._waiter = waiter
        is_long = len(body) > _ONE_WRITE_BYTES
        transport.write(head if is_long else head + body)
        if transport.is_closing():  # uvloop writes later, and finds out later: then nobody knows what the server got
            self._abort()
            raise ConnectionLost(f"the connection to {self.origin} was closed by the server", unprocessed=True)
        if is_long:
            self._unsent = memoryview(body)
            self._write_on()

    def _write_on(self) -> None:
        """Write a long body piece by piece, as long as the transport takes it."""
        transport = self._transport
        while self._unsent is not None and transport is not None and not self._paused and not transport.is_closing():
            piece, rest = self._unsent[:_PIECE_BYTES], self._unsent[_PIECE_BYTES:]
            self._unsent = rest if len(rest) > 0 else None
            transport.write(piece)

    def abandon(self) -> None:
        """The awaiter was cancelled: close the connection, unless `detach_on_cancel`."""
        if not self.is_busy:
            return
        if self.detach_on_cancel:
            self._waiter = None
            self._forget()
            self._outlive(self._limits.detached_seconds)
        else:
            self._abort()

    def pause_reading(self) -> None:
        """Take no more of the answer until `resume_reading`: for who passes it on to somebody who does not read."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on; without effect where nothing was paused."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are transports in all but their base class
        self._parser = httptools.HttpResponseParser(self)
        sock = transport.get_extra_info("socket")
        if sock is not None:
            tcp.set_up(sock)

    def data_received(self, data: bytes) -> None:
        parser = self._parser
        if not self.is_busy or parser is None:
            self._abort()  # nothing was asked: whatever this is, it must not become the answer to the next request
            return
        is_first = self._first_byte_at == 0.0
        if is_first:
            self._first_byte_at = monotonic()
            repeated = self._repeated_head
            if repeated is not None:
                found = None if self._is_head else repeated.body_in(data)
                if found is not None and self._take_repeated(repeated, data, found[0], found[1]):
                    self._learnt = 0
                    return
        self._is_used = True
        self._is_long_read = self._quiet_bytes + len(data) > self._limits.header_bytes
        try:
            parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            self._fail(error.__context__ or error)
        except httptools.HttpParserUpgrade:
            self._fail(BadResponse(f"{self.origin} switched protocols without being asked"))
        except httptools.HttpParserError as error:
            self._fail(BadResponse(f"the answer of {self.origin} is not valid HTTP/1.1: {error}"))
        else:
            self._after_read(data, is_first=is_first)

    def _after_read(self, data: bytes, *, is_first: bool) -> None:
        if self.is_busy:
            self._await_rest(len(data))
        elif is_first and not self.is_over and not self._is_head and not self._interim and self._learnt < _MAX_LEARNT:
            self._learnt += 1
            self._repeated_head = RepeatedHead.learn(data, self._status, self._headers)

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

    # the course of an answer

    def _answer(self, body: bytes) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            waiter.settle(self._status, self._headers, body, self._first_byte_at)

    def _take_repeated(self, repeated: RepeatedHead, read: bytes, start: int, stop: int) -> bool:
        """Take an answer whose head was judged before; False when the parser must look after all."""
        waiter, on_event, size = self._waiter, self._on_event, stop - start
        if waiter is None or self._unsent is not None:
            return False
        source = memoryview(read) if size >= LARGE_BYTES and waiter.takes_views else read
        body: bytes | memoryview = b""
        if repeated.is_stream and on_event is not None:
            found = whole_event(read, start, stop) if size <= self._limits.event_bytes else None
            if found is None:
                return False
            try:
                on_event(Event(source[found[0] : found[1]]))
            except Exception as error:  # the caller's own, raised where it waits: as from the parser's callbacks
                self._fail(error)
                return True
            if self._waiter is not waiter:  # the callback abandoned the request, or closed the connection
                if self.is_busy:
                    self._keep_alive = True
                    self._finish()
                return True
        elif size > self._limits.response_bytes:
            return False
        else:
            body = source[start:stop]
        self._waiter = None
        self._on_event = None
        self.is_busy = False
        self.idle_since = self._first_byte_at
        self.requests_done += 1
        waiter.settle(repeated.status, repeated.headers, body, self._first_byte_at)
        return True

    def _finish(self) -> None:
        waiter = self._waiter
        body = b"" if waiter is None else self._whole_body()
        self._waiter = None
        self._forget()
        self.is_busy = False
        self.idle_since = monotonic()
        self.requests_done += 1
        if not self._keep_alive or self._unsent is not None:
            self._close_after_answer()
        if waiter is None:
            self._settle()
        else:
            waiter.settle(self._status, self._headers, body, self._first_byte_at)

    def _close_after_answer(self) -> None:
        """The server closes, or took only part of the body: there is no next request here."""
        self.is_over = True
        if self._transport is not None:
            if self._unsent is None:
                self._transport.close()
            else:
                self._transport.abort()

    def _await_rest(self, size: int) -> None:
        """After a read that did not complete the answer."""
        if self._has_moved:
            self._has_moved = False
            self._quiet_bytes = 0
        else:
            self._quiet_bytes += size
            if self._quiet_bytes > self._limits.header_bytes:
                what = "framing" if self._head_done else "head"
                self._fail(ResponseTooLarge(f"the answer's {what} is larger than {self._limits.header_bytes} bytes"))
                return
        if self._waiter is None and self._drain_until == 0.0:
            self._outlive(self._limits.finish_grace_seconds)

    # endings

    def _end(self, exc: Exception | None) -> None:
        """The server sends no more."""
        if self.is_over:
            return
        if self.is_busy and exc is None and self._ends_by_closing():
            self._keep_alive = False
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
        waiter = self._waiter
        self._abort()
        if waiter is not None:
            waiter.lose(error)

    def _abort(self) -> None:
        """Close without waiting for anything, and forget the request."""
        has_outlived = self.is_busy and self._waiter is None
        self.is_over = True
        self.is_busy = False
        self._waiter = self._unsent = None
        self._forget()
        if self._transport is not None:
            self._transport.abort()
        if has_outlived:
            self._settle()

    def _settle(self) -> None:
        on_settled, self.on_settled = self.on_settled, None
        if on_settled is not None:
            on_settled(self)

    def _outlive(self, seconds: float) -> None:
        """Let an answer nobody waits for run on for that long."""
        self._is_used = True
        self._drain_until = until = monotonic() + seconds
        if self._watch is not None:
            if self._watch.when() <= until:
                return  # it looks again by itself: one timer serves many requests
            self._watch.cancel()
        self._watch = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        """The timer went off; the answer it was set for may be long over, and another one be running on."""
        self._watch = None
        if not self.is_busy or self._waiter is not None or self._drain_until == 0.0:
            return
        left = self._drain_until - monotonic()
        if left > 0.001:
            self._watch = self._loop.call_later(left, self._look)
        else:
            self._abort()
