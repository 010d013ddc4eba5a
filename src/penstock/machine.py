"""What a process that serves for long asks of its machine and its interpreter.

Knows: the collector, the allocator, limits of the operating system. Does not know: the rest of Penstock.
"""

import ctypes
import gc
import logging
import resource
from typing import Final

_log = logging.getLogger(__name__)
_MIB: Final = 1024 * 1024
_M_TRIM_THRESHOLD: Final = -1
_M_TOP_PAD: Final = -2
_M_MMAP_THRESHOLD: Final = -3


def tune_collector() -> None:
    """Once everything is built: what lives now lives long, so later collections need not walk it, and need not be often.

    A call leaves no cycles behind; the collector is there for the rare exception that does.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def tune_allocator() -> None:
    """Let glibc keep what large results free, instead of giving pages back and faulting them in again at each call.

    Source: mallopt(3). Where there is no mallopt (macOS, musl) nothing needs doing, or nothing can be done.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 4 * _MIB)
        mallopt(_M_TRIM_THRESHOLD, 64 * _MIB)
        mallopt(_M_TOP_PAD, 4 * _MIB)


def raise_descriptor_limit() -> int:
    """Raise the soft limit on open files to the hard one; returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, 1_048_576) if hard != resource.RLIM_INFINITY else 1_048_576
    if soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            return soft
    _log.info("open files: at most %d", wanted)
    return wanted
