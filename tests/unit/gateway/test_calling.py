"""Calls that are sent at once, without a task: answered, cancelled, bounded and counted like all others."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from penstock.errors import ServerError, ServerUnavailable
from penstock.gateway.pipeline import fold, fold_start
from penstock.policies.deadline import DeadlineSettings
from penstock.protocol.result_marks import read_marks
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Answer, Call, Caller, Failure, Result
from penstock.upstreams.in_memory import InMemoryUpstream
from tests.unit.gateway.conftest import (
    MODERN_META,
    Running,
    modern_headers,
    plan_of,
    request_body,
    until,
    weather_server,
)

NOW: dict[str, Any] = {"name": "weather_now", "arguments": {}}
RAIN = Result(b'{"resultType":"complete","content":[]}', Era.MODERN)


class Started:
    """A call under way, that the test settles."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.cancelled = 0

    def cancel(self) -> None:
        self.cancelled += 1
        self.settle(None)

    def settle(self, outcome: Answer | ServerError | None) -> None:
        assert self.call.on_end is not None
        self.call.on_end(outcome)


class Quick(InMemoryUpstream):
    """Starts calls at once, unless it has nothing free."""

    def __init__(self) -> None:
        super().__init__("weather", weather_server())
        self.started: list[Started] = []
        self.is_free = True
        self.fault: Exception | None = None

    async def call(self, call: Call) -> Answer:
        if self.fault is not None and call.method == "tools/call":
            raise self.fault
        return await super().call(call)

    def start(self, call: Call) -> Started | None:
        if not self.is_free:
            return None
        if self.fault is not None:
            raise self.fault
        self.started.append(Started(call))
        return self.started[-1]


@pytest.fixture
async def quick(empty: Running) -> Quick:
    upstream = Quick()
    await empty.gateway.apply({"weather": plan_of("weather", lambda: upstream, deadline=DeadlineSettings(0.2))}, ())
    await empty.listed()
    return upstream


async def begun(running: Running, quick: Quick, ask: Callable[[], Any]) -> tuple[asyncio.Task[Any], Started]:
    """A request on its way, and the call that was started for it."""
    before = len(quick.started)
    asking = asyncio.create_task(ask())
    await until(lambda: len(quick.started) > before)
    assert running.gateway.calls_in_flight == 1
    assert not running.server.tasks
    return asking, quick.started[-1]


def outcomes(running: Running) -> dict[str, int]:
    (cell,) = (cell for cell in running.gateway.cells if cell.tool == "now")
    return {name: count for name, count in cell.outcomes.items() if count}


@pytest.mark.parametrize(
    ("outcome", "status", "kind"),
    [
        (RAIN, 200, "ok"),
        (Result(b'{"resultType":"complete","content":[],"isError":true}', Era.MODERN), 200, "tool_error"),
        (Failure(-32602, "odd", None, Era.MODERN), 200, "rpc_error"),
        (ServerUnavailable("weather"), 503, "server_error"),
    ],
    ids=["result", "error of the tool", "error of the server", "no answer"],
)
async def test_whatever_it_ends_with_is_answered_and_counted(
    empty: Running, quick: Quick, outcome: Answer | ServerError, status: int, kind: str
) -> None:
    asking, started = await begun(empty, quick, lambda: empty.modern("tools/call", NOW))
    started.settle(outcome)
    assert (await asking)["status"] == status
    assert outcomes(empty) == {kind: 1}
    assert empty.gateway.calls_in_flight == 0
    assert started.cancelled == 0


@pytest.mark.parametrize(("said", "kind"), [(True, "tool_error"), (False, "ok")])
async def test_what_the_upstream_knows_of_the_result_is_not_looked_for_again(
    empty: Running, quick: Quick, said: bool, kind: str
) -> None:
    asking, started = await begun(empty, quick, lambda: empty.modern("tools/call", NOW))
    started.settle(Result(RAIN.raw, Era.MODERN, read_marks(b'{"isError":%b}' % (b"true" if said else b"false"))))
    await asking
    assert outcomes(empty) == {kind: 1}


