"""What one client's connection needs of its server.

Knows: what they share: limits, the time, what was parsed before. Does not know: how either works.
"""

from collections.abc import Callable
from typing import Protocol, TypeVar

from penstock.http.exchange import Calls, Exchange
from penstock.http.limits import ServerLimits
from penstock.http.request_head import HeadParser
from penstock.http.request_repeat import KnownHeads
from penstock.http.responses import ResponseHeads

Connection_contra = TypeVar("Connection_contra", contravariant=True)


class Host(Calls, Protocol[Connection_contra]):
    """See the module."""

    limits: ServerLimits
    handler: Callable[[Exchange], None]
    heads: ResponseHeads
    head_parser: HeadParser
    known_heads: KnownHeads
    now: Callable[[], float]
    coarse_now: float
    idle_until: float
    is_draining: bool

    def admit(self, connection: Connection_contra) -> None:
        """Count the connection, and refuse it if it is one too many."""

    def forget(self, connection: Connection_contra) -> None:
        """The connection is closed."""
