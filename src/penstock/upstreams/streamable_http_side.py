"""What a call under way asks of the two sides of an HTTP server, and of the server itself.

Knows: what has to be judged about an answer. Does not know: either era's rules.
"""

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from penstock.errors import ServerError
from penstock.http.client import RequestFailed, Response
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Answer, Call
from penstock.upstreams.streamable_http_reception import Reception


class Side(Protocol):
    """One era's way of judging what comes for a call."""

    @property
    def era(self) -> Era:
        """Of the call as it was written, and so of its answer."""
        ...

    def reception(self, call: Call, request_id: bytes) -> Reception:
        """What takes in an answer that comes in more than one piece."""

    async def unusual(self, call: Call, reception: Reception, came: Response | RequestFailed) -> Answer:
        """What becomes of a call whose answer is not ordinary, or never came."""

    def cancelled(self, request_id: bytes) -> None:
        """The caller does not wait any more; the server has not answered."""

    @property
    def landed(self) -> Callable[[bytes], None] | None:
        """Told once for each flight, by its id, that it has ended, unless `unusual` was asked, which knows then; None when nobody
        needs to know.
        """
        ...


class Supervisor(Protocol):
    """The upstream both sides belong to: it knows what to try when a server does not fit its era any more."""

    @property
    def name(self) -> str:
        """The server's."""
        ...

    async def follow(self, call: Call, work: Coroutine[Any, Any, Answer]) -> Answer:
        """The outcome of a side's second thoughts."""


async def fail_with(error: ServerError) -> Answer:
    """Second thoughts that have ended before they began."""
    raise error
