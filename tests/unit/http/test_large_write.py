"""Large answers: all of their bytes arrive in order, whatever the kernel takes at once."""

import asyncio
import os
import socket
from typing import Any, cast

import pytest

from penstock.http.large_write import NONE, descriptor_of, write_pieces
from penstock.http.limits import ServerLimits
from penstock.http.server import Exchange
from tests.unit.http.server_lane import GET, serving

BIG = os.urandom(3 * 1024 * 1024)
PIECES = (b"head", memoryview(BIG)[1:-1], b"", b"end")


class Transport:
    """What was written by the transport itself."""

    def __init__(self, waiting: int = 0, *, closing: bool = False, **facts: object) -> None:
        self.written = b""
        self.waiting, self.closing, self.facts = waiting, closing, facts

    def write(self, data: bytes | memoryview) -> None:
        self.written += bytes(data)

    def writelines(self, pieces: list[bytes | memoryview]) -> None:
        self.written += b"".join(pieces)

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def is_closing(self) -> bool:
        return self.closing

    def get_extra_info(self, name: str) -> object:
        return self.facts.get(name)


def transport(**more: Any) -> tuple[Transport, asyncio.Transport]:
    made = Transport(**more)
    return made, cast(asyncio.Transport, made)


def test_what_the_kernel_does_not_take_is_left_to_the_transport() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        seen, written = transport()
        write_pieces(written, ours.fileno(), PIECES)
        taken = b""
        while chunk := theirs.recv(1 << 20) if len(taken) + len(seen.written) < len(BIG) + 5 else b"":
            taken += chunk
        assert 0 < len(taken) < len(BIG), "or the test shows nothing"
        assert taken + seen.written == b"".join(PIECES)


@pytest.mark.parametrize("more", [{"waiting": 1}, {"closing": True}])
def test_nothing_overtakes_what_waits_and_nothing_is_written_to_what_closes(more: dict[str, Any]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        seen, written = transport(**more)
        write_pieces(written, ours.fileno(), PIECES)
        assert seen.written == b"".join(PIECES)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)


def test_a_broken_or_unknown_descriptor_is_the_transports_trouble() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours:
        for descriptor in (ours.fileno(), NONE):
            seen, written = transport()
            write_pieces(written, descriptor, PIECES)
            assert seen.written == b"".join(PIECES)


def test_bytes_that_must_be_encrypted_have_no_descriptor() -> None:
    with socket.socket() as sock:
        assert descriptor_of(transport(socket=sock)[1]) == sock.fileno()
        assert descriptor_of(transport(socket=sock, sslcontext=object())[1]) == NONE
    assert descriptor_of(transport()[1]) == NONE


async def test_a_client_that_reads_slowly_gets_every_byte_of_large_answers_in_order() -> None:
    def answer(exchange: Exchange) -> None:
        exchange.respond(200, (b"[", memoryview(BIG)[: 200_000 + len(exchange.request.path)], b"]"))

    async with serving(handle=answer, limits=ServerLimits()) as lane:
        client = await lane.connect()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        (connection,) = lane.server.open_connections
        for number in range(40):
            client.send(GET % number)
        await lane.until(lambda: connection._transport.get_write_buffer_size() > 0)
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        for number in range(40):
            body = (await client.answer()).body
            assert body == b"[%b]" % BIG[: 200_000 + len(f"/{number}")]
