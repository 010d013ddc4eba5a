"""The cells of the conformance table: which client revision meets which server, and what is expected there.

`direct` cells have no gateway between: they prove the fixtures, so that any other failure is the gateway's.
"""

import tomllib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

from tests.conformance.suite import Outcome, required_scenarios, run_suite
from tests.peers.environments import modern_python, plain_environment
from tests.peers.gateway import Gateway
from tests.peers.processes import Child, make_home

MODERN: Final = "2026-07-28"
LEGACY: Final = "2025-11-25"
SERVERS: Final = ("dual", "modern", "legacy")
EXPECTED: Final = Path(__file__).with_name("expected.toml")
NOT_RUN: Final = Outcome(passed=False, problems=("the scenario did not run",))

UNSCORED: Final[Mapping[str, tuple[str, ...]]] = {
    MODERN: ("http-header-validation", "http-custom-header-server-validation", "json-schema-2020-12"),
    LEGACY: ("server-session-lifecycle", "json-schema-2020-12"),
}
"""Scenarios that the suite runs without counting them, and that concern a gateway: held like the others."""


class Cell(NamedTuple):
    """A client of one revision, towards one server."""

    revision: str
    server: str
    direct: bool = False

    def __str__(self) -> str:
        return f"{self.revision} -> {self.server}{' (direct)' if self.direct else ''}"


THROUGH: Final = tuple(Cell(revision, server) for revision in (MODERN, LEGACY) for server in SERVERS)
DIRECT: Final = (
    Cell(MODERN, "dual", direct=True),
    Cell(MODERN, "modern", direct=True),
    Cell(LEGACY, "dual", direct=True),
    Cell(LEGACY, "legacy", direct=True),
)
MINIMA: Final[Mapping[Cell, int]] = {
    **dict.fromkeys((DIRECT[0], DIRECT[1]), 37),
    **dict.fromkeys((DIRECT[2], DIRECT[3]), 30),
    Cell(MODERN, "dual"): 36,
    Cell(MODERN, "modern"): 36,
    Cell(LEGACY, "dual"): 23,
    Cell(LEGACY, "legacy"): 23,
}
"""Required scenarios that must pass, whatever the list of those that wait says."""


class CellResult(NamedTuple):
    """What came out of one cell."""

    cell: Cell
    required: Mapping[str, Outcome]
    unscored: Mapping[str, Outcome]
    waiting: Mapping[str, str]
    """Scenarios that are known not to pass yet, and why."""

    @property
    def passed(self) -> int:
        """How many required scenarios passed."""
        return sum(outcome.passed for outcome in self.required.values())

    @property
    def skipped(self) -> int:
        """How many checks of required scenarios did not apply to what the server declares."""
        return sum(len(outcome.skipped) for outcome in self.required.values())

    def surprises(self) -> list[str]:
        """One line for each scenario that fails unlisted, passes though listed, or is listed and unknown."""
        outcomes = {**self.required, **self.unscored}
        lines = [
            f"{name} fails: {'; '.join(outcome.problems)}"
            for name, outcome in outcomes.items()
            if not outcome.passed and name not in self.waiting
        ]
        lines += [
            f"{name} passes: take it off {EXPECTED.name}"
            for name in self.waiting
            if name in outcomes and outcomes[name].passed
        ]
        lines += [
            f"{name} stands in {EXPECTED.name}, but is no scenario here"
            for name in self.waiting
            if name not in outcomes
        ]
        return lines


def expected_failures() -> dict[str, dict[str, str]]:
    """By cell, the scenarios that wait, with the reason."""
    tree: dict[str, dict[str, str]] = tomllib.loads(EXPECTED.read_text("utf-8"))
    return tree


def run_cells(cells: tuple[Cell, ...], folder: Path) -> Iterator[CellResult]:
    """Start the servers and one gateway before all of them, and run each cell's suite. Logs and results stay in `folder`."""
    expected = expected_failures()
    with ExitStack() as stack:
        urls = {server: _start_fixture(stack, server, folder) for server in sorted({cell.server for cell in cells})}
        gateway = None
        if not all(cell.direct for cell in cells):
            flags = [word for name, url in urls.items() for word in ("--server", f"{name}={url}")]
            gateway = stack.enter_context(Gateway(folder, flags))
        for cell in cells:
            url = urls[cell.server] if cell.direct or gateway is None else gateway.view(cell.server)
            outcomes = run_suite(url, cell.revision, folder / str(cell).replace(" ", ""))
            yield CellResult(
                cell,
                {name: outcomes.get(name, NOT_RUN) for name in required_scenarios(cell.revision)},
                {name: outcomes.get(name, NOT_RUN) for name in UNSCORED[cell.revision]},
                expected.get(str(cell), {}),
            )
        if gateway is not None:
            (folder / "gateway.stderr.txt").write_text(gateway.stderr_tail(100_000), "utf-8")


def _start_fixture(stack: ExitStack, kind: str, folder: Path) -> str:
    command = [modern_python(), "-m", "tests.peers.servers.conformance_server", kind]
    child = stack.enter_context(Child(f"the {kind} server", command, plain_environment(make_home(folder / kind))))
    return child.read_line(20)


def table(results: list[CellResult]) -> str:
    """The table people read."""
    lines = [
        "| client → server | required | passed | wait for later | checks skipped | surprises |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {str(result.cell).replace('->', '→')} | {len(result.required)} | {result.passed} | {len(result.waiting)} "
        f"| {result.skipped} | {len(result.surprises())} |"
        for result in results
    ]
    return "\n".join(lines)
