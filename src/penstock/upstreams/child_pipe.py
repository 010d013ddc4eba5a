"""Our end of a child's pipe, and who closes it.

Knows: descriptors, what the two event loops close. Does not know: processes, what the pipe carries.
Invariant: each descriptor is closed exactly once. A second close would end whatever another thread has opened under the same
number meanwhile.

asyncio's transports close the object they were given, and with it the descriptor. uvloop's (libuv) close the descriptor, also
when connecting is cancelled, and afterwards the object too, for which the failure EBADF is expected.
"""

import asyncio
import os
from typing import IO, Final


class PipeEnd:
    """Owns the descriptor of a pipe until an event loop that closes descriptors itself takes it."""

    __slots__ = ("_fd", "_is_ours")

    def __init__(self, pipe: IO[bytes]) -> None:
        """Take the descriptor's place; `pipe` itself is closed."""
        self._fd: Final = os.dup(pipe.fileno())
        self._is_ours = True
        pipe.close()

    def __repr__(self) -> str:
        return f"<PipeEnd {self._fd} {'ours' if self._is_ours else 'closed or taken'}>"

    def fileno(self) -> int:
        """The descriptor."""
        return self._fd

    def close(self) -> None:
        """Close it unless that is done, or is the event loop's to do. Idempotent."""
        if self._is_ours:
            self._is_ours = False
            os.close(self._fd)

    async def connect_reader(self, protocol: asyncio.BaseProtocol) -> asyncio.ReadTransport:
        """Let the running loop read it; from now on the transport is what is closed."""
        loop = self._hand_over()
        transport, _ = await loop.connect_read_pipe(lambda: protocol, self)
        return transport

    async def connect_writer(self, protocol: asyncio.BaseProtocol) -> asyncio.WriteTransport:
        """Let the running loop write to it; from now on the transport is what is closed."""
        loop = self._hand_over()
        transport, _ = await loop.connect_write_pipe(lambda: protocol, self)
        return transport

    def _hand_over(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        self._is_ours = isinstance(loop, asyncio.BaseEventLoop)
        return loop
