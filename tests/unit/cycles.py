"""See whether something leaves reference cycles: only the collector takes those, and it comes seldom (`penstock.machine`)."""

import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

ROOMS = ("penstock.errors", "penstock.gateway.", "penstock.upstreams.")


@contextmanager
def nothing_left() -> Iterator[None]:
    """Fails when a cycle that holds objects of ours was left behind in the block."""
    gc.collect()
    gc.freeze()  # what is there already need not be looked through again
    gc.disable()
    try:
        yield
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = Counter(type(one).__qualname__ for one in gc.garbage if type(one).__module__.startswith(ROOMS))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
        gc.unfreeze()
    assert not left, left
