"""What is known not to pass through the gateway yet, with the reason. A test fails when one of these passes.

Knows: the names of servers, operations and eras. Does not know: how anything is run.
"""

from typing import Final, NamedTuple

NEWS_OF_A_SESSION: Final = (
    "the server tells only the session in which it was subscribed to and changed; a modern client has none, so its calls go "
    "over sessions of a pool, and what it subscribes to is subscribed to in the gateway's own"
)


class Known(NamedTuple):
    """Cells that do not pass, and why."""

    reason: str
    servers: tuple[str, ...]
    operations: tuple[str, ...]
    era: str = ""
    """Only with clients of this era."""


PROBES: Final = frozenset({"Python SDK 2.x", "Python SDK 2.x, legacy mode"})
"""The clients by which known cells are tried all the same; each of them costs a wait."""
PROBE_SECONDS: Final = 0.8
PROBE_NEWS_SECONDS: Final = 0.3

KNOWN: Final = (
    Known(NEWS_OF_A_SESSION, ("typescript-1", "everything-http", "everything-sse"), ("updated",), "modern"),
)


def known_reason(server: str, operation: str, era: str) -> str:
    """Why that cell does not pass; empty when it has to."""
    for known in KNOWN:
        if server in known.servers and operation in known.operations and known.era in {"", era}:
            return known.reason
    return ""
