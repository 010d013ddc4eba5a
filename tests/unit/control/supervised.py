"""A supervisor over workers that do one small thing: `python -m tests.unit.control.supervised FOLDER COUNT WHAT`.

Everything that happens is a line of FOLDER/log: `WHAT WORKER PID more…`. Forking is done here, in a process of its own, so that
no test is forked with its event loop and threads.
"""

import errno
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import FrameType

from penstock.control.supervisor import CANNOT_START, Supervisor, WorkerPlace

FOLDER = Path(sys.argv[1])
HEARD_SECONDS = 0.2
"""How long a worker listens for the same signal again before it ends."""


def say(*words: object) -> None:
    """One line, whole, whoever else writes."""
    with (FOLDER / "log").open("ab", buffering=0) as log:
        log.write((" ".join(map(str, words)) + "\n").encode())


def serves(place: WorkerPlace) -> int:
    """Runs until it is told to end; says which signals it got, and how often."""
    heard: Counter[int] = Counter()

    def hear(number: int, _frame: FrameType | None) -> None:
        heard[number] += 1
        say("signal", place.index, os.getpid(), signal.Signals(number).name)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, hear)
    say("ready", place.index, os.getpid(), place.count, int(place.is_restart))
    end_at = float("inf")
    while time.monotonic() < end_at:
        watched: list[socket.socket | int] = [place.listener, *([place.alive] if end_at == float("inf") else [])]
        for readable in select.select(watched, [], [], 0.02)[0]:
            if readable is place.listener:
                answer(place)
            else:
                say("orphaned", place.index, os.getpid())
                return 0
        if end_at == float("inf") and (heard[signal.SIGTERM] or heard[signal.SIGINT]):
            end_at = time.monotonic() + HEARD_SECONDS
    say("ended", place.index, os.getpid())
    return 0


def answer(place: WorkerPlace) -> None:
    caller, _ = place.listener.accept()
    with caller:
        caller.sendall(b"%d" % place.index)


def asks_the_others(place: WorkerPlace) -> int:
    """Says who answers at which sibling's place."""
    if place.is_first:
        for path in place.siblings[1:]:
            with socket.socket(socket.AF_UNIX) as caller:
                caller.connect(str(path))
                say("answer", place.index, os.getpid(), path.name, caller.recv(9).decode())
    return serves(place)


def ends_at_once(place: WorkerPlace) -> int:
    say("start", place.index, os.getpid(), time.monotonic())
    return serves(place) if place.is_first else 9


def cannot_start(place: WorkerPlace) -> int:
    say("start", place.index, os.getpid())
    return serves(place) if place.is_first else CANNOT_START


def cannot_start_slowly(place: WorkerPlace) -> int:
    """It takes the first one a while to find out, in which the others serve."""
    if not place.is_first:
        return serves(place)
    say("start", place.index, os.getpid())
    time.sleep(1.5)
    return CANNOT_START


def cannot_start_again(place: WorkerPlace) -> int:
    say("start", place.index, os.getpid())
    return CANNOT_START if place.is_restart else serves(place)


def starts_slowly(place: WorkerPlace) -> int:
    """Is not ready before FOLDER/go is there."""
    say("start", place.index, os.getpid())
    while not (FOLDER / "go").exists():
        time.sleep(0.01)
    return serves(place)


def is_deaf(place: WorkerPlace) -> int:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    say("ready", place.index, os.getpid())
    while True:
        time.sleep(60)


def ends_badly(place: WorkerPlace) -> int:
    serves(place)
    return 3 if place.is_first else 0


def raises(place: WorkerPlace) -> int:
    if place.is_first or place.is_restart:
        return serves(place)
    raise RuntimeError("a defect")


def stays_for_the_others(place: WorkerPlace) -> int:
    if not place.is_first:
        return serves(place)
    signal.signal(signal.SIGTERM, lambda _number, _frame: say("signal", 0, os.getpid(), "SIGTERM"))
    say("ready", place.index, os.getpid())
    select.select([place.others_gone], [], [])
    say("alone", place.index, os.getpid())
    return 0


def lists_descriptors(place: WorkerPlace) -> int:
    """Its own, and those of a program it starts without taking care."""
    for path in Path("/proc/self/fd").iterdir():
        try:
            say("descriptor", place.index, os.getpid(), path.readlink())
        except FileNotFoundError:
            continue  # of the listing itself
    listing = ["/bin/sh", "-c", "for f in /proc/self/fd/*; do readlink $f; done; true"]
    for line in subprocess.run(
        listing, close_fds=False, capture_output=True, text=True, check=True
    ).stdout.splitlines():
        say("inherited", place.index, os.getpid(), line)
    return serves(place)


def short_of_processes(first: int, last: int) -> None:
    """The system has none for the forks of those numbers."""
    count, fork = 0, os.fork

    def forked() -> int:
        nonlocal count
        count += 1
        if first <= count <= last:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return fork()

    os.fork = forked


def main() -> int:
    if len(sys.argv) > 4:
        short_of_processes(*map(int, sys.argv[4:]))
    supervisor = Supervisor(int(sys.argv[2]), globals()[sys.argv[3]], last_seconds=0.5)
    say("repr", repr(supervisor))
    code = supervisor.run()
    say("over", code)
    return code


if __name__ == "__main__":
    sys.exit(main())
