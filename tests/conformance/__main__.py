"""Print the conformance table: `python -m tests.conformance [--direct] [--problems] [FOLDER]`.

Exit code 1 when a scenario fails that is not expected to, or passes that is.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.conformance.cells import DIRECT, THROUGH, run_cells, table


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance")
    parser.add_argument("--direct", action="store_true", help="only the fixtures, with no gateway between")
    parser.add_argument("--problems", action="store_true", help="also say why each scenario that waits does not pass")
    parser.add_argument("folder", nargs="?", type=Path, help="where logs and results stay")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="penstock-conformance-"))
    results = []
    for result in run_cells(DIRECT if options.direct else (*DIRECT, *THROUGH), folder.resolve()):
        results.append(result)
        print(f"{result.cell}: {result.passed}/{len(result.required)}", file=sys.stderr)
    print(table(results))
    for result in results:
        for line in result.surprises():
            print(f"{result.cell}: {line}")
        for name, reason in result.waiting.items() if options.problems else ():
            outcome = {**result.required, **result.unscored}.get(name)
            print(f"{result.cell}: {name} waits ({reason}): {'; '.join(outcome.problems) if outcome else 'unknown'}")
    print(f"logs: {folder}")
    return int(any(result.surprises() for result in results))


if __name__ == "__main__":
    sys.exit(main())
