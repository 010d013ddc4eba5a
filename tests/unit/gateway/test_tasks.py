"""Tasks of modern servers: their ids are sealed, and only their own clients reach them."""

from pathlib import Path
from typing import Any

import pytest

from penstock.gateway.admittance import Admittance
from penstock.protocol.versions import Era
from tests.unit.gateway.asking import ACCEPTED, CAPABILITIES, FORM
from tests.unit.gateway.conftest import Running, gateway_in
from tests.unit.gateway.tasks_kit import CALL, EXTENSION, SEEN, ask, new_task, with_jobs

METHODS = ["tasks/get", "tasks/update", "tasks/cancel"]


def about(task: str, method: str = "tasks/get") -> dict[str, Any]:
    return {"taskId": task} | ({"inputResponses": {}} if method == "tasks/update" else {})


async def test_a_task_goes_from_its_call_to_its_result(empty: Running) -> None:
    jobs = await with_jobs(empty)
    made = (await ask(empty, "tools/call", CALL))["result"]
    token = made["taskId"]
    assert {key: made[key] for key in SEEN} | {"status": made["status"]} == SEEN | {"status": "working"}
    assert token != "job-1"
    waiting = (await ask(empty, "tasks/get", {"taskId": token}))["result"]
    assert (waiting["resultType"], waiting["taskId"], waiting["status"]) == ("complete", token, "input_required")
    assert waiting["inputRequests"] == {"name": {"method": "elicitation/create", "params": FORM}}
    update = {"taskId": token, "inputResponses": {"name": ACCEPTED}}
    taken = (await ask(empty, "tasks/update", update))["result"]
    assert (taken["resultType"], "taskId" in taken) == ("complete", False)
    done = (await ask(empty, "tasks/get", {"taskId": token}))["result"]
    assert (done["taskId"], done["status"]) == (token, "completed")
    assert "Ann" in done["result"]["content"][0]["text"]
    assert (await ask(empty, "tasks/cancel", {"taskId": token}))["result"]["resultType"] == "complete"
    assert [one["taskId"] for method in METHODS for one in jobs.asked(method)] == ["job-1"] * 4
    assert jobs.asked("tasks/update")[0]["inputResponses"] == {"name": ACCEPTED}


@pytest.mark.parametrize("path", ["/mcp", "/mcp/jobs"])
async def test_tasks_are_declared_where_a_modern_server_has_them(empty: Running, path: str) -> None:
    await with_jobs(empty)
    capabilities = (await empty.modern("server/discover", path=path))["result"]["capabilities"]
    assert capabilities["extensions"][EXTENSION] == {}
    assert "tasks" not in capabilities
    legacy, _ = await empty.initialize(path=path)
    assert EXTENSION not in legacy["capabilities"].get("extensions", {})


async def test_a_legacy_server_has_none_whatever_it_declares(empty: Running) -> None:
    jobs = await with_jobs(empty, Era.LEGACY)
    found = (await empty.modern("server/discover", path="/mcp/jobs"))["result"]["capabilities"]
    assert found["extensions"] == {"com.example/other": {"level": 2}}
    for method in METHODS:
        answer = await ask(empty, method, about("job-1", method))
        assert (answer["status"], answer["error"]["code"]) == (404, -32601)
    assert not [call for call in jobs.upstream.calls if call.method in METHODS]


