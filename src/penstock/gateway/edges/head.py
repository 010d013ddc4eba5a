"""What a request's header says to the gateway, worked out once for each header block.

Knows: the header fields both eras use. Does not know: bodies, views. Clients repeat their headers: as long as one
sends the same block, the facts are found in `Request.shared`.
"""

from typing import Final

from penstock.gateway.admittance import HOPPED, Admittance
from penstock.protocol.versions import Era, era_of

FACTS: Final = "mcp"
"""Where `Request.shared` holds them."""


class HeadFacts:
    """Facts of one header block under one admittance."""

    __slots__ = (
        "admittance",
        "cors",
        "is_counted",
        "is_modern",
        "is_repeated",
        "param_headers",
        "principal",
        "refusal",
        "session",
        "takes_stream",
        "version",
        "wants_timing",
    )

    def __init__(self, headers: dict[bytes, bytes], admittance: Admittance) -> None:
        self.admittance: Final = admittance
        self.refusal: Final = admittance.refusal(headers)
        """Why the request is not let in; None when it is."""
        self.principal: Final = admittance.principal(headers)
        """Who asks; empty while there is no sign-in."""
        self.cors: Final = admittance.cors(headers)
        self.is_counted: Final = not admittance.is_internal or HOPPED in headers
        """Whether a call is counted here; if not, the worker that the client reached does."""
        version = headers.get(b"mcp-protocol-version")
        self.version: Final = version.decode("latin-1") if version is not None else None
        self.is_modern: Final = self.version is not None and era_of(self.version) is Era.MODERN
        """By the header alone; the body may say so too."""
        self.is_repeated = False
        """A call with this block was judged before."""
        self.session: Final = headers.get(b"mcp-session-id")
        accept = headers.get(b"accept", b"")
        self.takes_stream: Final = b"text/event-stream" in accept or b"*/*" in accept
        self.wants_timing: Final = headers.get(b"penstock-timing") == b"1"
        self.param_headers: Final = tuple(
            (field, value) for field, value in headers.items() if field.startswith(b"mcp-param-")
        )

    def __repr__(self) -> str:
        return f"<HeadFacts {self.version or 'no version'}>"
