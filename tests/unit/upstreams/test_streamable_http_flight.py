"""Calls sent at once, without a coroutine: told once how they ended, and their connections come back."""

import asyncio
import weakref
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from penstock.errors import ServerError, ServerMisbehaved, ServerUnavailable
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Answer, Call, Failure, Notify, Raw, Result
from penstock.upstreams.streamable_http import StreamableHttpUpstream
from penstock.upstreams.streamable_http_flight import Flight
from penstock.upstreams.streamable_http_settings import StreamableHttpSettings
from tests.unit.upstreams.scripted_http import (
    LEGACY,
    MODERN,
    Asked,
    Line,
    Script,
    call_of,
    discovered,
    error,
    http,
    initialized,
    result,
    rpc,
    serving,
    stream,
)

CALLERS = {Era.MODERN: MODERN, Era.LEGACY: LEGACY}
Tool = Callable[[Asked, Line], Any]


@pytest.fixture(params=Era, ids=lambda era: f"{era.value}_server")
def era(request: pytest.FixtureRequest) -> Era:
    found: Era = request.param
    return found


def server_of(era: Era, tool: Tool) -> Script:
    """A server of one era: `warm` is answered, whatever else is called goes to `tool`."""

    async def script(asked: Asked, line: Line) -> bytes | None:
        if asked.rpc == "tools/call":
            if asked.body["params"]["name"] == "warm":
                return result(asked)
            answer: bytes | None = await tool(asked, line)
            return answer
        if asked.rpc == "server/discover" and era is Era.MODERN:
            return discovered(asked)
        if asked.rpc == "initialize" and era is Era.LEGACY:
            return initialized(asked, tools={})
        return http(202) if asked.rpc.startswith("notifications/") or asked.method == "DELETE" else http(400)

    return script


class Sent:
    """A call that was sent at once, and everything its caller was told."""

    def __init__(self, upstream: StreamableHttpUpstream, call: Call) -> None:
        self.call = call
        self.told: list[Answer | ServerError | None] = []
        self.ended = asyncio.Event()
        call.on_end = self._end
        flight = upstream.start(call)
        assert isinstance(flight, Flight)
        self.flight = flight

    def _end(self, outcome: Answer | ServerError | None) -> None:
        self.told.append(outcome)
        self.ended.set()

    async def outcome(self) -> Answer | ServerError | None:
        async with asyncio.timeout(5):
            await self.ended.wait()
        for _ in range(5):  # whatever would tell a second time has its chance
            await asyncio.sleep(0)
        assert len(self.told) == 1
        return self.told[0]


async def sent(upstream: StreamableHttpUpstream, era: Era, tool: str = "add", **more: Any) -> Sent:
    """A call on its way over a warm connection."""
    await upstream.call(call_of(CALLERS[era], "warm"))
    return Sent(upstream, call_of(CALLERS[era], tool, **more))


def connections(upstream: StreamableHttpUpstream) -> tuple[int, int]:
    stats = upstream._link.pool.stats()
    return stats.busy, stats.idle


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.002)


async def at_rest(upstream: StreamableHttpUpstream) -> None:
    """Every connection has come back, once, and no session counts a call."""
    await until(lambda: connections(upstream)[0] == 0)
    book = upstream._legacy._book
    assert all(session.in_flight == 0 for session in [*book._own.values(), *book._shared.values()])


async def test_an_answer_or_an_error_is_told_and_the_connection_is_idle_by_then(era: Era) -> None:
    async def tool(asked: Asked, _: Line) -> bytes:
        if asked.body["params"]["name"] == "odd":
            return error(asked, 200, -32602, "odd")
        return stream(rpc(id=asked.id, result={"n": 1})) if asked.id % 2 else result(asked, n=1)

    async with serving(server_of(era, tool)) as (scripted, upstream):
        for _ in range(4):  # heads that are known by then, plain ones and streams in turn
            one = await sent(upstream, era)
            answer = await one.outcome()
            assert isinstance(answer, Result)
            assert (answer.era, msgspec.json.decode(answer.raw)) == (era, {"n": 1})
            assert 0 < one.call.sent_at <= one.call.first_byte_at
            assert connections(upstream) == (0, 1)
            one.flight.cancel()  # too late: nothing happens
        refused = await (await sent(upstream, era, "odd")).outcome()
        assert isinstance(refused, Failure)
        assert refused.code == -32602
        await at_rest(upstream)
        assert not scripted.all("notifications/cancelled")


