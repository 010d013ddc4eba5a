"""Fuzz the HTTP lane and what reads text: `python -m tests.fuzz [--seconds 600] [--target NAME]… [--folder F]`.

Coverage-guided, by atheris (Linux). Exit code 1 when something was found; the input that did it lies in the folder.
"""

import argparse
import sys
from pathlib import Path

from tests.fuzz.session import ROOT, SHARES, TARGETS, fuzz


def main() -> int:
    """Fuzz and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=int, default=600, help="for all targets together (default: 600)")
    parser.add_argument("--target", action="append", choices=TARGETS, help="only this one; may be repeated")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / ".cache/fuzz", help="inputs and findings (default: .cache/fuzz)"
    )
    options = parser.parse_args()
    targets = options.target or list(TARGETS)
    total = sum(SHARES[target] for target in targets)
    has_found = False
    for target in targets:
        result = fuzz(target, options.folder / target, max(1, round(options.seconds * SHARES[target] / total)))
        print(result, flush=True)
        if result.finding:
            has_found = True
            print(result.finding)
    return int(has_found)


if __name__ == "__main__":
    sys.exit(main())
