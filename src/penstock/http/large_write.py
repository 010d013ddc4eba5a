"""Answers that are too large to be copied, written straight from the pieces they consist of.

Knows: transports and their descriptors. Does not know: what the bytes mean.

A transport keeps what it is given until its next turn, even when the kernel took all of it at once. A dozen large answers in one
turn then fill the processor's cache with what nobody needs any more, which costs every call behind them a tenth of its time
(docs/decisions/011).
"""

import asyncio
import os
from collections.abc import Sequence

NONE = -1
"""No descriptor that may be written to."""


def descriptor_of(transport: asyncio.Transport) -> int:
    """Where the transport's bytes go as they are; `NONE` where it changes them (TLS)."""
    sock = transport.get_extra_info("socket")
    return NONE if sock is None or transport.get_extra_info("sslcontext") is not None else int(sock.fileno())


def write_pieces(transport: asyncio.Transport, descriptor: int, pieces: Sequence[bytes | memoryview]) -> None:
    """Write all pieces in order: at once what the kernel takes, by the transport what is left."""
    sent = 0
    if descriptor != NONE and not transport.is_closing() and transport.get_write_buffer_size() == 0:
        try:
            sent = os.writev(descriptor, pieces)
        except OSError:
            sent = 0  # full, or broken: the transport waits, or finds out and tells
    left: list[bytes | memoryview] = []
    for piece in pieces:
        if sent >= len(piece):
            sent -= len(piece)
        else:
            left.append(memoryview(piece)[sent:] if sent else piece)
            sent = 0
    if left:
        transport.writelines(left)
