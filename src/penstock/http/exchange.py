"""One request and its answer, as a handler sees them.

Knows: the connection that carries it, the one task that answers it. Does not know: parsing, MCP.
Invariant: an exchange is answered at most once; `on_disconnect` is called at most once, and never after the answer.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from penstock.http.event_stream import EventStream
from penstock.http.messages import Body, Request
from penstock.http.passage import Give
from penstock.http.request_head import Refusal
from penstock.http.responses import JSON, refusal_body

log = logging.getLogger("penstock.http")

NO_ANSWER = refusal_body(Refusal(500, "no_answer"))


class Link(Protocol):
    """What an exchange asks of its connection."""

    def answer(self, status: int, body: Body, content_type: bytes, headers: bytes) -> None:
        """Send the whole response."""

    def begin_stream(self, headers: bytes) -> EventStream:
        """Send the head of an event stream."""

    def give_away(self, give: Give) -> bool:
        """Let another process have the client, and answer it; False where that cannot be."""

    def cut(self) -> None:
        """Give the client up at once."""


class Calls(Protocol):
    """Who keeps account of the calls under way."""

    tasks: set[asyncio.Task[None]]

    def call_ended(self, task: asyncio.Task[None]) -> None:
        """The task is done: take it out of `tasks`."""


class Exchange:
    """A request that waits for its answer."""

    __slots__ = (
        "_calls",
        "_link",
        "_task",
        "extra_headers",
        "is_answered",
        "is_disconnected",
        "on_disconnect",
        "outlives_task",
        "received_at",
        "request",
    )

    def __init__(self, link: Link, calls: Calls, request: Request, received_at: float) -> None:
        self._link: Link | None = link
        self._calls = calls
        self._task: asyncio.Task[None] | None = None
        self.request: Final = request
        self.received_at: Final = received_at
        """Monotonic seconds, when the request was complete."""
        self.on_disconnect: Callable[[], object] | None = None
        """Called once if the client goes away before the answer is complete."""
        self.extra_headers = b""
        """Whole header lines that go out with the answer, whoever gives it: what CORS needs."""
        self.is_answered = False
        """A response was sent, or a stream was opened."""
        self.is_disconnected = False
        self.outlives_task = False
        """The answer comes by other hands than those of its task, which may end before."""

    def __repr__(self) -> str:
        state = "disconnected" if self.is_disconnected else "answered" if self.is_answered else "waiting"
        return f"<Exchange {self.request.method.decode()} {self.request.path} {state}>"

    def respond(self, status: int, body: Body = b"", content_type: bytes = JSON, headers: bytes = b"") -> None:
        """Answer in one write; `headers` are whole lines. Nothing is sent when the client is gone."""
        if self.is_answered:
            raise RuntimeError(f"{self!r} has its answer already")
        self.is_answered = True
        link = self._link
        if link is not None:
            self._link = self.on_disconnect = None
            link.answer(status, body, content_type, headers + self.extra_headers)

    def open_stream(self, headers: bytes = b"") -> EventStream:
        """Answer with an event stream; to a client that is gone, the stream is one that goes nowhere."""
        if self.is_answered:
            raise RuntimeError(f"{self!r} has its answer already")
        self.is_answered = True
        link = self._link
        return EventStream.closed() if link is None else link.begin_stream(headers + self.extra_headers)

    def give_away(self, give: Give) -> bool:
        """Let another process have the client's connection, and answer; False, and nothing has happened, where that cannot be."""
        link = self._link
        if link is None or self.is_answered or not link.give_away(give):
            return False
        self.is_answered = True
        self._link = self.on_disconnect = None
        return True

    def member(self, link: Link, request: Request | None = None) -> "Exchange":
        """A part of this request that is answered by itself, to `link`: what a batch is made of.

        `request` is what would have brought the part alone; needed only if another worker may be handed it.
        """
        return Exchange(link, self._calls, self.request if request is None else request, self.received_at)

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run the call's one task; kept until it ends. If it ends without an answer, the client gets a 500."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._task = task
        self._calls.tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def release(self) -> None:
        """The task that was spawned ends without an answer, and somebody else will give it."""
        self._task = None

    def answer_completed(self) -> None:
        """The connection says: the stream has its last event."""
        self._link = self.on_disconnect = None

    def disconnected(self) -> None:
        """The connection says: the client is gone."""
        self.is_disconnected = True
        self._link = None
        notify, self.on_disconnect = self.on_disconnect, None
        if notify is not None:
            notify()

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._calls.call_ended(task)
        was_mine = self._task is task
        if was_mine:
            self._task = None
        error = None if task.cancelled() else task.exception()
        if error is not None or (was_mine and self._link is not None and not self.outlives_task):
            self.failed(error)

    def failed(self, error: BaseException | None) -> None:
        """Nobody will answer any more: log why once, and let the client not wait."""
        if error is not None:
            log.error("a call failed by an error of ours: %r", self, exc_info=error)
        link = self._link
        if link is None:
            return
        if self.is_answered:
            link.cut()  # an unfinished stream must not look finished
        else:
            self.respond(500, NO_ANSWER)
