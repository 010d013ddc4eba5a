"""One message of the client on its way through the gateway, from its request to its last word.

Knows: one HTTP exchange at a time, when an answer is final, what may be sent again. Does not know: headers, sessions, schemas;
its side does. Invariant: a request is answered at most once, and exactly once unless the client cancelled it.
"""

import asyncio
import logging
from typing import Final, Protocol

from penstock.cli.bridge.answers import answer_line, event_line, refusal
from penstock.cli.bridge.link import GatewayLink, Sent
from penstock.cli.bridge.pipes import OutputPipe
from penstock.http.client import RequestFailed, Response, ResponseTooLarge
from penstock.protocol.event_stream import Event
from penstock.protocol.messages import Message, Reply, Request

_log = logging.getLogger(__name__)
REPEATABLE: Final = frozenset(
    {
        "initialize",
        "ping",
        "server/discover",
        "tools/list",
        "prompts/list",
        "prompts/get",
        "completion/complete",
        "resources/list",
        "resources/templates/list",
        "resources/read",
        "resources/subscribe",
        "resources/unsubscribe",
        "logging/setLevel",
    }
)
"""What changes nothing, or the same thing twice: sent again when the gateway goes away in the middle of it."""
POST_HEADERS: Final = b"accept: application/json, text/event-stream\r\ncontent-type: application/json\r\n"
_MOST_TRIES: Final = 3


class Side(Protocol):
    """What one era adds to a message, and learns from its answer."""

    def headers(self, flight: "Flight") -> bytes:
        """Header lines of the message, as they are now."""

    async def put_right(self, flight: "Flight", response: Response) -> bool:
        """Whether something was put right, so that the message can be sent again."""

    def answered(self, flight: "Flight", response: Response, line: bytes) -> None:
        """The message has its answer, which is passed on already; `line` is empty where there is none to pass on."""


class Flight:
    """A request, a notification, a reply or a batch under way."""

    __slots__ = (
        "_final",
        "_has_said",
        "_left",
        "_link",
        "_output",
        "_sent",
        "_tries",
        "ids",
        "is_cancelled",
        "line",
        "message",
        "method",
        "sent_with",
        "side",
        "task",
    )

    def __init__(
        self, link: GatewayLink, output: OutputPipe, side: Side, line: bytes, message: Message | None, *ids: bytes
    ) -> None:
        """`message` is what the line says, None for a batch; `ids` are those of the requests in it."""
        self._link: Final = link
        self._output: Final = output
        self.side: Final = side
        self.line: Final = line
        self.message: Final = message
        self.ids: Final = ids
        self.method: Final = "" if message is None or isinstance(message, Reply) else message.method
        self.sent_with: object = None
        """What the side keeps of what it sent it with."""
        self.task: asyncio.Task[None] | None = None
        self.is_cancelled = False
        """The client does not want an answer any more, so that none coming is no error."""
        self._sent: Sent | None = None
        self._tries = 0
        self._left: Final = set(ids)
        """Ids that wait for their answer."""
        self._final = b""
        self._has_said = False
        """Something was passed on before the answer. Clients of the TypeScript SDKs take notifications up later than answers, and
        lose those that they read together with the answer."""

    def __repr__(self) -> str:
        state = "cancelled" if self.is_cancelled else f"waits for {len(self._left)}"
        return f"<Flight {self.method or 'message'} {b' '.join(self.ids).decode()} {state}>"

    @property
    def is_long_lived(self) -> bool:
        """Whether it ends only when somebody ends it."""
        return self.method == "subscriptions/listen"

    async def write(self) -> bool:
        """Send it; where that fails the client is told, and False is returned."""
        try:
            await self._write()
        except RequestFailed as error:
            self._fail(error)
            return False
        return True

    async def run(self) -> None:
        """After `write`: wait for the answer and pass it on."""
        try:
            while not await self._is_settled():
                await self._write()
        except RequestFailed as error:
            self._fail(error)

    def cancel(self) -> None:
        """End it at once and without a word: closing its response is how a modern call is cancelled."""
        self.is_cancelled = True
        if self.task is not None:
            self.task.cancel()
        if self._sent is not None:
            self._sent.abandon()

    def refuse(self, code: int, message: str, reason: str) -> None:
        """Answer what waits for an answer with an error."""
        left = [one for one in self.ids if one in self._left]
        self._left.clear()
        if not self.is_cancelled:
            for one in left:
                self._output.write(refusal(one, code, message, reason))

    def on_event(self, event: Event) -> bool:
        """A message of the answer's stream."""
        if not event.data:
            return False
        found = event_line(bytes(event.data))
        if found is None:
            _log.warning("an event of the gateway at %s was no message, and is left out", self._link.url)
            return False
        line, answered = found[0], self._left & found[1]
        self._output.write(line, apart=bool(answered) and self._has_said)
        if not answered:
            self._has_said = True
            return False
        self._left.difference_update(answered)
        self._final = line
        return not self._left

    async def _write(self) -> None:
        self._tries += 1
        self._sent = None  # or a failure to connect would look like an answer that was lost
        headers = POST_HEADERS + self.side.headers(self)
        self._sent = await self._link.begin("POST", headers, self.line, self.on_event)

    async def _is_settled(self) -> bool:
        """Wait for the answer; False when the message is to be sent again."""
        assert self._sent is not None
        try:
            response = await self._sent.answer()
        except RequestFailed as error:
            if self._may_be_repeated(error):
                return False
            raise
        if self.ids and not self._left:
            self.side.answered(self, response, self._final)
            return True
        if self._tries < _MOST_TRIES and await self.side.put_right(self, response):
            return False
        if not self.ids:
            self._take_receipt(response)
        elif response.status == 200 and not response.body:
            message = f"the gateway at {self._link.url} ended the answer's stream without an answer"
            self.refuse(502, message, "bad_answer")
        else:
            self._pass_on(response)
        return True

    def _take_receipt(self, response: Response) -> None:
        """Of what has no answer."""
        if response.status >= 300:
            what = self.method or "reply"
            _log.warning("the gateway at %s took no %s: status %d", self._link.url, what, response.status)
        self.side.answered(self, response, b"")

    def _pass_on(self, response: Response) -> None:
        """A plain answer."""
        whole = event_line(response.body) if self.message is None and response.status == 200 else None
        lines = [whole[0]] if whole is not None else [answer_line(one, response, self._link.url) for one in self.ids]
        self._left.clear()
        for line in lines:
            self._output.write(line)
        self.side.answered(self, response, lines[0])

    def _may_be_repeated(self, error: RequestFailed) -> bool:
        if isinstance(error, ResponseTooLarge) or self._tries >= _MOST_TRIES or self.is_cancelled:
            return False
        if isinstance(self.message, Request):
            return self.method in REPEATABLE and bool(self._left)
        return self.message is not None

    def _fail(self, error: RequestFailed) -> None:
        if not self.ids:
            _log.warning("%s did not reach the gateway: %s", self.method or "a reply", error.reason)
        elif isinstance(error, ResponseTooLarge):
            self.refuse(502, f"the answer cannot be passed on: {error.reason}", "answer_too_large")
        elif self._sent is None:
            self.refuse(503, f"{error.reason}; start the gateway with 'penstock serve'", "gateway_unavailable")
        else:
            self.refuse(503, f"{error.reason}; whether the request was carried out is not known", "gateway_lost")
