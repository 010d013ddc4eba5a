import asyncio
import json
from typing import Any

import pytest

from penstock.errors import ServerBusy, ServerUnavailable
from penstock.protocol.messages import RpcError
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Call, Caller
from penstock.upstreams.questions import Question
from penstock.upstreams.stdio import StdioUpstream
from tests.unit.upstreams.stdio_kit import Raw, Waiting, ask, shown, stdio_server, text_of, tool_call, until

FORM = {"method": "elicitation/create", "params": {"message": "who?", "_meta": {"progressToken": 5, "k": 1}}}


class Client:
    """Answers what it is asked, or does not."""

    def __init__(self, reply: Any = b'{"action":"accept"}') -> None:
        self.reply = reply
        self.asked: list[Question] = []

    def __call__(self, question: Question) -> None:
        self.asked.append(question)
        if self.reply is not None:
            question.answer(self.reply)


def asking_call(client: Client, arguments: dict[str, Any] | None = None, **more: Any) -> Call:
    call = tool_call("ask", FORM if arguments is None else arguments, **more)
    call.ask = client
    return call


async def said(upstream: StdioUpstream, call: Call) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text_of(await upstream.call(call)))
    return found


async def test_a_legacy_server_is_told_that_it_may_ask_everything() -> None:
    async with stdio_server("legacy") as upstream:
        assert (await shown(upstream))["declared"] == {
            "elicitation": {"form": {}, "url": {}},
            "sampling": {"tools": {}, "context": {}},
            "roots": {},
        }
    async with stdio_server("legacy", "--version", "2024-11-05", protocol="2024-11-05") as upstream:
        assert (await shown(upstream))["declared"] == {"sampling": {}, "roots": {}}


async def test_a_process_of_one_session_is_told_what_its_client_can_be_asked() -> None:
    caller = Caller(Era.LEGACY, "2025-11-25", "s", b'{"sampling":{}}')
    async with stdio_server("legacy", instances="per_session") as upstream:
        assert (await shown(upstream, caller=caller))["declared"] == {"sampling": {}}


async def test_a_question_reaches_the_only_call_and_its_answer_the_server() -> None:
    async with stdio_server("legacy") as upstream:
        client = Client()
        assert (await said(upstream, asking_call(client)))["result"] == {"action": "accept"}
        question = client.asked[0]
        assert {key: json.loads(bytes(value)) for key, value in question.params.items()} == {
            "message": "who?",
            "_meta": {"k": 1},
        }
        assert question.wants_progress
        client.reply = RpcError(-1, "no", b'{"a":1}')
        assert (await said(upstream, asking_call(client)))["error"] == {"code": -1, "message": "no", "data": {"a": 1}}


async def test_the_clients_progress_reaches_the_server_with_the_servers_token() -> None:
    async with stdio_server("legacy") as upstream:
        client = Client(None)
        task = asyncio.create_task(upstream.call(asking_call(client)))
        await until(lambda: bool(client.asked))
        client.asked[0].report({})
        client.asked[0].answer(b"{}")
        await task
        assert "notifications/progress" in (await shown(upstream))["seen"]


async def test_what_no_call_can_be_asked_is_refused() -> None:
    async with stdio_server("legacy") as upstream:
        answer = await said(upstream, tool_call("ask", FORM))
        assert answer["error"]["code"] == -32601
        answer = await said(upstream, asking_call(Client(), {"method": "odd/method"}))
        assert answer["error"]["code"] == -32601
        assert upstream.state()["refused_requests"] == 2
        assert (await said(upstream, asking_call(Client(), {"method": "ping"})))["result"] == {}


async def test_a_question_the_server_takes_back_is_withdrawn() -> None:
    async with stdio_server("legacy") as upstream:
        client = Client(None)
        withdrawn: list[bool] = []

        def keep(question: Question) -> None:
            client(question)
            question.on_withdrawn = lambda: withdrawn.append(True)

        call = tool_call("take_back")
        call.ask = keep
        assert text_of(await upstream.call(call)) == "never mind"
        assert withdrawn == [True]
        client.asked[0].answer(b"{}")  # of no effect


