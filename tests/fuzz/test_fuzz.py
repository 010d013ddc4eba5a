"""What the fuzzing targets hold for known inputs, and what they would notice."""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Coroutine, Iterator
from types import ModuleType
from typing import Any

import pytest

from tests.fuzz import client_target, server_target, text_target
from tests.fuzz.invariants import CHECK_EVERY, HANG_SECONDS, WARM_UP, AskedFor, Finding, Guard, pieces
from tests.http_corpus.corpus import load

PLANTED = ValueError("planted")


@pytest.fixture
def guard() -> Iterator[Guard]:
    guard = Guard()
    yield guard
    guard.close()


@pytest.mark.parametrize("module", [server_target, client_target], ids=["server", "client"])
def test_every_message_of_the_corpus_keeps_the_invariants(module: ModuleType, guard: Guard) -> None:
    for message in load():
        for data in module.seed(message.raw)[:2]:
            module.target(guard, data)


def test_every_event_and_every_answer_keeps_the_invariants(guard: Guard) -> None:
    raw = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
    for answer in range(len(server_target.ANSWERS)):
        for event in range(len(server_target.EVENTS)):
            for position in range(3):
                server_target.target(guard, bytes((answer, 20, event, position)) + raw * 3)
    for asked in range(len(client_target.ASKED)):
        for event in range(len(client_target.EVENTS)):
            for head in client_target.HEADS:
                client_target.target(guard, bytes((asked, 20, event, 1)) + head)
    for data in text_target.own_seeds():
        text_target.target(guard, data)


def run_often(guard: Guard, work: Callable[[], Coroutine[Any, Any, None]], times: int) -> None:
    for _ in range(times):
        guard.run(work())


CHUNKED_ANSWER = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"


@pytest.mark.parametrize("trailer", [b"Transfer-Encoding: x", b"Connection: close"])
def test_a_trailer_that_speaks_of_framing_ends_the_connection_it_came_on(trailer: bytes, guard: Guard) -> None:
    answer = CHUNKED_ANSWER + trailer + b"\r\n\r\n"

    async def work() -> None:
        run = client_target.Run("get")
        kind, _, _ = await run.ask([answer])
        assert (kind, run.connection.is_closed()) == ("answer", True)
        await run.end()

    guard.run(work())
    client_target.target(guard, b"\0\0\0\0" + answer)


MEBIBYTE = 1 << 20
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKS = POST + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("beginning", "repeated"),
    [
        (b"", b"\r\n"),
        (b"", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (POST, b"a"),
        (POST, b"X: y\r\n"),
        (CHUNKS, b"1\r\nx\r\n"),
        (CHUNKS, b"0"),
        (CHUNKS + b"0\r\n", b"X: y\r\n"),
    ],
)
@pytest.mark.parametrize("size", [64, MEBIBYTE])
def test_a_mebibyte_of_the_same_costs_no_second(size: int, beginning: bytes, repeated: bytes, guard: Guard) -> None:
    raw = beginning + repeated * (MEBIBYTE // 4 // len(repeated) if size == 64 else MEBIBYTE // len(repeated))

    async def work() -> None:
        run = server_target.Run("at once")
        for start in range(0, len(raw), size):
            if not run.transport.feed(raw[start : start + size]):
                break
        await run.end()

    guard.run(work())


async def nothing() -> None:
    await asyncio.sleep(0)


def test_an_error_in_a_callback_is_a_finding(guard: Guard) -> None:
    async def work() -> None:
        asyncio.get_running_loop().call_soon(raise_planted)
        await nothing()

    with pytest.raises(Finding, match="planted"):
        guard.run(work())


def raise_planted() -> None:
    raise PLANTED


def test_an_error_that_was_logged_is_a_finding_unless_the_input_asked_for_it(guard: Guard) -> None:
    async def work(error: Exception) -> None:
        logging.getLogger("penstock.http").error("a call failed", exc_info=error)

    guard.run(work(AskedFor()))
    with pytest.raises(Finding, match="a call failed"):
        guard.run(work(PLANTED))


def test_a_task_left_behind_is_a_finding(guard: Guard) -> None:
    async def work() -> None:
        work.task = asyncio.get_running_loop().create_task(asyncio.sleep(60))  # type: ignore[attr-defined]

    with pytest.raises(Finding, match="tasks are left"):
        guard.run(work())
    task: asyncio.Task[None] = work.task  # type: ignore[attr-defined]
    task.cancel()
    guard.loop.run_until_complete(asyncio.gather(task, return_exceptions=True))


def test_an_endless_input_is_a_finding(guard: Guard) -> None:
    async def work() -> None:
        started = time.process_time()
        while time.process_time() < started + HANG_SECONDS + 0.1:
            pass

    with pytest.raises(Finding, match="processor time"):
        guard.run(work())


def test_descriptors_left_open_are_a_finding(guard: Guard) -> None:
    opened: list[int] = []

    async def work() -> None:
        if not opened:
            opened.append(os.dup(0))

    run_often(guard, nothing, WARM_UP)
    with pytest.raises(Finding, match="descriptors are open"):
        run_often(guard, work, CHECK_EVERY)
    os.close(opened[0])


def test_memory_that_grows_is_a_finding(guard: Guard) -> None:
    kept: list[object] = []

    async def work() -> None:
        kept.extend(object() for _ in range(100))

    run_often(guard, nothing, WARM_UP)
    with pytest.raises(Finding, match="blocks of memory"):
        run_often(guard, work, CHECK_EVERY)


def test_pieces_are_the_whole() -> None:
    assert pieces(b"abcdef", 0) == [b"abcdef"]
    assert pieces(b"abcdef", 1) == [b"a", b"bc", b"def"]
