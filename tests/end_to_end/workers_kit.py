"""A gateway of several processes, who of them serves which connection, and what it leaves behind.

Knows: the command line, /proc. Does not know: anything inside the gateway.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from penstock.http.client import HttpClient, RequestFailed
from tests.end_to_end.faults_kit import (
    STDIO_SERVER,
    Era,
    Gateway,
    McpClient,
    children,
    command_line,
    is_alive,
    server_tables,
    stdio_servers,
    until,
)

DRAIN = '[limits]\ndrain = "5s"\n'


class Workers(Gateway):
    """`penstock serve --workers N` before one stdio server, `child`."""

    def __init__(self, folder: Path, config: str | None = None, *, count: int = 2, **more: Any) -> None:
        self.mark = folder.name
        if config is None:
            config = server_tables({"child": [*STDIO_SERVER, self.mark]}) + DRAIN
        super().__init__(folder, config, flags=("--workers", str(count)), **more)
        self.count = count
        self.ever: set[int] = set()
        """Every process that was ever seen to be a part of it."""

    def ready(self) -> None:
        """Until all workers run, and the stdio server does."""
        until(lambda: len(self.workers()) == self.count and self.owner(), 10, "all workers ran, and the child")

    def workers(self) -> list[int]:
        """Processes that serve."""
        found = [pid for pid in children(self.pid) if is_alive(pid)]
        self.ever.update(found, *(children(pid) for pid in found))
        return found

    def replaced(self, killed: int) -> bool:
        """Whether all run again. A process that was killed has closed its sockets a while before it counts as dead."""
        return len(set(self.workers()) - {killed}) == self.count

    def owner(self) -> int:
        """The worker that has the stdio servers; 0 when there is none."""
        return next((pid for pid in self.workers() if stdio_servers(pid)), 0)

    def servers(self) -> list[int]:
        """Processes of the stdio server, whosever children they are."""
        pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
        return [pid for pid in pids if "stdio_server" in (line := command_line(pid)) and self.mark in line]

    def left(self) -> list[str]:
        """What is still there of it."""
        alive = [command_line(pid) for pid in {self.pid, *self.ever} if is_alive(pid)]
        return [*alive, *map(command_line, self.servers())]

    def worker_at(self, port: int) -> int:
        """Who serves the connection of a client that has that port."""
        ours = int(self.address.rpartition(":")[2])
        for line in Path(f"/proc/{self.pid}/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            local, remote = (int(field.rpartition(":")[2], 16) for field in fields[1:3])
            if (local, remote) == (ours, port):
                wanted = f"socket:[{fields[9]}]"
                return next((pid for pid in self.workers() if wanted in links(pid)), 0)
        return 0

    @asynccontextmanager
    async def client_at(self, worker: int, era: Era, session: str | None = None) -> AsyncIterator[McpClient]:
        """A client whose connection that worker serves: one of many that were tried."""
        async with AsyncExitStack() as stack:
            for _ in range(64):
                http = await stack.enter_async_context(HttpClient())
                client = McpClient(http, self.url, era, session=session)
                try:
                    await http.get(f"http://{self.address}/health")
                except RequestFailed:  # a worker that has just died had been given the connection
                    continue
                if self.worker_at(port_of(http)) == worker:
                    yield client
                    return
        raise AssertionError(f"of 64 connections worker {worker} was given none")


def links(pid: int) -> set[str]:
    """What its descriptors are."""
    found = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.add(str(path.readlink()))
        except OSError:
            continue  # closed meanwhile
    return found


def port_of(http: HttpClient) -> int:
    """Of its one connection."""
    (connection,) = http._open
    assert connection._transport is not None
    sock: socket.socket = connection._transport.get_extra_info("socket")
    return int(sock.getsockname()[1])


async def eventually(holds: Any, seconds: float, what: str) -> None:
    """`until`, for tests whose clients go on meanwhile."""
    await asyncio.to_thread(until, holds, seconds, what)
