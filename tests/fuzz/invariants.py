"""What must hold for every input, whatever it is: no error, no hang, nothing left behind.

Knows: the loop, the process. Does not know: what is fuzzed.
"""

import asyncio
import gc
import logging
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

HANG_SECONDS: Final = 1.0
"""Of processor time for one input: a busy machine is no hang."""
CHECK_EVERY: Final = 1_000
WARM_UP: Final = 2_000
MAX_MORE_BLOCKS: Final = 60_000
"""Python's allocated blocks, above what they were after the warm-up."""


_DESCRIPTORS: Final = Path("/dev/fd")


class Finding(Exception):
    """An invariant does not hold."""


class Guard(logging.Handler):
    """Runs one input after the other on one loop, and looks at everything around it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(self._unhandled)
        self._problems: list[str] = []
        self._runs = 0
        self._blocks = self._descriptors = 0
        logging.getLogger("penstock").addHandler(self)
        logging.getLogger("penstock").propagate = False

    def __repr__(self) -> str:
        return f"<Guard after {self._runs} runs>"

    def close(self) -> None:
        """Leave the loop and the log as they were."""
        logging.getLogger("penstock").removeHandler(self)
        logging.getLogger("penstock").propagate = True
        self.loop.close()
        super().close()

    def emit(self, record: logging.LogRecord) -> None:
        """An error of ours that was caught and logged is a finding all the same, unless the input asked for it."""
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, AskedFor):
            self._problems.append(f"logged: {record.getMessage()} {error!r}")

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Try one input."""
        started = time.process_time()
        self.loop.run_until_complete(work)
        took = time.process_time() - started
        left = asyncio.all_tasks(self.loop)
        if left:
            raise Finding(f"{len(left)} tasks are left: {left}")
        if took > HANG_SECONDS:
            raise Finding(f"took {took:.1f} s of processor time")
        if self._problems:
            problems, self._problems = self._problems, []
            raise Finding("; ".join(problems))
        self._runs += 1
        if self._runs % CHECK_EVERY == 0:
            self._check_growth()

    def _unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._problems.append(f"unhandled: {context.get('message')} {context.get('exception')!r}")

    def _check_growth(self) -> None:
        gc.collect()
        blocks, descriptors = sys.getallocatedblocks(), len(list(_DESCRIPTORS.iterdir()))
        if self._runs <= WARM_UP:
            self._blocks, self._descriptors = blocks, descriptors
        elif descriptors > self._descriptors:
            raise Finding(f"{descriptors} descriptors are open, {self._descriptors} were after {WARM_UP} inputs")
        elif blocks > self._blocks + MAX_MORE_BLOCKS:
            raise Finding(f"{blocks} blocks of memory, {self._blocks} after {WARM_UP} inputs")


class AskedFor(Exception):
    """The input asked the handler to fail."""


def pieces(data: bytes, step: int) -> list[bytes]:
    """Cut into pieces of `step` bytes, growing by one each; whole for 0."""
    if step == 0:
        return [data]
    cut, position = [], 0
    while position < len(data):
        cut.append(data[position : position + step])
        position += step
        step += 1
    return cut
