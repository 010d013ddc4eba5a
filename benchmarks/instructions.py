"""How many instructions a call takes the gateway, by function, for one row: `scripts/bench --instructions ROW`.

Knows: valgrind's callgrind, how its listing is read. Does not know: budgets, time.

On a machine that is now fast and now slow, time says little of a change of a few per cent; this says the same each time, but
nothing of the kernel, of caches or of guesses gone wrong.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from benchmarks import cpu
from benchmarks.cpu import Note
from benchmarks.processes import Failed
from benchmarks.report import table
from benchmarks.rows import Row
from benchmarks.stage import Stage, penstock

TOP: Final = 40
SECONDS: Final = 6
_WARM_SECONDS: Final = 6.0
"""What is remembered of heads, calls and servers is there by then: valgrind is some fifty times slower."""
_TOTAL: Final = re.compile(r"^(?:totals|summary): ([1-9]\d*)$", re.MULTILINE)
_LINE: Final = re.compile(r"^\s*([\d,]+) \(\s*[\d.]+%\)\s+(\S+)(?: \[(\S+)\])?", re.MULTILINE)


def count(stage: Stage, row: Row, *, seconds: float, note: Note) -> str:
    """The functions that took most instructions of their own, for each call.

    Raises:
        Failed: the row is none of the gateway's, valgrind is not there, or an answer was not right.
    """
    for tool in ("valgrind", "callgrind_control", "callgrind_annotate"):
        if shutil.which(tool) is None:
            raise Failed(f"{tool} is not installed; on Debian: apt-get install valgrind")
    file = stage.folder / "callgrind.out"
    command = (
        "valgrind",
        "--tool=callgrind",
        "--instr-atstart=no",
        f"--callgrind-out-file={file}",
        sys.executable,
        penstock(),
    )
    process = stage.start_gateway_for(row, command)
    prepared = cpu.prepare(stage, row)
    cpu.measure(prepared, _WARM_SECONDS, [])
    _run("callgrind_control", "-i", "on", str(process.pid))
    sample = cpu.measure(prepared, seconds, [])
    _run("callgrind_control", "-i", "off", str(process.pid))
    process.stop()
    note(f"{sample.calls} calls under callgrind")
    listing = _run("callgrind_annotate", "--inclusive=no", "--auto=no", "--threshold=99", str(file))
    return render(row, file.read_text("utf-8", "replace"), listing, sample.calls)


def render(row: Row, written: str, listing: str, calls: int) -> str:
    """A table by own instructions; `written` is what callgrind wrote, `listing` what it says of that."""
    found = _TOTAL.search(written)
    if found is None or not calls:
        raise Failed("callgrind counted nothing; count longer with --seconds")
    total = int(found[1])
    own: dict[tuple[str, str], int] = {}
    for number, function, place in _LINE.findall(listing):
        if function != "PROGRAM":
            key = function.rpartition(":")[2], Path(place).name
            own[key] = own.get(key, 0) + int(number.replace(",", ""))
    lines = [(f"{row.title}: {total / calls:,.0f} instructions for each call", "own", "of", "in")]
    for (function, place), count_ in sorted(own.items(), key=lambda item: -item[1])[:TOP]:
        lines.append((function, f"{count_ / calls:,.0f}", f"{count_ / total:.1%}", place))
    return table(lines)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"{command[0]} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout
