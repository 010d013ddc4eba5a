"""A transport whose other end is the fuzzer.

Knows: what asyncio promises protocols. Does not know: HTTP.
"""

import asyncio
from typing import Any


class FuzzTransport(asyncio.Transport):
    """Keeps what is written; ends the protocol as asyncio would, from the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._loop = loop
        self._protocol: asyncio.Protocol | None = protocol
        self.written: list[bytes] = []
        self.is_paused = False
        self.is_half_closed = False
        self._closing = False
        protocol.connection_made(self)

    def __repr__(self) -> str:
        return f"<FuzzTransport {sum(map(len, self.written))} B written {'closing' if self._closing else 'open'}>"

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Only the peer's name is known."""
        return ("127.0.0.1", 1) if name == "peername" else default

    def is_closing(self) -> bool:
        return self._closing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._closing:
            self.written.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.is_half_closed = True

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self.lose, None)

    def abort(self) -> None:
        self.close()

    def lose(self, error: Exception | None) -> None:
        """The connection is gone; the protocol learns it once."""
        self._closing = True
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.connection_lost(error)

    def feed(self, data: bytes) -> bool:
        """Bytes from the other end; False when nobody takes them any more."""
        if self._protocol is None or self._closing:
            return False
        self._protocol.data_received(data)
        return True

    def feed_eof(self) -> None:
        """The other end says no more."""
        if self._protocol is not None and not self._closing and not self._protocol.eof_received():
            self.close()
