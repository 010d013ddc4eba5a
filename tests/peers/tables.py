"""The matrix as tables: of servers and of clients, with the reasons for what is not tried or does not pass; and docs/peers.md.

Knows: entries. Does not know: how they came about.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from tests.peers.environments import ROOT
from tests.peers.matrix import Entry
from tests.peers.peer_clients import A_FEW
from tests.peers.peer_clients import clients as all_clients
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
    """One line for each reason: where (servers, or clients whose reason it is), which operations, and why."""
    of_clients = {A_FEW, *(reason for client in all_clients() for reason in client.lacks.values())}
    found: dict[str, dict[str, dict[str, None]]] = {}
    for entry in entries:
        if entry.outcome == outcome:
            where = entry.client if entry.reason in of_clients else entry.server
            found.setdefault(entry.reason, {}).setdefault(where, {})[entry.operation] = None
    lines = []
    for reason, places in found.items():
        alike: dict[str, list[str]] = {}
        for where, operations in places.items():
            what = ", ".join(operations) if len(operations) < len(OPERATIONS) - 2 else "all the rest"
            alike.setdefault(what, []).append(f"“{where}”" if "," in where else where)
        shown = "; ".join(f"{', '.join(where)} ({what})" for what, where in alike.items())
        lines.append(f"- {reason[0].upper()}{reason[1:]}: {shown}.")
    return "\n".join(lines)
