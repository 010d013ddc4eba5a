"""A legacy server's requests, and modern clients: `input_required`, the parked call, the retry that takes it up."""

import asyncio
from typing import Any

import pytest

from penstock.gateway.edges.modern_dialogue import GATHER_SECONDS
from penstock.protocol.versions import Era
from penstock.upstreams.in_memory import CallContext, InMemoryServer, Refused, ToolFailed
from tests.unit.gateway.asking import (
    ACCEPTED,
    FORM,
    KINDS,
    LOG_LEVEL,
    ROOTS,
    SAID,
    TALK,
    LegacyClient,
    ModernClient,
    text_of,
    with_server,
    with_tool,
    work,
)
from tests.unit.gateway.conftest import Running, until


async def asks_a_form(_arguments: dict[str, Any], context: CallContext) -> Any:
    return str(await context.ask("elicitation/create", FORM))


def requests_of(answer: dict[str, Any]) -> dict[str, Any]:
    assert answer["result"]["resultType"] == "input_required"
    requests: dict[str, Any] = answer["result"]["inputRequests"]
    return requests


def invalid(answer: dict[str, Any]) -> bool:
    code: int = answer.get("error", {}).get("code", 0)
    return code == -32602


@pytest.mark.parametrize("kind", KINDS)
async def test_each_kind_of_question_parks_the_call_and_the_retry_takes_it_up(empty: Running, kind: str) -> None:
    method, params, answer = KINDS[kind]
    seen: list[Any] = []

    async def tool(_arguments: dict[str, Any], context: CallContext) -> Any:
        seen.append(await context.ask(method, params))
        return "done"

    upstream = await with_tool(empty, tool)
    client = ModernClient(empty)
    asked = await client.call()
    assert asked["status"] == 200
    ((key, request),) = requests_of(asked).items()
    wanted = {name: value for name, value in params.items() if name != "elicitationId"}
    assert (request["method"], request.get("params", {})) == (method, wanted)
    assert not {"ttlMs", "cacheScope", "content"} & set(asked["result"])
    assert (len(empty.gateway.parking), upstream.in_flight, seen) == (1, 1, [])
    done = await client.resume(asked, {key: answer})
    assert (text_of(done), done["result"]["resultType"], seen) == ("done", "complete", [answer])
    assert (len(empty.gateway.parking), upstream.in_flight) == (0, 0)
    assert len([call for call in upstream.calls if call.method == "tools/call"]) == 1, "it went to the server once"


async def test_what_is_asked_side_by_side_goes_out_in_one_result(empty: Running) -> None:
    async def tool(_arguments: dict[str, Any], context: CallContext) -> Any:
        kinds = (KINDS[kind][:2] for kind in ("form", "sampling", "roots"))
        return {"got": list(await asyncio.gather(*(context.ask(*one) for one in kinds)))}

    await with_tool(empty, tool)
    client = ModernClient(empty)
    asked = await client.call()
    keys = {request["method"]: key for key, request in requests_of(asked).items()}
    assert len(keys) == 3
    responses = {
        keys["roots/list"]: ROOTS,
        keys["elicitation/create"]: ACCEPTED,
        keys["sampling/createMessage"]: SAID,
    }
    done = await client.resume(asked, responses)
    assert done["result"]["structuredContent"] == {"got": [ACCEPTED, SAID, ROOTS]}


async def test_a_second_question_may_follow_the_first_answer(empty: Running) -> None:
    async def tool(_arguments: dict[str, Any], context: CallContext) -> Any:
        return {"all": [(await context.ask("elicitation/create", FORM))["content"]["n"] for _ in range(3)]}

    await with_tool(empty, tool)
    client, states = ModernClient(empty), set()
    answer = await client.call()
    for number in range(3):
        states.add(answer["result"]["requestState"])
        (key,) = requests_of(answer)
        answer = await client.resume(answer, {key: {"action": "accept", "content": {"n": number}}})
    assert answer["result"]["structuredContent"] == {"all": [0, 1, 2]}
    assert len(states) == 3


