"""A paced sender of its own process: calls leave at times fixed beforehand, whatever became of earlier ones.

Knows: sockets, the clock, what a right answer is byte by byte. Does not know: who answers.
A call's latency counts from when it was to be sent, so a slow answer cannot hide the calls that had to wait for it. How late the
sender itself was is told apart (`slip`): a round in which it slipped says nothing about who answers.
Arrivals are independent of each other (exponential gaps, a fixed seed), as those of many clients are.

`python -m benchmarks.sender FILE` reads an `Order` as JSON and prints an `Outcome` as JSON.
"""

import ctypes
import gc
import json
import os
import random
import select
import socket
import sys
import time
from collections import deque
from itertools import accumulate
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.figures import quantile
from benchmarks.messages import FIRST_ID

SEED: Final = 20260728
GIVE_UP_SECONDS: Final = 5.0
"""How long answers may take after the last call was sent."""
_PR_SET_TIMERSLACK: Final = 29


class Order(NamedTuple):
    """What to send; bytes are written as Latin-1."""

    port: int
    head: str
    tail: str
    prefix: str
    suffix: str
    calls_per_second: float
    calls: int
    connections: int = 64


class Outcome(NamedTuple):
    """What came of it; times in milliseconds."""

    calls: int
    wrong: int
    unanswered: int
    p50: float
    p99: float
    most: float
    slip_p99: float
    waited: int
    """Calls that found every connection busy."""
    is_first_in_line: bool = False
    """Whether the kernel let the sender go before other programs."""


def schedule(calls: int, calls_per_second: float, seed: int = SEED) -> list[float]:
    """When each call is to be sent, in seconds from the start."""
    arrivals = random.Random(seed)
    return list(accumulate(arrivals.expovariate(calls_per_second) for _ in range(calls)))


class Sender:
    """One round."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._head, self._tail = order.head.encode("latin-1"), order.tail.encode("latin-1")
        self._prefix, self._suffix = order.prefix.encode("latin-1"), order.suffix.encode("latin-1")
        self._due = schedule(order.calls, order.calls_per_second)
        self._free = [_connect(order.port) for _ in range(order.connections)]
        self._busy: dict[socket.socket, int] = {}
        self._received: dict[socket.socket, bytes] = {}
        self._waiting: deque[int] = deque()
        self._start = 0.0
        self._latencies: list[float] = []
        self._slips: list[float] = []
        self._waited = 0
        self._wrong = 0

    def __repr__(self) -> str:
        return f"<Sender {len(self._slips)}/{self._order.calls} sent, {len(self._busy)} under way>"

    def run(self) -> Outcome:
        """Send all calls, and wait for their answers."""
        clock = time.perf_counter
        self._start = clock() + 0.05
        total = self._order.calls
        upcoming = 0
        give_up_at = self._start + self._due[-1] + GIVE_UP_SECONDS
        while len(self._latencies) + self._wrong < total and clock() < give_up_at:
            while upcoming < total and clock() - self._start >= self._due[upcoming]:
                self._slips.append(clock() - self._start - self._due[upcoming])
                self._begin(upcoming)
                upcoming += 1
            until = self._start + self._due[upcoming] if upcoming < total else give_up_at
            ready, _, _ = select.select(list(self._busy), [], [], max(0.0, until - clock()))
            for one in ready:
                self._take(one, clock() - self._start)
        return self._outcome()

    def close(self) -> None:
        """Close the connections."""
        for one in [*self._free, *self._busy]:
            one.close()

    def _begin(self, call: int) -> None:
        if not self._free:
            self._waited += 1
            self._waiting.append(call)
            return
        self._send(self._free.pop(), call)

    def _send(self, connection: socket.socket, call: int) -> None:
        connection.send(b"%b%d%b" % (self._head, FIRST_ID + call, self._tail))
        self._busy[connection] = call
        self._received[connection] = b""

    def _take(self, connection: socket.socket, now: float) -> None:
        received = self._received[connection] + connection.recv(262_144)
        self._received[connection] = received
        body = _complete(received)
        if body is None:
            return
        call = self._busy.pop(connection)
        if body == b"%b%d%b" % (self._prefix, FIRST_ID + call, self._suffix) and received.startswith(b"HTTP/1.1 200"):
            self._latencies.append(now - self._due[call])
        else:
            self._wrong += 1
        if self._waiting:
            self._send(connection, self._waiting.popleft())
        else:
            self._free.append(connection)

    def _outcome(self) -> Outcome:
        unanswered = self._order.calls - len(self._latencies) - self._wrong
        ordered = sorted(self._latencies) or [0.0]
        slips = sorted(self._slips) or [0.0]
        p50, p99, most, slip = (
            1e3 * value
            for value in (quantile(ordered, 0.5), quantile(ordered, 0.99), ordered[-1], quantile(slips, 0.99))
        )
        return Outcome(self._order.calls, self._wrong, unanswered, p50, p99, most, slip, self._waited)


def _complete(received: bytes) -> bytes | None:
    """The body, once all of it is there; empty when the connection was closed before."""
    head, mark, body = received.partition(b"\r\n\r\n")
    if not received:
        return b""
    if not mark:
        return None
    _, found, rest = head.lower().partition(b"\r\ncontent-length:")
    if not found:
        return b""  # wrong: every answer of this row has a length
    length = int(rest.split(b"\r\n", 1)[0])
    return body if len(body) >= length else None


def _connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), GIVE_UP_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _go_first() -> bool:
    """Ask to run whenever there is something to do; granted to root. It sleeps nearly always, so nobody starves.

    What waits then is what is measured: the sender's share of the machine counts against it, in both halves of a round.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except OSError:
        return False
    return True


def main(file: Path) -> None:
    """Carry out the order in a file."""
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)  # sleep as exactly as the kernel can, not to 50 µs
    is_first = _go_first()
    sender = Sender(Order(**json.loads(file.read_text("utf-8"))))
    gc.collect()
    gc.disable()
    try:
        print(json.dumps(sender.run()._replace(is_first_in_line=is_first)._asdict()), flush=True)
    finally:
        sender.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