async def test_a_call_that_cannot_start_at_once_waits_in_a_task(empty: Running, quick: Quick) -> None:
    quick.is_free = False
    assert (await empty.modern("tools/call", NOW))["result"]["content"][0]["text"] == "rain"
    assert (quick.started, outcomes(empty), empty.gateway.calls_in_flight) == ([], {"ok": 1}, 0)


async def test_closing_the_response_cancels_it(empty: Running, quick: Quick) -> None:
    line = await empty.line()

    async def ask() -> None:
        line.post(request_body("tools/call", NOW | {"_meta": MODERN_META}), modern_headers("tools/call", NOW))

    _, started = await begun(empty, quick, ask)
    line.close()
    await until(lambda: started.cancelled == 1)
    assert outcomes(empty) == {"cancelled": 1}
    assert empty.gateway.calls_in_flight == 0


async def test_a_legacy_client_cancels_it_by_saying_so_or_by_ending_its_session(empty: Running, quick: Quick) -> None:
    _, session = await empty.initialize()
    asking, started = await begun(empty, quick, lambda: empty.legacy("tools/call", NOW, session=session))
    message = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}}
    await empty.post("/mcp", message, {"mcp-session-id": session})
    assert await asking == {"status": 200, "notifications": []}
    assert started.cancelled == 1
    asking, started = await begun(empty, quick, lambda: empty.legacy("tools/call", NOW, session=session))
    await empty.client.request("DELETE", empty.url + "/mcp", {"mcp-session-id": session})
    assert await asking == {"status": 200, "notifications": []}
    assert (started.cancelled, outcomes(empty)) == (1, {"cancelled": 2})


async def test_an_answered_call_of_a_session_can_no_longer_be_cancelled(empty: Running, quick: Quick) -> None:
    _, session = await empty.initialize()
    asking, started = await begun(empty, quick, lambda: empty.legacy("tools/call", NOW, session=session))
    started.settle(RAIN)
    assert (await asking)["result"] == {"content": []}
    message = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}}
    await empty.post("/mcp", message, {"mcp-session-id": session})
    assert started.cancelled == 0


async def test_its_deadline_ends_it_with_an_answer(empty: Running, quick: Quick) -> None:
    asking, started = await begun(empty, quick, lambda: empty.modern("tools/call", NOW))
    answer = await asking
    assert (answer["status"], answer["error"]["data"]["reason"]) == (504, "deadline_exceeded")
    assert (started.cancelled, outcomes(empty)) == (1, {"server_error": 1})


async def test_notifications_open_a_stream_that_the_answer_ends(empty: Running, quick: Quick) -> None:
    asking, started = await begun(empty, quick, lambda: empty.modern("tools/call", NOW))
    assert started.call.notify is not None
    for level in ("info", "error"):
        started.call.notify("notifications/message", {"level": msgspec.Raw(msgspec.json.encode(level))})
    started.settle(ServerUnavailable("weather"))
    answer = await asking
    assert (answer["status"], answer["error"]["code"]) == (200, 503)  # the status had gone out
    assert [note["params"]["level"] for note in answer["notifications"]] == ["info", "error"]
    started.call.notify("notifications/message", {})  # too late: dropped


async def test_a_cancelled_call_on_a_stream_ends_the_stream(empty: Running, quick: Quick) -> None:
    _, session = await empty.initialize()
    asking, started = await begun(empty, quick, lambda: empty.legacy("tools/call", NOW, session=session))
    assert started.call.notify is not None
    started.call.notify("notifications/message", {})
    started.cancel()
    assert [note["method"] for note in (await asking)["notifications"]] == ["notifications/message"]


