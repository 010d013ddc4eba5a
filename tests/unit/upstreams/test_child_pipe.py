"""Descriptors of pipes: closed once, whoever closes them and whenever."""

import asyncio
import os
from typing import Any

import pytest

from penstock.upstreams.child_pipe import PipeEnd


@pytest.fixture(scope="module", params=[True, False], ids=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param}


class Reader(asyncio.Protocol):
    def __init__(self) -> None:
        self.data = b""
        self.lost = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


def new_pipe() -> tuple[PipeEnd, PipeEnd]:
    reading, writing = os.pipe()
    return PipeEnd(os.fdopen(reading, "rb", buffering=0)), PipeEnd(os.fdopen(writing, "wb", buffering=0))


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


async def closed(end: PipeEnd) -> None:
    """Transports close in one of the loop's next turns."""
    for _ in range(10):
        if not is_open(end.fileno()):
            return
        await asyncio.sleep(0)
    raise AssertionError(f"{end!r} is still open")


def occupy(fd: int) -> None:
    """Something else is opened under a number that is free."""
    null = os.open("/dev/null", os.O_RDONLY)
    if null != fd:
        os.dup2(null, fd, inheritable=False)
        os.close(null)


async def test_bytes_go_through() -> None:
    reading, writing = new_pipe()
    reader, writer = Reader(), Reader()
    await reading.connect_reader(reader)
    transport = await writing.connect_writer(writer)
    transport.write(b"hello")
    transport.close()
    async with asyncio.timeout(5):
        await reader.lost.wait()
        await writer.lost.wait()
    assert reader.data == b"hello"
    await closed(reading)
    await closed(writing)


async def test_what_was_never_connected_is_closed_once() -> None:
    reading, writing = new_pipe()
    assert repr(reading) == f"<PipeEnd {reading.fileno()} ours>"
    for end in (reading, writing):
        end.close()
        occupy(end.fileno())
        end.close()
        os.close(end.fileno())  # fails if it was closed already
    assert repr(reading) == f"<PipeEnd {reading.fileno()} closed or taken>"


async def test_a_connecting_that_is_cancelled_leaves_no_descriptor_and_closes_no_other() -> None:
    reading, writing = new_pipe()
    connecting = asyncio.create_task(reading.connect_reader(Reader()))
    await asyncio.sleep(0)
    connecting.cancel()
    await asyncio.wait((connecting,))
    assert connecting.cancelled()
    await closed(reading)
    occupy(reading.fileno())
    reading.close()
    os.close(reading.fileno())  # fails if it was closed already
    writing.close()


async def test_a_descriptor_the_loop_has_closed_is_not_closed_again() -> None:
    """uvloop closes what it took and then the object it was given."""
    reading, writing = new_pipe()
    reader = Reader()
    transport = await reading.connect_reader(reader)
    transport.close()
    async with asyncio.timeout(5):
        await reader.lost.wait()
    await closed(reading)
    occupy(reading.fileno())
    reading.close()
    os.close(reading.fileno())
    writing.close()
