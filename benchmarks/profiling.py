"""Where the gateway's CPU time goes for one row: `python -m benchmarks --profile ROW`.

Knows: how samples are read. Does not know: how they are taken, budgets.
Shares are those of samples; a sampler disturbs little, unlike a tracing profiler, which makes small functions look large.
"""

import json
import signal
import sys
from collections.abc import Mapping
from typing import Final

from benchmarks import cpu
from benchmarks.cpu import Note
from benchmarks.processes import Failed
from benchmarks.report import table
from benchmarks.rows import Row
from benchmarks.stage import Stage

TOP: Final = 25
SECONDS: Final = 10


def profile(stage: Stage, row: Row, *, seconds: float, note: Note) -> str:
    """The functions that took most time of their own.

    Raises:
        Failed: the row is none of the gateway's, or an answer was not right.
    """
    file = stage.folder / "profile.json"
    process = stage.start_gateway_for(row, (sys.executable, "-m", "benchmarks.profiled", file))
    prepared = cpu.prepare(stage, row)
    process.signal(signal.SIGUSR2)
    sample = cpu.measure(prepared, seconds, [])
    note(f"{sample.calls} calls under the profiler, {sample.cpu_us:.1f} µs each")
    process.stop()
    if not file.exists():
        raise Failed(f"the gateway wrote no profile: {process.log_tail()}")
    seen = json.loads(file.read_text("utf-8"))
    return render(row, seen["own"], seen["total"], sample.cpu_us)


def render(row: Row, own: Mapping[str, int], total: Mapping[str, int], cpu_us: float) -> str:
    """A table by own time; `cpu_us` is what a call takes in all."""
    count = sum(own.values())
    if not count:
        raise Failed("the profiler saw nothing; measure longer with --seconds")
    lines = [(f"{row.title}: {cpu_us:.1f} µs for each call", "own µs", "own", "with callees µs")]
    for name, seen in sorted(own.items(), key=lambda item: -item[1])[:TOP]:
        share, whole = seen / count, total[name] / count
        lines.append((name, f"{share * cpu_us:.2f}", f"{share:.1%}", f"{whole * cpu_us:.2f}"))
    return f"{table(lines)}\n({count} samples)"
