"""What a legacy session's id holds: the whole session, but for the little that cannot be sealed.

Knows: its members and their order. Does not know: keys, how long it is good for. New members come last and have defaults: ids
that were given out before stay valid.
"""

import msgspec


class SealedSession(msgspec.Struct, array_like=True):
    """One session as its id says it."""

    key: str
    """A name for logs and maps."""
    view: str
    revision: str
    opened: int
    """Seconds since 1970."""
    capabilities: bytes
    """JSON, as the client declared them; bounded."""
    client_info: bytes
    """JSON; empty where it was too long to be kept."""
    worker: int = 0
    """The session's home."""
    principal: str = ""
