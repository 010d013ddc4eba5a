"""A legacy server's requests relayed to legacy clients: answers, withdrawals and progress both ways."""

import asyncio
from typing import Any

import pytest

from penstock.policies.deadline import DeadlineSettings
from penstock.upstreams.in_memory import CallContext, Refused
from tests.unit.gateway.asking import (
    ACCEPTED,
    FORM,
    KINDS,
    ROOTS,
    ROUNDING,
    SAID,
    TALK,
    LegacyClient,
    ModernClient,
    text_of,
    with_tool,
)
from tests.unit.gateway.asking_http import Server, desk, end, say
from tests.unit.gateway.conftest import Running, until
from tests.unit.upstreams.scripted_http import Asked, Line


async def asks_a_form(_arguments: dict[str, Any], context: CallContext) -> Any:
    return str(await context.ask("elicitation/create", FORM))


@pytest.mark.parametrize("kind", KINDS)
async def test_each_kind_of_question_is_relayed_as_it_is_and_so_is_its_answer(empty: Running, kind: str) -> None:
    method, params, answer = KINDS[kind]
    seen: list[Any] = []

    async def tool(_arguments: dict[str, Any], context: CallContext) -> Any:
        seen.append(await context.ask(method, params))
        return "done"

    upstream = await with_tool(empty, tool)
    client = await LegacyClient.open(empty)
    call = client.call()
    question = await call.asked()
    assert (question["method"], question.get("params", {})) == (method, params)
    assert await client.answer(question, answer) == 202
    assert text_of(await call.answer()) == "done"
    assert seen == [answer]
    assert (len(empty.gateway.parking), upstream.in_flight) == (0, 0)


async def test_a_clients_error_is_the_servers_answer(empty: Running) -> None:
    seen: list[Any] = []

    async def tool(_arguments: dict[str, Any], context: CallContext) -> Any:
        try:
            await context.ask("elicitation/create", FORM)
        except Refused as error:
            seen.append((error.code, str(error)))
        return "done"

    await with_tool(empty, tool)
    client = await LegacyClient.open(empty)
    call = client.call()
    await client.refuse(await call.asked(), -1, "User rejected")
    assert text_of(await call.answer()) == "done"
    assert seen == [(-1, "User rejected")]


async def test_questions_side_by_side_get_their_own_answers_in_any_order(empty: Running) -> None:
    async def tool(_arguments: dict[str, Any], context: CallContext) -> Any:
        asking = (context.ask("elicitation/create", FORM | {"message": f"{number}"}) for number in range(5))
        return " ".join(answer["content"]["name"] for answer in await asyncio.gather(*asking))

    await with_tool(empty, tool)
    client = await LegacyClient.open(empty)
    call = client.call()
    questions = [await call.asked() for _ in range(5)]
    for question in reversed(questions):
        name = f"to-{question['params']['message']}"
        await client.answer(question, {"action": "accept", "content": {"name": name}})
    assert text_of(await call.answer()) == "to-0 to-1 to-2 to-3 to-4"


async def test_what_is_not_declared_is_not_asked(empty: Running) -> None:
    told: list[int] = []

    async def tool(_arguments: dict[str, Any], context: CallContext) -> Any:
        for kind in KINDS:
            try:
                await context.ask(*KINDS[kind][:2])
            except Refused as error:
                told.append(error.code)
        return "done"

    await with_tool(empty, tool)
    for capabilities, revision, codes in (
        ({}, "2025-11-25", [-32602, -32602, -32601, -32601]),
        ({"roots": {}}, "2025-11-25", [-32602, -32602, -32601]),
        ({"elicitation": {"url": {}}, "roots": {}, "sampling": {}}, "2025-11-25", [-32602]),
        ({"elicitation": {"form": {}, "url": {}}, "roots": {}, "sampling": {}}, "2025-06-18", [-32602]),
        ({"elicitation": {"form": {}, "url": {}}, "roots": {}, "sampling": {}}, "2025-03-26", [-32602, -32602]),
    ):
        told.clear()
        client = await LegacyClient.open(empty, capabilities, revision)
        call = client.call()
        for _ in range(4 - len(codes)):
            await client.answer(await call.asked(), {})
        assert text_of(await call.answer()) == "done"
        assert told == codes, (capabilities, revision)
        assert len(call.requests) == 4 - len(codes)


