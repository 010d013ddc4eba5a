"""A call that could be written at once: its connection settles it, without a coroutine of its own.

Knows: one connection on loan, what takes the answer. Does not know: either era's rules. Nearly every call of a warm gateway goes
this way; whatever is not ordinary about the answer is handed to a coroutine of the side, which judges it.
Invariant: `call.on_end` is called exactly once, and by then the connection is given back, or comes back by itself.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, ClassVar, Final

from penstock.errors import ServerError, ServerMisbehaved
from penstock.http.client import ClientConnection, RequestFailed, Response
from penstock.protocol.envelopes import compact_result
from penstock.protocol.event_stream import Event
from penstock.upstreams.calls import Answer, Call, Result
from penstock.upstreams.pool import Pool
from penstock.upstreams.streamable_http_reception import Reception
from penstock.upstreams.streamable_http_side import Side, Supervisor, fail_with

_MESSAGE: Final = b"message"


class Flight:
    """One call under way over one borrowed connection; the connection's waiter."""

    __slots__ = (
        "_answer",
        "_call",
        "_connection",
        "_follows",
        "_id",
        "_is_over",
        "_pool",
        "_reception",
        "_side",
        "_supervisor",
    )

    takes_views: ClassVar[bool] = True

    def __init__(
        self,
        supervisor: Supervisor,
        side: Side,
        call: Call,
        request_id: bytes,
        connection: ClientConnection,
        pool: Pool[ClientConnection],
    ) -> None:
        self._supervisor: Final = supervisor
        self._side: Final = side
        self._call: Final = call
        self._id: Final = request_id
        self._connection: ClientConnection | None = connection
        self._pool: Final = pool
        self._reception: Reception | None = None
        self._answer: Answer | None = None
        self._follows: asyncio.Task[Answer] | None = None
        self._is_over = False

    def __repr__(self) -> str:
        state = "over" if self._is_over else "followed" if self._follows is not None else "under way"
        return f"<Flight {self._call!r} {state}>"

    def cancel(self) -> None:
        """End it: the connection is closed, or left to end by itself, as it was set up to."""
        if self._is_over:
            return
        connection, follows = self._connection, self._follows
        if follows is not None:  # not before it has begun: then it tells the server what has to be told
            asyncio.get_running_loop().call_soon(follows.cancel)
        if connection is not None:
            connection.abandon()
            if self._answer is None and (self._reception is None or self._reception.reply is None):
                self._side.cancelled(
                    self._id
                )  # before it lands: what its server says until it knows is for nobody else
            self._give_back(connection)
            self._land()
        self._end(None)

    def on_event(self, event: Event) -> bool:
        """The connection's callback for each event; see `Reception.on_event`."""
        reception = self._reception
        if reception is None:
            if event.event == _MESSAGE:
                self._answer = self._ordinary(event.data)
                if self._answer is not None:  # what nearly every stream consists of
                    return True
            reception = self._reception = self._side.reception(self._call, self._id)
        return reception.on_event(event)

    def settle(self, status: int, headers: dict[bytes, bytes], body: bytes | memoryview, first_byte_at: float) -> None:
        """The connection has the answer."""
        connection = self._connection
        if connection is not None:
            self._give_back(connection)
        self._call.first_byte_at = first_byte_at
        reception = self._reception
        answer = self._answer
        if answer is None and status == 200:
            if reception is not None:
                answer = reception.answer()
            elif headers.get(b"content-type", b"").startswith(b"application/json"):
                answer = self._ordinary(body)
        if answer is None:
            self._think_again(Response(status, headers, bytes(body), first_byte_at))
            return
        self._land()
        self._end(answer)

    def lose(self, error: BaseException) -> None:
        """The connection has failed, or the reception refused what came."""
        connection = self._connection
        if connection is not None:
            self._give_back(connection)
        if isinstance(error, RequestFailed):
            self._think_again(error)
            return
        self._side.cancelled(self._id)
        self._land()
        if isinstance(error, ServerError):
            self._follow(fail_with(error))
        else:
            self._follow(
                fail_with(ServerMisbehaved(self._supervisor.name, f"its answer could not be taken in: {error!r}"))
            )

    def _ordinary(self, body: bytes | memoryview) -> Answer | None:
        """The answer, when a body with status 200 and a JSON type is nothing but that."""
        compact = compact_result(body, self._id)
        return None if compact is None else Result(compact[0], self._side.era, compact[1])

    def _think_again(self, came: Response | RequestFailed) -> None:
        reception = self._reception
        if reception is None:
            reception = self._reception = self._side.reception(self._call, self._id)
        self._follow(self._side.unusual(self._call, reception, came))

    def _land(self) -> None:
        """The call is over; one that is thought of again lands when that is done, which is the side's affair."""
        landed = self._side.landed
        if landed is not None:
            landed(self._id)

    def _give_back(self, connection: ClientConnection) -> None:
        self._connection = None
        if connection.is_busy:  # the answer is had, or nobody waits for it, but it has not ended
            connection.on_settled = self._pool.give_back
        else:
            self._pool.give_back(connection)

    def _follow(self, work: Coroutine[Any, Any, Answer]) -> None:
        task = asyncio.get_running_loop().create_task(self._supervisor.follow(self._call, work))
        self._follows = task
        task.add_done_callback(self._followed)

    def _followed(self, task: asyncio.Task[Answer]) -> None:
        self._follows = None
        error = None if task.cancelled() else task.exception()
        if self._is_over:  # cancelled meanwhile
            return
        if task.cancelled():
            self._end(None)
        elif error is None:
            self._end(task.result())
        elif isinstance(error, ServerError):
            self._end(error)
        else:  # a fault of ours, which must not leave the client waiting
            self._end(ServerMisbehaved(self._supervisor.name, f"its answer could not be taken in: {error!r}"))

    def _end(self, outcome: Answer | ServerError | None) -> None:
        self._is_over = True
        on_end = self._call.on_end
        if on_end is not None:
            on_end(outcome)
