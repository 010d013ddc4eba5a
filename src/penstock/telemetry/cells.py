"""Counters in memory, one cell for each (server, method, tool).

Knows: outcomes and durations. Does not know: who reads them (`exposition.py` does). A cell is looked up once, when a route is
made; recording is an append on one loop, without locks.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from penstock.telemetry.histogram import Histogram

OUTCOMES: Final = ("ok", "tool_error", "rpc_error", "refused", "server_error", "cancelled")
OTHER: Final = "other"
"""The tool name under which everything beyond the bound is counted."""
_COUNTED_TOGETHER: Final = 64
"""Calls of one cell; each takes about 150 bytes until then, and there may be a thousand cells and more."""
MAX_SERVERS: Final = 1_000


class Cell:
    """What happened to the calls of one tool."""

    __slots__ = ("_new", "_outcomes", "_overhead", "_upstream", "last_failure", "method", "server", "tool")

    def __init__(self, server: str, method: str, tool: str) -> None:
        self.server: Final = server
        self.method: Final = method
        self.tool: Final = tool
        """Empty for methods that are not counted by name."""
        self._outcomes = dict.fromkeys(OUTCOMES, 0)
        self._overhead = Histogram()
        self._upstream = Histogram()
        self.last_failure: tuple[float, str] | None = None
        """When a call last failed (`time.monotonic`), and how."""
        self._new: list[tuple[str, float, float]] = []
        """Calls not counted yet: counting many at a time costs a third of counting each."""

    def __repr__(self) -> str:
        return f"<Cell {self.server} {self.method} {self.tool} {self.overhead.count} calls>"

    @property
    def outcomes(self) -> dict[str, int]:
        """Calls by how they ended."""
        self._count_new()
        return self._outcomes

    @property
    def overhead(self) -> Histogram:
        """Penstock's own share of each call."""
        self._count_new()
        return self._overhead

    @property
    def upstream(self) -> Histogram:
        """The server's share of each call that reached it."""
        self._count_new()
        return self._upstream

    def record(self, outcome: str, overhead_seconds: float, upstream_seconds: float) -> None:
        """Take one finished call; `upstream_seconds` is 0.0 when no server was reached."""
        new = self._new
        new.append((outcome, overhead_seconds, upstream_seconds))
        if len(new) >= _COUNTED_TOGETHER:
            self._count_new()

    def _count_new(self) -> None:
        if not self._new:
            return
        outcomes, overhead, upstream = zip(*self._new, strict=True)
        self._new.clear()
        for outcome, calls in Counter(outcomes).items():
            self._outcomes[outcome] += calls
        self._overhead.record_all(overhead)
        self._upstream.record_all([seconds for seconds in upstream if seconds > 0.0])


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