async def test_the_end_of_a_call_takes_back_what_is_still_asked(empty: Running) -> None:
    gate = asyncio.Event()

    async def tool(_arguments: dict[str, Any], context: CallContext) -> Any:
        asking = asyncio.ensure_future(context.ask("elicitation/create", FORM))
        await gate.wait()
        asking.add_done_callback(lambda done: done.exception())
        return "done without"

    await with_tool(empty, tool)
    client = await LegacyClient.open(empty)
    call = client.call()
    question = await call.asked()
    gate.set()
    assert text_of(await call.answer()) == "done without"
    assert [note["requestId"] for note in call.notes("notifications/cancelled")] == [question["id"]]
    assert await client.answer(question, ACCEPTED) == 202
    assert len(empty.gateway.parking) == 0


async def test_a_cancelled_call_takes_back_what_it_asked_and_hears_nothing_more(empty: Running) -> None:
    upstream = await with_tool(empty, asks_a_form)
    client = await LegacyClient.open(empty)
    call = client.call()
    question = await call.asked()
    await client.notify("notifications/cancelled", requestId=call.id)
    assert await call.answer() == {}
    assert [note["requestId"] for note in call.notes("notifications/cancelled")] == [question["id"]]
    await until(lambda: upstream.in_flight == 0)
    assert len(upstream.cancelled) == 1


async def test_the_idle_time_stands_still_while_the_client_owes_an_answer(empty: Running) -> None:
    async def tool(_arguments: dict[str, Any], context: CallContext) -> Any:
        await context.ask("elicitation/create", FORM)
        return await asyncio.Event().wait()

    upstream = await with_tool(empty, tool, deadline=DeadlineSettings(idle_seconds=60, total_seconds=900))
    deadline = empty.gateway.context.snapshot.servers["desk"].deadline
    client = await LegacyClient.open(empty)
    call = client.call()
    question = await call.asked()
    running = upstream.calls[-1]
    deadline.expire(running.started_at + 899)
    assert not running.expired_after
    await client.answer(question, ACCEPTED)
    deadline.expire(running.progress_at + 59)
    assert not running.expired_after
    deadline.expire(running.progress_at + 60 + ROUNDING)
    assert (await call.answer())["error"]["code"] == 504


async def test_a_client_that_takes_no_stream_cannot_be_asked(empty: Running) -> None:
    await with_tool(empty, asks_a_form)
    client = await LegacyClient.open(empty)
    answer = await client.call(accept="application/json").answer()
    assert "cannot be reached" in answer["error"]["message"]
    assert len(empty.gateway.parking) == 0


async def test_the_answer_to_a_question_of_another_session_is_nobodys(empty: Running) -> None:
    await with_tool(empty, asks_a_form)
    client, mallory = await LegacyClient.open(empty), await LegacyClient.open(empty)
    call = client.call()
    question = await call.asked()
    await mallory.answer(question, {"action": "accept", "content": {"name": "Mallory"}})
    await mallory.refuse(question)
    await client.answer(question, ACCEPTED)
    assert "Ann" in text_of(await call.answer())


# over HTTP, where the server speaks for itself


async def test_a_question_over_http_is_answered_by_a_post_with_the_servers_own_id(empty: Running) -> None:
    async def talk(server: Server, asked: Asked, line: Line) -> None:
        await say(line, id="q-1", method="sampling/createMessage", params=TALK)
        await end(asked, line, str((await server.heard("-> q-1"))["result"]["content"]["text"]))

    async with desk(empty, talk):
        for client in (await LegacyClient.open(empty), await LegacyClient.open(empty)):
            call = client.call()
            question = await call.asked()
            assert question["id"] != "q-1"
            await client.answer(question, SAID)
            assert text_of(await call.answer()) == "Hello"


async def test_the_servers_withdrawal_reaches_the_client_with_the_clients_id(empty: Running) -> None:
    async def talk(_server: Server, asked: Asked, line: Line) -> None:
        await say(line, id=5, method="elicitation/create", params=FORM)
        await say(line, method="notifications/cancelled", params={"requestId": 5, "reason": "changed my mind"})
        await end(asked, line)

    async with desk(empty, talk) as server:
        client = await LegacyClient.open(empty)
        call = client.call()
        question = await call.asked()
        assert text_of(await call.answer()) == "done"
        assert [note["requestId"] for note in call.notes("notifications/cancelled")] == [question["id"]]
        await client.answer(question, ACCEPTED)
        assert server.scripted is not None
        assert server.scripted.all("-> 5") == [], "nobody answers what was withdrawn"


