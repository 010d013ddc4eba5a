"""Parked calls: bounded in number and time, ended by deadlines and faults, bound to whom they belong to; -32042."""

import asyncio
import contextlib
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
import pytest

from penstock.clock import FakeClock
from penstock.errors import ServerUnavailable
from penstock.gateway.edges.modern_dialogue import ModernDialogue
from penstock.gateway.request_states import MAX_SERVER_STATE, RequestState, binding_of
from penstock.policies.deadline import Deadline, DeadlineSettings
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Answer, Call, Failure
from penstock.upstreams.in_memory import CallContext, InMemoryServer, InMemoryUpstream, InputRequired, Refused, Step
from tests.unit.gateway.asking import ACCEPTED, FORM, ROUNDING, ModernClient, text_of, with_tool, work
from tests.unit.gateway.conftest import Running, gateway_in, plan_of, until

ANSWER = {"elicitation-1": ACCEPTED}


async def asks_a_form(_arguments: dict[str, Any], context: CallContext) -> Any:
    return str(await context.ask("elicitation/create", FORM))


async def asks_and_works(_arguments: dict[str, Any], context: CallContext) -> Any:
    """Goes on whatever becomes of its question, until it is told to stop."""
    with contextlib.suppress(Refused):
        await context.ask("elicitation/create", FORM)
    return await asyncio.Event().wait()


def deadline_of(running: Running) -> Deadline:
    return running.gateway.context.snapshot.servers["desk"].deadline


def outcomes(running: Running) -> dict[str, int]:
    (cell,) = (cell for cell in running.gateway.cells if cell.tool == "work")
    return {name: count for name, count in cell.outcomes.items() if count}


async def test_a_client_that_never_comes_back_costs_a_place_for_a_while_and_its_call_is_cancelled(
    tmp_path: Path,
) -> None:
    clock = FakeClock()
    async with gateway_in(tmp_path, clock=clock) as running:
        upstream = await with_tool(running, asks_and_works)
        client = ModernClient(running)
        asked = await client.call()
        await clock.advance(running.gateway.parking.seconds - 1)
        assert (len(running.gateway.parking), upstream.in_flight) == (1, 1)
        await clock.advance(2)
        await until(lambda: upstream.in_flight == 0)
        assert (len(running.gateway.parking), len(upstream.cancelled)) == (0, 1)
        late = await client.resume(asked, ANSWER)
        assert late["error"]["code"] == -32602
        assert "waited too long" in late["error"]["message"]
        assert outcomes(running) == {"cancelled": 1}


async def test_a_question_that_is_answered_keeps_no_place(tmp_path: Path) -> None:
    clock = FakeClock()
    async with gateway_in(tmp_path, clock=clock) as running:
        upstream = await with_tool(running, asks_and_works)
        line_is_open = asyncio.ensure_future(_resume_and_wait(running))
        await until(lambda: len(upstream.calls) > 1 and len(running.gateway.parking) == 0 and upstream.in_flight == 1)
        await clock.advance(running.gateway.parking.seconds * 2)
        assert upstream.in_flight == 1, "nobody waits for the client any more"
        line_is_open.cancel()
        await until(lambda: upstream.in_flight == 0)


async def _resume_and_wait(running: Running) -> None:
    client = ModernClient(running)
    await client.resume(await client.call(), ANSWER)


async def test_an_answer_nobody_comes_for_is_given_up_and_counted(tmp_path: Path) -> None:
    clock, gate = FakeClock(), asyncio.Event()

    async def tool(_arguments: dict[str, Any], context: CallContext) -> Any:
        asking = asyncio.ensure_future(context.ask("elicitation/create", FORM))
        await gate.wait()
        asking.cancel()
        return "done"

    async with gateway_in(tmp_path, clock=clock) as running:
        upstream = await with_tool(running, tool)
        await ModernClient(running).call()
        gate.set()
        await until(lambda: upstream.in_flight == 0)
        assert len(running.gateway.parking) == 1
        await clock.advance(running.gateway.parking.seconds + 1)
        assert len(running.gateway.parking) == 0
        assert outcomes(running) == {"ok": 1}


async def test_too_many_parked_calls_are_a_clear_error_to_the_next_one(empty: Running) -> None:
    upstream = await with_tool(empty, asks_and_works)
    client, parking = ModernClient(empty), empty.gateway.parking
    asked = await client.call()
    keys = []
    while (key := parking.enter(_Nobody())) is not None:
        keys.append(key)
    refused = await client.call()
    assert (refused["status"], refused["error"]["code"]) == (503, 503)
    assert refused["error"]["data"] == {"reason": "server_busy", "server": "desk", "retryable": True}
    assert "256 calls wait" in refused["error"]["message"]
    await until(lambda: upstream.in_flight == 1)
    assert len(upstream.cancelled) == 1, "the one that was refused, and not the one that waits"
    parking.leave(keys[0])
    assert (await client.call())["result"]["resultType"] == "input_required"
    assert "requestState" in asked["result"]


