"""Penstock's command line with a sampling profiler in it: `python -m benchmarks.profiled FILE WORD…`.

From SIGUSR2 on it looks every few milliseconds of CPU time which function runs; what it saw goes to FILE when the program
ends. What a function's calls into C and into the kernel take counts as its own.
"""

import json
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Final

from penstock.cli.main import main

EVERY_SECONDS: Final = 0.001
"""Kernels with a slower clock look less often."""


class Sampler:
    """Counts functions by where the program was."""

    def __init__(self) -> None:
        self.own: Counter[str] = Counter()
        self.total: Counter[str] = Counter()
        """Functions on the stack, each once."""

    def __repr__(self) -> str:
        return f"<Sampler {self.own.total()} samples>"

    def install(self) -> None:
        """Wait for SIGUSR2."""
        signal.signal(signal.SIGPROF, self._look)
        signal.signal(signal.SIGUSR2, lambda *_: signal.setitimer(signal.ITIMER_PROF, EVERY_SECONDS, EVERY_SECONDS))
        signal.siginterrupt(signal.SIGPROF, False)

    def write(self, file: Path) -> None:
        """What was seen, as JSON."""
        signal.setitimer(signal.ITIMER_PROF, 0)
        file.write_text(json.dumps({"own": self.own, "total": self.total}), "utf-8")

    def _look(self, _signal: int, frame: FrameType | None) -> None:
        if frame is None:
            return
        self.own[_name(frame)] += 1
        stack = set()
        current: FrameType | None = frame
        while current is not None:
            stack.add(_name(current))
            current = current.f_back
        self.total.update(stack)


def _name(frame: FrameType) -> str:
    code = frame.f_code
    return f"{code.co_filename.rpartition('penstock/')[2]}:{code.co_firstlineno} {code.co_qualname}"


if __name__ == "__main__":
    target, *words = sys.argv[1:]
    sys.argv = ["penstock", *words]
    sampler = Sampler()
    sampler.install()
    try:
        code = main()
    finally:
        sampler.write(Path(target))
    sys.exit(code)
