"""Pass a client's connection to another process on this machine, with the request that waits for its answer on it.

Knows: Unix datagrams, how descriptors travel in them. Does not know: what requests mean, why one is passed.
Invariants: a connection belongs to one process at a time, or to the datagram it travels in; what cannot be passed at once is not
passed at all, and nothing waits; a datagram that nobody takes ends its connection when its socket is closed.

Source: unix(7), SCM_RIGHTS. A process that is being started again finds what was sent to it meanwhile, as its socket outlives it.
"""

import array
import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

log = logging.getLogger("penstock.http")

MAX_BYTES: Final = 64 * 1024
"""Of a request, and what was sent ahead, in one datagram; the kernel's own bound is about three times that."""
MAX_MOVES: Final = 3
"""So often a connection is passed: one that carries the requests of many sessions would go to and fro."""
MAX_LAST: Final = 1024
"""Connections that are taken at the end; others may still be sending."""
SLICE: Final = 16
"""Connections that are taken in one turn of the loop."""

Give = Callable[[int, bytes, int], bool]
"""Takes a connection's descriptor, what was sent ahead on it, and how often it was passed; says whether it is passed now."""
Take = Callable[[socket.socket, bytes, int], None]
"""Gets a connection, what has arrived on it, and how often it was passed."""


class Passage:
    """One process's socket for connections: its own come in by it, and others go out."""

    def __init__(self, own: socket.socket, places: Sequence[Path], *, at_once: int = SLICE) -> None:
        """`own`: bound to one of `places`, which are those of all processes by number; `at_once`: taken in one turn."""
        self._own = own
        self._at_once: Final = at_once
        self._places: Final = tuple(map(str, places))
        self._take: Take | None = None
        self.passed = 0
        self.taken = 0

    def __repr__(self) -> str:
        return f"<Passage [{self.passed} passed {self.taken} taken]>"

    def open(self, take: Take) -> None:
        """From now on connections are taken."""
        self._own.setblocking(False)
        self._take = take
        asyncio.get_running_loop().add_reader(self._own.fileno(), self._read)

    def close(self) -> None:
        """Take those that are there, and none any more; what still comes waits for whoever opens the socket next."""
        if self._take is not None:
            for _ in range(MAX_LAST // self._at_once + 1):
                if not self._read():
                    break
            self._take = None
            asyncio.get_running_loop().remove_reader(self._own.fileno())

    def give(self, number: int, request: bytes, descriptor: int, ahead: bytes, moves: int) -> bool:
        """Pass a connection to that process; False when it must stay: it takes none now, or there is too much to be sent."""
        if len(request) + len(ahead) > MAX_BYTES or moves >= MAX_MOVES or self._take is None:
            return False
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
        try:
            self._own.sendmsg([bytes([moves + 1]), request, ahead], rights, 0, self._places[number])
        except OSError:  # its queue is full, or it is gone for good
            return False
        self.passed += 1
        return True

    def _read(self) -> bool:
        """Take some; whether there may be more."""
        for _ in range(self._at_once):
            try:
                data, rights, flags, _ = self._own.recvmsg(
                    MAX_BYTES + 1, socket.CMSG_SPACE(array.array("i").itemsize), getattr(socket, "MSG_CMSG_CLOEXEC", 0)
                )
            except OSError:
                return False
            found = array.array("i")
            for level, kind, raw in rights:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    found.frombytes(raw[: len(raw) - len(raw) % found.itemsize])
            if len(found) == 1 and len(data) > 1 and not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                self._accept(found[0], data)
            else:
                log.error("a connection came without its request: %d bytes, %d descriptors", len(data), len(found))
                for descriptor in found:
                    os.close(descriptor)
        return True

    def _accept(self, descriptor: int, data: bytes) -> None:
        connection = socket.socket(fileno=descriptor)
        with contextlib.ExitStack() as unless_taken:
            unless_taken.callback(connection.close)
            connection.setblocking(False)
            if self._take is not None:
                self._take(connection, data[1:], data[0])
                self.taken += 1
                unless_taken.pop_all()