@pytest.mark.parametrize("token", ["their-token", 17])
async def test_a_clients_progress_reaches_the_server_with_the_servers_token(empty: Running, token: Any) -> None:
    async def talk(server: Server, asked: Asked, line: Line) -> None:
        params = TALK | {"_meta": {"progressToken": token, "x.example/trace": "t"}}
        await say(line, id="q-1", method="sampling/createMessage", params=params)
        await server.heard("notifications/progress")
        await server.heard("-> q-1")
        await end(asked, line)

    async with desk(empty, talk) as server:
        client = await LegacyClient.open(empty)
        call = client.call()
        question = await call.asked()
        meta = question["params"]["_meta"]
        assert meta["x.example/trace"] == "t"
        assert meta["progressToken"] != token
        for foreign in (token, "made-up"):
            await client.notify("notifications/progress", progressToken=foreign, progress=9)
        await client.notify("notifications/progress", progressToken=meta["progressToken"], progress=1, total=2)
        told = (await server.heard("notifications/progress"))["params"]
        assert told == {"progressToken": token, "progress": 1, "total": 2}
        await client.answer(question, SAID)
        assert text_of(await call.answer()) == "done"
        await client.notify("notifications/progress", progressToken=meta["progressToken"], progress=2)
        assert server.scripted is not None
        assert len(server.scripted.all("notifications/progress")) == 1


async def test_a_call_that_ends_with_open_questions_answers_them_all(empty: Running) -> None:
    async def talk(_server: Server, asked: Asked, line: Line) -> None:
        await say(line, id=1, method="roots/list")
        await say(line, id=2, method="elicitation/create", params=FORM)
        await end(asked, line)

    async with desk(empty, talk) as server:
        assert server.scripted is not None
        legacy, replied = await LegacyClient.open(empty), server.scripted.all
        assert text_of(await ModernClient(empty).call()) == "done"
        await until(lambda: len(replied("-> 1")) == len(replied("-> 2")) == 1)
        assert text_of(await legacy.call().answer()) == "done"
        await until(lambda: len(replied("-> 1")) == len(replied("-> 2")) == 2)
        for reply in replied("-> 1") + replied("-> 2"):
            assert "has ended" in reply.body["error"]["message"]
        assert len(empty.gateway.parking) == 0


async def test_a_modern_client_answers_a_server_over_http(empty: Running) -> None:
    async def talk(server: Server, asked: Asked, line: Line) -> None:
        await say(line, id="q-1", method="roots/list", params={"_meta": {"progressToken": 1}})
        await end(asked, line, (await server.heard("-> q-1"))["result"]["roots"][0]["name"])

    async with desk(empty, talk) as server:
        client = ModernClient(empty)
        asked = await client.call()
        assert asked["result"]["inputRequests"] == {"roots-1": {"method": "roots/list"}}
        assert text_of(await client.resume(asked, {"roots-1": ROOTS})) == "home"
        assert server.scripted is not None
        assert len(server.scripted.all("-> q-1")) == 1
        assert len(server.scripted.all("tools/call")) == 1


async def test_numbers_no_machine_can_hold_do_not_keep_a_question_from_its_client(empty: Running) -> None:
    async def talk(server: Server, asked: Asked, line: Line) -> None:
        await say(line, id="q-1", method="elicitation/create", params=FORM)
        await end(asked, line, (await server.heard("-> q-1"))["result"]["action"])

    async with desk(empty, talk) as server:
        raw = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"desk_work","arguments":{"n":%b},"_meta":%b%b}}'
        meta = (
            b'{"io.modelcontextprotocol/protocolVersion":"2026-07-28",'
            b'"io.modelcontextprotocol/clientCapabilities":{"elicitation":{}}}'
        )
        headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "desk_work"}
        first = await empty.post("/mcp", raw % (b"1e999", meta, b""), headers)
        assert first.status == 200
        state = bytes(first.body).partition(b'"requestState":"')[2].partition(b'"')[0]
        retry = b',"requestState":"%b","inputResponses":{"elicitation-1":{"action":"decline"}}' % state
        for number, expected in ((b"1e998", b"-32602"), (b"1e999", b"decline")):
            again = await empty.post("/mcp", raw % (number, meta, retry), headers)
            assert expected in bytes(again.body)
        assert server.scripted is not None
        assert len(server.scripted.all("tools/call")) == 1
