"""Runs the targets one after the other, each in a process of its own, and reads what libFuzzer says of them.

Knows: processes, libFuzzer's words. Does not know: what is fuzzed.
"""

import re
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
TARGETS: Final = ("server", "client", "text")
SHARES: Final = {"server": 0.5, "client": 0.3, "text": 0.2}
"""Of the time."""
START_SECONDS: Final = 90
"""For a process to begin and to end, on a busy machine."""
_COVERAGE: Final = re.compile(r"cov: ([0-9]+) ft: ([0-9]+) corp: ([0-9]+)")
_EXECUTIONS: Final = re.compile(r"stat::number_of_executed_units: ([0-9]+)")
_MEMORY: Final = re.compile(r"stat::peak_rss_mb: +([0-9]+)")


class Result(NamedTuple):
    """What came of fuzzing one target."""

    target: str
    executions: int
    edges: int
    """Of our code that were reached."""
    features: int
    inputs: int
    """Kept because they reached something new."""
    peak_mb: int
    finding: str
    """The process's last words; empty when nothing was found."""

    def __str__(self) -> str:
        state = "a FINDING" if self.finding else "nothing found"
        return (
            f"{self.target}: {self.executions} inputs tried, {self.edges} edges and {self.features} features of our code "
            f"reached, {self.inputs} inputs kept, at most {self.peak_mb} MB: {state}"
        )


def fuzz(target: str, folder: Path, seconds: int) -> Result:
    """Fuzz one target for so long; what crashed it lies in the folder."""
    process = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.run", target, str(folder.resolve()), str(seconds)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=seconds + START_SECONDS,
    )
    said = process.stdout + process.stderr
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log").write_text(said)
    coverage = _COVERAGE.findall(said)
    edges, features, inputs = map(int, coverage[-1]) if coverage else (0, 0, 0)
    return Result(
        target,
        int(_last(_EXECUTIONS, said)),
        edges,
        features,
        inputs,
        int(_last(_MEMORY, said)),
        "" if process.returncode == 0 else said[-4000:],
    )


def _last(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.findall(text)
    return found[-1] if found else "0"