async def test_what_is_not_answered_is_asked_again_and_what_nobody_asked_is_ignored(empty: Running) -> None:
    async def tool(_arguments: dict[str, Any], context: CallContext) -> Any:
        both = await asyncio.gather(context.ask("elicitation/create", FORM), context.ask("roots/list", {}))
        return {"got": list(both)}

    await with_tool(empty, tool)
    client = ModernClient(empty)
    asked = await client.call()
    form, roots = requests_of(asked)
    again = await client.resume(asked, {roots: ROOTS, "nobody": {"asked": 1}, "elicitation-9": ACCEPTED})
    assert list(requests_of(again)) == [form]
    useless: list[Any] = [{}, None, {roots: {"roots": []}}]
    for nothing in useless:
        again = await client.resume(again, nothing)
        assert list(requests_of(again)) == [form]
    done = await client.resume(again, {form: ACCEPTED})
    assert done["result"]["structuredContent"] == {"got": [ACCEPTED, ROOTS]}


@pytest.mark.parametrize("responses", [5, "x", [], {"elicitation-1": "yes"}, {"elicitation-1": None}])
async def test_malformed_answers_are_refused_and_the_call_stays_parked(empty: Running, responses: Any) -> None:
    await with_tool(empty, asks_a_form)
    client = ModernClient(empty)
    asked = await client.call()
    refused = await client.resume(asked, responses)
    assert invalid(refused)
    assert len(empty.gateway.parking) == 1
    assert "Ann" in text_of(await client.resume(asked, {"elicitation-1": ACCEPTED}))


async def test_a_state_takes_a_call_up_once(empty: Running) -> None:
    await with_tool(empty, asks_a_form)
    client = ModernClient(empty)
    asked = await client.call()
    assert "Ann" in text_of(await client.resume(asked, {"elicitation-1": ACCEPTED}))
    assert invalid(await client.resume(asked, {"elicitation-1": ACCEPTED}))


async def test_of_two_retries_at_once_one_has_the_call(empty: Running) -> None:
    upstream = await with_tool(empty, asks_a_form)
    client = ModernClient(empty)
    asked = await client.call()
    answers = await asyncio.gather(*(client.resume(asked, {"elicitation-1": ACCEPTED}) for _ in range(4)))
    assert sorted(invalid(answer) for answer in answers) == [False, True, True, True]
    assert len([call for call in upstream.calls if call.method == "tools/call"]) == 1


@pytest.mark.parametrize("how", ["altered", "made up", "no string", "other arguments", "other tool", "of a prompt"])
async def test_a_state_that_is_not_this_requests_is_refused_and_nothing_reaches_the_server(
    empty: Running, how: str
) -> None:
    server = InMemoryServer("desk", era=Era.LEGACY)
    server.prompt("work")(asks_a_form)
    for name in ("work", "other"):
        server.tool(name, input_schema={"type": "object"})(asks_a_form)
    upstream = await with_server(empty, server)
    client = ModernClient(empty)
    asked = await client.call(work(a=1))
    state, params, method = asked["result"]["requestState"], work(a=1), "tools/call"
    before = len(upstream.calls)
    if how == "altered":
        middle = len(state) // 2
        state = state[:middle] + ("A" if state[middle] != "A" else "B") + state[middle + 1 :]
    elif how == "made up":
        state = "made-up"
    elif how == "no string":
        state = {"state": state}
    elif how == "other arguments":
        params = work(a=2)
    elif how == "other tool":
        params = params | {"name": "desk_other"}
    else:
        method = "prompts/get"
    more = {"requestState": state, "inputResponses": {"elicitation-1": ACCEPTED}}
    refused = await client.call(params | more, method=method)
    assert invalid(refused), refused
    assert (len(upstream.calls), len(empty.gateway.parking)) == (before, 1)
    done = await client.resume(asked, {"elicitation-1": ACCEPTED}, work(a=1))
    assert "Ann" in text_of(done), "the call was left alone"


async def test_the_same_arguments_in_another_order_are_the_same_request(empty: Running) -> None:
    await with_tool(empty, asks_a_form)
    client = ModernClient(empty)
    asked = await client.call(work(a=1, b={"x": 1, "y": 2}))
    params = {"arguments": {"b": {"y": 2, "x": 1}, "a": 1}, "name": "desk_work"}
    assert "Ann" in text_of(await client.resume(asked, {"elicitation-1": ACCEPTED}, params))


