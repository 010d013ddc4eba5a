"""What a legacy server asks: answered once, withdrawn, bounded."""

import json
from typing import Any

import pytest
from msgspec import Raw

from penstock.protocol.envelopes import decode
from penstock.protocol.messages import Request, RpcError
from penstock.upstreams.questions import MAX_OPEN, Question, Questions
from penstock.upstreams.streamable_http_reception import HttpCounts

FORM = {"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}}


class Conversation:
    """A server that asks, and a client that has been asked."""

    def __init__(self) -> None:
        self.counts = HttpCounts()
        self.sent: list[dict[str, Any]] = []
        self.asked: list[Question] = []
        self.questions = Questions(lambda message: self.sent.append(json.loads(message)), self.counts)

    def ask(self, id: bytes, method: str = "elicitation/create", **params: Any) -> Question:
        self.questions.asked(request(id, method, **(params or FORM)), self.asked.append)
        return self.asked[-1]


def request(id: bytes, method: str, **params: Any) -> Request:
    message = decode(b'{"jsonrpc":"2.0","id":%b,"method":"%b","params":%b}' % (id, method.encode(), dumped(params)))
    assert isinstance(message, Request)
    return message


def dumped(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def raw(**members: Any) -> dict[str, Raw]:
    return {key: Raw(dumped(value)) for key, value in members.items()}


def test_a_question_reaches_the_client_and_its_answer_the_server_once() -> None:
    it = Conversation()
    question = it.ask(b'"q-1"')
    assert (question.method, question.params) == ("elicitation/create", raw(**FORM))
    assert (question.is_open, question.wants_progress, len(it.questions)) == (True, False, 1)
    assert repr(question) == "<Question elicitation/create open>"
    assert repr(it.questions) == "<Questions [1 open]>"
    question.answer(b'{"action":"decline"}')
    question.answer(b'{"action":"accept"}')
    question.answer(RpcError(-1, "no"))
    assert it.sent == [{"jsonrpc": "2.0", "id": "q-1", "result": {"action": "decline"}}]
    assert (question.is_open, len(it.questions), repr(question)) == (
        False,
        0,
        "<Question elicitation/create closed>",
    )
    assert it.counts.refused_requests == 0


def test_an_error_is_passed_on_as_it_is() -> None:
    it = Conversation()
    it.ask(b"5", "roots/list").answer(RpcError(-32603, "no roots", b'{"x":1}'))
    it.ask(b"6", "roots/list").answer(RpcError(-1, "plain"))
    assert it.sent == [
        {"jsonrpc": "2.0", "id": 5, "error": {"code": -32603, "message": "no roots", "data": {"x": 1}}},
        {"jsonrpc": "2.0", "id": 6, "error": {"code": -1, "message": "plain"}},
    ]


def test_a_number_and_the_same_digits_as_text_are_two_ids() -> None:
    it = Conversation()
    number, text = it.ask(b"1", "roots/list"), it.ask(b'"1"', "roots/list")
    text.answer(b'{"roots":[]}')
    assert (number.is_open, it.sent[0]["id"]) == (True, "1")


def test_parameters_are_owned_and_lose_only_the_progress_token() -> None:
    it = Conversation()
    question = it.ask(b"1", message="Who?", _meta={"progressToken": "t", "x.example/trace": 1})
    assert question.params == raw(message="Who?", _meta={"x.example/trace": 1})
    assert question.wants_progress
    assert it.ask(b"2", message="Who?", _meta={"progressToken": 0}).params == raw(message="Who?")
    several: list[Any] = [5, "x", []]
    for unreadable in several:
        last = it.ask(dumped(f"m{unreadable}"), message="Who?", _meta=unreadable)
        assert (last.params, last.wants_progress) == (raw(message="Who?"), False)


def test_progress_goes_back_with_the_servers_own_token_while_the_question_is_open() -> None:
    it = Conversation()
    for asked_as, token in ((b"1", "t"), (b"2", 7)):
        question = it.ask(asked_as, message="x", _meta={"progressToken": token})
        question.report(raw(progressToken="ours", progress=1, message="half"))
        assert it.sent.pop() == {
            "jsonrpc": "2.0",
            "method": "notifications/progress",
            "params": {"progressToken": token, "progress": 1, "message": "half"},
        }
        question.answer(b"{}")
        it.sent.clear()
        question.report(raw(progressToken="ours", progress=2))
        assert it.sent == []
    silent = it.ask(b"3", message="x")
    silent.report(raw(progressToken="ours", progress=1))
    assert it.sent == []


def test_ping_is_answered_at_once_and_is_no_question() -> None:
    it = Conversation()
    it.questions.asked(request(b'"p"', "ping"), it.asked.append)
    it.questions.asked(request(b"9", "ping"), None)
    assert it.sent == [{"jsonrpc": "2.0", "id": "p", "result": {}}, {"jsonrpc": "2.0", "id": 9, "result": {}}]
    assert (it.asked, it.counts.refused_requests) == ([], 0)


@pytest.mark.parametrize("method", ["tasks/get", "tools/call", "no/such", "x" * 300])
def test_what_no_client_is_asked_is_refused(method: str) -> None:
    it = Conversation()
    it.questions.asked(request(b"1", method), it.asked.append)
    assert (it.sent[0]["id"], it.sent[0]["error"]["code"]) == (1, -32601)
    assert len(it.sent[0]["error"]["message"]) < 120
    assert (it.asked, it.counts.refused_requests, len(it.questions)) == ([], 1, 0)


def test_a_question_of_which_nobody_knows_the_call_is_refused() -> None:
    it = Conversation()
    it.questions.asked(request(b"1", "roots/list"), None)
    assert it.sent[0]["error"]["code"] == -32601
    assert (it.counts.refused_requests, len(it.questions)) == (1, 0)


def test_only_so_many_are_open_at_a_time() -> None:
    it = Conversation()
    for number in range(MAX_OPEN):
        it.ask(dumped(number), "roots/list")
    it.questions.asked(request(b'"more"', "roots/list"), it.asked.append)
    assert (len(it.asked), len(it.questions), it.counts.refused_requests) == (MAX_OPEN, MAX_OPEN, 1)
    assert (it.sent[0]["id"], it.sent[0]["error"]["code"]) == ("more", -32603)
    assert "64 requests are open" in it.sent[0]["error"]["message"]
    it.asked[0].answer(b"{}")
    it.ask(b'"now"', "roots/list")
    assert len(it.questions) == MAX_OPEN


def test_an_id_in_use_is_not_given_to_a_second_question() -> None:
    it = Conversation()
    first = it.ask(b"1", "roots/list")
    it.questions.asked(request(b"1", "roots/list"), it.asked.append)
    assert "its id is in use" in it.sent.pop()["error"]["message"]
    assert (it.asked, first.is_open) == ([first], True)
    first.answer(b"{}")
    assert it.sent.pop()["id"] == 1
    assert it.ask(b"1", "roots/list").is_open, "an id whose question is over may come again"


@pytest.mark.parametrize(
    ("asked_as", "cancelled_as"),
    [(b"1", b"1"), (b'"a-1"', b'"a-1"'), (b'"a/b"', rb'"a\/b"'), (rb'"a\/b"', b'"a/b"'), (b'"\xc3\xa9"', rb'"\u00e9"')],
)
def test_the_server_may_withdraw_a_question_however_it_spells_the_id(asked_as: bytes, cancelled_as: bytes) -> None:
    it = Conversation()
    told: list[str] = []
    question, other = it.ask(asked_as), it.ask(b'"other"')
    question.on_withdrawn = lambda: told.append("withdrawn")
    it.questions.cancelled({"requestId": Raw(cancelled_as)})
    it.questions.cancelled({"requestId": Raw(cancelled_as)})
    assert (question.is_open, other.is_open, told) == (False, True, ["withdrawn"])
    question.answer(b"{}")
    assert it.sent == [], "nobody answers what was withdrawn"


@pytest.mark.parametrize(
    "params", [{}, {"requestId": Raw(b"2")}, {"requestId": Raw(b"null")}, {"requestId": Raw(b"[1]")}]
)
def test_a_withdrawal_of_nothing_means_nothing(params: dict[str, Raw]) -> None:
    it = Conversation()
    question = it.ask(b"1")
    it.questions.cancelled(params)
    assert question.is_open


def test_the_end_of_the_conversation_withdraws_all_and_sends_nothing_more() -> None:
    it = Conversation()
    told: list[bytes] = []
    questions = [it.ask(dumped(number)) for number in range(3)]
    for question in questions[1:]:
        question.on_withdrawn = lambda: told.append(b"")
    it.questions.close()
    it.questions.close()
    assert [question.is_open for question in questions] == [False] * 3
    assert (len(told), len(it.questions)) == (2, 0)
    for question in questions:
        question.answer(b"{}")
        question.withdraw()
    assert (it.sent, len(told)) == ([], 2)


def test_who_withdraws_a_question_by_itself_is_not_answered_for() -> None:
    it = Conversation()
    question = it.ask(b"1")
    question.on_withdrawn = lambda: question.answer(b"{}")  # too late by then
    question.withdraw()
    assert it.sent == []
