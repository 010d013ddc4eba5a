"""What one client's connection needs of its server.

Knows: what they share: limits, the time, what was parsed before. Does not know: how either works.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from penstock.http.exchange import Calls, Exchange
from penstock.http.limits import ServerLimits
from penstock.http.request_head import HeadParser
from penstock.http.request_repeat import KnownHeads
from penstock.http.responses import ResponseHeads

if TYPE_CHECKING:
    from penstock.http.connection import ServerConnection


class Host(Calls, Protocol):
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

    def admit(self, connection: "ServerConnection") -> None:
        """Count the connection, and refuse it if it is one too many."""

    def forget(self, connection: "ServerConnection") -> None:
        """The connection is closed."""