async def test_progress_is_handed_on_before_the_answer_with_the_callers_token(era: Era) -> None:
    async def tool(asked: Asked, _: Line) -> bytes:
        token = asked.body["params"]["_meta"]["progressToken"]
        step = rpc(method="notifications/progress", params={"progressToken": token, "progress": 1})
        return stream(step, rpc(id=asked.id, result={}))

    tokens: list[bytes] = []

    def notify(_: str, params: dict[str, Raw]) -> None:
        tokens.append(bytes(params["progressToken"]))

    async with serving(server_of(era, tool)) as (_, upstream):
        one = await sent(upstream, era, meta={"progressToken": "mine"}, notify=notify)
        assert isinstance(await one.outcome(), Result)
        assert tokens == [b'"mine"']
        await at_rest(upstream)


async def test_cancelling_reaches_the_server_within_200_ms(era: Era) -> None:
    noticed = asyncio.Event()

    async def tool(_: Asked, line: Line) -> None:
        await line.until_closed()
        noticed.set()

    async with serving(server_of(era, tool)) as (scripted, upstream):
        one = await sent(upstream, era)
        await until(lambda: len(scripted.all("tools/call")) == 2)
        one.flight.cancel()
        assert one.told == [None]
        async with asyncio.timeout(0.2):
            await (noticed.wait() if era is Era.MODERN else scripted.wait_for("notifications/cancelled"))
        one.flight.cancel()
        assert await one.outcome() is None
        if era is Era.LEGACY:
            asked = scripted.all("tools/call")[1]
            assert scripted.all("notifications/cancelled")[0].body["params"]["requestId"] == asked.id
            assert connections(upstream)[0] == 1  # its answer may still come
            next(iter(upstream._link.pool._shelf.busy)).close()
        await at_rest(upstream)


async def test_a_late_answer_to_a_cancelled_legacy_call_frees_its_connection() -> None:
    go_on = asyncio.Event()

    async def tool(asked: Asked, _: Line) -> bytes:
        await go_on.wait()
        return result(asked)

    async with serving(server_of(Era.LEGACY, tool)) as (scripted, upstream):
        one = await sent(upstream, Era.LEGACY)
        one.flight.cancel()
        await scripted.wait_for("notifications/cancelled")
        go_on.set()
        await at_rest(upstream)
        assert await one.outcome() is None
        assert connections(upstream) == (0, 2)  # the second one carried the notification


@pytest.mark.parametrize("known", [False, True], ids=["new head", "known head"])
async def test_a_call_cancelled_by_what_its_own_notification_sets_off_ends_once(era: Era, known: bool) -> None:
    async def tool(asked: Asked, _: Line) -> bytes:
        if asked.body["params"]["name"] == "quiet":
            return stream(rpc(id=asked.id, result={}))
        return stream(rpc(method="notifications/message", params={"level": "error", "data": 1}))

    flights: list[Flight] = []

    def cancel(*_: object) -> None:
        flights[0].cancel()

    notify: Notify = cancel
    logs = {"io.modelcontextprotocol/logLevel": "debug"}
    async with serving(server_of(era, tool)) as (_, upstream):
        one = await sent(upstream, era, "quiet") if known else None
        if one is not None:
            await one.outcome()
        meta = logs if era is Era.MODERN else None
        two = Sent(upstream, call_of(CALLERS[era], notify=notify, meta=meta)) if known else None
        two = two or await sent(upstream, era, notify=notify, meta=meta)
        flights.append(two.flight)
        assert await two.outcome() is None
        await at_rest(upstream)
        assert isinstance(await upstream.call(call_of(CALLERS[era], "warm")), Result)


