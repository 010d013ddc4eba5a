"""Calls through a real child process, in both eras and on both event loops."""

import asyncio
import contextlib
import json
import time
from pathlib import Path
from typing import Any

import pytest

from penstock.clock import FakeClock
from penstock.errors import ServerBusy, ServerMisbehaved, ServerUnavailable
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Call, Caller, Result
from penstock.upstreams.stdio import StdioSettings
from tests.unit.cycles import nothing_left
from tests.unit.upstreams.stdio_kit import (
    LEGACY_CALLER,
    MODERN_CALLER,
    Notices,
    Raw,
    Waiting,
    ask,
    failure_of,
    is_running,
    shown,
    stdio_server,
    tool_call,
    until,
)

ERAS = ("modern", "legacy")


@pytest.fixture(scope="module", params=[True, False], ids=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Both loops: their subprocess transports have nothing in common."""
    return "asyncio", {"use_uvloop": request.param}


# --- calls ---


@pytest.mark.parametrize("era", ERAS)
async def test_answers_find_the_call_that_asked(era: str) -> None:
    async with stdio_server(era) as upstream:
        answers = await asyncio.gather(*(ask(upstream, "echo", {"n": n}) for n in range(100)))
        assert [json.loads(answer)["n"] for answer in answers] == list(range(100))
        assert upstream.state()["in_flight"] == 0


async def test_answers_come_in_whatever_order_the_server_gives_them() -> None:
    async with stdio_server("modern") as upstream:
        first = await Waiting(upstream).arrived()
        assert await ask(upstream, "echo", {"second": 2}) == '{"second": 2}'
        assert not first.task.done()
        assert await ask(upstream, "release") == "done"
        assert isinstance(await first.task, Result)


async def test_a_modern_server_gets_the_callers_own_identity_with_each_request() -> None:
    async with stdio_server("modern") as upstream:
        meta = (await shown(upstream, meta={"traceparent": "00-1"}))["params"]["_meta"]
        assert meta == {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "tester", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}},
            "traceparent": "00-1",
        }


async def test_a_legacy_server_gets_no_modern_metadata() -> None:
    async with stdio_server("legacy") as upstream:
        given = {"io.modelcontextprotocol/logLevel": "info", "traceparent": "00-1"}
        assert (await shown(upstream, meta=given))["params"]["_meta"] == {"traceparent": "00-1"}
        assert "_meta" not in (await shown(upstream))["params"]


async def test_a_legacy_process_is_initialized_once() -> None:
    async with stdio_server("legacy") as upstream:
        await asyncio.gather(*(ask(upstream, "echo") for _ in range(20)))
        seen = (await shown(upstream))["seen"]
        assert seen[:3] == ["server/discover", "initialize", "notifications/initialized"]
        assert seen.count("initialize") == 1


async def test_line_ends_in_a_callers_json_do_not_break_the_message() -> None:
    async with stdio_server("modern") as upstream:
        params = {"name": Raw(b'"echo"'), "arguments": Raw(b'{\r\n "a":\n 1\r}')}
        answer = await upstream.call(Call("tools/call", params, caller=MODERN_CALLER))
        assert b'{\\"a\\": 1}' in getattr(answer, "raw", b"")


@pytest.mark.parametrize("era", ERAS)
async def test_a_servers_own_error_is_passed_on(era: str) -> None:
    async with stdio_server(era) as upstream:
        failure = failure_of(await upstream.call(tool_call("refuse_call")))
        assert (failure.code, failure.message, failure.era) == (-32602, "no such thing", Era(era))
        assert json.loads(failure.data or b"") == {"why": "because"}


async def test_an_answer_that_is_no_answer_fails_that_call_alone() -> None:
    async with stdio_server("modern") as upstream:
        with pytest.raises(ServerMisbehaved, match="'result' must be an object"):
            await upstream.call(tool_call("bad_result"))
        assert await ask(upstream, "wrong_id") == "mine"
        assert upstream.state()["late_replies"] == 1
        assert upstream.state()["restarts"] == 0


async def test_the_times_of_a_call_are_noted() -> None:
    async with stdio_server("modern") as upstream:
        call = tool_call("echo")
        before = time.monotonic()
        await upstream.call(call)
        assert before <= call.sent_at <= call.first_byte_at <= time.monotonic()


async def test_a_batch_of_a_legacy_server_is_taken_apart() -> None:
    async with stdio_server("legacy", "--version", "2025-03-26") as upstream:
        answer = await upstream.call(tool_call("batch"))
        assert isinstance(answer, Result)
        assert json.loads(answer.raw) == {"batched": True}


# --- notifications ---


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("token", ["abc", 7])
async def test_progress_comes_back_with_the_callers_own_token(era: str, token: str | int) -> None:
    async with stdio_server(era) as upstream:
        notices = Notices()
        call = tool_call("progress", meta={"progressToken": token}, notify=notices)
        await upstream.call(call)
        expected = [{"progressToken": token, "progress": step, "total": 3} for step in (1, 2, 3)]
        assert notices.items == [("notifications/progress", params) for params in expected]
        assert call.progress_at > 0
        await ask(upstream, "echo")
        assert len(notices.items) == 3
        assert upstream.state()["stray_progress"] == 2


async def test_two_calls_with_the_same_token_get_their_own_progress() -> None:
    async with stdio_server("modern") as upstream:
        one, two = await Waiting(upstream).arrived(), await Waiting(upstream).arrived()
        assert await ask(upstream, "release") == "done"
        await asyncio.gather(one.task, two.task)


async def test_progress_without_a_listener_still_restarts_the_idle_deadline() -> None:
    async with stdio_server("modern") as upstream:
        call = tool_call("progress", meta={"progressToken": 1})
        await upstream.call(call)
        assert call.progress_at > 0


@pytest.mark.parametrize("era", ERAS)
async def test_log_lines_reach_the_only_call_in_flight_from_the_level_it_asked_for(era: str) -> None:
    async with stdio_server(era) as upstream:
        await upstream.describe()
        notices = Notices()
        await upstream.call(tool_call("log", meta={"io.modelcontextprotocol/logLevel": "info"}, notify=notices))
        if era == "modern":
            assert notices.items == [("notifications/message", {"level": "warning", "data": "hello"})]
        else:  # the first such call waits beside the logging/setLevel it caused
            assert "logging/setLevel" in (await shown(upstream))["seen"]
            await upstream.call(tool_call("log", meta={"io.modelcontextprotocol/logLevel": "info"}, notify=notices))
            assert notices.items[-1] == ("notifications/message", {"level": "warning", "data": "hello"})
            assert (await shown(upstream))["seen"].count("logging/setLevel") == 1


async def test_log_lines_reach_nobody_when_two_calls_could_own_them() -> None:
    async with stdio_server("modern") as upstream:
        everything = {"io.modelcontextprotocol/logLevel": "debug"}
        first, second = Notices(), Notices()
        arrived = asyncio.create_task(upstream.call(tool_call("wait", meta=everything, notify=first)))
        await until(lambda: upstream.state()["in_flight"] == 1)
        await upstream.call(tool_call("log", meta=everything, notify=second))
        assert (first.items, second.items) == ([], [])
        assert upstream.state()["stray_logs"] == 2
        assert upstream.state()["other_notifications"] == 1
        await ask(upstream, "release")
        await arrived


async def test_a_modern_call_without_a_level_gets_no_log_lines() -> None:
    async with stdio_server("legacy") as upstream:
        modern, legacy = Notices(), Notices()
        await upstream.call(tool_call("log", notify=modern))
        await upstream.call(tool_call("log", notify=legacy, caller=LEGACY_CALLER))
        assert modern.items == []
        assert len(legacy.items) == 2


# --- requests of the server ---


async def test_a_legacy_servers_ping_is_answered() -> None:
    async with stdio_server("legacy") as upstream:
        assert json.loads(await ask(upstream, "ask", {"method": "ping"})) == {
            "jsonrpc": "2.0",
            "id": "q1",
            "result": {},
        }


async def test_a_legacy_servers_other_requests_are_refused() -> None:
    async with stdio_server("legacy") as upstream:
        reply = json.loads(await ask(upstream, "ask", {"method": "roots/list"}))
        assert (reply["id"], reply["error"]["code"]) == ("q1", -32601)
        assert upstream.state()["refused_requests"] == 1


async def test_a_modern_server_that_asks_gets_no_answer() -> None:
    async with stdio_server("modern") as upstream:
        task = asyncio.create_task(upstream.call(tool_call("ask", {"method": "ping"})))
        await until(lambda: upstream.state()["refused_requests"] == 1)
        assert None not in [None if word == "None" else word for word in (await shown(upstream))["seen"]]
        task.cancel()
        await asyncio.wait((task,))


# --- cancelling ---


@pytest.mark.parametrize("era", ERAS)
async def test_a_cancelled_call_is_known_to_the_server_within_200_ms(era: str) -> None:
    async with stdio_server(era) as upstream:
        waiting = await Waiting(upstream).arrived()
        cancelled_at = time.monotonic()
        waiting.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting.task
        found = await shown(upstream)
        [(_, known_at)] = found["cancelled"]
        assert known_at - cancelled_at < 0.2
        assert upstream.state()["in_flight"] == 0


async def test_late_answers_and_progress_of_a_cancelled_call_are_dropped() -> None:
    async with stdio_server("modern") as upstream:
        waiting = await Waiting(upstream).arrived()
        waiting.task.cancel()
        await asyncio.wait((waiting.task,))
        assert await ask(upstream, "answer_cancelled") == "done"
        assert upstream.state()["late_replies"] == 1
        assert upstream.state()["stray_progress"] == 1


# --- bounds ---


async def test_more_calls_than_the_bound_are_refused_at_once() -> None:
    async with stdio_server("modern", max_in_flight=2) as upstream:
        waiting = [await Waiting(upstream).arrived() for _ in range(2)]
        with pytest.raises(ServerBusy, match="server 'child': 2 calls are in flight"):
            await upstream.call(tool_call("echo"))
        for one in waiting:
            one.task.cancel()
        await asyncio.wait([one.task for one in waiting])
        assert await ask(upstream, "echo") == "{}"


async def test_a_server_that_stops_reading_cannot_grow_our_memory() -> None:
    async with stdio_server("modern", max_unsent_bytes=256 * 1024, close_seconds=0.05) as upstream:
        assert await ask(upstream, "stop_reading") == "deaf now"
        calls = [asyncio.create_task(ask(upstream, "echo", {"x": "y" * 65536})) for _ in range(20)]
        done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_EXCEPTION)
        refused = [task for task in done if isinstance(task.exception(), ServerBusy)]
        assert refused
        assert "does not read its input" in str(refused[0].exception())
        assert upstream.state()["instances"][0]["unsent_bytes"] < 512 * 1024
        await upstream.close()
        await asyncio.gather(*calls, return_exceptions=True)


async def test_a_line_beyond_the_limit_ends_the_process_and_the_next_one_serves() -> None:
    async with stdio_server("modern", line_bytes=100_000) as upstream:
        assert len(await ask(upstream, "huge", {"size": 90_000})) == 90_000
        with pytest.raises(ServerMisbehaved, match="a line of more than 100000 bytes"):
            await upstream.call(tool_call("huge", {"size": 200_000}))
        assert await ask(upstream, "echo") == "{}"
        assert upstream.state()["restarts"] == 1


async def test_a_banner_on_stdout_is_skipped_and_counted() -> None:
    async with stdio_server("modern", "--junk", "7") as upstream:
        assert await ask(upstream, "echo") == "{}"
        assert upstream.state()["junk_lines"] == 7


async def test_endless_junk_on_stdout_ends_the_process() -> None:
    async with stdio_server("modern", junk_lines=50) as upstream:
        assert await ask(upstream, "junk", {"lines": 50}) == "done"
        with pytest.raises(ServerMisbehaved, match="51 lines to stdout that are no messages"):
            await upstream.call(tool_call("junk", {"lines": 100}))
        assert await ask(upstream, "echo") == "{}"


async def test_a_flood_on_stderr_is_kept_within_its_bound() -> None:
    async with stdio_server("modern", stderr_bytes=1000) as upstream:
        assert await ask(upstream, "flood") == "flooded"
        await until(lambda: upstream.recent_log(1) == ["end of flood"])
        assert sum(map(len, upstream.recent_log(10_000))) <= 1000
        assert upstream.state()["instances"][0]["stderr_bytes"] == 64 * 65536 + len("end of flood\n")


# --- which child ---


async def test_n_instances_share_the_calls() -> None:
    async with stdio_server("modern", instances=2) as upstream:
        one, two = await Waiting(upstream).arrived(), await Waiting(upstream).arrived()
        in_flight = [instance["in_flight"] for instance in upstream.state()["instances"]]
        assert in_flight == [1, 1]
        for waiting in (one, two):
            waiting.task.cancel()
        await asyncio.wait((one.task, two.task))


async def test_each_session_has_its_own_child_and_others_share_one() -> None:
    async with stdio_server("modern", instances="per_session") as upstream:
        callers = [Caller(Era.LEGACY, "2025-11-25", session) for session in ("a", "b", None)]
        pids = [(await shown(upstream, caller=caller))["pid"] for caller in (*callers, *callers, MODERN_CALLER)]
        assert pids[:3] == pids[3:6]
        assert len(set(pids)) == 3
        assert pids[6] == pids[2]
        await upstream.close_session("a")
        assert not is_running(pids[0])
        assert (await shown(upstream, caller=callers[0]))["pid"] not in pids
        await upstream.close_session("never opened")


async def test_the_number_of_session_children_is_bounded() -> None:
    async with stdio_server("modern", instances="per_session", max_sessions=1) as upstream:
        await ask(upstream, "echo", caller=Caller(Era.LEGACY, "2025-11-25", "a"))
        with pytest.raises(ServerBusy, match="1 client sessions have a process of their own"):
            await upstream.call(tool_call("echo", caller=Caller(Era.LEGACY, "2025-11-25", "b")))
        await upstream.close_session("a")
        await ask(upstream, "echo", caller=Caller(Era.LEGACY, "2025-11-25", "b"))


async def test_the_child_of_an_idle_session_is_ended() -> None:
    clock = FakeClock()
    async with stdio_server("modern", instances="per_session", session_idle_seconds=40.0, clock=clock) as upstream:
        idle, busy = Caller(Era.LEGACY, "2025-11-25", "idle"), Caller(Era.LEGACY, "2025-11-25", "busy")
        pid = (await shown(upstream, caller=idle))["pid"]
        waiting = await Waiting(upstream, caller=busy).arrived()
        await clock.advance(35)
        assert is_running(pid)
        await clock.advance(10)
        await until(lambda: not is_running(pid))
        assert len(upstream.state()["sessions"]) == 1
        assert await ask(upstream, "release", caller=busy) == "done"
        await waiting.task


async def test_a_session_that_calls_while_others_are_swept_keeps_its_child() -> None:
    clock = FakeClock()
    async with stdio_server("modern", instances="per_session", session_idle_seconds=40.0, clock=clock) as upstream:
        idle, late = Caller(Era.LEGACY, "2025-11-25", "idle"), Caller(Era.LEGACY, "2025-11-25", "late")
        for caller in (idle, late):
            await shown(upstream, caller=caller)
        clock._now += 41.0
        sweeping = asyncio.create_task(upstream.sweep())
        waiting = Waiting(upstream, caller=late)
        await sweeping
        await waiting.arrived()
        assert len(upstream.state()["sessions"]) == 1
        assert await ask(upstream, "release", caller=late) == "done"
        await waiting.task


# --- what it says of itself ---


async def test_state_and_repr_tell_what_runs_and_hold_no_secret() -> None:
    async with stdio_server("modern", env={"TOKEN": "s3cret"}) as upstream:
        assert "0 running of 1" in repr(upstream)
        assert upstream.state()["instances"][0]["state"] == "not started"
        pid = (await shown(upstream))["pid"]
        state = upstream.state()
        assert state["instances"][0]["pid"] == pid
        assert (state["transport"], state["eras"], state["restarts"]) == ("stdio", ["modern"], 0)
        assert state["instances"][0]["revision"] == "2026-07-28"
        assert "1 running of 1" in repr(upstream)
        settings = StdioSettings(command=("run", "--key", "s3cret"), env={"TOKEN": "s3cret"})
        assert "s3cret" not in repr(settings) + repr(upstream) + json.dumps(state)
        json.dumps(state)
    assert upstream.state()["instances"][0]["state"] == "closed"
    assert upstream.name == "child"


async def test_the_environment_is_an_allow_list_and_what_is_configured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PENSTOCK_SECRET", "x")
    monkeypatch.setenv("TZ", "UTC")
    async with stdio_server("modern", env={"API_KEY": "k", "HOME": "/elsewhere"}, cwd=str(tmp_path)) as upstream:
        found = await shown(upstream)
        allowed = {"PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR", "SHELL", "TERM", "API_KEY", "LC_CTYPE"}
        assert set(found["env"]) <= allowed
        assert (found["env"]["API_KEY"], found["env"]["HOME"]) == ("k", "/elsewhere")
        assert Path(found["cwd"]) == tmp_path.resolve()
        assert len(found["descriptors"]) <= 4  # the three pipes and the directory it reads


async def test_an_argument_is_never_read_by_a_shell(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    async with stdio_server("modern", "--version", f"$(touch {trap}); touch {trap}") as upstream:
        await ask(upstream, "echo")
        assert not await asyncio.to_thread(trap.exists)


async def test_logs_of_several_children_are_told_apart() -> None:
    async with stdio_server("modern", instances=2) as upstream:
        one = await Waiting(upstream).arrived()
        assert await ask(upstream, "flood") == "flooded"
        await until(lambda: "end of flood" in "".join(upstream.recent_log(1)))
        assert upstream.recent_log(1) == ["[1] end of flood"]
        one.task.cancel()
        await asyncio.wait((one.task,))


async def test_a_closed_server_refuses_calls() -> None:
    async with stdio_server("modern") as upstream:
        waiting = await Waiting(upstream).arrived()
        await upstream.close()
        with pytest.raises(ServerUnavailable, match="it is being stopped"):
            await waiting.task
        with pytest.raises(ServerUnavailable, match="it is being stopped"):
            await upstream.call(tool_call("echo"))
        with pytest.raises(ServerUnavailable, match="it is being stopped"):
            await upstream.describe()
        await upstream.close()


async def test_a_child_that_ends_leaves_no_cycles() -> None:
    async def once() -> None:
        async with stdio_server("modern") as upstream:
            await ask(upstream, "echo", {"n": 1})
            with contextlib.suppress(ServerUnavailable):
                await upstream.call(tool_call("exit"))
            await until(lambda: not upstream.state()["in_flight"])

    await once()
    with nothing_left():
        await once()