async def test_a_process_that_dies_withdraws_its_questions() -> None:
    async with stdio_server("legacy") as upstream:
        client = Client(None)
        task = asyncio.create_task(upstream.call(asking_call(client)))
        await until(lambda: bool(client.asked))
        await upstream.close()
        with pytest.raises(ServerUnavailable):
            await task
        assert not client.asked[0].is_open


async def test_with_several_calls_under_way_a_question_waits_until_it_is_clear_whose_it_is() -> None:
    async with stdio_server("legacy") as upstream:
        client, bystander = Client(), Client()
        other = tool_call("echo")
        other.ask = bystander
        asking, echoed = await asyncio.gather(upstream.call(asking_call(client)), upstream.call(other))
        assert "accept" in text_of(asking)
        assert text_of(echoed) == "{}"
        assert len(client.asked) == 1
        assert not bystander.asked


async def test_a_question_that_could_be_about_a_cancelled_call_is_asked_of_nobody() -> None:
    async with stdio_server("legacy") as upstream:
        other = await Waiting(upstream).arrived()
        client, bystander = Client(), Client()
        other.call.ask = bystander
        task = asyncio.create_task(upstream.call(asking_call(client)))
        await until(lambda: upstream.state()["in_flight"] == 2)
        talk = upstream._instances[0].talk
        assert talk is not None
        await until(lambda: len(talk._held) == 1)
        other.task.cancel()
        assert "-32601" in text_of(await task)
        assert not client.asked
        assert not bystander.asked


async def test_a_server_that_asks_before_it_reads_of_the_cancelling_asks_nobody_else() -> None:
    """The next call begins only when the server has shown that it has read on."""
    async with stdio_server("legacy", turn_seconds=10) as upstream:
        await upstream.call(asking_call(Client()))
        client, bystander = Client(), Client()
        slow = asyncio.create_task(upstream.call(asking_call(client, FORM | {"seconds": 0.3})))
        await until(lambda: upstream.state()["in_flight"] == 1)
        slow.cancel()
        await asyncio.wait((slow,))
        following = asking_call(bystander, {"method": "elicitation/create", "params": {"message": "mine?"}})
        assert "accept" in text_of(await upstream.call(following))
        assert not client.asked
        assert [json.loads(bytes(one.params["message"])) for one in bystander.asked] == ["mine?"]
        assert upstream.state()["in_flight"] == 0


async def test_a_server_that_has_asked_is_given_one_call_at_a_time() -> None:
    async with stdio_server("legacy", turn_seconds=0.05) as upstream:
        await upstream.call(asking_call(Client()))
        first = await Waiting(upstream).arrived()
        with pytest.raises(ServerBusy, match=r"one call at a time.*servers\.child\.instances"):
            await ask(upstream, "echo")
        first.task.cancel()
        await asyncio.wait((first.task,))
        assert await ask(upstream, "echo") == "{}"


async def test_calls_that_wait_for_their_turn_are_bounded() -> None:
    async with stdio_server("legacy", max_in_flight=1) as upstream:
        await upstream.call(asking_call(Client()))
        first = await Waiting(upstream).arrived()
        second = asyncio.create_task(ask(upstream, "echo"))
        await until(lambda: upstream.state()["in_flight"] == 2)
        with pytest.raises(ServerBusy, match="wait for their turn"):
            await ask(upstream, "echo")
        first.task.cancel()
        assert await second == "{}"