async def test_progress_and_logs_go_to_whoever_resumed_the_call_in_its_own_words(empty: Running) -> None:
    async def tool(_arguments: dict[str, Any], context: CallContext) -> Any:
        context.progress(1)
        context.log("error", "first")
        await context.ask("elicitation/create", FORM)
        context.progress(2)
        context.log("error", "second")
        context.log("debug", "quiet")
        return "done"

    await with_tool(empty, tool)
    client = ModernClient(empty)
    asked = await client.call(meta={"progressToken": "a", LOG_LEVEL: "error"})
    assert [note["params"].get("progressToken") for note in asked["notifications"]] == ["a", None]
    done = await client.resume(asked, {"elicitation-1": ACCEPTED}, meta={"progressToken": 7, LOG_LEVEL: "error"})
    progress, log = done["notifications"]
    assert progress["params"] == {"progressToken": 7, "progress": 2}
    assert log["params"]["data"] == "second"
    assert text_of(done) == "done"


async def test_a_retry_that_wants_no_progress_and_no_logs_gets_none(empty: Running) -> None:
    async def tool(_arguments: dict[str, Any], context: CallContext) -> Any:
        await context.ask("elicitation/create", FORM)
        context.progress(2)
        context.log("error", "said")
        return "done"

    await with_tool(empty, tool)
    client = ModernClient(empty)
    asked = await client.call(meta={"progressToken": "a", LOG_LEVEL: "debug"})
    done = await client.resume(asked, {"elicitation-1": ACCEPTED})
    assert (text_of(done), done["notifications"]) == ("done", [])


async def test_a_retry_gets_no_log_line_below_its_own_level(empty: Running) -> None:
    async def tool(_arguments: dict[str, Any], context: CallContext) -> Any:
        await context.ask("elicitation/create", FORM)
        context.log("info", "quiet")
        context.log("error", "loud")
        return "done"

    await with_tool(empty, tool)
    client = ModernClient(empty)
    asked = await client.call(meta={LOG_LEVEL: "debug"})
    done = await client.resume(asked, {"elicitation-1": ACCEPTED}, meta={LOG_LEVEL: "warning"})
    assert [note["params"]["data"] for note in done["notifications"]] == ["loud"]


async def test_a_question_after_progress_ends_the_stream_with_what_is_asked(empty: Running) -> None:
    async def tool(_arguments: dict[str, Any], context: CallContext) -> Any:
        for number in range(2):
            context.progress(number)
            await context.ask("elicitation/create", FORM)
        return "done"

    await with_tool(empty, tool)
    client = ModernClient(empty)
    answer = await client.call(meta={"progressToken": 1})
    for number in range(2):
        assert [note["params"]["progress"] for note in answer["notifications"]] == [number]
        (key,) = requests_of(answer)
        answer = await client.resume(answer, {key: ACCEPTED}, meta={"progressToken": 1})
    assert text_of(answer) == "done"


async def test_a_client_that_takes_no_stream_can_be_asked_all_the_same(empty: Running) -> None:
    await with_tool(empty, asks_a_form)
    client = ModernClient(empty)
    request, headers = client._request("tools/call", work(), None)
    response = await empty.post("/mcp", request, headers | {"accept": "application/json"})
    assert response.headers[b"content-type"] == b"application/json"
    assert b'"input_required"' in bytes(response.body)


async def test_a_client_that_closes_a_resumed_request_cancels_the_call(empty: Running) -> None:
    resumed = asyncio.Event()

    async def tool(_arguments: dict[str, Any], context: CallContext) -> Any:
        await context.ask("elicitation/create", FORM)
        resumed.set()
        return await asyncio.Event().wait()

    upstream = await with_tool(empty, tool)
    client = ModernClient(empty)
    asked = await client.call()
    state, answers = asked["result"]["requestState"], {"elicitation-1": ACCEPTED}
    line = await client.begin(work() | {"requestState": state, "inputResponses": answers})
    await resumed.wait()
    line.close()
    await until(lambda: upstream.in_flight == 0)
    assert len(upstream.cancelled) == 1
    await until(lambda: not empty.server.tasks)
    (cell,) = (cell for cell in empty.gateway.cells if cell.tool == "work")
    assert cell.outcomes["cancelled"] == 1