async def test_a_fault_of_ours_is_logged_and_the_client_does_not_wait(
    empty: Running, quick: Quick, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    asking, started = await begun(empty, quick, lambda: empty.modern("tools/call", NOW))
    nonsense: Any = object()
    started.settle(nonsense)
    assert (await asking)["status"] == 500
    assert "AssertionError" in caplog.text


async def test_timings_are_told_to_a_caller_that_asks(empty: Running, quick: Quick) -> None:
    body = request_body("tools/call", NOW | {"_meta": MODERN_META})
    headers = modern_headers("tools/call", NOW) | {"penstock-timing": "1"}
    asking, started = await begun(empty, quick, lambda: empty.post("/mcp", body, headers))
    started.call.sent_at = started.call.first_byte_at = started.call.started_at
    started.settle(RAIN)
    assert b"upstream;dur=" in (await asking).headers[b"server-timing"]


class Step:
    """A policy that notes its name."""

    def __init__(self, name: str, *, is_transparent: bool = True) -> None:
        self.name, self.is_transparent = name, is_transparent
        self.seen: list[str] = []

    def __call__(self, proceed: Callable[[Call], Any], call: Call) -> Any:
        self.seen.append(call.method)
        return (self.name, proceed(call))


def test_the_first_policy_sees_a_call_first() -> None:
    call = Call("x", {}, caller=Caller(Era.MODERN, "2026-07-28", None))

    def last(_call: Call) -> Any:
        return "end"

    handle: Any = fold([Step("a"), Step("b")], last)
    assert handle(call) == ("a", ("b", "end"))
    assert fold([], last) is last
    start: Any = fold_start([Step("a")], last)
    assert start(call) == ("a", "end")
    assert fold_start([Step("a"), Step("b", is_transparent=False)], last) is None


async def test_repr_shows_what_is_called(empty: Running, quick: Quick) -> None:
    asking, started = await begun(empty, quick, lambda: empty.modern("tools/call", NOW))
    notify: Any = started.call.notify
    assert repr(notify.__self__) == "<RunningCall <Route tools/call weather now>>"
    notify("notifications/message", {})
    assert repr(notify.__self__).endswith(" streaming>")
    started.settle(RAIN)
    await asking


async def test_two_calls_of_a_session_under_one_id_are_both_answered_and_both_can_be_cancelled(
    empty: Running, quick: Quick
) -> None:
    _, session = await empty.initialize()
    headers = {"mcp-session-id": session}
    body = request_body("tools/call", NOW)
    first, second, third = [asyncio.create_task(empty.post("/mcp", body, headers)) for _ in range(3)]
    await until(lambda: len(quick.started) == 3)
    quick.started[0].settle(RAIN)
    await asyncio.wait((first, second, third), return_when=asyncio.FIRST_COMPLETED)
    assert empty.gateway.calls_in_flight == 2
    cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}}
    await empty.post("/mcp", cancel, headers)
    assert [started.cancelled for started in quick.started] == [0, 1, 1]
    assert not any(started.call.expired_after for started in quick.started)  # it was not their deadline that ended them
    await asyncio.gather(first, second, third)
    assert empty.gateway.calls_in_flight == 0


async def test_a_call_given_up_by_its_upstream_does_not_leave_a_client_waiting(empty: Running, quick: Quick) -> None:
    asking, started = await begun(empty, quick, lambda: empty.modern("tools/call", NOW))
    started.settle(None)  # nobody here has cancelled it
    assert (await asking)["status"] == 500


async def test_a_fault_in_starting_or_awaiting_a_call_leaves_nothing_under_way(
    empty: Running, quick: Quick, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    quick.fault = ZeroDivisionError("ours")
    _, session = await empty.initialize()
    headers = {"mcp-session-id": session}
    for quick.is_free in (True, False):
        assert (await empty.post("/mcp", request_body("tools/call", NOW), headers)).status == 500
        assert empty.gateway.calls_in_flight == 0
    known = empty.gateway.context.sessions.find("", session.encode())
    assert known is not None
    assert not known.in_flight
    assert caplog.text.count("ZeroDivisionError") >= 2
