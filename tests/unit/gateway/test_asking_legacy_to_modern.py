"""A modern server's `input_required`, and legacy clients: requests on the call's stream, answers, the call sent again."""

import asyncio
import json
from typing import Any

import pytest

from penstock.clock import FakeClock
from penstock.gateway.edges.legacy_dialogue import MAX_ROUNDS
from penstock.policies.deadline import DeadlineSettings
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Call
from penstock.upstreams.in_memory import CallContext, InMemoryServer, InMemoryUpstream, InputRequired
from tests.unit.gateway.asking import (
    ACCEPTED,
    FORM,
    KINDS,
    ROOTS,
    ROUNDING,
    SAID,
    TALK,
    URL,
    LegacyClient,
    text_of,
    with_server,
    with_tool,
    work,
)
from tests.unit.gateway.conftest import Running, gateway_in, plan_of, until

MODERN_URL = {key: value for key, value in URL.items() if key != "elicitationId"}
ASKS_FORM = {"who": {"method": "elicitation/create", "params": FORM}}


class Asker:
    """A modern tool that wants some rounds of answers before it is done."""

    def __init__(self, *rounds: InputRequired) -> None:
        self.rounds = rounds
        self.seen: list[tuple[Any, Any]] = []
        """What came with each call: answers, state."""

    async def __call__(self, _arguments: dict[str, Any], context: CallContext) -> Any:
        self.seen.append((context.input_responses, context.request_state))
        number = len(self.seen)
        return self.rounds[number - 1] if number <= len(self.rounds) else "done"


async def asking(running: Running, *rounds: InputRequired, **plan: Any) -> tuple[Asker, InMemoryUpstream]:
    asker = Asker(*rounds)
    return asker, await with_tool(running, asker, Era.MODERN, **plan)


@pytest.mark.parametrize("kind", KINDS)
async def test_each_kind_of_question_is_a_request_on_the_calls_stream(empty: Running, kind: str) -> None:
    method, params, answer = KINDS[kind]
    sent = MODERN_URL if kind == "url" else params
    asker, _ = await asking(empty, InputRequired({"q": {"method": method, "params": sent}}, "state-1"))
    client = await LegacyClient.open(empty)
    call = client.call()
    question = await call.asked()
    assert (question["method"], question["jsonrpc"]) == (method, "2.0")
    given = dict(question.get("params", {}))
    if kind == "url":
        assert len(given.pop("elicitationId")) >= 16
    assert given == sent
    assert await client.answer(question, answer) == 202
    assert text_of(await call.answer()) == "done"
    assert asker.seen == [(None, None), ({"q": answer}, "state-1")]
    assert len(empty.gateway.parking) == 0


async def test_several_things_are_asked_side_by_side_and_sent_back_together(empty: Running) -> None:
    requests = {key: {"method": method, "params": params} for key, (method, params, _) in KINDS.items() if key != "url"}
    asker, _ = await asking(empty, InputRequired(requests, "s"))
    client = await LegacyClient.open(empty)
    call = client.call()
    questions = [await call.asked() for _ in requests]
    assert len({question["id"] for question in questions}) == 3
    answers = {KINDS[key][0]: KINDS[key][2] for key in requests}
    for question in reversed(questions):
        assert len(asker.seen) == 1, "not before the last one is answered"
        await client.answer(question, answers[question["method"]])
    assert text_of(await call.answer()) == "done"
    assert asker.seen[1] == ({"form": ACCEPTED, "sampling": SAID, "roots": ROOTS}, "s")


async def test_a_server_may_ask_round_after_round(empty: Running) -> None:
    rounds = [InputRequired(ASKS_FORM, f"state {number}") for number in range(3)]
    asker, _ = await asking(empty, *rounds)
    client = await LegacyClient.open(empty)
    call = client.call()
    for number in range(3):
        await client.answer(await call.asked(), {"action": "accept", "content": {"n": number}})
    assert text_of(await call.answer()) == "done"
    assert [state for _, state in asker.seen] == [None, "state 0", "state 1", "state 2"]
    assert [answers["who"]["content"]["n"] for answers, _ in asker.seen[1:]] == [0, 1, 2]
    assert len({request["id"] for request in call.requests}) == 3


