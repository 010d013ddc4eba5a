"""The floor: a relay that copies bytes both ways and looks at none of them: `python -m benchmarks.relay PORT`.

Nothing that proxies on this event loop can cost less. It prints `listening PORT` and serves until SIGTERM.
"""

import argparse
import asyncio
from typing import cast

import uvloop


class Towards(asyncio.Protocol):
    """The connection to the server; what comes from it goes to the client."""

    def __init__(self, client: asyncio.Transport) -> None:
        self._client = client

    def data_received(self, data: bytes) -> None:
        self._client.write(data)

    def connection_lost(self, _error: Exception | None) -> None:
        self._client.close()


class Relay(asyncio.Protocol):
    """The connection of a client; what comes before the server is reached waits."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._server: asyncio.Transport | None = None
        self._early: list[bytes] = []
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._task = asyncio.get_running_loop().create_task(self._connect(cast("asyncio.Transport", transport)))

    async def _connect(self, client: asyncio.Transport) -> None:
        loop = asyncio.get_running_loop()
        server, _ = await loop.create_connection(lambda: Towards(client), "127.0.0.1", self._port)
        self._server = server
        for data in self._early:
            self._server.write(data)

    def data_received(self, data: bytes) -> None:
        if self._server:
            self._server.write(data)
        else:
            self._early.append(data)

    def connection_lost(self, _error: Exception | None) -> None:
        if self._server:
            self._server.close()


async def serve(port: int) -> None:
    """Relay a free port of the loopback interface to `port` until cancelled."""
    server = await asyncio.get_running_loop().create_server(lambda: Relay(port), "127.0.0.1", 0, backlog=1024)
    print(f"listening {server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.relay")
    parser.add_argument("port", type=int, help="of the server, on the loopback interface")
    uvloop.run(serve(parser.parse_args().port))
