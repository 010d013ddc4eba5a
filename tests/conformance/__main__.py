"""Print the conformance table: `python -m tests.conformance [--direct] [--only SUBSTRING]… [--workers N] [--problems] [FOLDER]`,
or write it into docs/conformance.md: `python -m tests.conformance --docs`.

Exit code 1 when a scenario fails that is not expected to, or passes that is.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.conformance.cells import DIRECT, PAGE, THROUGH, Cell, CellResult, page, run_cells, table


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance")
    parser.add_argument("--direct", action="store_true", help="only the fixtures, with no gateway between")
    parser.add_argument(
        "--only", action="append", default=[], metavar="SUBSTRING", help="only cells whose name holds it; repeatable"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes the gateway serves with")
    parser.add_argument("--problems", action="store_true", help="also say why each scenario that waits does not pass")
    parser.add_argument("--docs", action="store_true", help=f"write the table into {PAGE.name}; of all cells")
    parser.add_argument("folder", nargs="?", type=Path, help="where logs and results stay")
    options = parser.parse_args()
    cells = _chosen(options.only, DIRECT if options.direct else (*DIRECT, *THROUGH))
    if not cells:
        names = "\n  ".join(map(str, (*DIRECT, *THROUGH)))
        parser.error(f"no cell's name holds {' or '.join(options.only)}; there are:\n  {names}")
    if options.docs and len(cells) < len((*DIRECT, *THROUGH)):
        parser.error("--docs writes the table of all cells: leave out --direct and --only")
    folder = options.folder or Path(tempfile.mkdtemp(prefix="penstock-conformance-"))
    results = []
    for result in run_cells(cells, folder.resolve(), options.workers):
        results.append(result)
        print(f"{result.cell}: {result.passed}/{len(result.required)}", file=sys.stderr)
    print(table(results))
    if options.docs:
        PAGE.write_text(page(results, PAGE.read_text("utf-8")), "utf-8")
    _print_surprises(results, options.problems)
    print(f"logs: {folder}")
    return int(any(result.surprises() for result in results))


def _chosen(substrings: Sequence[str], cells: Sequence[Cell]) -> list[Cell]:
    return [cell for cell in cells if not substrings or any(part in str(cell) for part in substrings)]


def _print_surprises(results: Sequence[CellResult], problems: bool) -> None:
    for result in results:
        for line in result.surprises():
            print(f"{result.cell}: {line}")
        for name, reason in result.expected.waiting.items() if problems else ():
            outcome = {**result.required, **result.unscored}.get(name)
            print(f"{result.cell}: {name} waits ({reason}): {'; '.join(outcome.problems) if outcome else 'unknown'}")


if __name__ == "__main__":
    sys.exit(main())
