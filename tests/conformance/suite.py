"""Run the official conformance suite against a URL, or around a client, and read what it found.

Knows: the suite's command line and its results folder. Does not know: gateways, or what is expected of a server.
"""

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

from tests.peers.environments import conformance_command, gateway_environment, plain_environment
from tests.peers.processes import ProcessFailed, make_home, run

SCENARIO_MS = 8_000
CLIENT_MS = 30_000
SUITE_SECONDS = 90.0
_CLIENT_FAILED = re.compile(r"Client (exited with code \d+|timed out after \d+ms)")
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
    """What the suite runs at a revision, in its own order."""

    required: tuple[str, ...]
    unscored: tuple[str, ...]
    """Run too, without being counted: extensions, and what was added later."""


@cache
def scenarios(revision: str, side: Literal["client", "server"]) -> Scenarios:
    """Ask the suite which scenarios it has for servers, or for clients, of a revision."""
    command = [*conformance_command(), "list", "--requirements", revision]
    code, out, err = run(command, plain_environment(Path("/nonexistent")), seconds=20)
    required: list[str] = []
    unscored: list[str] = []
    section = ""
    for line in out.splitlines():
        if (match := _LISTED.match(line)) and section == f"{side.title()} scenarios":
            required.append(match["name"])
        elif match and section == "Run and reported" and match["side"] == side:
            unscored.append(match["name"])
        elif line and not line.startswith(" "):
            section = next((name for name in _SECTIONS if line.startswith(name)), "")
    if code or not required:
        raise ProcessFailed(f"the conformance suite lists nothing for {revision}: exit {code}\n{err}")
    return Scenarios(tuple(required), tuple(unscored))


def run_suite(url: str, revision: str, folder: Path) -> dict[str, Outcome]:
    """Run every server scenario of a revision, also those that do not count."""
    words = ["server", "--url", url, "--requirements", revision, "--timeout", str(SCENARIO_MS)]
    _run(words, plain_environment(make_home(folder.parent)), folder)
    return {
        _STAMP.sub("", path.parent.name).removeprefix("server-"): _judge(path)
        for path in sorted(folder.glob("server-*/checks.json"))
    }


def run_client(command: Sequence[str], scenario: str, revision: str, folder: Path) -> Outcome:
    """Run one client scenario: the suite serves, and starts `command` with the URL as one word more."""
    if any(" " in word for word in command):
        raise ValueError(f"the suite splits commands at spaces, so no word may hold one: {command}")
    words = ["client", "--command", " ".join(command), "--scenario", scenario, "--spec-version", revision]
    said = _run([*words, "--timeout", str(CLIENT_MS)], gateway_environment(make_home(folder)), folder)
    outcome = next((_judge(path) for path in folder.glob("*/checks.json")), None) or Outcome(False, ("no result",))
    if match := _CLIENT_FAILED.search(said):
        return outcome._replace(passed=False, problems=(*outcome.problems, match.group()))
    return outcome


def _run(words: Sequence[str], environment: Mapping[str, str], folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    command = [*conformance_command(), *words, "--output-dir", str(folder)]
    _, out, err = run(command, environment, seconds=SUITE_SECONDS)
    (folder / "log.txt").write_text(f"{out}\n{err}", "utf-8")
    return err


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