async def test_a_server_that_never_stops_asking_is_stopped(empty: Running) -> None:
    asker, _ = await asking(empty, *[InputRequired(ASKS_FORM)] * (MAX_ROUNDS + 5))
    client = await LegacyClient.open(empty)
    call = client.call()
    for _ in range(MAX_ROUNDS):
        await client.answer(await call.asked(), ACCEPTED)
    error = (await call.answer())["error"]
    assert error["code"] == 502
    assert str(MAX_ROUNDS) in error["message"]
    assert len(asker.seen) == MAX_ROUNDS + 1


async def test_the_state_is_sent_back_byte_for_byte_and_none_where_none_was_given(empty: Running) -> None:
    states = ['{"a":1}', "", '\u00e9/\\"\u2028\U0001f600', None]
    asker, upstream = await asking(empty, *[InputRequired(ASKS_FORM, state) for state in states])
    client = await LegacyClient.open(empty)
    call = client.call()
    for _ in states:
        await client.answer(await call.asked(), ACCEPTED)
    assert text_of(await call.answer()) == "done"
    assert [state for _, state in asker.seen] == [None, *states]
    calls = [call for call in upstream.calls if call.method == "tools/call"]
    assert "requestState" not in calls[-1].params, "the last round gave none, and the state before it is forgotten"


async def test_a_result_with_a_state_alone_is_sent_again_after_a_pause_that_grows(empty: Running) -> None:
    asker, upstream = await asking(empty, InputRequired({}, "a"), InputRequired({}, "b"))
    client = await LegacyClient.open(empty)
    call = client.call()
    assert text_of(await call.answer()) == "done"
    assert asker.seen == [(None, None), (None, "a"), (None, "b")]
    assert call.messages == [] or call.requests == []
    times = [call.sent_at for call in upstream.calls if call.method == "tools/call"]
    assert times[1] - times[0] >= 0.09
    assert times[2] - times[1] >= 0.18


class FaultyAgain(InMemoryUpstream):
    """Takes a call at first, and fails by a fault of ours when it is sent again."""

    def start(self, call: Call) -> None:
        if "requestState" in call.params:
            raise KeyError("ours")


@pytest.mark.parametrize("asks", [False, True], ids=["by a timer", "by an answer"])
async def test_a_fault_of_ours_in_sending_a_call_again_leaves_no_client_waiting(
    empty: Running, asks: bool, caplog: pytest.LogCaptureFixture
) -> None:
    server = InMemoryServer("desk", era=Era.MODERN)
    server.tool("work", input_schema={"type": "object"})(Asker(InputRequired(ASKS_FORM if asks else {}, "a")))
    await empty.gateway.apply({"desk": plan_of("desk", lambda: FaultyAgain("desk", server))}, ())
    await empty.listed()
    client = await LegacyClient.open(empty)
    call = client.call()
    if asks:
        assert await client.answer(await call.asked(), ACCEPTED) == 202
    assert call.task is not None
    await asyncio.wait((call.task,), timeout=5)
    assert call.task.done()
    if asks:  # what is kept of its stream must say so, too: it may come back for the rest
        assert (await call.answer())["error"]["code"] == -32603
        assert len(empty.gateway.context.replay) == 0
    else:
        assert call.task.result().status == 500
    assert "KeyError: 'ours'" in caplog.text
    assert empty.gateway.calls_in_flight == 0


async def test_a_client_without_a_session_gets_a_state_alone_resolved_too(empty: Running) -> None:
    asker, _ = await asking(empty, InputRequired({}, "a"))
    answer = await empty.legacy("tools/call", work())
    assert text_of(answer) == "done"
    assert len(asker.seen) == 2


@pytest.mark.parametrize("how", ["error", "decline", "cancel"])
async def test_whatever_becomes_of_a_form_the_server_is_told_in_its_own_words(empty: Running, how: str) -> None:
    asker, _ = await asking(empty, InputRequired(ASKS_FORM, "s"))
    client = await LegacyClient.open(empty)
    call = client.call()
    question = await call.asked()
    if how == "error":
        await client.refuse(question)
    else:
        await client.answer(question, {"action": how})
    assert text_of(await call.answer()) == "done"
    assert asker.seen[1] == ({"who": {"action": "cancel" if how == "error" else how}}, "s")


