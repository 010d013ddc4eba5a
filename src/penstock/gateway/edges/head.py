"""What a request's header says to the gateway, worked out once for each header block.

Knows: the header fields both eras use. Does not know: bodies, views. Clients repeat their headers: as long as a connection
sends the same block, the facts are found in `Request.shared`.
"""

from typing import Final

import msgspec

from penstock.gateway.admittance import Admittance
from penstock.http.messages import Request
from penstock.protocol.headers import decode_value
from penstock.protocol.versions import Era, era_of

_KEY: Final = "mcp"


class HeadFacts:
    """Facts of one header block under one admittance."""

    __slots__ = (
        "admittance",
        "cors",
        "is_modern",
        "method",
        "name",
        "name_json",
        "param_headers",
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
        self.cors: Final = admittance.cors(headers)
        version = headers.get(b"mcp-protocol-version")
        self.version: Final = version.decode("latin-1") if version is not None else None
        self.is_modern: Final = self.version is not None and era_of(self.version) is Era.MODERN
        """By the header alone; the body may say so too."""
        method, name = headers.get(b"mcp-method"), headers.get(b"mcp-name")
        self.method: Final = method.decode("latin-1") if method is not None else None
        self.name: Final = decode_value(name) if name is not None else None
        """Decoded; None when missing or not decodable."""
        self.name_json: Final = msgspec.json.encode(self.name) if self.name is not None else None
        """As most clients write it in the body."""
        self.session: Final = headers.get(b"mcp-session-id")
        accept = headers.get(b"accept", b"")
        self.takes_stream: Final = b"text/event-stream" in accept or b"*/*" in accept
        self.wants_timing: Final = headers.get(b"penstock-timing") == b"1"
        self.param_headers: Final = tuple(
            (field, value) for field, value in headers.items() if field.startswith(b"mcp-param-")
        )

    def __repr__(self) -> str:
        return f"<HeadFacts {self.version or 'no version'} {self.method or ''}>"


def head_facts(request: Request, admittance: Admittance) -> HeadFacts:
    """The facts of the request's header block."""
    known = request.shared.get(_KEY)
    if isinstance(known, HeadFacts) and known.admittance is admittance:
        return known
    facts = HeadFacts(request.headers, admittance)
    request.shared[_KEY] = facts
    return facts
