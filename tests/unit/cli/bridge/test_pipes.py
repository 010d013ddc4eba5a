"""Descriptors of any kind are read and written, and nobody waits for them but their own thread."""

import asyncio
import os
import socket
from pathlib import Path

from penstock.cli.bridge.pipes import InputPipe, OutputPipe
from tests.unit.gateway.conftest import until


async def test_a_file_is_read_to_its_end_and_written(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"x" * 100_000)
    with (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("wb", 0) as target:
        reader, writer, size = InputPipe(source.fileno()), OutputPipe(target.fileno(), high=10), 0
        while chunk := await reader.read():
            size += len(chunk)
            writer.write(b"%d" % size)
        await writer.drained(5)
        reader.close()
        writer.close()
    assert size == 100_000
    assert (tmp_path / "out").read_bytes().split(b"\n")[-2:] == [b"100000", b""]


async def test_sockets_and_devices_are_read_as_well() -> None:
    ours, theirs = socket.socketpair()
    nothing = os.open(os.devnull, os.O_RDONLY)
    with ours, theirs:
        reader = InputPipe(theirs.fileno())
        assert "at rest" in repr(reader)
        ours.send(b"abc")
        assert await reader.read() == b"abc"
        empty = InputPipe(nothing)
        assert await empty.read() == b""
        for pipe in (reader, empty):
            pipe.close()
            await asyncio.to_thread(pipe.thread.join)
    os.close(nothing)


async def test_descriptors_that_do_not_block_are_waited_for_all_the_same() -> None:
    (in_read, in_write), (out_read, out_write) = os.pipe(), os.pipe()
    os.set_blocking(in_read, False)
    os.set_blocking(out_write, False)
    reader, writer = InputPipe(in_read), OutputPipe(out_write, high=10)
    reading = asyncio.create_task(reader.read())
    writer.write(b"x" * 1_000_000)
    await asyncio.sleep(0)
    os.write(in_write, b"late")
    assert await reading == b"late"
    left = 1_000_001
    while left:
        left -= len(await asyncio.to_thread(os.read, out_read, 1_000_000))
    await writer.drained(5)
    assert not writer.broken.is_set()
    for pipe in (reader, writer):
        pipe.close()
        await asyncio.to_thread(pipe.thread.join)
    for fd in (in_read, in_write, out_read, out_write):
        os.close(fd)


async def test_what_cannot_be_read_has_ended() -> None:
    reader = InputPipe(1_000_000)
    assert await reader.read() == b""
    reader.close()


async def test_output_says_when_it_is_full_and_when_there_is_room_again() -> None:
    told: list[bool] = []
    source, target = os.pipe()
    writer = OutputPipe(target, high=100_000, on_full=told.append)
    written = 0
    while not told:
        writer.write(b"x" * 9_999)
        written += 10_000
        await asyncio.sleep(0)
    assert writer.is_full
    assert "full" in repr(writer)
    while written:
        written -= len(await asyncio.to_thread(os.read, source, 1_000_000))
    await writer.room()
    assert told == [True, False]
    writer.write(b"last")
    writer.close()
    await asyncio.to_thread(writer.thread.join)
    assert os.read(source, 100) == b"last\n"
    os.close(source)
    os.close(target)


async def test_output_that_nobody_reads_any_more_is_broken_and_holds_nobody_up() -> None:
    source, target = os.pipe()
    os.close(source)
    writer = OutputPipe(target, high=10)
    writer.write(b"x" * 100)
    await until(writer.broken.is_set)
    await writer.room()
    await writer.drained(5)
    writer.write(b"more")
    assert "broken" in repr(writer)
    assert not writer.is_full
    os.close(target)


async def test_waiting_for_a_reader_is_bounded() -> None:
    source, target = os.pipe()
    writer = OutputPipe(target, high=10)
    writer.write(b"x" * 1_000_000)
    await writer.drained(0.05)
    assert not writer._empty.is_set()
    os.close(source)
    await until(writer.broken.is_set)
    os.close(target)