@pytest.mark.parametrize("method", ["sampling/createMessage", "roots/list"])
async def test_a_clients_error_for_anything_else_is_the_end_of_the_call(empty: Running, method: str) -> None:
    params = TALK if method == "sampling/createMessage" else {}
    requests = {"a": {"method": method, "params": params}, **ASKS_FORM}
    asker, _ = await asking(empty, InputRequired(requests, "s"))
    client = await LegacyClient.open(empty)
    call = client.call()
    questions = {question["method"]: question for question in [await call.asked(), await call.asked()]}
    await client.refuse(questions[method], -1, "User rejected sampling request")
    assert (await call.answer())["error"] == {"code": -1, "message": "User rejected sampling request"}
    assert len(asker.seen) == 1
    taken_back = [note["requestId"] for note in call.notes("notifications/cancelled")]
    assert taken_back == [questions["elicitation/create"]["id"]]
    assert await client.answer(questions["elicitation/create"], ACCEPTED) == 202
    assert (len(asker.seen), len(empty.gateway.parking)) == (1, 0)


async def test_a_client_that_cancels_in_the_middle_of_a_round_hears_nothing_more(empty: Running) -> None:
    asker, _ = await asking(empty, InputRequired(ASKS_FORM, "s"))
    client = await LegacyClient.open(empty)
    call = client.call(request_id="a/b")
    question = await call.asked()
    assert (
        await client.send(rb'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"a\/b"}}') == 202
    )
    assert await call.answer() == {}
    assert [note["requestId"] for note in call.notes("notifications/cancelled")] == [question["id"]]
    assert await client.answer(question, ACCEPTED) == 202
    assert (len(asker.seen), len(empty.gateway.parking)) == (1, 0)


async def test_a_client_that_ends_its_session_in_the_middle_of_a_round_ends_its_call(empty: Running) -> None:
    asker, _ = await asking(empty, InputRequired(ASKS_FORM, "s"))
    client = await LegacyClient.open(empty)
    call = client.call()
    await call.asked()
    assert (await empty.client.request("DELETE", empty.url + "/mcp", client.headers)).status == 204
    assert await call.answer() == {}
    assert (len(asker.seen), len(empty.gateway.parking)) == (1, 0)


async def test_late_double_and_unknown_answers_change_nothing(empty: Running) -> None:
    asker, _ = await asking(empty, InputRequired(ASKS_FORM, "1"), InputRequired(ASKS_FORM, "2"))
    client, other = await LegacyClient.open(empty), await LegacyClient.open(empty)
    call = client.call()
    first = await call.asked()
    for unknown in ("penstock-1", 1, first["id"] + "0"):
        assert await client.answer({"id": unknown}, ACCEPTED) == 202
    assert await other.answer(first, {"action": "accept", "content": {"name": "Mallory"}}) == 202
    assert len(asker.seen) == 1
    await client.answer(first, ACCEPTED)
    second = await call.asked()
    await client.answer(first, {"action": "decline"})
    assert len(asker.seen) == 2, "the second round waits for its own answer"
    await client.answer(second, ACCEPTED)
    assert text_of(await call.answer()) == "done"
    await client.answer(second, {"action": "decline"})
    assert [answers for answers, _ in asker.seen] == [None, {"who": ACCEPTED}, {"who": ACCEPTED}]


@pytest.mark.parametrize(
    ("capabilities", "kind"),
    [
        ({}, "form"),
        ({"sampling": {}, "roots": {}}, "form"),
        ({"elicitation": {"url": {}}}, "form"),
        ({"elicitation": {}}, "url"),
        ({"elicitation": {}, "roots": {}}, "sampling"),
        ({"elicitation": {}, "sampling": {}}, "roots"),
    ],
)
async def test_what_a_client_has_not_declared_it_is_not_asked(
    empty: Running, capabilities: dict[str, Any], kind: str
) -> None:
    method, params, _ = KINDS[kind]
    known = next(one for one in KINDS if one != kind)
    requests = {
        "known": {"method": KINDS[known][0], "params": KINDS[known][1]},
        "q": {"method": method, "params": params},
    }
    asker, _ = await asking(empty, InputRequired(requests))
    client = await LegacyClient.open(empty, capabilities)
    call = client.call()
    error = (await call.answer())["error"]
    assert error["code"] == 502
    assert "has not declared" in error["message"]
    assert call.messages == [], "it is not asked the rest for nothing"
    assert (len(asker.seen), len(empty.gateway.parking)) == (1, 0)


@pytest.mark.parametrize(
    ("revision", "kind"),
    [("2025-03-26", "form"), ("2025-03-26", "url"), ("2024-11-05", "form"), ("2025-06-18", "url")],
)
async def test_a_client_is_not_asked_what_its_revision_does_not_have(empty: Running, revision: str, kind: str) -> None:
    method, params, _ = KINDS[kind]
    await asking(empty, InputRequired({"q": {"method": method, "params": params}}))
    client = await LegacyClient.open(empty, revision=revision)
    call = client.call()
    assert (await call.answer())["error"]["code"] == 502
    assert call.requests == []


