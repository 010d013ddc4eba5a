"""Which rows there are: who calls, through what, which server, with how large a result.

Knows: names and budgets. Does not know: processes, ports, how anything is measured.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

from benchmarks.messages import SIZES, Era
from benchmarks.processes import Failed

LABEL: Final = {"small": "1k", "large": "100k"}


class Row(NamedTuple):
    """One thing whose CPU time per call is measured."""

    name: str
    through: str
    """`nginx`, `floor`, `raw`, `gateway`, `workers` (a gateway of two processes), or a peer's name."""
    client: Era
    server: Era
    tool: str
    has_session: bool
    """Whether the client opens a legacy session first."""
    ships: float | None = None
    """At most so many times what nginx takes for relaying the server's bytes."""
    aim: float | None = None

    is_varied: bool = False
    """Whether consecutive calls differ in length and arguments: what is remembered of the last does not fit the next."""

    @property
    def reference(self) -> str:
        """The row it is compared with."""
        return f"nginx-{self.server}-{LABEL[self.tool]}{'-varied' if self.is_varied else ''}"

    @property
    def is_peer(self) -> bool:
        """Whether its calls go through another project's proxy."""
        return self.through not in {"nginx", "floor", "raw", "gateway", "workers"}

    @property
    def title(self) -> str:
        """For the table."""
        size = f"{SIZES[self.tool] // 1024} KB"
        varied = ", varied" if self.is_varied else ""
        if self.through in {"nginx", "floor", "raw"}:
            words = {"nginx": "nginx", "floor": "byte relay, same loop (floor)", "raw": "raw server, direct"}
            return f"{words[self.through]}: {self.server} server, {size}{varied}"
        without = ", no session" if self.client == "legacy" and not self.has_session else ""
        who = {"gateway": "", "workers": "two workers: "}.get(self.through, f"{self.through}: ")
        return f"{who}{self.client} client → {self.server} server, {size}{without}{varied}"


def _yardsticks() -> list[Row]:
    return [
        Row(f"{through}-{era}-{LABEL[tool]}", through, era, era, tool, era == "legacy")
        for era in ("modern", "legacy")
        for tool in SIZES
        for through in ("nginx", "floor", "raw")
    ] + [Row("nginx-modern-1k-varied", "nginx", "modern", "modern", "small", has_session=False, is_varied=True)]


def _gateway(client: Era, server: Era, ships: float, aim: float) -> list[Row]:
    def row(tool: str, *, has_session: bool) -> Row:
        without = "-sessionless" if client == "legacy" and not has_session else ""
        name = f"{client}-{server}-{LABEL[tool]}{without}"
        return Row(name, "gateway", client, server, tool, has_session, ships, aim)

    rows = [row(tool, has_session=client == "legacy") for tool in SIZES]
    if client == "legacy":
        rows.append(row("small", has_session=False))
    return rows


def _of_two_workers(rows: Sequence[Row]) -> list[Row]:
    """The usual row of each pair of eras, through two processes."""
    usual = [row for row in rows if row.name.endswith("-1k")]
    return [row._replace(name=f"{row.name}-2w", through="workers") for row in usual]


YARDSTICKS: Final = tuple(_yardsticks())
_ONE_PROCESS: Final = (
    *_gateway("modern", "modern", 1.9, 1.6),
    Row("modern-modern-1k-varied", "gateway", "modern", "modern", "small", False, 1.9, 1.6, is_varied=True),
    *_gateway("modern", "legacy", 3.0, 2.0),
    *_gateway("legacy", "modern", 2.5, 1.8),
    *_gateway("legacy", "legacy", 3.5, 2.2),
)
GATEWAY: Final = (*_ONE_PROCESS, *_of_two_workers(_ONE_PROCESS))


def choose(patterns: Sequence[str], peers: Sequence[Row] = ()) -> list[Row]:
    """The rows whose names match one of `patterns` (`*` is any text), and before each the nginx row it is compared with.

    Raises:
        Failed: a pattern matches nothing.
    """
    every = [*YARDSTICKS, *GATEWAY, *peers]
    for pattern in patterns:
        if not any(fnmatchcase(row.name, pattern) for row in every):
            raise Failed(f"no row is called '{pattern}'; there are {', '.join(row.name for row in every)}")
    chosen = [row for row in every if any(fnmatchcase(row.name, pattern) for pattern in patterns)]
    references = {row.reference for row in chosen}
    return [row for row in every if row in chosen or row.name in references]
