"""How long starting takes, and how much memory a worker needs that has nothing to do.

Knows: commands and clocks. Does not know: budgets, load.
Each time is taken in turns with that of `python -c pass`, which is what this machine charges for starting Python at all.
"""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from benchmarks.client import Connection, verify
from benchmarks.cpu import Note
from benchmarks.figures import Figure, ratios
from benchmarks.messages import FIRST_ID, message_in, shape, why_wrong
from benchmarks.processes import Failed, Memory, Process
from benchmarks.stage import (
    LISTENS,
    START_SECONDS,
    Stage,
    clean_environment,
    penstock,
    serve_command,
    start_gateway,
    write_configuration,
)

SETTLE_SECONDS: Final = 2.0
RETRY_SECONDS: Final = 0.005
_CALLS: Final = 200
_PYTHON: Final = "python -c pass"
VERSION: Final = "penstock --version"
SERVE: Final = "penstock serve to first answered call"


class Times(NamedTuple):
    """Seconds by command, one for each round."""

    python: list[float]
    version: list[float]
    serve: list[float]

    def figures(self) -> dict[str, tuple[Figure, Figure]]:
        """By command: seconds, and multiples of `python -c pass`."""
        return {
            _PYTHON: (Figure.of(self.python), ratios(self.python, self.python)),
            VERSION: (Figure.of(self.version), ratios(self.version, self.python)),
            SERVE: (Figure.of(self.serve), ratios(self.serve, self.python)),
        }

    def as_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            name: {"seconds": seconds.as_json(), "times_python": times.as_json()}
            for name, (seconds, times) in self.figures().items()
        }


def measure_times(stage: Stage, *, rounds: int, note: Note) -> Times:
    """Start each command in turn; a first round, which may have to compile modules, does not count.

    Raises:
        Failed: a command failed, or the first call was not answered rightly.
    """
    times = Times([], [], [])
    for number in range(rounds + 1):
        python = _run([sys.executable, "-c", "pass"])
        version = _run([penstock(), "--version"])
        serve = _first_answer(stage, stage.folder / f"start-{number}")
        if number:
            times.python.append(python)
            times.version.append(version)
            times.serve.append(serve)
        note(f"start {number}/{rounds}: python {python:.3f} s, --version {version:.3f} s, first answer {serve:.3f} s")
    return times


def measure_memory(stage: Stage, note: Note) -> Memory:
    """Memory of a gateway that has answered some calls and now waits.

    Raises:
        Failed: it did not start, or did not answer rightly.
    """
    folder = stage.folder / "memory"
    folder.mkdir()
    process, port = start_gateway(folder, stage.raw_ports)
    with process:
        verify(port, [shape("modern", "small", path="/mcp/modern")], "modern", "small", _CALLS)
        verify(port, [shape("modern", "small", path="/mcp/legacy")], "modern", "small", _CALLS)
        time.sleep(SETTLE_SECONDS)
        memory = process.memory()
    note(f"memory at rest: RSS {memory.rss / 2**20:.1f} MiB, PSS {memory.pss / 2**20:.1f} MiB")
    return memory


def _run(command: list[str | Path]) -> float:
    words = [str(word) for word in command]
    started = time.perf_counter()
    done = subprocess.run(words, capture_output=True, timeout=START_SECONDS, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise Failed(f"{' '.join(words)} failed: {done.stderr[-300:]!r}")
    return seconds


def _first_answer(stage: Stage, folder: Path) -> float:
    """Seconds from starting the program, with no state from earlier, to the first right answer."""
    folder.mkdir()
    configuration = write_configuration(folder, stage.raw_ports)
    command = [penstock(), *serve_command(configuration)]
    with Process("gateway", command, folder / "log", clean_environment(folder / "state")) as process:
        port = urlsplit(process.wait_for_line(LISTENS, START_SECONDS)).port or 0
        made = shape("modern", "small", path="/mcp/modern").with_id(FIRST_ID)
        while True:
            wrong = _ask(port, made)
            seconds = time.perf_counter() - process.started_at
            if wrong is None:
                return seconds
            if seconds > START_SECONDS:
                raise Failed(f"no right answer within {START_SECONDS:g} s of the start: {wrong}")
            time.sleep(RETRY_SECONDS)


def _ask(port: int, request: bytes) -> str | None:
    try:
        with Connection(port) as connection:
            answer = connection.exchange(request)
            return why_wrong(message_in(answer.body, answer.content_type), "modern", "small", FIRST_ID)
    except (OSError, Failed, ValueError, KeyError) as error:
        return str(error)