async def test_what_a_modern_server_is_told_of_a_client_is_what_it_can_be_asked(empty: Running) -> None:
    _, upstream = await asking(empty)
    for revision, told in (
        ("2025-11-25", {"elicitation": {"form": {}, "url": {}}, "sampling": {"tools": {}, "context": {}}, "roots": {}}),
        ("2025-06-18", {"elicitation": {}, "sampling": {}, "roots": {}}),
        ("2025-03-26", {"sampling": {}, "roots": {}}),
    ):
        client = await LegacyClient.open(empty, revision=revision)
        await client.call().answer()
        assert json.loads(upstream.calls[-1].caller.modern_capabilities) == told


async def test_a_url_gets_an_id_and_the_client_is_told_when_it_is_over(empty: Running) -> None:
    requests = {key: {"method": "elicitation/create", "params": MODERN_URL} for key in "ab"}
    await asking(empty, InputRequired(requests, "s"))
    client = await LegacyClient.open(empty)
    call = client.call()
    questions = [await call.asked(), await call.asked()]
    ids = [question["params"]["elicitationId"] for question in questions]
    assert len(set(ids)) == 2
    for question in questions:
        assert call.notes("notifications/elicitation/complete") == []
        await client.answer(question, {"action": "accept"})
    assert text_of(await call.answer()) == "done"
    assert [note["elicitationId"] for note in call.notes("notifications/elicitation/complete")] == ids
    assert "method" not in call.messages[-1], "the answer comes last"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_that_takes_no_stream_is_told_that_it_cannot_be_asked(empty: Running, kind: str) -> None:
    method, params, _ = KINDS[kind]
    asker, _ = await asking(empty, InputRequired({"q": {"method": method, "params": params}}, "s"))
    client = await LegacyClient.open(empty)
    answer = await client.call(accept="application/json").answer()
    assert "cannot be reached" in answer["error"]["message"]
    assert (len(asker.seen), len(empty.gateway.parking)) == (1, 0), "nobody has said no: the server is not told so"