class _Nobody:
    def expire(self) -> None:
        pass


async def test_the_idle_time_stands_still_while_the_client_owes_an_answer(empty: Running) -> None:
    upstream = await with_tool(empty, asks_and_works, deadline=DeadlineSettings(idle_seconds=60, total_seconds=900))
    client = ModernClient(empty)
    asked = await client.call()
    call = upstream.calls[-1]
    deadline_of(empty).expire(monotonic() + 600)
    assert (call.expired_after, upstream.in_flight) == (0.0, 1)
    resumed = asyncio.ensure_future(client.resume(asked, ANSWER))
    await until(lambda: not call.asking_since)
    deadline_of(empty).expire(call.started_at + 60)
    assert call.expired_after == 0.0, "it counts from the answer"
    deadline_of(empty).expire(call.progress_at + 60 + ROUNDING)
    answer = await resumed
    assert (answer["status"], answer["error"]["data"]["reason"]) == (504, "deadline_exceeded")


async def test_the_total_time_does_not_stand_still(empty: Running) -> None:
    upstream = await with_tool(empty, asks_and_works, deadline=DeadlineSettings(idle_seconds=60, total_seconds=900))
    client = ModernClient(empty)
    asked = await client.call()
    deadline_of(empty).expire(upstream.calls[-1].started_at + 900 + ROUNDING)
    await until(lambda: upstream.in_flight == 0)
    answer = await client.resume(asked, ANSWER)
    assert (answer["status"], answer["error"]["code"]) == (504, 504)
    assert outcomes(empty) == {"server_error": 1}


async def test_a_server_whose_question_is_withdrawn_is_idle_again(empty: Running) -> None:
    withdraw = asyncio.Event()

    async def tool(_arguments: dict[str, Any], context: CallContext) -> Any:
        asking = asyncio.ensure_future(context.ask("elicitation/create", FORM))
        await withdraw.wait()
        asking.cancel()
        return await asyncio.Event().wait()

    upstream = await with_tool(empty, tool, deadline=DeadlineSettings(idle_seconds=60, total_seconds=900))
    await ModernClient(empty).call()
    call = upstream.calls[-1]
    withdraw.set()
    await until(lambda: not call.asking_since)
    deadline_of(empty).expire(call.progress_at + 60 + ROUNDING)
    await until(lambda: upstream.in_flight == 0)
    assert call.expired_after == 60


async def test_the_time_a_client_is_away_is_counted_neither_as_ours_nor_as_the_servers(empty: Running) -> None:
    gate = asyncio.Event()

    async def tool(arguments: dict[str, Any], context: CallContext) -> Any:
        asking = asyncio.ensure_future(context.ask("elicitation/create", FORM))
        if arguments.get("ends"):
            await gate.wait()
            asking.cancel()
            await asyncio.sleep(0)  # so that nothing is asked any more when it ends
            return "done"
        return str(await asking)

    upstream = await with_tool(empty, tool)
    client = ModernClient(empty)
    asked, ending = await client.call(), await client.call(work(ends=True))
    gate.set()
    await until(lambda: upstream.in_flight == 1)
    await asyncio.sleep(0.3)  # what is measured
    assert "Ann" in text_of(await client.resume(asked, ANSWER))
    assert text_of(await client.resume(ending, ANSWER, work(ends=True))) == "done"
    (cell,) = (cell for cell in empty.gateway.cells if cell.tool == "work")
    assert cell.outcomes["ok"] == 2
    assert cell.overhead.quantile(1.0) < 0.2
    assert cell.upstream.quantile(1.0) < 0.2


async def test_a_call_that_fails_while_it_is_parked_tells_the_retry(empty: Running) -> None:
    class Falls(InMemoryUpstream):
        async def call(self, call: Call) -> Answer:
            if call.method != "tools/call":
                return await super().call(call)
            asking = asyncio.ensure_future(CallContext(call, wants_every_log=False).ask("elicitation/create", FORM))
            await fall.wait()
            asking.cancel()
            raise ServerUnavailable("desk", "it fell over")

    fall = asyncio.Event()
    client, asked = await _asked_by(empty, Falls)
    fall.set()
    await until(lambda: not deadline_of(empty).running)
    answer = await client.resume(asked, ANSWER)
    assert (answer["status"], "fell over" in answer["error"]["message"]) == (503, True)


