import asyncio
import logging

import pytest

from penstock.http.server import Exchange
from tests.unit.http.server_lane import hold, post, serving


async def test_a_spawned_call_answers() -> None:
    async def call(exchange: Exchange) -> None:
        await asyncio.sleep(0)
        exchange.respond(200, b"done")

    async with serving(handle=lambda exchange: exchange.spawn(call(exchange))) as lane:
        client = await lane.connect()
        client.send(post(b"x"))
        assert (await client.answer()).body == b"done"
        await lane.until(lambda: not lane.server.tasks)


@pytest.mark.parametrize("outcome", ["error", "cancelled", "forgotten"])
async def test_a_call_that_ends_without_an_answer_is_answered_500(
    outcome: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def call() -> None:
        await asyncio.sleep(0)
        if outcome == "error":
            raise KeyError("lost")
        if outcome == "cancelled":
            raise asyncio.CancelledError

    async with serving(handle=lambda exchange: exchange.spawn(call())) as lane:
        client = await lane.connect()
        with caplog.at_level(logging.ERROR, "penstock.http"):
            client.send(post(b"x"))
            answer = await client.answer()
        assert answer.status == 500
        assert b'"reason":"no_answer"' in answer.body
        assert len(caplog.records) == (1 if outcome == "error" else 0)
        client.send(post(b"y"))
        assert (await client.answer()).status == 500


async def test_a_stream_left_unfinished_never_looks_finished() -> None:
    async def call(exchange: Exchange) -> None:
        exchange.open_stream().send(b"data: 1\n\n")
        await asyncio.sleep(0)

    async with serving(handle=lambda exchange: exchange.spawn(call(exchange))) as lane:
        client = await lane.connect()
        client.send(post(b"x"))
        try:
            said = await client.rest()
        except ConnectionResetError:
            said = b""
        assert b"\r\n0\r\n\r\n" not in said


async def test_a_call_may_end_before_its_finished_stream_is_read() -> None:
    async def call(exchange: Exchange) -> None:
        stream = exchange.open_stream()
        stream.pause()
        stream.send(b"data: 1\n\n")
        stream.finish(b"data: 2\n\n")

    async with serving(handle=hold) as lane:
        client = await lane.connect()
        client.send(post(b"x"))
        exchange = await lane.exchange()
        await exchange.spawn(call(exchange))
        connection = await lane.only_connection()
        assert connection.is_under_way
        connection.resume_writing()
        assert (await client.until(b"0\r\n\r\n")).endswith(b"data: 2\n\n\r\n0\r\n\r\n")


async def test_a_call_goes_on_after_its_client_left_unless_told_otherwise() -> None:
    go = asyncio.Event()
    ended = asyncio.Event()

    async def call(exchange: Exchange) -> None:
        await go.wait()
        exchange.respond(200, b"to nobody")
        ended.set()

    async with serving(handle=lambda exchange: exchange.spawn(call(exchange))) as lane:
        client = await lane.connect()
        client.send(post(b"x"))
        exchange = await lane.exchange()
        client.close()
        await lane.until(lambda: exchange.is_disconnected)
        assert len(lane.server.tasks) == 1
        go.set()
        await ended.wait()
        assert exchange.is_answered


async def test_a_call_cancelled_before_its_first_step_leaves_nothing() -> None:
    async def call() -> None:
        pytest.fail("it must not start")

    def handle(exchange: Exchange) -> None:
        exchange.spawn(call()).cancel()

    async with serving(handle=handle) as lane:
        client = await lane.connect()
        client.send(post(b"x"))
        assert (await client.answer()).status == 500
        assert lane.server.tasks == set()


async def test_an_exchange_is_answered_once_only() -> None:
    async with serving(handle=hold) as lane:
        client = await lane.connect()
        client.send(post(b"x"))
        exchange = await lane.exchange()
        exchange.respond(200)
        assert repr(exchange) == "<Exchange POST /mcp answered>"
        with pytest.raises(RuntimeError, match="has its answer already"):
            exchange.respond(200)
        with pytest.raises(RuntimeError, match="has its answer already"):
            exchange.open_stream()


async def test_a_stream_opened_after_the_client_left_goes_nowhere() -> None:
    async with serving(handle=hold) as lane:
        client = await lane.connect()
        client.send(post(b"x"))
        exchange = await lane.exchange()
        client.close()
        await lane.until(lambda: exchange.is_disconnected)
        assert repr(exchange) == "<Exchange POST /mcp disconnected>"
        stream = exchange.open_stream()
        stream.finish(b"data: 1\n\n")
        assert repr(stream) == "<EventStream closed [0 waiting 0 B | dropped 0]>"