async def test_a_member_of_a_batch_cannot_be_asked(empty: Running) -> None:
    await asking(empty, InputRequired({"q": {"method": "sampling/createMessage", "params": TALK}}))
    client = await LegacyClient.open(empty, revision="2025-03-26")
    body = [{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": work()}]
    response = await empty.post("/mcp", body, client.headers)
    assert b"cannot be reached" in bytes(response.body)


async def test_all_places_taken_is_said_and_nothing_is_asked(empty: Running) -> None:
    await asking(empty, InputRequired(ASKS_FORM))
    parking = empty.gateway.parking
    while parking.enter(_Parked()) is not None:
        pass
    client = await LegacyClient.open(empty)
    call = client.call()
    answer = await call.answer()
    assert "too many requests wait" in answer["error"]["message"]
    assert call.requests == []


class _Parked:
    def expire(self) -> None:
        pass


async def test_a_client_that_never_answers_is_waited_for_no_longer_than_allowed(tmp_path: Any) -> None:
    clock = FakeClock()
    async with gateway_in(tmp_path, clock=clock) as running:
        asker, _ = await asking(running, InputRequired(ASKS_FORM, "s"))
        client = await LegacyClient.open(running)
        call = client.call()
        question = await call.asked()
        await clock.advance(running.gateway.parking.seconds + 1)
        assert text_of(await call.answer()) == "done"
        assert asker.seen[1] == ({"who": {"action": "cancel"}}, "s")
        assert [note["requestId"] for note in call.notes("notifications/cancelled")] == [question["id"]]
        assert len(running.gateway.parking) == 0


@pytest.mark.parametrize("method", ["prompts/get", "resources/read"])
async def test_prompts_and_resources_may_ask_as_well(empty: Running, method: str) -> None:
    server = InMemoryServer("desk", era=Era.MODERN)

    async def handler(_arguments: dict[str, Any], context: CallContext) -> Any:
        if context.input_responses is None:
            return InputRequired(ASKS_FORM)
        return str(context.input_responses["who"]["content"]["name"])

    server.prompt("work")(handler)
    server.resource("desk://work", name="work")(handler)
    await with_server(empty, server)
    client = await LegacyClient.open(empty)
    params = {"name": "desk_work"} if method == "prompts/get" else {"uri": "desk://work"}
    call = client.call(params, method=method)
    await client.answer(await call.asked(), ACCEPTED)
    assert "Ann" in str((await call.answer())["result"])


async def test_a_server_that_asks_in_a_way_that_cannot_be_read_is_at_fault(empty: Running) -> None:
    await asking(empty, InputRequired({"q": {"method": "tools/call", "params": {}}}))
    client = await LegacyClient.open(empty)
    error = (await client.call().answer())["error"]
    assert (error["code"], "tools/call" in error["message"]) == (502, True)


async def test_the_call_that_is_sent_again_has_its_whole_idle_time_before_it(empty: Running) -> None:
    gate = asyncio.Event()

    async def tool(_arguments: dict[str, Any], context: CallContext) -> Any:
        if context.input_responses is None:
            return InputRequired(ASKS_FORM)
        await gate.wait()
        return "done"

    settings = DeadlineSettings(idle_seconds=60, total_seconds=900)
    upstream = await with_tool(empty, tool, Era.MODERN, deadline=settings)
    deadline = empty.gateway.context.snapshot.servers["desk"].deadline
    client = await LegacyClient.open(empty)
    call = client.call()
    question = await call.asked()
    deadline.expire(upstream.calls[-1].started_at + 600)  # the client thinks for ten minutes: nothing is under way
    await client.answer(question, ACCEPTED)
    await until(lambda: upstream.in_flight == 1)
    again = upstream.calls[-1]
    deadline.expire(again.started_at + 60)  # the idle time counted from when the client first asked
    assert not again.expired_after
    gate.set()
    assert text_of(await call.answer()) == "done"


async def test_the_total_time_counts_from_the_clients_own_request(empty: Running) -> None:
    async def tool(_arguments: dict[str, Any], context: CallContext) -> Any:
        return InputRequired(ASKS_FORM) if context.input_responses is None else await asyncio.Event().wait()

    settings = DeadlineSettings(idle_seconds=60, total_seconds=50)
    upstream = await with_tool(empty, tool, Era.MODERN, deadline=settings)
    client = await LegacyClient.open(empty)
    call = client.call()
    await client.answer(await call.asked(), ACCEPTED)
    await until(lambda: upstream.in_flight == 1)
    empty.gateway.context.snapshot.servers["desk"].deadline.expire(upstream.calls[-1].started_at + 50 + ROUNDING)
    assert (await call.answer())["error"]["code"] == 504


async def test_the_time_a_client_thinks_is_counted_neither_as_ours_nor_as_the_servers(empty: Running) -> None:
    async def tool(_arguments: dict[str, Any], context: CallContext) -> Any:
        return InputRequired(ASKS_FORM) if context.input_responses is None else "done"

    await with_tool(empty, tool, Era.MODERN)
    client = await LegacyClient.open(empty)
    call = client.call()
    question = await call.asked()
    await asyncio.sleep(0.3)  # what is measured
    await client.answer(question, ACCEPTED)
    await call.answer()
    call = client.call()
    await call.asked()
    await asyncio.sleep(0.3)
    await client.notify("notifications/cancelled", requestId=call.id)
    await call.answer()
    (cell,) = (cell for cell in empty.gateway.cells if cell.tool == "work")
    assert (cell.outcomes["ok"], cell.outcomes["cancelled"]) == (1, 1)
    assert cell.overhead.quantile(1.0) < 0.15
    assert cell.upstream.quantile(1.0) < 0.15


async def test_a_call_sent_again_is_cancelled_like_any_other(empty: Running) -> None:
    started = asyncio.Event()

    async def tool(_arguments: dict[str, Any], context: CallContext) -> Any:
        if context.input_responses is None:
            return InputRequired(ASKS_FORM)
        started.set()
        return await asyncio.Event().wait()

    upstream = await with_tool(empty, tool, Era.MODERN)
    client = await LegacyClient.open(empty)
    call = client.call()
    await client.answer(await call.asked(), ACCEPTED)
    await started.wait()
    await client.notify("notifications/cancelled", requestId=call.id)
    assert await call.answer() == {}
    await until(lambda: upstream.in_flight == 0)
    assert len(upstream.cancelled) == 1


async def test_a_client_cannot_give_a_server_a_state_it_was_not_given(empty: Running) -> None:
    asker, _ = await asking(empty)
    client = await LegacyClient.open(empty)
    forged = work() | {"requestState": "forged", "inputResponses": {"who": ACCEPTED}}
    for _ in range(2):
        await client.call(forged).answer()
    assert asker.seen == [(None, None)] * 2
