"""Run checks: what each row's check is, in which cells it runs, and what its runs say of the row.

Knows: rows, checks, the stage. Does not know: what a check looks at.
Invariant: a row holds when its check passes everywhere unmutated, and fails with each of its mutations, which must have changed
something: a check that cannot fail, or a mutation that meets nothing, is a failure like any other.
"""

import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

from tests.conformance.behaviour_table import Cell, Row
from tests.conformance.mutations import Mutation
from tests.conformance.scene import Scene
from tests.conformance.stage import Stage

AT_ONCE: Final = 6
"""Checks that run side by side; they wait more than they work."""
TRIES: Final = 3
"""Of a run whose mutation meets nothing."""

Body = Callable[[Scene], None]


class Check(NamedTuple):
    """How a row is looked at."""

    row: str
    body: Body
    back: bool
    """It looks at what the server is sent."""
    changes: bool
    """It has a server change things, of which every session of that server is told: it has servers for such checks."""
    direct: bool
    """It holds without a gateway too, when client and server are of one era."""


CHECKS: Final[dict[str, Check]] = {}


def check(row: str, *, back: bool = False, changes: bool = False, direct: bool = True) -> Callable[[Body], Body]:
    """Register the check of a row. It asserts, and returns nothing."""

    def register(body: Body) -> Body:
        if row in CHECKS:
            raise ValueError(f"{row} has a check already: {CHECKS[row].body.__name__}")
        CHECKS[row] = Check(row, body, back, changes, direct and not back)
        return body

    return register


class Run(NamedTuple):
    """One run of one check."""

    row: Row
    way: str
    """direct, through or mutated."""
    cell: Cell
    number: int = 0
    """Which of the row's mutations."""

    def __str__(self) -> str:
        return f"{self.row.id} [{self.way} {self.cell}{f' {self.number}' if self.way == 'mutated' else ''}]"


class RunResult(NamedTuple):
    """What came of it."""

    run: Run
    problem: str | None
    """Why it is not as it should be."""
    seconds: float = 0.0
    vain: tuple[str, ...] = ()
    """What came of it before, when that proved nothing."""


def runs_of(table: Iterable[Row], checks: Mapping[str, Check]) -> list[Run]:
    """Every run that the rows ask for."""
    found: list[Run] = []
    for row in table:
        if row.id not in checks:
            continue
        found += [Run(row, "through", cell) for cell in row.cells]
        if checks[row.id].direct:
            same = (cell for cell in row.cells if cell.client == cell.server and cell.transport == "http")
            found += [Run(row, "direct", cell) for cell in same]
        if not row.waits:
            found += [Run(row, "mutated", row.cells[0], number) for number in range(len(row.mutations))]
    return sorted(found, key=lambda run: run.cell.transport)  # children take longest to start


def run_all(runs: Iterable[Run], checks: Mapping[str, Check], stage: Stage) -> list[RunResult]:
    """Run them side by side, in no order; those that are mutated when all others are through, as their servers and what the
    gateway thinks of those have been lied to.
    """

    def run_one(run: Run) -> RunResult:
        started = time.monotonic()
        problem, vain = _tried(run, checks[run.row.id], stage)
        return RunResult(run, problem, time.monotonic() - started, tuple(vain))

    wanted = list(runs)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(run_one, (run for run in wanted if run.way != "mutated")))
        return found + list(pool.map(run_one, (run for run in wanted if run.way == "mutated")))


def _where(error: BaseException) -> str:
    """The line of the check, since an assertion's own text is empty where pytest did not rewrite it."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/checks/" in frame.filename]
    return f"'{frames[0].line}' ({frames[0].name}:{frames[0].lineno})" if frames else "?"


def _tried(run: Run, check: Check, stage: Stage) -> tuple[str | None, list[str]]:
    """What came of it; and why it was tried before, if it was: the check failed, but its mutation met nothing, as the gateway
    still dealt with what an earlier run had done to that server.
    """
    vain: list[str] = []
    while True:
        problem, met_nothing = _problem(run, check, stage)
        if not met_nothing or len(vain) == TRIES - 1:
            return problem, vain
        vain.append(str(problem))


def _problem(run: Run, check: Check, stage: Stage) -> tuple[str | None, bool]:
    """The problem, and whether it is that the mutation met nothing."""
    mutation = Mutation(run.row.mutations[run.number]) if run.way == "mutated" else None
    scene = (
        stage.direct(run.cell, changes=check.changes)
        if run.way == "direct"
        else stage.through(run.cell, mutation, back=check.back, changes=check.changes)
    )
    failure = None
    with scene as on_stage:
        try:
            check.body(on_stage)
        except (AssertionError, LookupError, TypeError, AttributeError) as error:
            failure = f"{type(error).__name__} in {_where(error)}: {error}"
        except (
            Exception
        ) as error:  # the run could not be made: that proves nothing, mutated or not, and the others go on
            return f"broke with {type(error).__name__} in {_where(error)}: {error}", False
    if mutation is None:
        if run.way == "through" and run.row.waits:
            return (None if failure else f"{run.row.id} holds: take 'waits' off its row"), False
        return failure, False
    if failure is None:
        return f"passes in spite of the mutation ({mutation}; applied {mutation.applied} times)", not mutation.applied
    if mutation.applied:
        return None, False
    return f"fails, but the mutation ({mutation}) met nothing: {failure}", True
