"""Counters in memory, one cell for each (server, method, tool).

Knows: outcomes and durations. Does not know: who reads them (`exposition.py` does). A cell is looked up once, when a route is
made; recording is plain integer arithmetic on one loop, without locks.
"""

from collections.abc import Iterator
from typing import Final

from penstock.telemetry.histogram import Histogram

OUTCOMES: Final = ("ok", "tool_error", "rpc_error", "refused", "server_error", "cancelled")
OTHER: Final = "other"
"""The tool name under which everything beyond the bound is counted."""
MAX_SERVERS: Final = 1_000


class Cell:
    """What happened to the calls of one tool."""

    __slots__ = ("method", "outcomes", "overhead", "server", "tool", "upstream")

    def __init__(self, server: str, method: str, tool: str) -> None:
        self.server: Final = server
        self.method: Final = method
        self.tool: Final = tool
        """Empty for methods that are not counted by name."""
        self.outcomes = dict.fromkeys(OUTCOMES, 0)
        self.overhead = Histogram()
        """Penstock's own share of each call."""
        self.upstream = Histogram()
        """The server's share of each call that reached it."""

    def __repr__(self) -> str:
        return f"<Cell {self.server} {self.method} {self.tool} {self.overhead.count} calls>"

    def record(self, outcome: str, overhead_seconds: float, upstream_seconds: float) -> None:
        """Count one finished call; `upstream_seconds` is 0.0 when no server was reached."""
        self.outcomes[outcome] += 1
        self.overhead.record(overhead_seconds)
        if upstream_seconds > 0.0:
            self.upstream.record(upstream_seconds)


class CellRegistry:
    """All cells of a worker. At most `max_tools` names of tools are told apart; the rest share `other`."""

    def __init__(self, max_tools: int = 1_000) -> None:
        self._max_tools = max_tools
        self._cells: dict[tuple[str, str, str], Cell] = {}
        self._tools: set[tuple[str, str]] = set()
        self._servers: set[str] = set()

    def __repr__(self) -> str:
        return f"<CellRegistry {len(self._cells)} cells, {len(self._tools)} of {self._max_tools} tools>"

    def __iter__(self) -> Iterator[Cell]:
        return iter(list(self._cells.values()))

    def cell(self, server: str, method: str, tool: str) -> Cell:
        """The cell of these labels, made at first use; never fails, never grows beyond the bounds."""
        known = self._cells.get((server, method, tool))
        if known is not None:
            return known
        if server not in self._servers:
            if len(self._servers) >= MAX_SERVERS:
                server = OTHER
            self._servers.add(server)
        if tool and (server, tool) not in self._tools:
            if len(self._tools) >= self._max_tools:
                tool = OTHER
            else:
                self._tools.add((server, tool))
        key = (server, method, tool)
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = Cell(*key)
        return cell