async def test_a_connection_that_is_dead_unnoticed_is_not_written_to_and_comes_back(era: Era) -> None:
    async with serving(server_of(era, _echo)) as (scripted, upstream):
        await upstream.call(call_of(CALLERS[era], "warm"))
        connection = upstream._link.pool._shelf.idle[-1].item
        assert connection._transport is not None
        connection._transport.abort()
        call = call_of(CALLERS[era])
        assert upstream.start(call) is None
        await at_rest(upstream)
        assert isinstance(await upstream.call(call), Result)
        assert len(scripted.all("tools/call")) == 2


async def test_a_connection_lost_after_writing_names_the_server_and_nothing_is_sent_again(era: Era) -> None:
    async def tool(_: Asked, line: Line) -> None:
        line.close()

    async with serving(server_of(era, tool)) as (scripted, upstream):
        outcome = await (await sent(upstream, era)).outcome()
        assert isinstance(outcome, ServerUnavailable)
        assert outcome.server == "peer"
        assert upstream.state()["last_error"] == outcome.message
        await at_rest(upstream)
        assert len(scripted.all("tools/call")) == 2


@pytest.mark.parametrize("wrap", [http, stream], ids=["plain", "stream"])
async def test_an_answer_to_another_id_is_refused(era: Era, wrap: Callable[..., bytes]) -> None:
    async def tool(asked: Asked, _: Line) -> bytes:
        body = rpc(id=asked.id + 1, result={})
        return http(200, body) if wrap is http else stream(body)

    async with serving(server_of(era, tool)) as (_, upstream):
        outcome = await (await sent(upstream, era)).outcome()
        assert isinstance(outcome, ServerMisbehaved)
        assert "its answers cannot be trusted" in outcome.message
        await at_rest(upstream)


async def test_an_answer_ahead_of_its_streams_end_is_told_at_once_and_the_connection_comes_back_later(era: Era) -> None:
    go_on = asyncio.Event()

    async def tool(asked: Asked, line: Line) -> bytes:
        await line.write(stream(rpc(id=asked.id, result={}), end=False))
        await go_on.wait()
        return b"0\r\n\r\n"

    async with serving(server_of(era, tool)) as (_, upstream):
        one = await sent(upstream, era)
        assert isinstance(await one.outcome(), Result)
        assert connections(upstream) == (1, 0)
        one.flight.cancel()  # it is over: its connection goes on to its end
        go_on.set()
        await at_rest(upstream)
        assert connections(upstream) == (0, 1)


async def test_a_stream_that_ends_without_an_answer_is_an_error(era: Era) -> None:
    async def tool(_: Asked, __: Line) -> bytes:
        return stream(rpc(method="notifications/other"))

    async with serving(server_of(era, tool)) as (_, upstream):
        outcome = await (await sent(upstream, era)).outcome()
        assert isinstance(outcome, ServerMisbehaved)
        await at_rest(upstream)


async def test_a_call_whose_session_was_lost_is_sent_again_over_a_new_one() -> None:
    lost: list[Asked] = []

    async def tool(asked: Asked, _: Line) -> bytes:
        if not lost:
            lost.append(asked)
            return http(404)
        return result(asked, n=2)

    async with serving(server_of(Era.LEGACY, tool)) as (scripted, upstream):
        outcome = await (await sent(upstream, Era.LEGACY)).outcome()
        assert isinstance(outcome, Result)
        assert outcome.raw == b'{"n": 2}'
        assert len(scripted.all("initialize")) == 2
        await at_rest(upstream)


@pytest.mark.parametrize("turns", [0, 1, 5])
async def test_second_thoughts_about_an_answer_can_be_cancelled_even_before_they_begin(turns: int) -> None:
    async def tool(_: Asked, line: Line) -> None:
        await line.until_closed()

    async with serving(server_of(Era.LEGACY, tool)) as (_, upstream):
        one = await sent(upstream, Era.LEGACY)
        (connection,) = upstream._link.pool._shelf.busy
        connection.data_received(stream(b""))  # as if the server had said nothing but that it has to say nothing
        for _ in range(turns):
            await asyncio.sleep(0)
        assert one.flight._follows is not None or one.told
        one.flight.cancel()
        one.flight.cancel()
        outcome = await one.outcome()
        assert outcome is None or turns
        await at_rest(upstream)


