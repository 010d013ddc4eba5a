"""HTTP+SSE as what a conversation is carried over: one stream on which all comes, and a POST for each message.

Knows: the stream, the endpoint announced on it, what a POST's status means. Does not know: what messages mean, who talks.
Invariants: messages go to the URL's own origin alone, as they carry its credentials; what is no request is sent behind all that
was sent before it; requests do not wait for each other.

Source: 2024-11-05 basic/transports, "HTTP with SSE".
"""

import asyncio
from collections.abc import Callable
from typing import Final
from urllib.parse import urljoin

from penstock.errors import ServerError, ServerMisbehaved, ServerUnavailable
from penstock.http.client import ClientConnection, RequestFailed, Response, parse_url
from penstock.protocol.event_stream import Event
from penstock.upstreams.legacy_sse_settings import LegacySseSettings
from penstock.upstreams.streamable_http_handshake import NotLegacyAnswer
from penstock.upstreams.streamable_http_link import HttpLink, content_length, extra_lines
from penstock.upstreams.streamable_http_refusals import (
    failed_request,
    is_event_stream,
    refusal,
    speaks_of_session,
)
from penstock.upstreams.wire import Headers

_MESSAGE: Final = b"message"
_ENDPOINT: Final = b"endpoint"


class SseForgotten(ServerUnavailable):
    """The server does not know the conversation any more, so it has not processed what was sent."""


