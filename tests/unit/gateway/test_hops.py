"""Requests that reach another worker than the one that has what they are about."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from penstock.gateway.hops import Telling
from penstock.http.client import HttpClient
from penstock.http.limits import ClientLimits
from penstock.upstreams.in_memory import CallContext
from tests.unit.gateway.asking import ACCEPTED, LegacyClient, ModernClient, text_of, work
from tests.unit.gateway.conftest import request_body, until
from tests.unit.gateway.joined import TOOLS, Bound, ask, at, desk, listening, workers_in

SHORT = ClientLimits(connect_seconds=0.2)


# --- modern ---


async def test_a_modern_retry_resumes_the_call_that_is_parked_at_another_worker(tmp_path: Path) -> None:
    async with workers_in(tmp_path, desk) as (first, second):
        asked = await ModernClient(first.running).call(work(do="ask"))
        key = next(iter(asked["result"]["inputRequests"]))
        done = await ModernClient(second.running).resume(asked, {key: ACCEPTED}, work(do="ask"))
        assert text_of(done) == "Ann by 0"
        assert len(first.knocks) == 1
        assert second.knocks == []
        assert len(first.running.gateway.parking) == 0


async def test_a_retry_after_its_call_is_gone_is_told_so(tmp_path: Path) -> None:
    async with workers_in(tmp_path, desk) as (first, second):
        asked = await ModernClient(first.running).call(work(do="ask"))
        key = next(iter(asked["result"]["inputRequests"]))
        for _ in range(2):
            said = await ModernClient(second.running).resume(asked, {key: ACCEPTED}, work(do="ask"))
        assert said["error"]["code"] == -32602
        assert "taken up already" in said["error"]["message"]


async def test_a_retry_whose_worker_is_away_is_503_for_a_modern_client(tmp_path: Path) -> None:
    async with workers_in(tmp_path, desk, limits=SHORT) as (first, second):
        asked = await ModernClient(first.running).call(work(do="ask"))
        first.leave()
        key = next(iter(asked["result"]["inputRequests"]))
        said = await ModernClient(second.running).resume(asked, {key: ACCEPTED}, work(do="ask"))
        assert (said["status"], said["error"]["code"]) == (503, 503)
        assert said["error"]["data"] == {"reason": "worker_away", "retryable": True}
        assert "worker 0 does not answer within 0.2 s" in said["error"]["message"]
        await first.open()
        done = await ModernClient(second.running).resume(asked, {key: ACCEPTED}, work(do="ask"))
        assert text_of(done) == "Ann by 0"


async def test_a_modern_client_that_leaves_while_another_worker_answers_cancels_the_call(tmp_path: Path) -> None:
    async def ask_and_never(index: int, arguments: dict[str, Any], context: CallContext) -> Any:
        await ask(index, arguments, context)
        cancelled.clear()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    cancelled = asyncio.Event()
    cancelled.set()
    TOOLS["ask and never"] = ask_and_never
    async with workers_in(tmp_path, desk) as (first, second):
        params = work(do="ask and never")
        asked = await ModernClient(first.running).call(params)
        key = next(iter(asked["result"]["inputRequests"]))
        state = {"requestState": asked["result"]["requestState"], "inputResponses": {key: ACCEPTED}}
        line = await ModernClient(second.running).begin(params | state)
        await until(lambda: not cancelled.is_set())
        line.close()
        await asyncio.wait_for(cancelled.wait(), 5)
        await until(lambda: not first.running.gateway.calls_in_flight)
        await until(lambda: first.knocks[0].is_disconnected)


# --- legacy: what is about a question ---


async def test_answers_to_a_question_reach_the_worker_that_asked(tmp_path: Path) -> None:
    async with workers_in(tmp_path, desk) as (first, second):
        client = await LegacyClient.open(first.running)
        talk = client.call(work(do="ask"))
        question = await talk.asked()
        assert await at(second, client).answer(question, ACCEPTED) == 202
        assert text_of(await talk.answer()) == "Ann by 0"
        talk = at(second, client).call(work(do="ask"))  # one asks that is not the session's home
        question = await talk.asked()
        assert await client.refuse(question) == 202
        assert (await talk.answer())["error"]["message"] == "User rejected"
        assert (first.heard("Ann"), second.heard("User rejected")) == (1, 1)


async def test_an_answer_to_a_worker_that_is_away_is_an_error_at_once(tmp_path: Path) -> None:
    async with workers_in(tmp_path, desk, limits=SHORT) as (first, second):
        client = await LegacyClient.open(first.running)
        talk = client.call(work(do="ask"))
        question = await talk.asked()
        first.leave()
        assert await at(second, client).answer(question, ACCEPTED) == 503
        await first.open()
        assert await at(second, client).answer(question, ACCEPTED) == 202
        await talk.answer()


@pytest.mark.parametrize(
    "id", ["penstock-9-x-1", "penstock--1-x-1", f"penstock-{'9' * 900}-x-1", "x", 5, "penstock-0-1"]
)
async def test_answers_nobody_asked_for_are_taken_and_dropped(id: Any, tmp_path: Path) -> None:
    async with workers_in(tmp_path, desk) as (first, second):
        client = await LegacyClient.open(first.running)
        for worker in (first, second):
            assert await at(worker, client).send({"id": id, "result": {}}) == 202
        assert len(first.knocks) + len(second.knocks) <= 1


async def test_progress_of_a_client_reaches_the_question(tmp_path: Path) -> None:
    async with workers_in(tmp_path, desk) as (first, second):
        client = await LegacyClient.open(first.running)
        assert (
            await at(second, client).notify("notifications/progress", progressToken="penstock-0-x-1", progress=1) == 202
        )
        await until(lambda: first.heard("notifications/progress"))
        assert second.knocks == []


# --- legacy: what is about a session ---


async def test_calls_of_a_session_that_a_server_knows_come_through_one_worker(tmp_path: Path) -> None:
    async with workers_in(tmp_path, desk, binds=True) as (first, second):
        client = await LegacyClient.open(first.running)
        assert text_of(await at(second, client).call().answer()) == "by 0"
        assert text_of(await client.call().answer()) == "by 0"
        read = await at(second, client).call({"uri": "desk://paper"}, method="resources/read").answer()
        assert read["result"]["contents"][0]["text"] == "paper of 0"
        assert len(first.knocks) == 2
        other = await LegacyClient.open(second.running)
        assert text_of(await at(first, other).call().answer()) == "by 1"


async def test_calls_that_nobody_is_bound_by_stay_where_they_came(tmp_path: Path) -> None:
    async with workers_in(tmp_path, desk) as (first, second):
        client = await LegacyClient.open(first.running)
        assert text_of(await at(second, client).call().answer()) == "by 1"
        assert first.knocks == []


async def test_a_call_that_was_often_answered_here_goes_home_once_its_server_keeps_something_there(
    tmp_path: Path,
) -> None:
    async with workers_in(tmp_path, desk, binds=True) as (first, second), HttpClient() as http:
        assert isinstance(second.desk, Bound)
        second.desk.is_binding = False
        client = await LegacyClient.open(first.running)
        headers = client.headers | {"accept": "application/json", "content-type": "application/json"}
        body = json.dumps(request_body("tools/call", work())).encode()
        said: list[str] = []
        for number in range(6):
            second.desk.is_binding = number > 3
            answer = await http.request("POST", second.running.url + "/mcp", headers, body)
            said.append(text_of(json.loads(answer.body)))
        assert said == ["by 1"] * 4 + ["by 0"] * 2


async def test_a_call_that_hopped_is_counted_once(tmp_path: Path) -> None:
    async with workers_in(tmp_path, desk, binds=True) as (first, second):
        client = await LegacyClient.open(first.running)
        await at(second, client).call().answer()
        await client.call().answer()
        counted = [sum(sum(cell.outcomes.values()) for cell in one.running.gateway.cells) for one in (first, second)]
        assert counted == [2, 0]


async def test_a_call_whose_worker_is_away_is_an_error_of_the_legacy_client_and_does_not_hang(tmp_path: Path) -> None:
    async with workers_in(tmp_path, desk, binds=True, limits=SHORT) as (first, second):
        client = await LegacyClient.open(first.running)
        elsewhere = at(second, client)
        assert text_of(await elsewhere.call().answer()) == "by 0"
        talk = elsewhere.call(work(do="never"))
        await until(lambda: first.running.gateway.calls_in_flight)
        first.leave()
        for said in (await talk.answer(), await elsewhere.call().answer()):
            assert said["error"]["code"] == 503
            assert said["error"]["data"]["reason"] == "worker_away"
        assert talk.task is not None
        assert talk.task.result().status == 200


async def test_a_call_under_way_on_a_stream_is_cut_when_its_worker_goes(tmp_path: Path) -> None:
    async with workers_in(tmp_path, desk, binds=True) as (first, second):
        client = await LegacyClient.open(first.running)
        talk = at(second, client).call(work(do="never"), meta={"progressToken": 1})
        await until(lambda: talk.messages)
        first.leave()
        assert talk.task is not None
        await asyncio.wait((talk.task,), timeout=5)
        assert talk.task.exception() is not None


@pytest.mark.parametrize("where", ["home", "elsewhere"])
async def test_a_cancellation_reaches_the_call_wherever_it_runs(where: str, tmp_path: Path) -> None:
    async with workers_in(tmp_path, desk, binds=where == "home", count=3) as (first, second, third):
        client = await LegacyClient.open(first.running)
        talk = at(second, client).call(work(do="never"), request_id=77)
        await until(lambda: first.running.gateway.calls_in_flight + second.running.gateway.calls_in_flight)
        assert await at(third, client).notify("notifications/cancelled", requestId=77) == 202
        assert await talk.answer() == {}
        assert (first.running.gateway.calls_in_flight, second.running.gateway.calls_in_flight) == (0, 0)
        assert [one.heard("notifications/cancelled") for one in (first, second, third)] == [1, 1, 0]


async def test_the_level_holds_at_every_worker_once_it_is_set(tmp_path: Path) -> None:
    async with workers_in(tmp_path, desk, count=3) as workers:
        client = await LegacyClient.open(workers[0].running)
        said = await at(workers[1], client).call({"level": "debug"}, method="logging/setLevel").answer()
        assert said["result"] == {}
        for worker in workers:
            talk = at(worker, client).call(work(do="log"))
            await talk.answer()
            assert [note["data"] for note in talk.notes("notifications/message")] == ["a detail"]


async def test_a_deleted_session_is_unknown_everywhere_at_once(tmp_path: Path) -> None:
    async with workers_in(tmp_path, desk, count=3) as workers:
        client = await LegacyClient.open(workers[0].running)
        for worker in workers:
            await at(worker, client).call().answer()
        async with HttpClient() as http:
            response = await http.request("DELETE", workers[1].running.url + "/mcp", client.headers, timeout=5)
        assert response.status == 204
        for worker in workers:
            assert await at(worker, client).notify("notifications/initialized") == 404
            assert len(worker.desk.closed_sessions) == 1


async def test_a_session_can_be_deleted_while_a_worker_is_away(tmp_path: Path) -> None:
    async with workers_in(tmp_path, desk, limits=SHORT) as (first, second):
        client = await LegacyClient.open(first.running)
        second.leave()
        async with HttpClient() as http:
            response = await http.request("DELETE", first.running.url + "/mcp", client.headers, timeout=5)
        assert response.status == 204


# --- legacy: the stream beside the calls ---


async def test_the_stream_beside_the_calls_and_subscriptions_live_at_the_sessions_home(tmp_path: Path) -> None:
    async with workers_in(tmp_path, desk, count=3) as (first, second, third):
        client = await LegacyClient.open(first.running)
        async with listening(second, client) as heard:
            await until(lambda: len(first.running.gateway.listeners))
            said = await at(third, client).call({"uri": "desk://paper"}, method="resources/subscribe").answer()
            assert said["result"] == {}
            assert [len(one.desk.subscribed) for one in (first, second, third)] == [1, 0, 0]
            first.desk.announce("notifications/resources/updated", uri="desk://paper")
            await until(lambda: any(b"desk://paper" in event.data for event in heard))
            assert all(event.id is not None and event.id.startswith(b"0.g") for event in heard)
            await at(second, client).call({"uri": "desk://paper"}, method="resources/unsubscribe").answer()
            assert first.desk.subscribed == set()
        await until(lambda: first.knocks[0].is_disconnected)


async def test_ids_and_pauses_of_a_stream_come_through_and_it_is_resumed_at_any_worker(tmp_path: Path) -> None:
    async with workers_in(tmp_path, desk, binds=True) as (first, second):
        client = await LegacyClient.open(first.running)
        line = await second.running.line()
        line.post(
            request_body("tools/call", work(do="count", to=3) | {"_meta": {"progressToken": 1}}),
            client.headers | {"accept": "application/json, text/event-stream"},
        )
        raw = await line.until(b"0\r\n\r\n")
        line.close()
        ids = [piece.split(b"\n")[0].decode() for piece in raw.split(b"id: ")[1:]]
        assert ids == ["0.c1.1", "0.c1.2", "0.c1.3", "0.c1.4", "0.c1.5"]
        async with listening(second, client, last_event_id=ids[1]) as heard:
            await asyncio.sleep(0)
        assert heard == []


async def test_the_rest_of_a_call_is_fetched_through_another_worker(tmp_path: Path) -> None:
    async def waits(index: int, _arguments: dict[str, Any], context: CallContext) -> Any:
        context.progress(1)
        await go.wait()
        return f"late by {index}"

    go = asyncio.Event()
    TOOLS["waits"] = waits
    async with workers_in(tmp_path, desk, binds=True, count=3) as (first, second, third):
        client = await LegacyClient.open(first.running)
        line = await second.running.line()
        line.post(
            request_body("tools/call", work(do="waits") | {"_meta": {"progressToken": 1}}),
            client.headers | {"accept": "application/json, text/event-stream"},
        )
        raw = await line.until(b"progressToken")
        last = raw.split(b"id: ")[-1].split(b"\n")[0].decode()
        line.close()
        await until(lambda: first.knocks[0].is_disconnected)
        assert first.running.gateway.calls_in_flight == 1, "a legacy client that hangs up has not cancelled"
        async with listening(third, client, last_event_id=last) as heard:
            await until(lambda: len(first.knocks) == 2)
            go.set()
            await until(lambda: heard)
        assert b"late by 0" in heard[-1].data


async def test_a_stream_whose_home_is_away_is_refused(tmp_path: Path) -> None:
    async with workers_in(tmp_path, desk, limits=SHORT) as (first, second):
        client = await LegacyClient.open(first.running)
        first.leave()
        async with HttpClient() as http:
            headers = client.headers | {"accept": "text/event-stream"}
            response = await http.request("GET", second.running.url + "/mcp", headers, timeout=5)
        assert response.status == 503
        assert json.loads(response.body)["error"]["data"]["reason"] == "worker_away"


# --- batches ---


async def test_a_batch_is_not_handed_on_whole_for_each_of_its_members(tmp_path: Path) -> None:
    async with workers_in(tmp_path, desk, binds=True) as (first, second):
        client = await LegacyClient.open(first.running, revision="2025-03-26")
        items = [
            request_body("tools/call", work(), 1),
            {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 99}},
            request_body("tools/call", work(do="count", to=2) | {"_meta": {"progressToken": 1}}, 2),
            request_body("ping", request_id=3),
        ]
        response = await second.running.post("/mcp", items, client.headers)
        answers = json.loads(response.body)
        assert [one["id"] for one in answers] == [1, 2, 3]
        assert [text_of(one) for one in answers[:2]] == ["by 0", "by 0"]
        await until(lambda: first.heard("notifications/cancelled"))
        calls = [call for call in first.desk.calls if call.method == "tools/call"]
        assert len(calls) == 2
        assert [call for call in second.desk.calls if call.method == "tools/call"] == []


async def test_a_batch_is_answered_without_what_http_would_say_to_its_notifications(tmp_path: Path) -> None:
    async with workers_in(tmp_path, desk, telling=Telling(of_one=0)) as (first, _second):
        client = await LegacyClient.open(first.running, revision="2025-03-26")
        cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 99}}
        response = await first.running.post("/mcp", [request_body("ping", request_id=1), cancelled], client.headers)
        assert json.loads(response.body) == [{"jsonrpc": "2.0", "id": 1, "result": {}}]
        assert (await first.running.post("/mcp", [cancelled, cancelled], client.headers)).status == 202


# --- what clients may try ---


async def test_nothing_hops_twice(tmp_path: Path) -> None:
    async with workers_in(tmp_path, desk, binds=True) as (first, second):
        client = await LegacyClient.open(first.running)
        first.running.gateway.context.hops = second.hops  # the home of the session believes to be another
        assert text_of(await client.call().answer()) == "by 0"
        assert (len(first.knocks), len(second.knocks)) == (1, 0)


@pytest.mark.parametrize("path", ["/-/metrics", "/-/reload", "/-/", "/-"])
async def test_paths_of_the_inner_door_are_unknown_outside(path: str, tmp_path: Path) -> None:
    async with workers_in(tmp_path, desk) as (first, _second):
        for method in ("GET", "POST"):
            response = await first.running.client.request(method, first.running.url + path, {}, timeout=5)
            assert response.status == 404


async def test_headers_of_ours_that_a_client_sends_change_nothing(tmp_path: Path) -> None:
    async with workers_in(tmp_path, desk, binds=True) as (first, second):
        client = await LegacyClient.open(first.running)
        forged = LegacyClient(second.running, client.headers | {"penstock-hop": "1"})
        line = await second.running.line()
        line.post(request_body("ping"), forged.headers | {"host": "evil.example"})
        assert (await line.answer())[0] == 403
        line.close()
        assert text_of(await forged.call().answer()) == "by 0"
        assert len(first.knocks) == 1
        assert first.knocks[0].request.headers[b"penstock-hop"] == b"1"
        counted = [sum(sum(cell.outcomes.values()) for cell in one.running.gateway.cells) for one in (first, second)]
        assert counted == [1, 0]


async def test_browsers_may_read_what_another_worker_answers(tmp_path: Path) -> None:
    async with workers_in(tmp_path, desk, binds=True) as (first, second):
        client = await LegacyClient.open(first.running)
        headers = client.headers | {"origin": "http://localhost:6274"}
        for accept in ("application/json", "application/json, text/event-stream"):
            params = work(do="count", to=1) | {"_meta": {"progressToken": 1}}
            body = request_body("tools/call", params)
            response = await second.running.post("/mcp", body, headers | {"accept": accept})
            assert response.headers[b"access-control-allow-origin"] == b"http://localhost:6274"