async def test_closing_the_upstream_during_second_thoughts_tells_the_caller_why() -> None:
    async with serving(_losing_sessions()) as (scripted, upstream):
        one = await sent(upstream, Era.LEGACY)
        await until(lambda: len(scripted.all("initialize")) == 2)
        await upstream.close()
        outcome = await one.outcome()
        assert isinstance(outcome, ServerUnavailable)
        assert "has been removed or is shutting down" in outcome.message


async def test_a_call_that_cannot_be_written_leaves_no_connection_on_loan(era: Era) -> None:
    async with serving(server_of(era, _echo)) as (_, upstream):
        await upstream.call(call_of(CALLERS[era], "warm"))
        nonsense: Any = {"name": object()}
        with pytest.raises(TypeError):
            upstream.start(Call("tools/call", nonsense, caller=CALLERS[era], name="add"))
        assert connections(upstream)[0] == 0
        assert isinstance(await upstream.call(call_of(CALLERS[era])), Result)


async def test_a_call_that_cannot_be_written_leaves_no_session_on_loan() -> None:
    async with serving(server_of(Era.LEGACY, _echo)) as (_, upstream):
        await upstream.call(call_of(MODERN, "warm"))
        sessions = upstream._legacy_http._pools.for_caller(MODERN)
        assert (sessions.stats().busy, sessions.stats().idle) == (0, 1)
        nonsense: Any = {"name": object()}
        with pytest.raises(TypeError):
            upstream.start(Call("tools/call", nonsense, caller=MODERN, name="add"))
        assert (sessions.stats().busy, sessions.stats().idle) == (0, 1)


async def test_a_call_that_wants_to_hear_more_first_leaves_no_session_on_loan() -> None:
    async with serving(server_of(Era.LEGACY, _echo)) as (_, upstream):
        await upstream.call(call_of(MODERN, "warm"))
        assert upstream.start(call_of(MODERN, meta={"io.modelcontextprotocol/logLevel": "info"})) is None
        sessions = upstream._legacy_http._pools.for_caller(MODERN)
        assert (sessions.stats().busy, sessions.stats().idle) == (0, 1)


async def test_a_server_that_is_gone_is_sent_nothing_and_leaves_nothing(era: Era) -> None:
    async with serving(server_of(era, _echo)) as (_, upstream):
        await upstream.call(call_of(CALLERS[era], "warm"))
        closing = asyncio.create_task(upstream.close())
        await asyncio.sleep(0)
        assert upstream.start(call_of(CALLERS[era])) is None
        await closing
        again = StreamableHttpUpstream("peer", StreamableHttpSettings(url=upstream._link.url))
        await again.call(call_of(CALLERS[era], "warm"))
        await again.close()
        gone = weakref.ref(again)
        del again
        for _ in range(3):  # what its connections still hold goes with their last turn
            await asyncio.sleep(0)
        assert gone() is None, "nothing but the collector would take it"


async def test_heads_of_names_as_long_as_a_client_likes_are_not_kept() -> None:
    async with serving(server_of(Era.MODERN, _echo)) as (_, upstream):
        await upstream.call(call_of(MODERN, "warm"))
        before = dict(upstream._modern.requests._heads)
        await upstream.call(call_of(MODERN, "x" * 4000))
        assert upstream._modern.requests._heads == before


async def _echo(asked: Asked, _: Line) -> bytes:
    return result(asked)


def _losing_sessions() -> Script:
    """A legacy server that loses its only session, and then never answers `initialize` again."""
    opened: list[Asked] = []

    async def tool(_: Asked, __: Line) -> bytes:
        return http(404)

    usual = server_of(Era.LEGACY, tool)

    async def script(asked: Asked, line: Line) -> bytes | None:
        if asked.rpc == "initialize":
            if opened:
                await line.until_closed()
                return None
            opened.append(asked)
        return await usual(asked, line)

    return script