class SseWire:
    """One stream, and the POSTs that belong to it. See `Wire`."""

    __slots__ = (
        "_asking",
        "_connection",
        "_dropped",
        "_endpoint",
        "_is_open",
        "_last_told",
        "_link",
        "_listening",
        "_post_head",
        "_refusal",
        "_settings",
        "_telling",
        "_told_error",
        "_unsent",
        "_why",
        "on_over",
        "received",
    )

    def __init__(self, link: HttpLink, settings: LegacySseSettings, dropped: Callable[[], None]) -> None:
        """`dropped` is told of each message that was not sent, as too many wait."""
        self._link, self._settings = link, settings
        self._dropped: Final = dropped
        self.received: Callable[[bytes], None] | None = None
        """Takes each message; set before `open`."""
        self.on_over: Callable[[], None] | None = None
        """Told once when the stream has ended, unless `close` ended it; set before `open`."""
        self._connection: ClientConnection | None = None
        self._listening: asyncio.Task[None] | None = None
        self._endpoint: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._post_head = b""
        self._is_open = False
        self._refusal: Response | None = None
        self._why: ServerError | None = None
        self._unsent = 0
        self._asking: set[asyncio.Task[None]] = set()
        """POSTs of requests that are under way."""
        self._telling: set[asyncio.Task[None]] = set()
        """Other POSTs, under way or waiting for those before them."""
        self._last_told: asyncio.Task[None] | None = None
        self._told_error: ServerError | None = None

    def __repr__(self) -> str:
        state = "open" if self._is_open else "over" if self._why is not None else "not open"
        return f"<SseWire {self._link.name} {state} | {len(self._asking)} asking {len(self._telling)} telling>"

    async def open(self) -> bytes:
        """Open the stream and wait for the endpoint; returns where messages go, as a request target.

        Raises:
            NotLegacyAnswer: this is no server of HTTP+SSE.
            ServerError: it cannot be reached, or does not announce an endpoint that can be used.
        """
        name, seconds = self._link.name, self._settings.http.handshake_seconds
        self._connection = await self._link.open_apart()
        self._listening = asyncio.get_running_loop().create_task(self._listen(self._connection), name=f"{name} stream")
        await asyncio.wait((self._endpoint, self._listening), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if self._refusal is not None:
            raise self._why_refused(self._refusal)
        if not self._endpoint.done():
            if self._why is not None:
                raise self._why
            raise ServerMisbehaved(
                name,
                f"it opened an event stream, but did not announce in {seconds:g} s where to POST to (an event 'endpoint')",
            )
        target = self._target_of(self._endpoint.result())
        self._post_head = b"POST %b%b" % (target, self._link.post_head[self._link.post_head.index(b" HTTP/1.1\r\n") :])
        self._is_open = self._why is None
        return target

    async def flush(self) -> None:
        """Wait until all that was told has been sent.

        Raises:
            ServerError: something of it was refused, or did not reach the server.
        """
        if self._last_told is not None:
            await asyncio.wait((self._last_told,))
        if self._told_error is not None:
            raise self._told_error

    def close(self) -> None:
        """End the stream, and what is still to be sent. Idempotent."""
        self._is_open = False
        self.on_over = self.received = None
        for task in (*self._asking, *self._telling, *([self._listening] if self._listening is not None else [])):
            task.cancel()
        if self._connection is not None:
            self._connection.close()

    # a conversation's wire

    @property
    def is_writable(self) -> bool:
        """See `Wire`."""
        return self._is_open

    @property
    def unsent_bytes(self) -> int:
        """See `Wire`."""
        return self._unsent

    @property
    def lines(self) -> str:
        """See `Wire`."""
        return "events"

    def ask(self, message: bytes, lost: Callable[[ServerError], None], headers: Headers = ()) -> None:
        """See `Wire`."""
        lines = extra_lines(headers, with_params=False) if headers else b""
        self._begin(self._asking, self._ask(message, lines, lost), len(message))

    def tell(self, message: bytes) -> None:
        """See `Wire`."""
        if len(self._telling) >= self._settings.http.max_background:
            self._dropped()
        elif self._is_open:
            before = (*self._asking, *([self._last_told] if self._last_told is not None else []))
            self._last_told = self._begin(self._telling, self._tell(message, before), len(message))

    def kill(self) -> None:
        """See `Wire`."""
        if self._connection is not None:
            self._connection.close()

    def why_over(self, complaint: str, *, is_closing: bool) -> ServerError:
        """See `Wire`."""
        if complaint:
            return ServerMisbehaved(
                self._link.name, f"{complaint}; its event stream was ended, the next call opens another"
            )
        if self._why is not None:
            return type(self._why)(self._link.name, self._why.message.removeprefix(f"server '{self._link.name}': "))
        how = "is being ended" if is_closing else "is not open"
        return ServerUnavailable(self._link.name, f"its event stream {how}; the next call opens another")

    # the stream

    async def _listen(self, connection: ClientConnection) -> None:
        name = self._link.name
        try:
            response = await connection.request(self._link.get_head + b"\r\n", b"", self._on_event)
        except RequestFailed as error:
            self._over(failed_request(name, error))
        else:
            if response.status != 200 or not is_event_stream(response):
                self._refusal = response
            self._over(ServerUnavailable(name, "it closed its event stream; see its log"))
        finally:
            connection.close()

    def _on_event(self, event: Event) -> bool:
        if event.event == _MESSAGE:
            if self.received is not None:
                self.received(bytes(event.data))
        elif event.event == _ENDPOINT and not self._endpoint.done():
            self._endpoint.set_result(bytes(event.data[: self._settings.endpoint_bytes + 1]).decode("utf-8", "replace"))
        return False

    def _over(self, why: ServerError) -> None:
        self._why, self._is_open = why, False
        on_over, self.on_over = self.on_over, None
        if on_over is not None:
            on_over()

    def _target_of(self, said: str) -> bytes:
        name, origin = self._link.name, self._link.origin
        if len(said) > self._settings.endpoint_bytes:
            raise ServerMisbehaved(name, f"it announced an endpoint of more than {self._settings.endpoint_bytes} bytes")
        try:
            theirs, target, _ = parse_url(urljoin(self._link.url, said.strip()))
        except ValueError as error:
            raise ServerMisbehaved(name, f"it announced an endpoint that cannot be used: {error}") from error
        if theirs != origin:
            raise ServerMisbehaved(
                name,
                f"it announced an endpoint at {theirs}, where Penstock sends nothing, as its URL is at {origin}; have it "
                "announce a path alone, or correct its URL",
            )
        return target

    def _why_refused(self, response: Response) -> Exception:
        if response.status in (401, 403, 429) or response.status >= 500:
            return refusal(self._link.name, self._link.url, response)
        return NotLegacyAnswer(f"answered a GET with HTTP {response.status}, and no event stream")

    # messages to the server

    def _begin(
        self, tasks: set[asyncio.Task[None]], work: "asyncio._CoroutineLike[None]", size: int
    ) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._unsent += size
        tasks.add(task)

        def ended(_: asyncio.Task[None]) -> None:
            self._unsent -= size
            tasks.discard(task)

        task.add_done_callback(ended)
        return task

    async def _ask(self, message: bytes, lines: bytes, lost: Callable[[ServerError], None]) -> None:
        error = await self._post(message, lines, self._settings.http.handshake_seconds)
        if error is not None:
            lost(error)

    async def _tell(self, message: bytes, before: tuple[asyncio.Task[None], ...]) -> None:
        seconds = self._settings.http.background_seconds
        if before:
            await asyncio.wait(before, timeout=seconds)
        self._told_error = await self._post(message, b"", seconds)

    async def _post(self, message: bytes, lines: bytes, seconds: float) -> ServerError | None:
        """Send one message; why the server has not taken it. One that is slow to say so has taken it, as far as we know."""
        head = b"%b%b%b" % (self._post_head, lines, content_length(message))
        try:
            async with asyncio.timeout(seconds):
                response = await self._link.send(head, message, _until_any, detach=True)
        except TimeoutError:
            return None
        except RequestFailed as error:
            return failed_request(self._link.name, error)
        except ServerError as error:
            return error
        if response.status < 300:
            return None
        if response.status == 404 or speaks_of_session(response):
            return SseForgotten(
                self._link.name, "it does not know the conversation any more; the next call opens another"
            )
        return refusal(self._link.name, self._link.url, response)


def _until_any(_: object) -> bool:
    return True