async def test_a_client_that_closes_while_its_questions_are_gathered_cancels_the_call(empty: Running) -> None:
    asked, answers = asyncio.Event(), []

    async def tool(_arguments: dict[str, Any], context: CallContext) -> Any:
        asyncio.get_running_loop().call_soon(asked.set)
        try:
            return str(await context.ask("elicitation/create", FORM))
        except Refused as error:
            answers.append(error.code)
            raise

    upstream = await with_tool(empty, tool)
    line = await ModernClient(empty).begin()
    await asked.wait()
    line.close()
    await until(lambda: upstream.in_flight == 0)
    assert len(empty.gateway.parking) == 0


async def test_a_call_that_ends_while_it_is_parked_answers_the_retry(empty: Running) -> None:
    gate = asyncio.Event()

    async def tool(_arguments: dict[str, Any], context: CallContext) -> Any:
        asking = asyncio.ensure_future(context.ask("elicitation/create", FORM))
        await gate.wait()
        asking.cancel()
        return "done without you"

    upstream = await with_tool(empty, tool)
    client = ModernClient(empty)
    asked = await client.call()
    gate.set()
    await until(lambda: upstream.in_flight == 0)
    assert len(empty.gateway.parking) == 1
    assert text_of(await client.resume(asked, {"elicitation-1": ACCEPTED})) == "done without you"
    assert len(empty.gateway.parking) == 0
    assert invalid(await client.resume(asked, {"elicitation-1": ACCEPTED}))


async def test_a_question_the_server_withdraws_is_not_asked_again(empty: Running) -> None:
    gate = asyncio.Event()

    async def tool(_arguments: dict[str, Any], context: CallContext) -> Any:
        asking = asyncio.ensure_future(context.ask("elicitation/create", FORM))
        await gate.wait()
        asking.cancel()
        await asyncio.sleep(0)
        return str(await context.ask("roots/list", {}))

    await with_tool(empty, tool)
    client = ModernClient(empty)
    asked = await client.call()
    gate.set()
    again = await client.resume(asked, {"elicitation-1": ACCEPTED})
    assert [request["method"] for request in requests_of(again).values()] == ["roots/list"]
    (key,) = requests_of(again)
    assert "home" in text_of(await client.resume(again, {key: ROOTS}))


@pytest.mark.parametrize(
    ("capabilities", "kind", "needed"),
    [
        ({"roots": {}}, "form", {"elicitation": {"form": {}}}),
        ({"elicitation": {}}, "url", {"elicitation": {"url": {}}}),
        ({"elicitation": {}}, "sampling", {"sampling": {}}),
        ({"elicitation": {}}, "roots", {"roots": {}}),
        ({}, "form", {"elicitation": {"form": {}}}),
        ({}, "roots", {"roots": {}}),
    ],
)
@pytest.mark.parametrize("ending", ["error", "failed", "result"])
async def test_what_is_not_declared_is_not_asked_and_named_when_the_call_fails_for_it(
    empty: Running, capabilities: dict[str, Any], kind: str, needed: dict[str, Any], ending: str
) -> None:
    method, params, _ = KINDS[kind]
    told: list[int] = []

    async def tool(_arguments: dict[str, Any], context: CallContext) -> Any:
        try:
            await context.ask(method, params)
        except Refused as error:
            told.append(error.code)
            if ending == "error":
                raise
            if ending == "failed":
                raise ToolFailed("cannot ask") from None
        return "done without"

    await with_tool(empty, tool)
    answer = await ModernClient(empty, capabilities).call()
    assert told == [-32602 if method == "elicitation/create" else -32601]
    if ending == "result":
        assert text_of(answer) == "done without"
    else:
        assert (answer["status"], answer["error"]["code"]) == (400, -32021)
        assert answer["error"]["data"] == {"requiredCapabilities": needed}
    assert len(empty.gateway.parking) == 0


