"""The cells of the conformance table: which client revision meets which server, how the server is reached, what is expected.

`direct` cells have no gateway between: they prove the fixtures, so that any other failure is the gateway's. The suite speaks
streamable HTTP alone, so the fixtures' other transports have no direct cells; test_fixtures.py looks at those.
"""

import os
import re
import shlex
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

from tests.conformance.suite import Outcome, run_suite, scenarios
from tests.peers.environments import modern_python, plain_environment
from tests.peers.gateway import Gateway
from tests.peers.processes import Child, make_home

MODERN: Final = "2026-07-28"
LEGACY: Final = "2025-11-25"
SERVERS: Final[Mapping[str, tuple[str, ...]]] = {
    "http": ("dual", "modern", "legacy"),
    "stdio": ("dual", "modern", "legacy"),
    "sse": ("dual", "legacy"),
}
"""By transport to the server, the kinds of servers there are: HTTP+SSE of 2024-11-05 ended before the modern era."""

MEASURED_TRANSPORTS: Final = ("http", "stdio", "sse")
"""Transports to the server with cells in the table."""

PAGE: Final = Path(__file__).parents[2] / "docs" / "conformance.md"
EXPECTED: Final = Path(__file__).with_name("expected.toml")
_WITHOUT: Final = "without "
NOT_RUN: Final = Outcome(passed=False, problems=("the scenario did not run",))
SUITES_AT_ONCE: Final = 1 if "PYTEST_XDIST_WORKER" in os.environ else 2
"""More make the suite's own time limits (some are 0.5 s) a matter of luck on a small machine. Workers of pytest are several."""


class Cell(NamedTuple):
    """A client of one revision, towards one server."""

    revision: str
    server: str
    transport: str = "http"
    direct: bool = False

    def __str__(self) -> str:
        over = "" if self.transport == "http" else f" over {self.transport}"
        return f"{self.revision} -> {self.server}{over}{' (direct)' if self.direct else ''}"

    @property
    def target(self) -> str:
        """What the gateway calls the server."""
        return self.server if self.transport == "http" else f"{self.server}-{self.transport}"


THROUGH: Final = tuple(
    Cell(revision, server, transport)
    for transport in MEASURED_TRANSPORTS
    for revision in (MODERN, LEGACY)
    for server in SERVERS[transport]
)
DIRECT: Final = (
    Cell(MODERN, "dual", direct=True),
    Cell(MODERN, "modern", direct=True),
    Cell(LEGACY, "dual", direct=True),
    Cell(LEGACY, "legacy", direct=True),
)


class Expectation(NamedTuple):
    """What a cell is held to."""

    least: int
    """Required scenarios that must pass, whatever the list of those that wait says."""
    waiting: Mapping[str, str]
    """Scenarios that are known not to pass, and why."""
    absent: Mapping[str, str] = {}
    """Scenarios that no fixture passes, because it has not what they ask for."""


class CellResult(NamedTuple):
    """What came out of one cell."""

    cell: Cell
    required: Mapping[str, Outcome]
    unscored: Mapping[str, Outcome]
    expected: Expectation

    @property
    def passed(self) -> int:
        """How many required scenarios passed."""
        return sum(outcome.passed for outcome in self.required.values())

    @property
    def skipped(self) -> int:
        """How many checks of required scenarios did not apply to what the server declares."""
        return sum(len(outcome.skipped) for outcome in self.required.values())

    def surprises(self) -> list[str]:
        """One line for each scenario that fails unlisted, passes though listed, or is listed and unknown; and for too few."""
        outcomes = {**self.required, **self.unscored}
        waiting = {**self.expected.absent, **self.expected.waiting}
        lines = [
            f"{name} fails: {'; '.join(outcome.problems)}"
            for name, outcome in outcomes.items()
            if not outcome.passed and name not in waiting
        ]
        lines += [
            f"{name} passes: take it off {EXPECTED.name}"
            for name in waiting
            if name in outcomes and outcomes[name].passed
        ]
        lines += [
            f"{name} stands in {EXPECTED.name}, but is no scenario here" for name in waiting if name not in outcomes
        ]
        if self.passed < self.expected.least:
            lines.append(f"{self.passed} required scenarios pass, {self.expected.least} were promised")
        return lines