@pytest.mark.parametrize("method", METHODS)
async def test_who_has_not_declared_the_extension_is_told_so(empty: Running, method: str) -> None:
    jobs = await with_jobs(empty)
    token = await new_task(empty)
    answer = await empty.modern(method, about(token, method))
    assert (answer["status"], answer["error"]["code"]) == (400, -32021)
    assert answer["error"]["data"] == {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
    assert not jobs.asked(method)


async def test_a_task_that_asks_what_its_client_has_not_declared_is_not_passed_on(empty: Running) -> None:
    await with_jobs(empty)
    token = await new_task(empty)
    declared: dict[str, Any] = {CAPABILITIES: {"extensions": {EXTENSION: {}}, "sampling": {}}}
    answer = await empty.modern("tasks/get", {"taskId": token}, meta=declared)
    assert (answer["status"], answer["error"]["code"]) == (400, -32021)
    assert answer["error"]["data"] == {"requiredCapabilities": {"elicitation": {"form": {}}}}
    assert (await ask(empty, "tasks/get", {"taskId": token}))["result"]["status"] == "input_required"


@pytest.mark.parametrize("asked", [{"q": {"method": "tools/call"}}, ["no object"], {"q": 1}])
async def test_a_task_that_asks_what_nobody_can_be_asked_is_the_servers_fault(empty: Running, asked: Any) -> None:
    jobs = await with_jobs(empty)
    token = await new_task(empty)
    jobs.asks = asked
    answer = await ask(empty, "tasks/get", {"taskId": token})
    assert (answer["status"], answer["error"]["code"]) == (502, 502)


async def test_a_task_that_asks_for_nothing_is_passed_on(empty: Running) -> None:
    jobs = await with_jobs(empty)
    token = await new_task(empty)
    jobs.asks = {}
    assert (await ask(empty, "tasks/get", {"taskId": token}))["result"]["inputRequests"] == {}


async def test_a_task_for_a_client_that_takes_none_is_not_passed_on(empty: Running) -> None:
    await with_jobs(empty)
    answer = await empty.modern("tools/call", CALL)
    assert (answer["status"], answer["error"]["code"]) == (502, 502)
    assert "job-1" not in str(answer)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["the server's own", "altered", "empty", "of another key", "long"])
async def test_an_id_that_was_not_given_reaches_no_server(empty: Running, method: str, kind: str) -> None:
    jobs = await with_jobs(empty)
    token = await new_task(empty)
    wrong = {
        "the server's own": "job-1",
        "altered": token[:-2] + ("AA" if token[-2:] != "AA" else "BB"),
        "empty": "",
        "of another key": token[6:],
        "long": "x" * 4000,
    }[kind]
    answer = await ask(empty, method, about(wrong, method))
    assert (answer["status"], answer["error"]["code"]) == (200, -32602)
    assert not jobs.asked(method)


@pytest.mark.parametrize("method", METHODS)
async def test_an_id_of_another_principal_reaches_no_server(empty: Running, method: str) -> None:
    class ByHeader(Admittance):
        def principal(self, headers: dict[bytes, bytes]) -> str:
            return headers.get(b"x-principal", b"").decode()

    empty.worker.admittance = ByHeader()
    jobs = await with_jobs(empty)
    token = await new_task(empty, headers={"x-principal": "ann"})
    for other in ({"x-principal": "bob"}, {}):
        answer = await ask(empty, method, about(token, method), headers=other)
        assert (answer["status"], answer["error"]["code"]) == (200, -32602)
    assert not jobs.asked(method)
    assert "result" in await ask(empty, method, about(token, method), headers={"x-principal": "ann"})


async def test_a_header_that_names_another_task_is_refused(empty: Running) -> None:
    jobs = await with_jobs(empty)
    token = await new_task(empty)
    for name in ("job-1", await new_task(empty)):
        answer = await ask(empty, "tasks/get", {"taskId": token}, headers={"mcp-name": name})
        assert (answer["status"], answer["error"]["code"]) == (400, -32020)
    assert not jobs.asked("tasks/get")


async def test_any_gateway_with_the_same_keys_finds_the_task(empty: Running, tmp_path: Path) -> None:
    await with_jobs(empty)
    token = await new_task(empty)
    async with gateway_in(tmp_path / "other") as other:
        jobs = await with_jobs(other)
        answer = await ask(other, "tasks/get", {"taskId": token})
        assert answer["result"]["taskId"] == token
        assert jobs.asked("tasks/get") == [{"taskId": "job-1"}]


