"""The matrix as tables: of servers and of clients, with the reasons for what is not tried or does not pass; and docs/peers.md.

Knows: entries. Does not know: how they came about.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from tests.peers.environments import ROOT
from tests.peers.matrix import Entry
from tests.peers.peer_servers import OPERATIONS

PAGE: Final = ROOT / "docs" / "peers.md"
BEGIN: Final = "<!-- written by `python -m tests.peers --docs`: begin -->\n"
END: Final = "<!-- end -->\n"


def pairs(entries: Sequence[Entry]) -> str:
    """One row for each client and server."""
    return _table(["client", "server"], entries, lambda entry: (entry.client, entry.server))


def folded(entries: Sequence[Entry]) -> str:
    """One row for each server, one for each client, and the reasons."""
    parts = [
        "Each server, with how many clients an operation works for:\n",
        _table(["server"], entries, lambda entry: (entry.server,)),
        "\nEach client, with how many servers an operation works at:\n",
        _table(["client"], entries, lambda entry: (entry.client,)),
        "\nKnown not to pass yet:\n",
        _reasons(entries, "known") or "Nothing.",
        "\nNot tried, because the client or the server has nothing to try it with:\n",
        _reasons(entries, "—"),
    ]
    return "\n".join(parts)


def page(entries: Sequence[Entry], text: str) -> str:
    """The page with the tables in it."""
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n{folded(entries)}\n\n{END}{rest.split(END)[1]}"


def write_page(entries: Sequence[Entry]) -> None:
    """Write the tables into docs/peers.md."""
    PAGE.write_text(page(entries, PAGE.read_text("utf-8")), "utf-8")


def _table(names: list[str], entries: Sequence[Entry], row_of: Callable[[Entry], tuple[str, ...]]) -> str:
    rows: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for entry in entries:
        rows.setdefault(row_of(entry), {}).setdefault(entry.operation, []).append(entry.outcome)
    lines = [f"| {' | '.join([*names, *OPERATIONS])} |", "|---" * (len(names) + len(OPERATIONS)) + "|"]
    for row, cells in rows.items():
        lines.append(f"| {' | '.join([*row, *(_cell(cells.get(name, [])) for name in OPERATIONS)])} |")
    return "\n".join(lines)


def _cell(outcomes: list[str]) -> str:
    """What came out, alone or with how often: `ok 8`, `ok 5, known 3`, `—`."""
    found = [name for name in ("ok", "FAIL", "known") if name in outcomes]
    if not found:
        return "—" if outcomes else ""
    if len(outcomes) == 1:
        return found[0]
    return ", ".join(f"{name} {outcomes.count(name)}" for name in found)


def _reasons(entries: Iterable[Entry], outcome: str) -> str:
    """One line for each reason: at which servers (or with which clients), and which operations."""
    found: dict[str, tuple[dict[str, None], dict[str, None], dict[str, None]]] = {}
    for entry in entries:
        if entry.outcome == outcome:
            clients, servers, operations = found.setdefault(entry.reason, ({}, {}, {}))
            clients[entry.client] = servers[entry.server] = operations[entry.operation] = None
    lines = []
    every = len(OPERATIONS) - 2
    for reason, (clients, servers, operations) in found.items():
        where = ", ".join(clients) if len(servers) > len(clients) else ", ".join(servers)
        what = ", ".join(operations) if len(operations) < every else "all the rest"
        lines.append(f"- {where}: {what}. {reason[0].upper()}{reason[1:]}.")
    return "\n".join(lines)
