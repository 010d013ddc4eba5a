"""Print the matrix of real peers: `python -m tests.peers [--direct] [--client NAME]… [--server NAME]… [--json FILE] [--docs]`.

With `--pairs` one row for each client and server is printed too.

Exit code 1 when an operation fails, or works although it is known not to.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.peers.matrix import as_json, outcomes, run_matrix
from tests.peers.tables import folded, pairs, write_page


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.peers")
    parser.add_argument(
        "--direct", action="store_true", help="with no gateway, for the servers that listen by themselves"
    )
    parser.add_argument("--client", action="append", default=[], metavar="NAME", help="only this client; repeatable")
    parser.add_argument("--server", action="append", default=[], metavar="NAME", help="only this view; repeatable")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every entry as JSON")
    parser.add_argument("--pairs", action="store_true", help="also print a row for each client and server")
    parser.add_argument("--docs", action="store_true", help="also write the tables into docs/peers.md")
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="penstock-peers-") as folder:
        entries = list(
            run_matrix(
                Path(folder).resolve(),
                direct=options.direct,
                only_clients=options.client,
                only_servers=options.server,
            )
        )
    if options.pairs:
        print(pairs(entries))
    print(folded(entries))
    counts = ", ".join(f"{count} {outcome}" for outcome, count in outcomes(entries).items())
    print(f"{counts}; {time.monotonic() - started:.0f} s")
    if options.json:
        options.json.write_text(as_json(entries), "utf-8")
    if options.docs:
        write_page(entries)
    bad = [entry for entry in entries if entry.outcome == "FAIL" or entry.passes]
    for entry in bad:
        said = "works, though it is known not to:" if entry.passes else entry.outcome
        print(f"{entry.client} × {entry.server}: {entry.operation}: {said} {entry.detail or entry.reason}")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