def expectations() -> dict[str, Expectation]:
    """By cell: what stands in its own table, in that of its revision, and in that of what it lacks."""
    tree: dict[str, dict[str, int | str]] = tomllib.loads(EXPECTED.read_text("utf-8"))
    found = {}
    for name in tree.keys() - {MODERN, LEGACY}:
        if name.startswith(_WITHOUT):
            continue
        own = dict(tree[name])
        least, lacks = int(own.pop("required")), own.pop("lacks", "")
        shared = tree.get(name.split()[0], {}) | (tree[f"{_WITHOUT}{lacks}"] if lacks else {})
        waiting, absent = ({key: str(reason) for key, reason in one.items()} for one in (own, shared))
        found[name] = Expectation(least, waiting, absent)
    return found


def page(results: Sequence[CellResult], text: str) -> str:
    """The page with its table as it came out; `text` is what the page says now."""
    return re.sub(
        r"^\| client → server .*?\n(?!\|)", lambda _: table(results) + "\n", text, flags=re.MULTILINE | re.DOTALL
    )


def run_cells(cells: Sequence[Cell], folder: Path, workers: int = 1) -> Iterator[CellResult]:
    """Run each cell's suite, before one gateway in front of every server. Logs and results stay in `folder`.

    Suites of different servers run side by side, those of one server in turn: what one changes there, another would hear of.
    """
    expected = expectations()
    with ExitStack() as stack:
        fixtures = _Fixtures(stack, cells, folder, workers)
        pool = stack.enter_context(ThreadPoolExecutor(SUITES_AT_ONCE))

        def run_in_turn(of_one_server: tuple[Cell, ...]) -> list[CellResult]:
            return [_run_cell(cell, fixtures.url(cell), folder, expected[str(cell)]) for cell in of_one_server]

        for results in pool.map(run_in_turn, _by_server(cells)):
            yield from results
        fixtures.keep_logs(folder)


def run_and_print(cells: Sequence[Cell], folder: Path, workers: int) -> Mapping[Cell, CellResult]:
    """The same for tests: all of them, by cell."""
    found = list(run_cells(cells, folder, workers))
    print(f"\n{table(found)}\nlogs: {folder}")
    return {result.cell: result for result in found}


def _by_server(cells: Iterable[Cell]) -> list[tuple[Cell, ...]]:
    in_order = sorted(cells, key=lambda cell: cell.target)
    return [tuple(group) for _, group in groupby(in_order, key=lambda cell: cell.target)]


def _run_cell(cell: Cell, url: str, folder: Path, expected: Expectation) -> CellResult:
    outcomes = run_suite(url, cell.revision, folder / str(cell).replace(" ", ""))
    names_of = scenarios(cell.revision, "server")
    required, unscored = ({name: outcomes.get(name, NOT_RUN) for name in names} for names in names_of)
    return CellResult(cell, required, unscored, expected)


class _Fixtures:
    """The servers that cells need, and the gateway before them if one is needed."""

    def __init__(self, stack: ExitStack, cells: Sequence[Cell], folder: Path, workers: int) -> None:
        self._urls: dict[str, str] = {}
        self._gateway: Gateway | None = None
        self._started: dict[str, Child] = {}
        flags = ["--workers", str(workers)]
        for cell in {cell.target: cell for cell in cells}.values():
            command = [modern_python(), "-m", "tests.peers.servers.conformance_server", cell.server, cell.transport]
            where = shlex.join(command)
            if cell.transport != "stdio":
                environment = plain_environment(make_home(folder / cell.target))
                child = stack.enter_context(Child(f"the {cell.target} server", command, environment))
                self._started[cell.target] = child
                where = self._urls[cell.target] = child.read_line(20)
            flags += ["--server", f"{cell.target}={where}"]
        if not all(cell.direct for cell in cells):
            self._gateway = stack.enter_context(Gateway(folder, flags))
            self._started["gateway"] = self._gateway

    def url(self, cell: Cell) -> str:
        """Where the suite finds the server of a cell."""
        return self._urls[cell.target] if cell.direct or not self._gateway else self._gateway.view(cell.target)

    def keep_logs(self, folder: Path) -> None:
        """Write down what the processes said."""
        for name, child in self._started.items():
            (folder / f"{name}.stderr.txt").write_text(child.stderr_tail(100_000), "utf-8")


def table(results: Sequence[CellResult]) -> str:
    """The table people read."""
    lines = [
        "| client → server | required | passed | wait for later | checks skipped | surprises |",
        "|---|---|---|---|---|---|",
    ]
    in_order = sorted(results, key=lambda result: (*DIRECT, *THROUGH).index(result.cell))
    lines += [
        f"| {str(result.cell).replace('->', '→')} | {len(result.required)} | {result.passed} "
        f"| {len(result.expected.waiting)} | {result.skipped} | {len(result.surprises())} |"
        for result in in_order
    ]
    return "\n".join(lines)
