"""What is known not to pass through the gateway yet, with the reason. A test fails when one of these passes.

Knows: the names of servers and operations. Does not know: how anything is run.
"""

from typing import Final, NamedTuple


class Known(NamedTuple):
    """Cells that do not pass, and why."""

    server: str
    operations: tuple[str, ...]
    reason: str


PROBES: Final = frozenset({"Python SDK 2.x", "Python SDK 2.x, legacy mode"})
"""The clients by which known cells are tried all the same; each of them costs a wait."""
PROBE_SECONDS: Final = 1.5

KNOWN: Final[tuple[Known, ...]] = ()


def known_reason(server: str, operation: str) -> str:
    """Why that cell does not pass; empty when it has to."""
    for known in KNOWN:
        if known.server == server and operation in known.operations:
            return known.reason
    return ""