async def test_a_server_that_another_worker_has_is_asked_by_the_clients_own_id(empty: Running, tmp_path: Path) -> None:
    await with_jobs(empty)
    token = await new_task(empty)
    async with gateway_in(tmp_path / "other") as other:
        there = await with_jobs(other, is_elsewhere=True)
        there.created["taskId"] = token  # as the worker has sealed it
        assert await new_task(other) == token
        answer = await ask(other, "tasks/get", {"taskId": token})
        assert answer["error"]["code"] == -32602, "the fake knows no seals"
        assert there.asked("tasks/get") == [{"taskId": token}]


async def test_a_view_does_not_reach_the_tasks_of_servers_it_does_not_hold(empty: Running) -> None:
    jobs = await with_jobs(empty)
    token = await new_task(empty)
    other = await with_jobs(empty)
    await empty.apply({"jobs": lambda: jobs.upstream, "else": lambda: other.upstream})
    await empty.listed()
    answer = await ask(empty, "tasks/get", {"taskId": token}, path="/mcp/else")
    assert answer["error"]["code"] == -32602


@pytest.mark.parametrize("task", [None, 7, "x" * 1025])
async def test_a_task_whose_id_cannot_be_carried_is_the_servers_fault(empty: Running, task: Any) -> None:
    jobs = await with_jobs(empty)
    jobs.created["taskId"] = task
    answer = await ask(empty, "tools/call", CALL)
    assert (answer["status"], answer["error"]["code"]) == (502, 502)


async def test_a_request_state_is_no_word_of_tasks(empty: Running) -> None:
    jobs = await with_jobs(empty)
    token = await new_task(empty)
    assert "result" in await ask(empty, "tasks/get", {"taskId": token, "requestState": "x"})
    assert jobs.asked("tasks/get") == [{"taskId": "job-1"}]


async def test_the_hint_of_2025_11_25_makes_no_difference(empty: Running) -> None:
    await with_jobs(empty)
    answer = await ask(empty, "tools/call", CALL | {"task": {"ttl": 1000}})
    assert answer["result"]["resultType"] == "task"


async def test_methods_of_the_other_eras_tasks_are_unknown(empty: Running) -> None:
    await with_jobs(empty)
    token = await new_task(empty)
    for method in ("tasks/result", "tasks/list"):
        answer = await ask(empty, method, {"taskId": token})
        assert (answer["status"], answer["error"]["code"]) == (404, -32601)
    _, session = await empty.initialize()
    for method in (*METHODS, "tasks/result", "tasks/list"):
        answer = await empty.legacy(method, about(token, method), session=session)
        assert answer["error"]["code"] == -32601


async def test_a_task_can_begin_with_a_question(empty: Running) -> None:
    jobs = await with_jobs(empty)

    async def asks(_arguments: dict[str, Any], context: Any) -> Any:
        if context.input_responses is None:
            asked = {"name": {"method": "elicitation/create", "params": FORM}}
            return {"resultType": "input_required", "inputRequests": asked, "requestState": "r"}
        return {"resultType": "task"} | jobs.created

    jobs.server.tool("work", input_schema={"type": "object"})(asks)
    first = (await ask(empty, "tools/call", CALL))["result"]
    assert first["resultType"] == "input_required"
    retry = CALL | {"requestState": first["requestState"], "inputResponses": {"name": ACCEPTED}}
    second = (await ask(empty, "tools/call", retry))["result"]
    assert (second["resultType"], "requestState" in second) == ("task", False)
    assert "result" in await ask(empty, "tasks/get", {"taskId": second["taskId"]})


async def test_a_legacy_client_cannot_be_given_a_task(empty: Running) -> None:
    await with_jobs(empty)
    _, session = await empty.initialize()
    answer = await empty.legacy("tools/call", CALL, session=session)
    assert "error" in answer
    assert "job-1" not in str(answer)
