"""One client's connection: bytes in, exchanges out, answers in order.

Knows: framing, keep-alive, deadlines, backpressure. Does not know: what requests mean, what other connections do.
Invariant: at most one request is being answered at a time; what a client sends ahead waits unparsed and bounded, and
reading pauses beyond `pipelined_bytes`. So answers need no reordering, and no client gets more than one call at a time
per connection.
"""

import asyncio
import re
from typing import cast

from penstock.http.chunked_body import ChunkedBody
from penstock.http.event_stream import EventStream
from penstock.http.exchange import Exchange
from penstock.http.host import Host
from penstock.http.large_write import NONE, descriptor_of, write_pieces
from penstock.http.messages import Body, Head, Request, joined
from penstock.http.passage import Give
from penstock.http.request_head import Refusal
from penstock.http.request_repeat import KnownHead
from penstock.http.responses import CONTINUE, JSON
from penstock.http.unacknowledged import unacknowledged_bytes

HEAD, FIXED, CHUNKED, BUSY, LINGER, CLOSED = range(6)
STATES = ("reading a header", "reading a body", "reading chunks", "answering", "lingering", "closed")
NEVER = float("inf")
EMPTY_LINES = re.compile(rb"\A(?:\r\n)++")


class ServerConnection:
    """A client's connection: an `asyncio.Protocol` in all but name, as that has no compiled form."""

    __slots__ = (
        "_body",
        "_chunks",
        "_descriptor",
        "_exchange",
        "_head",
        "_host",
        "_known",
        "_length",
        "_loop",
        "_mark",
        "_moves",
        "_reading_paused",
        "_received",
        "_started",
        "_stash",
        "_state",
        "_stream",
        "_transport",
        "_writing_paused",
        "deadline",
    )

    def __init__(self, host: "Host[ServerConnection]", ahead: bytes = b"", moves: int = 0) -> None:
        """`ahead` is what has arrived already of a connection that was passed to us, for the `moves`th time."""
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._state = HEAD
        self._stash = ahead
        self._moves = moves
        self._head: Head | None = None
        self._known: KnownHead | None = None
        self._length = 0
        self._body: list[bytes] = []
        self._received = 0
        self._started = 0.0
        self._chunks: ChunkedBody | None = None
        self._exchange: Exchange | None = None
        self._stream: EventStream | None = None
        self._writing_paused = False
        self._reading_paused = False
        self._mark = (0.0, 0)
        self.deadline = NEVER

    def __repr__(self) -> str:
        peer = "" if self._state == CLOSED else f" {self._transport.get_extra_info('peername')}"
        return f"<ServerConnection{peer} {STATES[self._state]} [{len(self._stash)} B ahead]>"

    @property
    def is_under_way(self) -> bool:
        """A request is arriving or being answered."""
        return self._state in (FIXED, CHUNKED, BUSY) or (self._state == HEAD and bool(self._stash))

    # what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._descriptor = descriptor_of(self._transport)
        self.deadline = self._host.coarse_now + self._host.limits.header_seconds
        self._host.admit(self)
        if self._stash:
            self._loop.call_soon(self._advance)

    def connection_lost(self, exc: Exception | None) -> None:
        self._state = CLOSED
        self._descriptor = NONE
        self.deadline = NEVER
        self._stash = b""
        self._body.clear()
        self._chunks = None
        self._host.forget(self)
        self._give_up_exchange()

    def eof_received(self) -> bool:
        if self._exchange is not None or self._stream is not None or (self._state == HEAD and self._stash):
            self.cut()  # a client that half-closes while its answer is due has hung up
        return False

    def data_received(self, data: bytes) -> None:
        state = self._state
        if state == HEAD and not self._writing_paused:
            self._read_head(self._stash + data if self._stash else data)
            if self._stash:
                self._limit_what_is_ahead()
        elif state == FIXED:
            self._read_fixed(data)
        elif state == CHUNKED:
            self._read_chunks(data)
        elif state == LINGER:
            self._received += len(data)
            if self._received > self._host.limits.body_bytes:
                self.cut()
        elif state != CLOSED:
            self._stash += data
            self._limit_what_is_ahead()

    def pause_writing(self) -> None:
        self._writing_paused = True
        self._mark = (self._host.coarse_now, unacknowledged_bytes(self._transport))
        if self._stream is not None:
            self._stream.pause()
        self.deadline = min(self.deadline, self._host.coarse_now + self._host.limits.stalled_reader_seconds)

    def resume_writing(self) -> None:
        self._writing_paused = False
        if self._stream is not None:
            self._stream.resume()
        if self._state == HEAD:
            self.deadline = self._host.idle_until
            self._advance()

    # reading

    def _advance(self) -> None:
        """Go on with what was sent ahead."""
        if self._state != HEAD or self._writing_paused or not self._stash:
            return
        data, self._stash = self._stash, b""
        self._read_head(data)
        if self._reading_paused:
            self._limit_what_is_ahead()

    def _limit_what_is_ahead(self) -> None:
        limits = self._host.limits
        too_much = len(self._stash) > max(limits.pipelined_bytes, limits.header_bytes)
        if too_much and not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()
        elif not too_much:
            self._resume_reading()

    def _resume_reading(self) -> None:
        if self._reading_paused:
            self._reading_paused = False
            self._transport.resume_reading()

    def _read_head(self, data: bytes) -> None:
        known = self._known
        if known is not None:
            found = known.found_in(data)
            if found is not None:
                end, length = found
                head = known.head
                self._stash = b""
                if len(data) - end == length <= self._host.limits.body_bytes and not head.is_chunked:
                    self._dispatch(head, data[end:])  # what nearly every read is
                else:
                    self._take_body(head, length, data, end)
                return
        if data[:2] == b"\r\n":  # RFC 9112 §2.2: empty lines ahead of a request are tolerated
            data = EMPTY_LINES.sub(b"", data, count=1)
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._wait_for_head(data)
            return
        self._stash = b""
        end += 4
        if end > self._host.limits.header_bytes:
            self._refuse_large_head(data)
            return
        block = data[:end]
        known = self._host.known_heads.recall(block)
        found = known.found_in(block) if known is not None else None
        if known is not None and found is not None:
            self._known = known
            self._take_body(known.head, found[1], data, end)
            return
        judged = self._host.head_parser.parse(block)
        if isinstance(judged, Refusal):
            self._refuse(judged)
            return
        self._known = self._host.known_heads.remember(block, judged)
        self._take_body(judged, judged.content_length, data, end)

    def _take_body(self, head: Head, length: int, data: bytes, end: int) -> None:
        """After a header block that ends at `end` and announces so many bytes."""
        there = len(data) - end
        if there < length or head.is_chunked:
            self._begin_body(head, length, data[end:])
        elif length > self._host.limits.body_bytes:
            self._refuse(Refusal(413, "body_too_large"))
        elif there == length:
            self._dispatch(head, data[end:])
        else:
            stop = end + length
            self._stash = data[stop:]
            self._dispatch(head, data[end:stop])

    def _wait_for_head(self, data: bytes) -> None:
        host = self._host
        self._stash = data
        if not data:
            return
        if len(data) > host.limits.header_bytes:
            self._refuse_large_head(data)
            return
        refusal = host.head_parser.judge_beginning(data)
        if refusal is not None:
            self._refuse(refusal)
        elif self._started == 0.0:
            self._started = host.now()
            self.deadline = self._started + host.limits.header_seconds

    def _refuse_large_head(self, data: bytes) -> None:
        line_end = data.find(b"\r\n")
        if 0 <= line_end <= self._host.limits.target_bytes:
            self._refuse(Refusal(431, "header_too_large"))
        else:
            self._refuse(Refusal(414, "target_too_long"))

    def _begin_body(self, head: Head, length: int, rest: bytes) -> None:
        host = self._host
        if length > host.limits.body_bytes:
            self._refuse(Refusal(413, "body_too_large"))
            return
        self._head = head
        self._length = length
        self._received = 0
        self._started = host.now()
        self.deadline = self._started + host.limits.header_seconds
        if head.expects_continue and not rest:
            self._transport.write(CONTINUE)
        if head.is_chunked:
            self._state = CHUNKED
            self._chunks = ChunkedBody(host.limits.body_bytes, host.limits.chunk_overhead_bytes)
            if rest:
                self._read_chunks(rest)
        else:
            self._state = FIXED
            if rest:
                self._read_fixed(rest)

    def _read_fixed(self, data: bytes) -> None:
        missing = self._length - self._received
        if len(data) < missing:
            self._body.append(data)
            self._received += len(data)
            return
        if len(data) > missing:
            self._stash = data[missing:]
            data = data[:missing]
        self._body.append(data)
        self._complete(cast(Head, self._head), b"".join(self._body))

    def _read_chunks(self, data: bytes) -> None:
        chunks = cast(ChunkedBody, self._chunks)
        rest = chunks.feed(data)
        self._received += len(data)
        if isinstance(rest, Refusal):
            self._refuse(rest)
        elif rest is not None:
            self._stash = rest
            self._chunks = None
            self._complete(cast(Head, self._head), chunks.body())

    def _complete(self, head: Head, body: bytes) -> None:
        self._head = None
        self._body.clear()
        self._dispatch(head, body)

    def _dispatch(self, head: Head, body: bytes) -> None:
        host = self._host
        self._state = BUSY
        self.deadline = NEVER
        self._started = 0.0
        self._head = head
        request = Request(head.method, head.path, head.query, head.headers, body, head.shared)
        exchange = self._exchange = Exchange(self, host, request, host.now())
        try:
            host.handler(exchange)
        except Exception as error:  # a handler's fault must not take the connection's other requests with it
            exchange.failed(error)

    # answering: what exchanges and streams call

    def answer(self, status: int, body: Body, content_type: bytes, headers: bytes) -> None:
        """Send the whole response, and be ready for the next request."""
        host, head = self._host, self._head
        assert head is not None
        keep = head.keep_alive and not host.is_draining
        if not keep:
            headers += b"connection: close\r\n"
        if status == 200 and content_type is JSON and head.method != b"HEAD":
            if isinstance(body, tuple):
                length = sum(map(len, body))
                pieces = (b"%b%d\r\n%b\r\n" % (host.heads.ok_json, length, headers), *body)
                write_pieces(self._transport, self._descriptor, pieces)
            else:
                self._transport.write(b"%b%d\r\n%b\r\n%b" % (host.heads.ok_json, len(body), headers, body))
        else:
            is_shown = head.method != b"HEAD"
            self._transport.write(host.heads.whole(status, joined(body), content_type, headers, is_shown=is_shown))
        self._finish(keep)

    def begin_stream(self, headers: bytes) -> EventStream:
        """Send the head of an event stream."""
        host = self._host
        head = cast(Head, self._head)
        chunked = not head.is_http_10
        framing = b"transfer-encoding: chunked\r\n" if chunked else b""
        if not head.keep_alive or host.is_draining:
            framing += b"connection: close\r\n"
        self._transport.write(
            b"%bcontent-type: text/event-stream\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n%b%b\r\n"
            % (host.heads.start(200), framing, headers)
        )
        stream = EventStream(self, host.limits, chunked=chunked, paused=self._writing_paused)
        if head.method == b"HEAD":
            stream.close()
            self.complete_answer()
            self.end_stream()
            return stream
        self._stream = stream
        self.deadline = min(self.deadline, host.coarse_now + host.limits.keepalive_comment_seconds)
        return stream

    def write_stream(self, data: bytes) -> None:
        """Send a part of the stream."""
        self._transport.write(data)

    def complete_answer(self) -> None:
        """The stream has its last event, though it may still wait to be sent."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.answer_completed()

    def end_stream(self) -> None:
        """The stream's last part was sent."""
        self._stream = None
        self._finish(cast(Head, self._head).keep_alive and not self._host.is_draining)

    def coarse_now(self) -> float:
        """Seconds, at most one sweep old."""
        return self._host.coarse_now

    def give_away(self, give: Give) -> bool:
        """Let another process answer, and have the connection: False, and nothing has happened, where it must stay.

        It must where our bytes are changed on their way (TLS), where it ends with this answer, and while an earlier one is on
        its way out.
        """
        head, transport = self._head, self._transport
        if head is None or not head.keep_alive or self._host.is_draining or self._descriptor == NONE:
            return False
        if transport.get_write_buffer_size() or transport.is_closing():
            return False
        if not self._reading_paused:
            transport.pause_reading()
        if not give(self._descriptor, self._stash, self._moves):
            if not self._reading_paused:
                transport.resume_reading()
            return False
        self._state = CLOSED
        self._exchange = None
        transport.abort()
        return True

    def cut(self) -> None:
        """Drop the connection and everything unsent; the exchange learns it at once."""
        self._state = CLOSED
        self._transport.abort()
        self._give_up_exchange()

    def refuse_one_too_many(self) -> None:
        """The server says: all connections are in use."""
        self._refuse(Refusal(503, "too_many_connections"))

    def close_when_idle(self) -> None:
        """Close now unless a request is under way; that one's answer will announce the close."""
        if self._state == HEAD and not self._stash:
            self._close()

    def _finish(self, keep: bool) -> None:
        self._exchange = None
        self._head = None
        host = self._host
        if not keep:
            self._close()
            return
        self._state = HEAD
        self.deadline = host.idle_until
        if self._writing_paused:
            self.deadline = host.coarse_now + host.limits.stalled_reader_seconds
        if self._stash:
            self._loop.call_soon(self._advance)  # one request per turn of the loop: others get theirs

    def _give_up_exchange(self) -> None:
        exchange, self._exchange = self._exchange, None
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()
        if exchange is not None:
            exchange.disconnected()

    def _refuse(self, refusal: Refusal) -> None:
        self._body.clear()
        self._chunks = None
        self._transport.write(self._host.heads.refusal(refusal))
        self._linger()

    def _close(self) -> None:
        if self._stash:
            self._linger()
        else:
            self._begin_end()
            self._transport.close()

    def _linger(self) -> None:
        """Say no more, and let the client finish talking: closing at once could destroy our last words on their way."""
        self._begin_end()
        self._stash = b""
        self._resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def _begin_end(self) -> None:
        self._state = LINGER
        self._received = 0
        now = self._host.coarse_now
        self._mark = (now, unacknowledged_bytes(self._transport))
        self.deadline = now + self._host.limits.linger_seconds

    # time

    def deadline_passed(self, now: float) -> None:
        """The sweep says: `deadline` has passed."""
        limits = self._host.limits
        if self._state == LINGER or self._writing_paused:
            self._check_reader(now)
        elif self._stream is not None:
            if now - self._stream.quiet_since >= limits.keepalive_comment_seconds:
                self._stream.send_comment()
            self.deadline = self._stream.quiet_since + limits.keepalive_comment_seconds
        elif self._state in (FIXED, CHUNKED):
            allowed = self._started + limits.header_seconds + self._received / limits.body_bytes_per_second
            if now >= allowed:
                self._refuse(Refusal(408, "request_timeout"))
            else:
                self.deadline = allowed
        elif self._state == HEAD and self._stash:
            self._refuse(Refusal(408, "request_timeout"))
        elif self._state == HEAD:
            self._close()
        else:
            self.deadline = NEVER

    def _check_reader(self, now: float) -> None:
        """Cut a client that does not take what it is sent, or does not end what has ended."""
        limits = self._host.limits
        since, size = self._mark
        left = unacknowledged_bytes(self._transport)
        if self._state == LINGER and self._transport.get_write_buffer_size() == 0:
            self.cut()
        elif now - since < limits.stalled_reader_seconds:
            self.deadline = since + limits.stalled_reader_seconds
        elif size - left < limits.reader_bytes_per_second * (now - since):
            self.cut()
        else:
            self._mark = (now, left)
            self.deadline = now + limits.stalled_reader_seconds