async def test_capabilities_are_those_of_the_request_that_is_answered(empty: Running) -> None:
    """A retry that declares less than the request before it is asked no more than it declares."""
    told: list[Any] = []

    async def tool(_arguments: dict[str, Any], context: CallContext) -> Any:
        pending = asyncio.ensure_future(context.ask("sampling/createMessage", TALK))
        await context.ask("elicitation/create", FORM)
        for asking in (pending, context.ask("roots/list", {})):
            try:
                told.append(await asking)
            except Refused as error:
                told.append(error.code)
        return "done"

    await with_tool(empty, tool)
    client = ModernClient(empty)
    asked = await client.call()
    keys = {request["method"]: key for key, request in requests_of(asked).items()}
    client.capabilities = {"elicitation": {}}
    answer = await client.resume(asked, {keys["elicitation/create"]: ACCEPTED})
    assert text_of(answer) == "done"
    assert told == [-32601, -32601]


@pytest.mark.parametrize("method", ["prompts/get", "resources/read"])
async def test_prompts_and_resources_may_ask_as_well(empty: Running, method: str) -> None:
    server = InMemoryServer("desk", era=Era.LEGACY)
    server.prompt("work")(asks_a_form)
    server.resource("desk://work", name="work")(asks_a_form)
    await with_server(empty, server)
    client = ModernClient(empty)
    params = {"name": "desk_work", "arguments": {}} if method == "prompts/get" else {"uri": "desk://work"}
    asked = await client.call(params, method=method)
    (key,) = requests_of(asked)
    assert not {"ttlMs", "cacheScope"} & set(asked["result"])
    assert "Ann" in str(await client.resume(asked, {key: ACCEPTED}, params, method=method))


async def test_nothing_is_asked_in_the_course_of_a_completion(empty: Running) -> None:
    server = InMemoryServer("desk", era=Era.LEGACY)
    server.prompt("work")(asks_a_form)

    @server.completion
    async def complete(_ref: dict[str, Any], _argument: dict[str, Any]) -> list[str]:
        return await asking()

    upstream = await with_server(empty, server)

    async def asking() -> list[str]:
        context = CallContext(upstream.calls[-1], wants_every_log=False)
        try:
            await context.ask("elicitation/create", FORM)
        except Refused as error:
            return [f"refused {error.code}"]
        return ["asked"]

    params = {"ref": {"type": "ref/prompt", "name": "desk_work"}, "argument": {"name": "a", "value": ""}}
    answer = await ModernClient(empty).call(params, method="completion/complete")
    assert answer["result"]["completion"]["values"] == ["refused -32601"]
    assert len(empty.gateway.parking) == 0


async def test_nobody_is_asked_in_the_course_of_a_list(empty: Running) -> None:
    upstream = await with_tool(empty, asks_a_form)
    lists = [call for call in upstream.calls if call.method != "tools/call"]
    assert lists
    assert [call.ask for call in lists] == [None] * len(lists)


async def test_a_question_withdrawn_before_it_went_out_is_never_asked(empty: Running) -> None:
    """Questions are gathered for a moment: within it the server may change its mind."""

    async def tool(_arguments: dict[str, Any], context: CallContext) -> Any:
        asking = asyncio.ensure_future(context.ask("elicitation/create", FORM))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.sleep(2 * GATHER_SECONDS)
        return "done"

    await with_tool(empty, tool)
    assert text_of(await ModernClient(empty).call()) == "done"
    assert len(empty.gateway.parking) == 0


@pytest.mark.parametrize("era", Era, ids=lambda era: f"{era.value}_client")
async def test_a_question_that_comes_when_its_call_has_ended_is_answered_so(empty: Running, era: Era) -> None:
    async def tool(_arguments: dict[str, Any], context: CallContext) -> Any:
        late.append(context)
        return "done"

    late: list[CallContext] = []
    await with_tool(empty, tool)
    if era is Era.MODERN:
        await ModernClient(empty).call()
    else:
        await (await LegacyClient.open(empty)).call().answer()
    with pytest.raises(Refused, match="has ended"):
        await asyncio.wait_for(late[0].ask("elicitation/create", FORM), 5)
    assert len(empty.gateway.parking) == 0
