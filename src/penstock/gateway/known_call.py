"""Where calls go that repeat what was judged before.

Knows: routes, callers, what a body must repeat. Does not know: HTTP, how a call is judged.
"""

from typing import Final

import msgspec

from penstock.gateway.edges.head import HeadFacts
from penstock.gateway.route import Route
from penstock.upstreams.calls import Caller

MAX_KNOWN: Final = 1024
"""Calls one view remembers; the oldest is forgotten first."""


NO_META: Final = msgspec.Raw(b"")
"""The `meta` of legacy calls, which are known only without one; no request has it."""


class KnownCall:
    """A request that repeats another's header block, and says the same of itself and of what it is about: judged once."""

    __slots__ = ("caller", "headers", "meta", "method", "name", "name_field", "route")

    def __init__(
        self,
        route: Route,
        caller: Caller,
        method: str,
        meta: msgspec.Raw,
        name_field: str,
        name: msgspec.Raw,
        headers: tuple[tuple[bytes, bytes], ...],
    ) -> None:
        self.route: Final = route
        self.caller: Final = caller
        self.method: Final = method
        self.meta: Final = meta
        self.name_field: Final = name_field
        self.name: Final = name
        """As the body wrote it."""
        self.headers: Final = headers

    def __repr__(self) -> str:
        return f"<KnownCall {self.method} {self.route!r}>"


class KnownCalls(dict[HeadFacts, KnownCall]):
    """By the facts of the header block; bounded. It belongs to a view, and goes with it: a reload is never outlived."""

    def remember(self, facts: HeadFacts, known: KnownCall) -> None:
        """Keep it from the second time on that the block is seen: most blocks that differ each time are seen once."""
        if not facts.is_repeated:
            facts.is_repeated = True
            return
        if facts not in self and len(self) >= MAX_KNOWN:
            del self[next(iter(self))]
        self[facts] = known
