"""Where the gateway's time goes for one row: `python -m benchmarks --profile ROW`.

Knows: cProfile. Does not know: budgets.
The profiler slows every function, Python's and C's, by about half a microsecond, so small ones look larger than they are: it
shows what is called, how often, and in which proportion; the rows themselves show what that costs.
"""

import pstats
import sys
from typing import Final

from benchmarks import cpu
from benchmarks.cpu import Note
from benchmarks.processes import Failed
from benchmarks.rows import Row
from benchmarks.stage import Place, Stage

TOP: Final = 25
EACH_CALL: Final = 0.5
"""What runs less often than this for each call belongs to starting, and is left out."""


def profile(stage: Stage, row: Row, *, seconds: float, note: Note) -> str:
    """The functions that took most time of their own, and how often each ran, for each call.

    Raises:
        Failed: the row is none of the gateway's, or an answer was not right.
    """
    if row.through != "gateway":
        raise Failed(f"{row.name} does not go through the gateway; there is nothing to profile")
    file = stage.folder / "profile"
    process, port = stage.start_gateway(command=(sys.executable, "-m", "benchmarks.profiled", file))
    stage.add("gateway", row.server, Place(process, port, stage.place(row).path))
    prepared = cpu.prepare(stage, row)
    sample = cpu.measure(prepared, seconds, [])
    note(f"{sample.calls} calls under the profiler, {sample.cpu_us:.1f} µs each")
    process.stop()
    if not file.exists():
        raise Failed(f"the gateway wrote no profile: {process.log_tail()}")
    return render(pstats.Stats(str(file)), sample.calls + prepared.verified, row)


def render(stats: pstats.Stats, calls: int, row: Row) -> str:
    """A table, by a function's own time."""
    lines = [
        f"{row.title}: by own time, for each call, under cProfile",
        f"{'own µs':>8} {'total µs':>9} {'times':>7}  function",
    ]
    found = getattr(stats, "stats")  # noqa: B009  typeshed does not know the attribute
    rows = sorted(found.items(), key=lambda item: -item[1][2])
    rows = [item for item in rows if item[1][1] >= calls * EACH_CALL]
    for (file, line, name), (_, times, own, total, _) in rows[:TOP]:
        where = f"{file.rpartition('penstock/')[2]}:{line} " if line else ""
        lines.append(f"{own * 1e6 / calls:8.2f} {total * 1e6 / calls:9.2f} {times / calls:7.2f}  {where}{name}")
    return "\n".join(lines)
