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
_LISTED = re.compile(r" +- (?P<name>\S+)(?: \[(?P<side>client|server)\])?$")
_SECTIONS = ("Server scenarios", "Client scenarios", "Run and reported")
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


class Scenarios(NamedTuple):
    """The server scenarios of a revision, in the suite's order."""

    required: tuple[str, ...]
    unscored: tuple[str, ...]
    """Those that the suite runs too, without counting them: extensions, and what was added later."""


@cache
def server_scenarios(revision: str) -> Scenarios:
    """Ask the suite which scenarios it runs against a server of that revision."""
    command = [*conformance_command(), "list", "--requirements", revision]
    code, out, err = run(command, plain_environment(Path("/nonexistent")), seconds=20)
    required: list[str] = []
    unscored: list[str] = []
    section = ""
    for line in out.splitlines():
        if (match := _LISTED.match(line)) and section == "Server scenarios":
            required.append(match["name"])
        elif match and section == "Run and reported" and match["side"] == "server":
            unscored.append(match["name"])
        elif line and not line.startswith(" "):
            section = next((name for name in _SECTIONS if line.startswith(name)), "")
    if code or not required:
        raise ProcessFailed(f"the conformance suite lists nothing for {revision}: exit {code}\n{err}")
    return Scenarios(tuple(required), tuple(unscored))


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
