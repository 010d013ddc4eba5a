"""Many callers at once: nobody sees another one's questions, logs, progress or answers."""

import asyncio
import itertools
from random import Random
from typing import Any

import pytest

from tests.unit.gateway.asking import LOG_LEVEL, Conversation, LegacyClient, ModernClient, text_of, work
from tests.unit.gateway.asking_http import Server, desk, end, say
from tests.unit.gateway.conftest import Running, until
from tests.unit.upstreams.scripted_http import Asked, Line

CALLS_OF_EACH = 40
WORKERS_OF_EACH = 4
FORMS: dict[str, Any] = {"elicitation": {"form": {}}}
MORE: dict[str, Any] = {"elicitation": {"form": {}, "url": {}}, "roots": {}}
_numbers = itertools.count()


class Talker:
    """The server: says whose call each message belongs to, in an order of its own."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.answers: list[str] = []

    async def __call__(self, server: Server, asked: Asked, line: Line) -> None:
        whose = asked.body["params"]["arguments"]["whose"]
        token = asked.body["params"].get("_meta", {}).get("progressToken")
        heard = []
        for step in range(self.random.randint(1, 4)):
            match self.random.randrange(4):
                case 0 if token is not None:
                    await say(
                        line,
                        method="notifications/progress",
                        params={"progressToken": token, "progress": step, "message": whose},
                    )
                case 1:
                    await say(line, method="notifications/message", params={"level": "info", "data": whose})
                case 2:
                    await asyncio.sleep(self.random.random() / 500)
                case _:
                    heard.append(await self.ask(server, line, whose))
        assert set(heard) <= {whose, "error"}, "an answer of somebody else"
        await end(asked, line, whose)

    async def ask(self, server: Server, line: Line, whose: str) -> str:
        asked_as = self.random.choice((f"q-{next(_numbers)}", next(_numbers)))
        form = {"mode": "form", "message": whose, "requestedSchema": {"type": "object", "properties": {}}}
        await say(line, id=asked_as, method="elicitation/create", params=form)
        reply = await server.heard(f"-> {asked_as}")
        return str(reply["result"]["content"]["whose"]) if "result" in reply else "error"


class Modern:
    """A modern caller; every request has a progress token of its own."""

    def __init__(self, running: Running, name: str, capabilities: dict[str, Any]) -> None:
        self.client, self.name = ModernClient(running, capabilities), name

    async def call(self, number: int) -> None:
        whose, params = f"{self.name}-{number}", work(whose=f"{self.name}-{number}")
        token = f"{whose}/0"
        answer = await self.client.call(params, meta={"progressToken": token, LOG_LEVEL: "info"})
        for tries in range(1, 10):
            belong(answer["notifications"], whose, token)
            if answer["result"]["resultType"] == "complete":
                break
            requests = answer["result"]["inputRequests"]
            assert {request["params"]["message"] for request in requests.values()} == {whose}
            token = f"{whose}/{tries}"
            answers = {key: {"action": "accept", "content": {"whose": whose}} for key in requests}
            answer = await self.client.resume(answer, answers, params, meta={"progressToken": token, LOG_LEVEL: "info"})
        assert text_of(answer) == whose


class Legacy:
    """A legacy caller; now and then it does not want its call any more."""

    def __init__(self, client: LegacyClient, name: str, seed: int) -> None:
        self.client, self.name, self.random = client, name, Random(seed)

    async def call(self, number: int) -> None:
        whose = f"{self.name}-{number}"
        call = self.client.call(work(whose=whose), meta={"progressToken": whose})
        cancels, answered = self.random.random() < 0.2, 0
        while (question := await self.next_of(call, answered)) is not None:
            answered += 1
            if cancels:
                await self.client.notify("notifications/cancelled", requestId=call.id)
            else:
                await self.client.answer(question, {"action": "accept", "content": {"whose": whose}})
        answer = await call.answer()
        assert answer == {} if cancels and answered else text_of(answer) == whose
        self.judge(call, whose)

    async def next_of(self, call: Conversation, seen: int) -> dict[str, Any] | None:
        """The next question; None once the call is over."""
        task = call.task
        assert task is not None
        await until(lambda: task.done() or len(call.requests) > seen)
        return call.requests[seen] if len(call.requests) > seen else None

    def judge(self, call: Conversation, whose: str) -> None:
        assert {question["params"]["message"] for question in call.requests} <= {whose}
        notes = [message for message in call.messages if "id" not in message]
        ours = [note for note in notes if note["method"] != "notifications/cancelled"]
        belong(ours, whose, whose)
        taken_back = {note["requestId"] for note in call.notes("notifications/cancelled")}
        assert taken_back <= {question["id"] for question in call.requests}


def belong(notes: list[dict[str, Any]], whose: str, token: str) -> None:
    """Each notification is of that call, and for that token."""
    for note in notes:
        params = note["params"]
        if note["method"] == "notifications/progress":
            assert (params["message"], params["progressToken"]) == (whose, token)
        else:
            assert (note["method"], params["data"]) == ("notifications/message", whose)


@pytest.mark.parametrize("seed", [1, 2])
async def test_callers_at_once_never_see_anything_of_each_other(empty: Running, seed: int) -> None:
    async with desk(empty, Talker(seed)):
        callers: list[Modern | Legacy] = [
            Modern(empty, "modern-forms", FORMS),
            Modern(empty, "modern-more", MORE),
            Modern(empty, "modern-twin", MORE),
            Legacy(await LegacyClient.open(empty, FORMS), "legacy-forms", seed),
            Legacy(await LegacyClient.open(empty, MORE), "legacy-more", seed + 1),
        ]
        numbers = itertools.count()

        async def work_on(caller: Modern | Legacy) -> None:
            for _ in range(CALLS_OF_EACH // WORKERS_OF_EACH):
                await caller.call(next(numbers))

        await asyncio.gather(*(work_on(caller) for caller in callers for _ in range(WORKERS_OF_EACH)))
        assert next(numbers) == CALLS_OF_EACH * len(callers)
        await until(lambda: len(empty.gateway.parking) == 0)
