"""The suite's client scenarios, with a gateway as the client.

    python -m tests.conformance.client_side [--only SUBSTRING]… [FOLDER]

The suite serves; a gateway stands before it, and a plain client of either era drives the gateway (client_driver.py). So each
scenario is run twice: the gateway has to meet the server's revision whatever its own client speaks.
"""

import argparse
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

from tests.conformance.cells import LEGACY, MODERN, SUITES_AT_ONCE
from tests.conformance.suite import Outcome, run_client

LEFT_OUT: Final = "auth/"
"""Scenarios of signing in at a server: a gateway sends the header that its configuration names, and is no OAuth client."""

CONCERNING: Final[Mapping[str, tuple[str, ...]]] = {
    MODERN: (
        "tools_call",
        "request-metadata",
        "sep-2322-client-request-state",
        "http-standard-headers",
        "http-custom-headers",
        "http-invalid-tool-headers",
        "json-schema-ref-no-deref",
        "json-schema-2020-12-preservation",
    ),
    LEGACY: (
        "initialize",
        "tools_call",
        "elicitation-sep1034-client-defaults",
        "sse-retry",
        "json-schema-2020-12-preservation",
    ),
}
"""All the others, by the revision of the scenario's server. A test compares them with the suite's own list."""

EXPECTED: Final = Path(__file__).with_name("expected_client.toml")


class Run(NamedTuple):
    """A scenario's server of one revision, and what the client before the gateway speaks."""

    client: str
    revision: str
    scenario: str

    def __str__(self) -> str:
        return f"{self.pair}: {self.scenario}"

    @property
    def pair(self) -> str:
        """Its table in the file of those that wait."""
        return f"{self.client} -> {self.revision}"


class RunResult(NamedTuple):
    """What came of it."""

    run: Run
    outcome: Outcome
    waits: str | None
    """Why it is known not to pass."""

    @property
    def surprise(self) -> str | None:
        """What is unexpected about it, in one line."""
        if self.outcome.passed and self.waits is not None:
            return f"{self.run} passes: take it off {EXPECTED.name}"
        if not self.outcome.passed and self.waits is None:
            return f"{self.run} fails: {'; '.join(self.outcome.problems)}"
        return None


def runs() -> list[Run]:
    """Every scenario that concerns a gateway, for each revision that has it, with both kinds of clients."""
    return [
        Run(client, revision, scenario)
        for client in (MODERN, LEGACY)
        for revision, names in CONCERNING.items()
        for scenario in names
    ]


def waiting() -> Mapping[str, Mapping[str, str]]:
    """By pair of revisions, the scenarios that are known not to pass, with the reason."""
    tree: dict[str, dict[str, str]] = tomllib.loads(EXPECTED.read_text("utf-8"))
    return tree


def run_all(chosen: Sequence[Run], folder: Path) -> list[RunResult]:
    """Run them, a few at a time. Logs and results stay in `folder`."""
    known = waiting()

    def run_one(run: Run) -> RunResult:
        command = [sys.executable, "-m", "tests.conformance.client_driver", run.client]
        outcome = run_client(command, run.scenario, run.revision, folder / str(run).replace(" ", ""))
        return RunResult(run, outcome, known.get(run.pair, {}).get(run.scenario))

    with ThreadPoolExecutor(SUITES_AT_ONCE) as pool:
        return list(pool.map(run_one, chosen))


def table(results: Sequence[RunResult]) -> str:
    """The table people read: one row for each scenario, one column for each kind of client."""
    lines = ["| scenario's server | scenario | modern client | legacy client |", "|---|---|---|---|"]
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for result in results:
        shown = "passes" if result.outcome.passed else "fails" if result.waits is None else "waits"
        warned = f" ({len(result.outcome.warnings)} warnings)" if result.outcome.warnings else ""
        rows.setdefault((result.run.revision, result.run.scenario), {})[result.run.client] = shown + warned
    lines += [
        f"| {revision} | {scenario} | {shown.get(MODERN, '')} | {shown.get(LEGACY, '')} |"
        for (revision, scenario), shown in rows.items()
    ]
    return "\n".join(lines)


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.client_side")
    parser.add_argument("--only", action="append", default=[], metavar="SUBSTRING", help="only these; repeatable")
    parser.add_argument("folder", nargs="?", type=Path, help="where logs and results stay")
    options = parser.parse_args()
    chosen = [run for run in runs() if not options.only or any(part in str(run) for part in options.only)]
    folder = options.folder or Path(tempfile.mkdtemp(prefix="penstock-client-conformance-"))
    results = run_all(chosen, folder.resolve())
    print(table(results))
    for result in results:
        for line in (result.surprise, *(f"{result.run} warns: {warning}" for warning in result.outcome.warnings)):
            if line:
                print(line)
    print(f"logs: {folder}")
    return int(any(result.surprise for result in results))


if __name__ == "__main__":
    sys.exit(main())
