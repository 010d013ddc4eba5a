"""Who waits for the answer to a request: a callback's owner, or a coroutine.

Knows: what a connection tells them. Does not know: how it learns it.
"""

import asyncio
from typing import ClassVar, Protocol

from penstock.http.client_answer import OnEvent
from penstock.http.client_messages import Response


class Waiter(Protocol):
    """Who waits for an answer; told exactly one of the two, once, unless it abandoned the request before."""

    takes_views: ClassVar[bool]
    """Whether large bodies and data of events may come as views of what was read: that spares copies."""

    def settle(self, status: int, headers: dict[bytes, bytes], body: bytes | memoryview, first_byte_at: float) -> None:
        """The answer is there; the connection is idle again, or busy with the rest of a stream, or closed."""

    def lose(self, error: BaseException) -> None:
        """There will be none; the connection is closed."""


class Awaited(asyncio.Future[Response]):
    """A waiter that is awaited."""

    takes_views: ClassVar[bool] = False

    def settle(self, status: int, headers: dict[bytes, bytes], body: bytes | memoryview, first_byte_at: float) -> None:
        if not self.done():
            self.set_result(Response(status, headers, bytes(body), first_byte_at))

    def lose(self, error: BaseException) -> None:
        if not self.done():
            self.set_exception(error)


class Requests(Protocol):
    """What takes one request at a time; see `ClientConnection`."""

    def begin(self, waiter: Waiter, head: bytes, body: bytes = b"", on_event: OnEvent | None = None) -> None:
        """Write one request; `waiter` takes its answer."""

    def abandon(self) -> None:
        """Nobody wants the answer any more."""


async def awaited(
    connection: Requests, loop: asyncio.AbstractEventLoop, head: bytes, body: bytes, on_event: OnEvent | None
) -> Response:
    """The answer to one request; cancelling abandons it."""
    waiter = Awaited(loop=loop)
    connection.begin(waiter, head, body, on_event)
    try:
        return await waiter
    except asyncio.CancelledError:
        connection.abandon()
        raise
    finally:
        del waiter  # its error holds this frame
