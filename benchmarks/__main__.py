"""Measure Penstock beside nginx in the same run, and say which budgets it keeps."""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks import at_rest, cpu, instructions, latency, machine, nginx, peers, profiling, report, wrk
from benchmarks.processes import Failed
from benchmarks.report import Report
from benchmarks.rows import GATEWAY, YARDSTICKS, Row, choose
from benchmarks.stage import Stage, penstock

PARTS: Final = ("cpu", "latency", "memory", "start")
ROOT: Final = Path(__file__).parent.parent


class Effort(NamedTuple):
    """How long to measure."""

    rows: tuple[str, ...]
    rounds: int
    seconds: int
    """For each row in each round."""
    latency_rounds: int
    """Unless a number of rounds was asked for."""
    latency_seconds: float


FULL: Final = Effort(("*",), 15, 1, 9, 3.0)
"""Many short rounds: a machine that is slower for some seconds spoils a few of them, and a median has more to choose from."""
QUICK: Final = Effort(
    ("floor-modern-1k", "modern-modern-1k", "modern-legacy-1k", "legacy-modern-1k", "legacy-legacy-1k"), 2, 1, 2, 1.5
)


def arguments(words: Sequence[str]) -> argparse.Namespace:
    """What was asked for."""
    names = ", ".join(row.name for row in (*YARDSTICKS, *GATEWAY))
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__, epilog=f"Rows: {names}")
    parser.add_argument("--quick", action="store_true", help="half a minute: few rows, few rounds; a look, no proof")
    parser.add_argument("--rows", type=_words, help="names with *, separated by commas; nginx's rows come along")
    parser.add_argument("--parts", type=_words, default=PARTS, help=f"of {','.join(PARTS)}; default all")
    parser.add_argument("--rounds", type=int, help=f"default {FULL.rounds}")
    parser.add_argument("--seconds", type=int, help=f"for each row in each round; default {FULL.seconds}")
    parser.add_argument("--peers", action="store_true", help="other projects' proxies, too (scripts/prepare peers)")
    parser.add_argument("--check", action="store_true", help="exit code 1 when a budget is not kept")
    parser.add_argument(
        "--profile", metavar="ROW", help="sample the gateway during that row instead, and print what takes time"
    )
    parser.add_argument(
        "--instructions",
        metavar="ROW",
        help="count the gateway's instructions during that row instead (needs valgrind)",
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="where the JSON goes; default results/bench-TIME.json"
    )
    chosen = parser.parse_args(words)
    unknown = set(chosen.parts) - set(PARTS)
    if unknown:
        parser.error(f"--parts: no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    return chosen


def main(words: Sequence[str]) -> int:
    """Measure; returns the exit code: 1 when `--check` finds a budget that is not kept, 2 when nothing could be measured."""
    chosen = arguments(words)
    reason = machine.why_not()
    try:
        if reason:
            raise Failed(reason)
        nginx.installed()
        wrk.installed()
        if not penstock().exists():
            raise Failed(f"{penstock()} is missing; scripts/bench installs it")
        with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder, Stage(Path(folder)) as stage:
            if chosen.profile:
                row, seconds = _row(chosen.profile), chosen.seconds or profiling.SECONDS
                print(profiling.profile(stage, row, seconds=seconds, note=note))
                return 0
            if chosen.instructions:
                row, seconds = _row(chosen.instructions), chosen.seconds or instructions.SECONDS
                print(instructions.count(stage, row, seconds=seconds, note=note))
                return 0
            found = measure(stage, chosen)
    except (Failed, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    file = chosen.json or ROOT / "results" / f"bench-{datetime.now(UTC):%Y%m%d-%H%M%S}.json"
    report.write(found, file)
    print(found.as_text())
    print(f"\nJSON: {file}")
    if chosen.check and not found.verdicts():
        print("bench: --check: there is no budget for what was measured", file=sys.stderr)
        return 2
    return 1 if chosen.check and not all(one.is_kept for one in found.verdicts()) else 0


def measure(stage: Stage, chosen: argparse.Namespace) -> Report:
    """Everything that was asked for.

    Raises:
        Failed: an answer was not right, or something did not start.
    """
    effort = QUICK if chosen.quick else FULL
    rounds, seconds = chosen.rounds or effort.rounds, chosen.seconds or effort.seconds
    settings = {
        "quick": chosen.quick, "rounds": rounds, "seconds": seconds, "connections": wrk.CONNECTIONS, "generator": "wrk, 1 thread",
    }  # fmt: skip
    found = Report(machine.facts(), settings)
    peer_rows: list[Row] = []
    if chosen.peers:
        peer_rows, found.notes = peers.start(stage, ROOT / ".cache" / "peers", note)
    if "start" in chosen.parts:
        found.times = at_rest.measure_times(stage, rounds=max(chosen.rounds or 5, 5), note=note)
    if "memory" in chosen.parts:
        found.memory = at_rest.measure_memory(stage, note)
    if "latency" in chosen.parts:
        turns = chosen.rounds or effort.latency_rounds
        found.latency = latency.measure(stage, rounds=turns, seconds=effort.latency_seconds, note=note)
    if "cpu" in chosen.parts:
        patterns = chosen.rows or (*effort.rows, *(row.name for row in peer_rows))
        rows = choose(patterns, peer_rows)
        found.prepared, found.samples = cpu.rounds(stage, rows, count=rounds, seconds=seconds, note=note)
        found.memory_after_load = stage.place(GATEWAY[0]).process.memory()
    return found


def note(text: str, *, started: float = time.monotonic()) -> None:
    """Progress, for the person who waits."""
    print(f"[{time.monotonic() - started:6.1f} s] {text}", file=sys.stderr, flush=True)


def _row(name: str) -> Row:
    return next(row for row in choose([name]) if row.name == name)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
