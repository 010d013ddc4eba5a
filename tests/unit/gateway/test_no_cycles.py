"""What has ended is let go of at once: the collector comes by ever more rarely, the longer something lived."""

import asyncio
from typing import Any

from penstock.protocol.versions import Era
from penstock.upstreams.in_memory import CallContext, InputRequired
from tests.unit.cycles import nothing_left
from tests.unit.gateway.asking import ACCEPTED, FORM, LegacyClient, ModernClient, text_of, with_tool
from tests.unit.gateway.asking_http import Server, desk, end, say
from tests.unit.gateway.conftest import Running, until
from tests.unit.upstreams.scripted_http import Asked, Line

ROUNDS = 3


async def asks_a_form(_arguments: dict[str, Any], context: CallContext) -> Any:
    return str(await context.ask("elicitation/create", FORM))


async def asked_legacy(client: LegacyClient, how: str) -> None:
    conversation = client.call()
    question = await conversation.asked()
    if how == "answers":
        await client.answer(question, ACCEPTED)
        assert "result" in await conversation.answer()
    elif how == "cancels":
        await client.notify("notifications/cancelled", requestId=conversation.id)
        assert await conversation.answer() == {}
    else:
        assert conversation.task is not None
        conversation.task.cancel()
        await asyncio.wait((conversation.task,))


async def test_a_legacy_client_that_was_asked_leaves_no_cycle_however_it_ends(empty: Running) -> None:
    upstream = await with_tool(empty, asks_a_form)
    await asked_legacy(await LegacyClient.open(empty), "answers")
    with nothing_left():
        for how in ("answers", "cancels", "vanishes"):
            client = await LegacyClient.open(empty)
            await asked_legacy(client, how)
            for session in list(empty.gateway.context.sessions._known.values()):
                empty.gateway.context.sessions.end(session)
            empty.gateway.context.sessions._known.clear()
            await until(lambda: not empty.gateway.calls_in_flight)
            upstream.calls.clear()
            del session, client


async def test_a_modern_client_that_was_asked_leaves_no_cycle_however_it_ends(empty: Running) -> None:
    upstream = await with_tool(empty, asks_a_form)
    client = ModernClient(empty)

    async def once(how: str) -> None:
        asked = await client.call()
        if how == "answers":
            (key,) = asked["result"]["inputRequests"]
            assert "accept" in text_of(await client.resume(asked, {key: ACCEPTED}))
        else:
            (parked,) = (place[0] for place in empty.gateway.parking._places.values())
            empty.gateway.parking._places.clear()
            parked.expire()
        await until(lambda: not empty.gateway.calls_in_flight)
        upstream.calls.clear()

    await once("answers")
    with nothing_left():
        for how in ("answers", "expires"):
            await once(how)


async def test_rounds_between_a_legacy_client_and_a_modern_server_leave_no_cycle(empty: Running) -> None:
    async def tool(_arguments: dict[str, Any], context: CallContext) -> Any:
        question = {"method": "elicitation/create", "params": FORM}
        return InputRequired({"who": question}) if context.input_responses is None else "done"

    upstream = await with_tool(empty, tool, Era.MODERN)
    client = await LegacyClient.open(empty)

    async def once() -> None:
        conversation = client.call()
        await client.answer(await conversation.asked(), ACCEPTED)
        assert "result" in await conversation.answer()
        upstream.calls.clear()

    await once()
    with nothing_left():
        for _ in range(ROUNDS):
            await once()


async def test_a_session_at_a_legacy_http_server_leaves_no_cycle(empty: Running) -> None:
    async def talk(_server: Server, asked: Asked, line: Line) -> None:
        await say(line, method="notifications/message", params={"level": "info", "data": "x"})
        await end(asked, line)

    async def once() -> None:
        client = await LegacyClient.open(empty)
        assert "result" in await client.call().answer()
        await empty.client.request("DELETE", empty.url + "/mcp", client.headers)
        await until(lambda: not empty.gateway.context.snapshot.servers["desk"].upstream.state()["background"])
        empty.gateway.context.sessions._known.clear()

    async with desk(empty, talk):
        await once()
        with nothing_left():
            for _ in range(ROUNDS):
                await once()
