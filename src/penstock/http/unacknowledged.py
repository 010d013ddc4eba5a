"""How much of what was written has not arrived.

Knows: transports and their sockets. Does not know: what the bytes mean, what is done about a slow reader.
"""

import asyncio
import contextlib
import fcntl
import sys
import termios


def unacknowledged_bytes(transport: asyncio.Transport) -> int:
    """What was written and has not reached the client's machine: ours and, where the kernel tells, the kernel's part.

    The kernel takes more from us only when a third of its buffer is free, which may be megabytes: watching our part
    alone would take a slow reader for one that does not read.
    """
    waiting = transport.get_write_buffer_size()
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            waiting += int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    return waiting
