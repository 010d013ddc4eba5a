"""CPU time per call, row by row, in rounds that take turns.

Knows: rows, rounds. Does not know: budgets, how results are shown.
A row's figure is user and system time of the process in the middle (and its children) divided by the calls it completed. Before
the rounds each row's answers are verified by a client that parses them; in the rounds the generator compares every byte.
"""

import os
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from benchmarks import wrk
from benchmarks.client import open_session, verify
from benchmarks.figures import rotated
from benchmarks.messages import VARIETY, text_of, varied
from benchmarks.processes import Failed, cpu_seconds, machine_seconds
from benchmarks.rows import Row
from benchmarks.stage import Place, Stage

VERIFIED_CALLS: Final = {"small": 400, "large": 64}
VERIFIED_CALLS_OF_A_PEER: Final = 32
"""Some take 60 ms for each."""


class Note(Protocol):
    """Tells the person who waits."""

    def __call__(self, text: str) -> None: ...


class Sample(NamedTuple):
    """One row in one round."""

    cpu_us: float
    """CPU time per call, in microseconds."""
    calls: int
    calls_per_second: float
    p50_ms: float
    p99_ms: float
    foreign_share: float
    """Share of the machine that programs which have no part in this used meanwhile."""


class Prepared(NamedTuple):
    """A row whose answers were found right."""

    row: Row
    place: Place
    script: Path
    verified: int
    is_exact: bool
    """Whether every byte of every answer is compared while measuring, or only its id and its text."""


def prepare(stage: Stage, row: Row) -> Prepared:
    """Open a row's session, verify its answers, and write its script.

    Raises:
        Failed: an answer was not right.
    """
    place = stage.place(row)
    try:
        session = open_session(place.port, place.path) if row.has_session else None
        shapes = varied(
            row.client,
            place.tool_prefix + row.tool,
            path=place.path,
            session=session.id if session else None,
            version=session.version if session else None,
            count=VARIETY if row.is_varied else 1,
        )
        calls = VERIFIED_CALLS_OF_A_PEER if row.is_peer else VERIFIED_CALLS[row.tool]
        template = verify(place.port, shapes, row.client, row.tool, calls)
    except (Failed, OSError) as error:
        raise Failed(f"{row.name}: {error}") from error
    script = stage.folder / f"{row.name}.lua"
    text = text_of(row.tool).replace('"', '\\"').replace("\n", "\\n")
    script.write_text(wrk.script(shapes, template, text), "utf-8")
    return Prepared(row, place, script, calls, template is not None)


def measure(prepared: Prepared, seconds: float, ours: list[int]) -> Sample:
    """One round of one row. `ours` are the processes that have a part in the measurement.

    Raises:
        Failed: an answer was not right.
    """
    process = prepared.place.process
    machine, own, before = machine_seconds(), _sum(ours), process.cpu_seconds()
    try:
        run = wrk.run(prepared.script, prepared.place.port, seconds)
    except Failed as error:
        raise Failed(f"{prepared.row.name}: {error}; {process!r} logged: {process.log_tail()[-500:]}") from error
    used = process.cpu_seconds() - before
    cores = os.cpu_count() or 1
    foreign = (machine_seconds() - machine) - (_sum(ours) - own)
    return Sample(
        used * 1e6 / run.calls,
        run.calls,
        run.calls / run.seconds,
        run.p50_ms,
        run.p99_ms,
        max(0.0, foreign) / (run.seconds * cores),
    )


def rounds(
    stage: Stage, chosen: list[Row], *, count: int, seconds: float, note: Note
) -> tuple[list[Prepared], dict[str, list[Sample]]]:
    """Measure every row once in each round; each round begins with another row.

    Raises:
        Failed: an answer was not right.
    """
    prepared = []
    for row in chosen:
        prepared.append(prepare(stage, row))
        note(f"verified {prepared[-1].verified} calls: {row.name}")
    samples: dict[str, list[Sample]] = {row.name: [] for row in chosen}
    ours = [os.getpid()]  # everything was started from here
    for number in range(count):
        for one in rotated(prepared, number * 3):
            sample = measure(one, seconds, ours)
            samples[one.row.name].append(sample)
            note(f"round {number + 1}/{count} {one.row.name}: {sample.cpu_us:.1f} µs, {sample.calls_per_second:.0f}/s")
    return prepared, samples


def _sum(pids: list[int]) -> float:
    return sum(cpu_seconds(pid) for pid in pids)
