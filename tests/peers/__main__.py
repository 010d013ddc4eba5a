"""Print the matrix of real peers: `python -m tests.peers [--direct] [--json FILE]`. Exit code 1 when an operation fails."""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.peers.matrix import as_json, run_matrix, table


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.peers")
    parser.add_argument(
        "--direct", action="store_true", help="with no gateway, for the servers that listen by themselves"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every entry as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="penstock-peers-") as folder:
        entries = list(run_matrix(Path(folder).resolve(), direct=options.direct))
    print(table(entries))
    if options.json:
        options.json.write_text(as_json(entries), "utf-8")
    failures = [entry for entry in entries if entry.outcome == "fails"]
    for entry in failures:
        print(f"{entry.client} × {entry.server}: {entry.operation}: {entry.detail}")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
