"""The behaviours that a gateway between the eras can break: rows in `behaviours/*.toml`, one file for each topic.

Knows: how rows are written, and what makes the table whole. Does not know: how a behaviour is looked at.

A row:

    [id]                                # in kebab-case, unique over all files
    level = "MUST"                      # or SHOULD; TRAP for what no sentence demands and people trip over all the same
    revisions = ["2026-07-28"]          # whose page it is read off
    says = "…"                          # the sentence in our own words, as seen from the gateway
    link = "basic/index#requests"       # page and anchor, below the specification of the first of the revisions
    cells = ["modern -> any"]           # client era -> server era [over http|stdio|any]; where it concerns the gateway
    mutations = [{ to = "client", … }]  # each breaks it: mutations.py. The row's check must fail with each of them
    not_mutable = "…"                   # why there are none, for a MUST without
    tests = ["unit/…/test_x.py::test_y"]# tests that hold it as well, below tests/
    waits = "…"                         # known not to hold, and why; its check must fail until it does
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

FOLDER: Final = Path(__file__).with_name("behaviours")
TESTS: Final = Path(__file__).parents[1]
SPECIFICATION: Final = "https://modelcontextprotocol.io/specification/"
LEVELS: Final = ("MUST", "SHOULD", "TRAP")
REVISIONS: Final = ("2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
_KEYS: Final = frozenset(
    ["level", "revisions", "says", "link", "cells", "mutations", "not_mutable", "tests", "waits"],
)
_ERAS: Final = ("modern", "legacy")
_TRANSPORTS: Final = ("http", "stdio")
_FUNCTION: Final = re.compile(r"^\s*(?:async )?def (test_\w+)", re.MULTILINE)


class Cell(NamedTuple):
    """A client of one era before a server of one era."""

    client: str
    server: str
    transport: str = "http"

    def __str__(self) -> str:
        return f"{self.client} -> {self.server}{'' if self.transport == 'http' else f' over {self.transport}'}"


class Row(NamedTuple):
    """One behaviour."""

    id: str
    topic: str
    level: str
    revisions: tuple[str, ...]
    says: str
    link: str
    cells: tuple[Cell, ...]
    mutations: tuple[Mapping[str, Any], ...] = ()
    not_mutable: str = ""
    tests: tuple[str, ...] = ()
    waits: str = ""

    @property
    def url(self) -> str:
        """The sentence's place."""
        return f"{SPECIFICATION}{self.revisions[0]}/{self.link}"


class RowError(ValueError):
    """A row that is not written as it should be; the message names file, row and key."""


@cache
def rows() -> Mapping[str, Row]:
    """All of them, by id, in the order of the files' names and then of the files.

    Raises:
        RowError: one is written wrong.
    """
    found: dict[str, Row] = {}
    for path in sorted(FOLDER.glob("*.toml")):
        for name, table in tomllib.loads(path.read_text("utf-8")).items():
            if name in found:
                raise RowError(f"{path.name}: [{name}] stands in {found[name].topic}.toml already")
            found[name] = read_row(name, path.stem, table)
    return found


def read_row(name: str, topic: str, table: Mapping[str, Any]) -> Row:
    """One row.

    Raises:
        RowError: it is written wrong.
    """
    where = f"{topic}.toml: [{name}]"
    if unknown := table.keys() - _KEYS:
        raise RowError(f"{where} has no key {', '.join(sorted(unknown))}; there are {', '.join(sorted(_KEYS))}")
    if missing := {"level", "revisions", "says", "link", "cells"} - table.keys():
        raise RowError(f"{where} lacks {', '.join(sorted(missing))}")
    if table["level"] not in LEVELS:
        raise RowError(f"{where}.level: expected one of {', '.join(LEVELS)}, got {table['level']!r}")
    if unknown := set(table["revisions"]) - set(REVISIONS):
        raise RowError(f"{where}.revisions: unknown {', '.join(sorted(unknown))}")
    if table.get("mutations") and table.get("not_mutable"):
        raise RowError(f"{where} has mutations, and says why it has none")
    return Row(
        name,
        topic,
        table["level"],
        tuple(table["revisions"]),
        table["says"],
        table["link"],
        tuple(dict.fromkeys(cell for text in table["cells"] for cell in _cells(where, text))),
        tuple(table.get("mutations", ())),
        table.get("not_mutable", ""),
        tuple(table.get("tests", ())),
        table.get("waits", ""),
    )


def _cells(where: str, text: str) -> list[Cell]:
    sides, _, over = text.partition(" over ")
    client, arrow, server = sides.partition(" -> ")
    transport = over or "http"
    if not arrow or {client, server} - {*_ERAS, "any"} or transport not in {*_TRANSPORTS, "any"}:
        raise RowError(f"{where}.cells: expected 'modern|legacy|any -> modern|legacy|any [over …]', got {text!r}")
    return [
        Cell(one, other, way)
        for one in (_ERAS if client == "any" else (client,))
        for other in (_ERAS if server == "any" else (server,))
        for way in (_TRANSPORTS if transport == "any" else (transport,))
    ]


def holes(table: Iterable[Row], checked: frozenset[str]) -> list[str]:
    """One line for everything that is missing; `checked` are the ids of rows that have a check."""
    lines = []
    for row in table:
        if row.id not in checked and not row.tests and not row.waits:
            lines.append(f"{row.id} is held by nothing: neither a check nor a test")
        if row.id not in checked and row.mutations:
            lines.append(f"{row.id} has mutations, but no check that they could break")
        if row.level == "MUST" and not row.mutations and not row.not_mutable:
            lines.append(f"{row.id} is a MUST without a mutation, and does not say why (not_mutable)")
        lines += [f"{row.id} names {test}, which does not exist" for test in row.tests if not _exists(test)]
    return lines


def _exists(test: str) -> bool:
    path, _, name = test.partition("::")
    return name in _functions(TESTS / path)


@cache
def _functions(path: Path) -> frozenset[str]:
    if not path.is_file():
        return frozenset()
    return frozenset(_FUNCTION.findall(path.read_text("utf-8")))