async def _asked_by(running: Running, kind: type[InMemoryUpstream]) -> tuple[ModernClient, dict[str, Any]]:
    server = InMemoryServer("desk", era=Era.LEGACY)
    server.tool("work", input_schema={"type": "object"})(asks_a_form)
    await running.gateway.apply({"desk": plan_of("desk", lambda: kind("desk", server))}, ())
    await running.listed()
    client = ModernClient(running)
    return client, await client.call()


@pytest.mark.parametrize("when", ["parked", "resumed"])
async def test_a_fault_of_ours_leaves_no_client_waiting(
    empty: Running, when: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Faulty(InMemoryUpstream):
        async def call(self, call: Call) -> Answer:
            if call.method != "tools/call":
                return await super().call(call)
            asking = asyncio.ensure_future(CallContext(call, wants_every_log=False).ask("elicitation/create", FORM))
            await (fault.wait() if when == "parked" else asking)
            asking.cancel()
            raise KeyError("ours")

    fault = asyncio.Event()
    client, asked = await _asked_by(empty, Faulty)
    fault.set()
    if when == "parked":
        await until(lambda: not deadline_of(empty).running)
    answer = await asyncio.wait_for(client.resume(asked, ANSWER), 5)
    assert answer["status"] == 500
    assert "ours" in caplog.text
    assert len(empty.gateway.parking) == 0


async def test_a_state_belongs_to_who_was_asked(empty: Running) -> None:
    """There is no sign-in yet: what another principal is given is made here by hand."""
    upstream = await with_tool(empty, asks_a_form)
    client = ModernClient(empty)
    asked = await client.call()
    states = empty.gateway.context.request_states
    params = msgspec.json.decode(b'{"name":"work","arguments":{}}', type=dict[str, msgspec.Raw])
    mine = binding_of("", "desk", "tools/call", params)
    state = states.open(asked["result"]["requestState"], mine)
    assert state is not None
    assert (state.kind, isinstance(empty.gateway.parking.find(state.text), ModernDialogue)) == ("parked", True)
    assert states.open(asked["result"]["requestState"], binding_of("bob", "desk", "tools/call", params)) is None
    for theirs in (binding_of("bob", "desk", "tools/call", params), binding_of("", "other", "tools/call", params)):
        token = states.seal(state, theirs)
        refused = await client.call(work() | {"requestState": token, "inputResponses": ANSWER})
        assert refused["error"]["code"] == -32602
    assert "Ann" in text_of(await client.resume(asked, ANSWER))
    assert len([call for call in upstream.calls if call.method == "tools/call"]) == 1


async def test_a_sealed_state_leads_to_nothing_but_a_parked_call(empty: Running) -> None:
    """A key of the parking may be that of something else: a legacy client's question."""
    await with_tool(empty, asks_a_form)
    client = ModernClient(empty)
    key = empty.gateway.parking.enter(_Nobody())
    assert key is not None
    params = msgspec.json.decode(b'{"name":"work","arguments":{}}', type=dict[str, msgspec.Raw])
    state = RequestState("parked", key)
    token = empty.gateway.context.request_states.seal(state, binding_of("", "desk", "tools/call", params))
    assert (await client.call(work() | {"requestState": token}))["error"]["code"] == -32602


# a URL first: -32042

URL_FIRST: dict[str, Any] = {
    "elicitations": [{"mode": "url", "elicitationId": "e-1", "url": "https://x.example/in", "message": "Sign in"}]
}


async def test_a_url_that_is_required_is_asked_for_and_the_call_is_sent_again(empty: Running) -> None:
    signed_in: list[bool] = []

    async def tool(_arguments: dict[str, Any], _context: CallContext) -> Any:
        if not signed_in:
            raise Refused(-32042, "Sign in first", URL_FIRST)
        return "done"

    upstream = await with_tool(empty, tool)
    client = ModernClient(empty)
    asked = await client.call()
    assert (asked["status"], asked["result"]["resultType"]) == (200, "input_required")
    assert asked["result"]["inputRequests"] == {
        "url-1": {
            "method": "elicitation/create",
            "params": {"mode": "url", "url": "https://x.example/in", "message": "Sign in"},
        }
    }
    assert len(empty.gateway.parking) == 0, "nothing waits at the server"
    too_early = await client.resume(asked, {"url-1": {"action": "accept"}})
    assert too_early["result"]["resultType"] == "input_required"
    signed_in.append(True)
    assert text_of(await client.resume(too_early, {"url-1": {"action": "accept"}})) == "done"
    calls = [call for call in upstream.calls if call.method == "tools/call"]
    assert len(calls) == 3
    assert [set(call.params) for call in calls] == [{"name", "arguments"}] * 3, "modern words do not reach the server"


async def test_a_client_that_cannot_visit_urls_is_told_what_it_would_need(empty: Running) -> None:
    async def tool(_arguments: dict[str, Any], _context: CallContext) -> Any:
        raise Refused(-32042, "Sign in first", URL_FIRST)

    await with_tool(empty, tool)
    answer = await ModernClient(empty, {"elicitation": {}}).call()
    assert (answer["status"], answer["error"]["code"]) == (400, -32021)
    assert answer["error"]["data"] == {"requiredCapabilities": {"elicitation": {"url": {}}}}


async def test_an_error_that_names_no_url_is_an_ordinary_one(empty: Running) -> None:
    upstream = await with_tool(empty, asks_a_form)
    upstream.order(Step(answer=Failure(-32042, "Sign in", b"{}", Era.LEGACY)))
    answer = await ModernClient(empty).call()
    assert (answer["status"], answer["error"]["code"]) == (200, -32603)


async def test_a_url_that_is_required_after_a_question_is_asked_for_too(empty: Running) -> None:
    async def tool(_arguments: dict[str, Any], context: CallContext) -> Any:
        await context.ask("elicitation/create", FORM)
        raise Refused(-32042, "Sign in first", URL_FIRST)

    await with_tool(empty, tool)
    client = ModernClient(empty)
    then = await client.resume(await client.call(), ANSWER)
    assert list(then["result"]["inputRequests"]) == ["url-1"]
    again = await client.resume(then, {"url-1": {"action": "accept"}})
    assert list(again["result"]["inputRequests"]) == ["elicitation-1"], "the call is sent from the start"


# a modern server's own state


@pytest.mark.parametrize("state", ["", '{"a":1}', "\u00e9\U0001f600/\\", "\U0001f600" * 60_000])
async def test_a_modern_servers_state_comes_back_to_it_as_it_was(empty: Running, state: str) -> None:
    seen: list[Any] = []

    async def tool(_arguments: dict[str, Any], context: CallContext) -> Any:
        seen.append((context.request_state, context.input_responses))
        return InputRequired({"q": {"method": "roots/list"}}, state) if len(seen) == 1 else "done"

    await with_tool(empty, tool, Era.MODERN)
    client = ModernClient(empty)
    asked = await client.call()
    assert asked["result"]["requestState"] != state
    assert asked["result"]["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "desk"
    assert text_of(await client.resume(asked, {"q": {"roots": []}})) == "done"
    assert seen == [(None, None), (state, {"q": {"roots": []}})]


async def test_a_modern_servers_result_without_state_stays_without(empty: Running) -> None:
    async def tool(_arguments: dict[str, Any], context: CallContext) -> Any:
        return InputRequired({"q": {"method": "roots/list"}}) if context.input_responses is None else "done"

    await with_tool(empty, tool, Era.MODERN)
    client = ModernClient(empty)
    asked = await client.call()
    assert "requestState" not in asked["result"]
    assert text_of(await client.resume(asked, {"q": {"roots": []}})) == "done"


@pytest.mark.parametrize(
    "result",
    [
        InputRequired({}, None),
        InputRequired({"q": {"method": "ping"}}),
        InputRequired({}, "x" * (MAX_SERVER_STATE + 1)),
    ],
    ids=["asks nothing", "asks what nobody answers", "state too large"],
)
async def test_what_a_modern_server_cannot_ask_is_its_fault(empty: Running, result: InputRequired) -> None:
    async def tool(_arguments: dict[str, Any], _context: CallContext) -> Any:
        return result

    await with_tool(empty, tool, Era.MODERN)
    answer = await ModernClient(empty).call()
    assert (answer["status"], answer["error"]["data"]["reason"]) == (502, "bad_answer")


async def test_what_a_modern_client_did_not_declare_no_modern_server_asks_it(empty: Running) -> None:
    async def tool(_arguments: dict[str, Any], _context: CallContext) -> Any:
        return InputRequired(
            {"r": {"method": "roots/list"}, "q": {"method": "elicitation/create", "params": FORM}}, "s"
        )

    await with_tool(empty, tool, Era.MODERN)
    answer = await ModernClient(empty, {"roots": {}}).call()
    assert (answer["status"], answer["error"]["code"]) == (400, -32021)
    assert answer["error"]["data"] == {"requiredCapabilities": {"elicitation": {"form": {}}}}


async def test_a_call_may_be_asked_about_in_one_era_and_answered_in_the_other(empty: Running) -> None:
    """So it is when its server was replaced meanwhile and the call had to be sent again."""
    await with_tool(empty, asks_a_form, Era.MODERN)
    client = ModernClient(empty)
    assert "Ann" in text_of(await client.resume(await client.call(), ANSWER))