async def test_while_a_call_waits_for_its_client_others_are_answered() -> None:
    async with stdio_server("legacy", turn_seconds=5) as upstream:
        slow, quick = Client(None), Client()
        parked = asyncio.create_task(upstream.call(asking_call(slow)))
        await until(lambda: bool(slow.asked))
        assert await ask(upstream, "echo") == "{}"
        assert (await said(upstream, asking_call(quick)))["result"] == {"action": "accept"}
        assert len(slow.asked) == 1
        slow.asked[0].answer(b'{"late":1}')
        assert "late" in text_of(await parked)


async def test_an_answer_waits_until_no_other_call_is_at_work() -> None:
    async with stdio_server("legacy", turn_seconds=5) as upstream:
        slow = Client(None)
        parked = asyncio.create_task(upstream.call(asking_call(slow)))
        await until(lambda: bool(slow.asked))
        other = await Waiting(upstream).arrived()
        slow.asked[0].answer(b"{}")
        assert not (await asyncio.wait((parked,), timeout=0.05))[0]
        other.task.cancel()
        assert "result" in text_of(await parked)


async def test_a_call_that_is_given_up_while_it_waits_for_its_client_leaves_nothing_behind() -> None:
    async with stdio_server("legacy", turn_seconds=5) as upstream:
        slow = Client(None)
        parked = asyncio.create_task(upstream.call(asking_call(slow)))
        await until(lambda: bool(slow.asked))
        assert await ask(upstream, "echo") == "{}"
        parked.cancel()
        await asyncio.wait((parked,))
        slow.asked[0].answer(b"{}")
        assert await ask(upstream, "echo") == "{}"
        assert upstream.state()["in_flight"] == 0


async def test_nobody_waits_for_a_cancelled_call_whose_server_awaits_an_answer() -> None:
    """It can ask nothing more for that call, and some read nothing until they have the answer: no sign of life is waited for."""
    async with stdio_server("legacy", turn_seconds=5) as upstream:
        slow = Client(None)
        parked = asyncio.create_task(upstream.call(asking_call(slow)))
        await until(lambda: bool(slow.asked))
        assert await ask(upstream, "echo") == "{}"
        parked.cancel()
        await asyncio.wait((parked,))
        assert "ping" not in (await shown(upstream))["seen"]


async def test_a_legacy_server_sees_nothing_of_a_modern_clients_retry() -> None:
    async with stdio_server("legacy") as upstream:
        call = tool_call("show")
        call.params |= {"requestState": Raw(b'"x"'), "inputResponses": Raw(b"{}"), "task": Raw(b"{}")}
        params = json.loads(text_of(await upstream.call(call)))["params"]
        assert params.keys() == {"name", "arguments"}


async def test_answers_that_wait_for_a_turn_reach_the_server_when_their_call_is_given_up() -> None:
    """A server need not take back what it asked for a call that was cancelled; 64 such requests and it could ask nothing more."""
    async with stdio_server("legacy", turn_seconds=5) as upstream:
        slow = Client(None)
        parked = asyncio.create_task(upstream.call(asking_call(slow)))
        await until(lambda: bool(slow.asked))
        other = await Waiting(upstream).arrived()
        talk = upstream._instances[0].talk
        assert talk is not None
        slow.asked[0].answer(RpcError(-32603, "not answered in time"))
        assert len(talk._questions) == 1, "another call is at work"
        parked.cancel()
        await asyncio.wait((parked,))
        await until(lambda: len(talk._questions) == 0)
        other.task.cancel()
        assert await ask(upstream, "echo") == "{}"


async def test_a_server_that_never_shows_that_it_has_read_on_is_given_calls_again_after_a_while() -> None:
    async with stdio_server("legacy", turn_seconds=0.3) as upstream:
        await upstream.call(asking_call(Client()))
        slow = asyncio.create_task(upstream.call(asking_call(Client(None), FORM | {"seconds": 1.0})))
        await until(lambda: upstream.state()["in_flight"] == 1)
        slow.cancel()
        await asyncio.wait((slow,))
        await until(lambda: not upstream._instances[0].talk or not upstream._instances[0].talk._leaving)
        assert await ask(upstream, "echo") == "{}"
