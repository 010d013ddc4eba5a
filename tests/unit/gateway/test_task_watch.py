"""Clients that listen for tasks: told by the server that has them, in their own names."""

import pytest

from penstock.gateway.task_watch import MAX_LISTENS
from tests.unit.gateway.conftest import Running, until
from tests.unit.gateway.listening_kit import ACKNOWLEDGED, SUBSCRIPTION, Ear, asked_to_listen
from tests.unit.gateway.tasks_kit import EXTENSION, TASKS_META, new_task, with_jobs


async def listen(running: Running, *tasks: str, **more: bool) -> tuple[Ear, list[str]]:
    """A listener, and what it was acknowledged."""
    ear = await asked_to_listen(running, {"taskIds": tasks, **more}, meta=TASKS_META)
    assert ear.status == 200, ear.body
    first = await ear.message()
    assert first["method"] == ACKNOWLEDGED
    return ear, first["params"]["notifications"].get("taskIds", [])


async def test_a_listener_hears_of_its_tasks_by_its_own_names(empty: Running) -> None:
    jobs = await with_jobs(empty)
    token = await new_task(empty)
    ear, taken = await listen(empty, token, "job-1", toolsListChanged=True)
    assert taken == [token]
    jobs.tell("job-2", "working")
    jobs.tell("job-1", "completed")
    message = await ear.message()
    assert (message["method"], message["params"]["taskId"]) == ("notifications/tasks", token)
    assert (message["params"]["status"], message["params"]["ttlMs"]) == ("completed", 60_000)
    assert message["params"]["_meta"] == {SUBSCRIPTION: 7, "k": 1}
    ear.close()
    await until(lambda: jobs.upstream.cancelled)
    await until(lambda: "{}" in repr(empty.gateway.context.task_watches))


async def test_who_has_not_declared_the_extension_is_told_so(empty: Running) -> None:
    jobs = await with_jobs(empty)
    ear = await asked_to_listen(empty, {"taskIds": [await new_task(empty)]})
    assert (ear.status, ear.code) == (400, -32021)
    assert ear.body["error"]["data"] == {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
    assert not jobs.listens


async def test_more_tasks_than_may_be_named_are_refused(empty: Running) -> None:
    await with_jobs(empty)
    ear = await asked_to_listen(empty, {"taskIds": [str(number) for number in range(101)]}, meta=TASKS_META)
    assert (ear.status, ear.code) == (400, -32602)


@pytest.mark.parametrize("wrong", ["job-1", "x", ""])
async def test_a_task_that_is_not_the_clients_is_not_acknowledged(empty: Running, wrong: str) -> None:
    jobs = await with_jobs(empty)
    ear, taken = await listen(empty, wrong)
    assert (taken, jobs.listens) == ([], [])
    ear.close()


async def test_a_server_that_does_not_tell_is_listened_to_no_longer(empty: Running) -> None:
    jobs = await with_jobs(empty)
    jobs.honours = False
    ear, taken = await listen(empty, await new_task(empty))
    assert taken == []
    await until(lambda: jobs.upstream.cancelled)
    ear.close()


async def test_when_the_server_tells_no_more_the_client_may_begin_anew(empty: Running) -> None:
    jobs = await with_jobs(empty)
    token = await new_task(empty)
    ear, _ = await listen(empty, token)
    jobs.listens[0].set()
    assert [message["result"]["resultType"] for message in await ear.rest()] == ["complete"]
    again, taken = await listen(empty, token)
    assert taken == [token]
    again.close()


async def test_listens_of_one_server_are_bounded(empty: Running) -> None:
    jobs = await with_jobs(empty)
    token = await new_task(empty)
    ears = [await listen(empty, token) for _ in range(MAX_LISTENS + 1)]
    assert [len(taken) for _, taken in ears] == [1] * MAX_LISTENS + [0]
    assert len(jobs.listens) == MAX_LISTENS
    for ear, _ in ears:
        ear.close()
    await until(lambda: len(jobs.upstream.cancelled) == MAX_LISTENS)
    ear, taken = await listen(empty, token)
    assert taken == [token]
    ear.close()
