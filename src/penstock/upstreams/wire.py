"""What a conversation with a server asks of its transport.

Knows: whole messages as bytes. Does not know: what they mean, what carries them.
"""

from collections.abc import Callable
from typing import Protocol

from penstock.errors import ServerError

Headers = tuple[tuple[bytes, bytes], ...]


class Wire(Protocol):
    """What carries messages to the server; what comes from there is handed to `Conversation.received`."""

    @property
    def is_writable(self) -> bool:
        """Whether anything can be sent."""
        ...

    @property
    def unsent_bytes(self) -> int:
        """Sent by us, and not taken by the server yet."""
        ...

    def ask(self, message: bytes, lost: Callable[[ServerError], None], headers: Headers = ()) -> None:
        """Send a request, in bytes without a line end.

        Args:
            lost: told when the request is known not to have reached the server.
            headers: of the client's call, for a transport that has headers.
        """

    def tell(self, message: bytes) -> None:
        """Send what is no request, behind all that was sent before it; without effect when nothing can be sent."""

    @property
    def lines(self) -> str:
        """What the server's messages are there, in the plural: for people."""
        ...

    def kill(self) -> None:
        """End it at once, without waiting."""

    def why_over(self, complaint: str, *, is_closing: bool) -> ServerError:
        """Why nothing can be asked any more. `complaint`: what the server did that made us end it; empty when it behaved."""


class Bounds(Protocol):
    """What one conversation may cost; the settings of each transport have these."""

    @property
    def max_in_flight(self) -> int:
        """Calls under way at a time."""
        ...

    @property
    def max_unsent_bytes(self) -> int:
        """What may wait for a server that does not read."""
        ...

    @property
    def turn_seconds(self) -> float:
        """How long a call waits for its turn with a server that asks clients."""
        ...

    @property
    def junk_lines(self) -> int:
        """Messages in a row that are none, until the server is given up."""
        ...

    @property
    def client_info(self) -> bytes:
        """JSON object: who we are in a modern request that nobody's call caused."""
        ...
