"""Print the behaviour table: `python -m tests.conformance.behaviours [--rows] [--only SUBSTRING]… [--markdown]`.

`--rows` runs nothing. Exit code 1 when something is missing, or a run is not as it should be.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.conformance.all_checks import all_checks
from tests.conformance.behaviour_report import markdown, summary
from tests.conformance.behaviour_table import holes, rows
from tests.conformance.checking import RunResult, run_all, runs_of
from tests.conformance.stage import Stage

SLOWEST = 8
"""How many of the slowest runs are named."""


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.behaviours")
    parser.add_argument("--rows", action="store_true", help="only what is written down: run no check")
    parser.add_argument("--only", action="append", default=[], metavar="SUBSTRING", help="only rows whose id holds it")
    parser.add_argument("--markdown", action="store_true", help="print every row, as docs/behaviours.md has them")
    options = parser.parse_args()
    table = [row for row in rows().values() if not options.only or any(part in row.id for part in options.only)]
    checks = all_checks()
    results: list[RunResult] = []
    if not (options.rows or options.markdown):
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="penstock-behaviours-") as folder, Stage(Path(folder)) as stage:
            results = run_all(runs_of(table, checks), checks, stage)
        print(f"{len(results)} runs in {time.monotonic() - started:.1f} s", file=sys.stderr)
        for result in sorted(results, key=lambda result: -result.seconds)[:SLOWEST]:
            print(f"  {result.seconds:.2f} s {result.run}", file=sys.stderr)
    print(markdown(table, checks) if options.markdown else summary(table, checks, results))
    problems = [f"{result.run}: {result.problem}" for result in results if result.problem is not None]
    missing = holes(table, frozenset(checks))
    if problems or missing:
        print("\n".join([*problems, *missing]), file=sys.stderr if options.markdown else sys.stdout)
    return int(bool(problems or missing))


if __name__ == "__main__":
    sys.exit(main())
