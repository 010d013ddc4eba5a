"""The matrix as tables: one that the command prints, and those of docs/peers.md.

Knows: entries. Does not know: how they came about.
"""

from collections.abc import Sequence
from typing import Final

from tests.peers.environments import ROOT
from tests.peers.matrix import Entry
from tests.peers.peer_servers import OPERATIONS

PAGE: Final = ROOT / "docs" / "peers.md"


def table(entries: Sequence[Entry]) -> str:
    """One row for each client and server."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for entry in entries:
        rows.setdefault((entry.client, entry.server), {})[entry.operation] = entry.outcome
    lines = [f"| client | server | {' | '.join(OPERATIONS)} |", "|---" * (len(OPERATIONS) + 2) + "|"]
    for (client, server), cells in rows.items():
        lines.append(f"| {client} | {server} | {' | '.join(cells.get(name, '') for name in OPERATIONS)} |")
    return "\n".join(lines)


def write_page(entries: Sequence[Entry]) -> None:
    """Nothing yet."""
