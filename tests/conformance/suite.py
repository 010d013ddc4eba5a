"""Run the official conformance suite against a URL, and read what it found.

Knows: the suite's command line and its results folder. Does not know: gateways, or what is expected of a server.
"""

import json
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tests.peers.environments import conformance_command, plain_environment
from tests.peers.processes import ProcessFailed, make_home, run

SCENARIO_MS = 8_000
SUITE_SECONDS = 90.0
_STAMP = re.compile(r"-\d{4}-\d{2}-\d{2}T[\d-]+Z$")


class Outcome(NamedTuple):
    """What the suite found in one scenario."""

    passed: bool
    problems: tuple[str, ...]
    """One line for each check that failed."""
    warnings: tuple[str, ...] = ()
    """One line for each recommendation that was not followed; these do not count."""
    skipped: tuple[str, ...] = ()
    """Checks that did not apply, because the server declares no such thing."""


@cache
def required_scenarios(revision: str) -> tuple[str, ...]:
    """Names of the server scenarios that a revision requires, in the suite's order."""
    command = [*conformance_command(), "list", "--requirements", revision]
    code, out, err = run(command, plain_environment(Path("/nonexistent")), seconds=20)
    names: list[str] = []
    in_section = False
    for line in out.splitlines():
        if line.startswith("  - ") and in_section:
            names.append(line.removeprefix("  - ").strip())
        elif line.strip():
            in_section = line.startswith("Server scenarios")
    if code or not names:
        raise ProcessFailed(f"the conformance suite lists nothing for {revision}: exit {code}\n{err}")
    return tuple(names)


def run_suite(url: str, revision: str, folder: Path) -> dict[str, Outcome]:
    """Run every server scenario of a revision, also those that do not count."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [*conformance_command(), "server", "--url", url, "--requirements", revision]
    command += ["--timeout", str(SCENARIO_MS), "--output-dir", str(folder)]
    _, out, err = run(command, plain_environment(make_home(folder.parent)), seconds=SUITE_SECONDS)
    (folder / "log.txt").write_text(f"{out}\n{err}", "utf-8")
    return {
        _STAMP.sub("", path.parent.name).removeprefix("server-"): _judge(path)
        for path in sorted(folder.glob("server-*/checks.json"))
    }


def _judge(path: Path) -> Outcome:
    checks = json.loads(path.read_text("utf-8"))
    problems, warnings, skipped = (
        tuple(
            f"{check['id']}: {check.get('errorMessage') or check['description']}"
            for check in checks
            if check["status"] == status
        )
        for status in ("FAILURE", "WARNING", "SKIPPED")
    )
    ran = any(check["status"] in {"SUCCESS", "FAILURE", "WARNING"} for check in checks)
    return Outcome(ran and not problems, problems or (() if ran else ("no check ran",)), warnings, skipped)
