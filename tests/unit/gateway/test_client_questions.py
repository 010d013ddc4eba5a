"""What a legacy client has been asked: its ids, its answers, what is taken back."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from msgspec import Raw

from penstock.clock import FakeClock
from penstock.gateway.client_questions import LATE, MAX_OPEN, TOO_MANY, UNREACHABLE, Asked, ClientQuestions
from penstock.gateway.parking import Parking
from penstock.protocol.messages import Reply, RpcError
from penstock.upstreams.questions import Question
from penstock.upstreams.questions import Reply as Answer


def raw(**members: Any) -> dict[str, Raw]:
    return {key: Raw(json.dumps(value).encode()) for key, value in members.items()}


class Client:
    """A client session that is asked, on a clock that stands still."""

    def __init__(self, limit: int = 256) -> None:
        self.clock = FakeClock()
        self.tasks: list[asyncio.Task[None]] = []
        self.parking = Parking(self.clock, self._spawn, limit=limit)
        self.questions = ClientQuestions(self.parking)
        self.said: list[dict[str, Any]] = []
        self.is_there = True
        self.answers: list[Answer] = []
        self.progress: list[dict[str, Raw]] = []

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(work))

    def say(self, message: bytes) -> bool:
        if self.is_there:
            self.said.append(json.loads(message))
        return self.is_there

    def question(self, *, with_progress: bool = False, **params: Any) -> Question:
        report: Callable[[dict[str, Raw]], None] | None = self.progress.append if with_progress else None
        return Question("elicitation/create", raw(**(params or {"message": "Who?"})), self.answers.append, report)

    def ask(self, *, with_progress: bool = False, **params: Any) -> Asked:
        asked = self.questions.ask(self.question(with_progress=with_progress, **params), self.say)
        assert asked is not None
        return asked


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    it = Client()
    yield it
    for task in it.tasks:
        task.cancel()


async def test_a_question_is_a_request_with_an_id_of_ours_and_its_answer_closes_it(client: Client) -> None:
    asked = client.ask(message="Who?", mode="form")
    (said,) = client.said
    assert said["method"] == "elicitation/create"
    assert said["params"] == {"message": "Who?", "mode": "form"}
    assert json.dumps(said["id"]).encode() == asked.id
    assert (len(client.questions), len(client.parking)) == (1, 1)
    assert repr(client.questions) == "<ClientQuestions [1 open]>"
    assert "elicitation/create open" in repr(asked)
    client.questions.answered(Reply(asked.id, b'{"action":"accept"}'))
    assert client.answers == [b'{"action":"accept"}']
    assert (len(client.questions), len(client.parking), len(client.said)) == (0, 0, 1)


async def test_an_error_of_the_client_is_the_answer_too(client: Client) -> None:
    error = RpcError(-1, "User rejected", b"{}")
    client.questions.answered(Reply(client.ask().id, None, error))
    client.questions.answered(Reply(client.ask().id, None, None))
    assert client.answers == [error, b"{}"]


async def test_late_double_and_foreign_answers_are_dropped(client: Client) -> None:
    asked, other = client.ask(), client.ask()
    for _ in range(3):
        client.questions.answered(Reply(asked.id, b'{"action":"accept"}'))
    client.questions.answered(Reply(asked.id, None, RpcError(-1, "no")))
    for unknown in (None, b"1", b'"penstock-99"', asked.id.strip(b'"')):
        client.questions.answered(Reply(unknown, b"{}"))
    assert client.answers == [b'{"action":"accept"}']
    assert other.question.is_open


async def test_an_id_is_never_used_twice_in_a_session_even_by_who_does_not_remember_the_last_ones(
    client: Client,
) -> None:
    """A sealed session outlives the worker that knows what was asked in it."""
    ids = [client.ask().id for _ in range(5)]
    for _ in range(5):
        client.questions = ClientQuestions(client.parking)
        ids.append(client.ask().id)
    assert len(set(ids)) == 10


async def test_one_sessions_answers_close_no_question_of_another(client: Client) -> None:
    mine, theirs = client.ask(), Client()
    theirs.questions.answered(Reply(mine.id, b"{}"))
    other = theirs.ask()
    assert mine.id != other.id, "not even by guessing: ids count up in each session by themselves"
    client.questions.answered(Reply(other.id, b"{}"))
    assert (mine.question.is_open, other.question.is_open) == (True, True)
    for task in theirs.tasks:
        task.cancel()


async def test_a_withdrawn_question_is_taken_back_from_the_client_once(client: Client) -> None:
    asked = client.ask()
    closed: list[bool] = []
    asked.on_closed = lambda: closed.append(True)
    asked.question.withdraw()
    asked.question.withdraw()
    asked.retract("again")
    request, cancelled = client.said
    assert cancelled["method"] == "notifications/cancelled"
    assert cancelled["params"]["requestId"] == request["id"]
    assert "does not want" in cancelled["params"]["reason"]
    client.questions.answered(Reply(asked.id, b"{}"))
    assert (client.answers, closed, len(client.questions), len(client.parking)) == ([], [True], 0, 0)


async def test_what_was_answered_is_not_taken_back(client: Client) -> None:
    asked = client.ask()
    client.questions.answered(Reply(asked.id, b"{}"))
    asked.retract("its call has ended")
    asked.withdrawn()
    asked.question.withdraw()
    assert len(client.said) == 1


async def test_what_is_not_answered_in_time_is_taken_back_and_the_server_told(client: Client) -> None:
    asked = client.ask()
    await asyncio.sleep(0)
    await client.clock.advance(599)
    assert asked.question.is_open
    await client.clock.advance(2)
    assert client.answers == [LATE]
    assert client.said[1]["params"]["requestId"] == client.said[0]["id"]
    assert "in time" in client.said[1]["params"]["reason"]
    client.questions.answered(Reply(asked.id, b"{}"))
    assert client.answers == [LATE]
    assert len(client.parking) == 0


async def test_only_so_many_are_open_in_a_session(client: Client) -> None:
    for _ in range(MAX_OPEN):
        client.ask()
    assert client.questions.ask(client.question(), client.say) is None
    assert (client.answers, len(client.said), len(client.parking)) == ([TOO_MANY], MAX_OPEN, MAX_OPEN)


async def test_only_so_many_are_open_in_all_sessions_together() -> None:
    client = Client(limit=2)
    client.ask()
    client.ask()
    assert client.questions.ask(client.question(), client.say) is None
    assert (client.answers, len(client.said), len(client.questions)) == ([TOO_MANY], 2, 2)
    for task in client.tasks:
        task.cancel()


async def test_a_client_that_cannot_be_reached_is_not_waited_for(client: Client) -> None:
    client.is_there = False
    question = client.question()
    assert client.questions.ask(question, client.say) is None
    assert client.answers == [UNREACHABLE]
    assert (len(client.questions), len(client.parking), question.is_open) == (0, 0, False)


async def test_progress_is_asked_for_with_the_id_as_token_where_the_server_wants_it(client: Client) -> None:
    asked = client.ask(with_progress=True, message="x", _meta={"x.example/trace": 1})
    silent = client.ask(message="y", _meta={"x.example/trace": 1})
    bare = client.ask(with_progress=True, message="z")
    metas = [said["params"]["_meta"] for said in client.said]
    ids = [said["id"] for said in client.said]
    assert metas == [
        {"x.example/trace": 1, "progressToken": ids[0]},
        {"x.example/trace": 1},
        {"progressToken": ids[2]},
    ]
    for token in (asked.id, silent.id, b'"foreign"', b""):
        client.questions.progressed({"progressToken": Raw(token), "progress": Raw(b"1")})
    client.questions.progressed({"progress": Raw(b"1")})
    assert client.progress == [{"progressToken": Raw(asked.id), "progress": Raw(b"1")}]
    client.questions.answered(Reply(bare.id, b"{}"))
    client.questions.progressed({"progressToken": Raw(bare.id), "progress": Raw(b"2")})
    assert len(client.progress) == 1
