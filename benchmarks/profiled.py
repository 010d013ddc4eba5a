"""Penstock's command line under cProfile: `python -m benchmarks.profiled FILE WORD…`.

Time is the thread's CPU time, so what other programs take is not counted as ours.
"""

import cProfile
import sys
import time

from penstock.cli.main import main

if __name__ == "__main__":
    file, *words = sys.argv[1:]
    sys.argv = ["penstock", *words]
    profile = cProfile.Profile(time.thread_time)
    try:
        profile.runcall(main)
    finally:
        profile.dump_stats(file)
