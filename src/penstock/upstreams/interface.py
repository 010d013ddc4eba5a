"""What the gateway may ask of a server behind it, whatever its transport and era.

Knows: calls and their answers. Does not know: HTTP of the client's side, views, policies.
"""

from typing import Any, Protocol, runtime_checkable

import msgspec

from penstock.protocol.versions import Era
from penstock.upstreams.calls import Answer, Call, Caller, Cancellable, Failure, Heard, Raw


class Description(msgspec.Struct, frozen=True):
    """What a server says of itself (`server/discover`, or the result of `initialize`)."""

    eras: tuple[Era, ...]
    """Eras it was seen to speak, preferred first."""
    versions: tuple[str, ...]
    server_info: Raw
    """JSON object, `{}` when it did not say."""
    capabilities: Raw
    """JSON object."""
    instructions: str = ""
    ttl_ms: int = 0


@runtime_checkable
class QuickUpstream(Protocol):
    """An upstream that can send some calls at once, without a coroutine."""

    def start(self, call: Call) -> Cancellable | None:
        """Send the call now if nothing has to be waited for before: `call.on_end` takes the outcome, in a later turn of the loop.

        None: nothing was sent; use `Upstream.call`. Cancelling what is returned does what cancelling `call` does.
        """
        ...


@runtime_checkable
class SubscribesApart(Protocol):
    """An upstream some of whose servers tell of a resource only in the session that has subscribed to it, or has changed it."""

    async def subscribe_apart(self, caller: Caller, uri: str) -> None:
        """Subscribe in that caller's own session too, if it has one; of what is heard there its `sink` is told."""

    async def unsubscribe_apart(self, caller: Caller, uri: str) -> None:
        """Stop that; whatever the server says."""


class Upstream(Protocol):
    """One configured server. Implementations: streamable_http, stdio, in_memory."""

    @property
    def name(self) -> str: ...

    async def call(self, call: Call) -> Answer:
        """Send one request, hand its notifications to `call.notify`, return the answer.

        Cancelling the awaiting task cancels the call at the server in its own era's way (modern HTTP: the stream is closed;
        otherwise `notifications/cancelled`), without waiting for the server.

        Raises:
            ServerError: the server could not be reached or did not answer properly; nothing is held afterwards.
        """
        ...

    async def describe(self, caller: Caller | None = None) -> Description:
        """Detect eras if unknown and return what the server says of itself.

        Raises:
            ServerError: as for `call`.
        """
        ...

    async def close_session(self, session: str) -> None:
        """The legacy client session of that name has ended: end what was opened for it at the server."""
        ...

    def binds(self, caller: Caller) -> bool:
        """Whether the server holds something for that caller's own session: then all its calls must come through one worker."""
        ...

    def roots_changed(self, caller: Caller) -> None:
        """The roots of a legacy client are others now: tell a server that holds something for its session."""
        ...

    def hear(self, heard: Heard) -> None:
        """Tell of changes from now on, and ask the server to tell them where it has to be asked; the last one given hears.

        Whatever becomes of connection, session or process, it is asked again, until `close`. That a list has changed may be told
        more than once: by each session in which the server says it.
        """
        ...

    async def subscribe(self, uri: str) -> Failure | None:
        """Tell of updates of that resource as well; the server's error when it refuses. Once for each resource.

        Raises:
            ServerError: as for `call`.
        """
        ...

    async def unsubscribe(self, uri: str) -> None:
        """Stop that; whatever the server says."""
        ...

    def state(self) -> dict[str, Any]:
        """JSON-ready facts for `list` and `explain`: sessions, connections, process. No secrets. Every transport gives:

        transport; eras: the names of those it was seen to speak; spoken_with: by the era of the client, the one spoken to the
        server for it, None while it is not known; last_error: empty when there was none.
        """
        ...

    def recent_log(self, lines: int) -> list[str]:
        """The last lines a stdio server wrote to stderr, oldest first; empty for other transports."""
        ...

    async def close(self) -> None:
        """End sessions, connections and processes. Idempotent; bounded in time (5 s)."""
        ...
