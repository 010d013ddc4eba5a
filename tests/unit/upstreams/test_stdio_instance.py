"""How a stdio server lives: handshakes, deaths, restarts, ends."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from penstock.clock import FakeClock
from penstock.errors import ServerBusy, ServerMisbehaved, ServerUnavailable
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Result
from penstock.upstreams.child_guard import ChildGuard
from penstock.upstreams.stdio import StdioSettings, StdioUpstream
from tests.unit.upstreams.stdio_kit import (
    Waiting,
    ask,
    child_command,
    children_of,
    descriptors,
    is_running,
    shown,
    stdio_server,
    text_of,
    tool_call,
    until,
)

PYTHON = (sys.executable, "-I", "-S")


@pytest.fixture(scope="module", params=[True, False], ids=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param}


def starts(file: Path) -> int:
    return len(file.read_text().splitlines()) if file.exists() else 0


# --- which era ---


@pytest.mark.parametrize(
    ("arguments", "era", "version"),
    [
        (("modern",), Era.MODERN, "2026-07-28"),
        (("both",), Era.MODERN, "2026-07-28"),
        (("legacy",), Era.LEGACY, "2025-11-25"),
        (("legacy", "--probe-error", "-32602"), Era.LEGACY, "2025-11-25"),
        (("legacy", "--probe-error", "-32000", "--version", "2024-11-05"), Era.LEGACY, "2024-11-05"),
        (("refuses-version", "--version", "2025-06-18"), Era.LEGACY, "2025-06-18"),
    ],
)
async def test_the_era_is_found_by_asking(arguments: tuple[str, ...], era: Era, version: str) -> None:
    async with stdio_server(*arguments) as upstream:
        description = await upstream.describe()
        assert description.eras == (era,)
        assert upstream.state()["instances"][0]["revision"] == version
        answer = await upstream.call(tool_call("echo"))
        assert isinstance(answer, Result)
        assert answer.era is era


async def test_the_description_is_what_the_server_said() -> None:
    async with stdio_server("modern") as upstream:
        description = await upstream.describe()
        assert description.versions == ("2026-07-28", "2025-11-25")
        assert bytes(description.server_info) == b'{"name": "child", "version": "2"}'
        assert bytes(description.capabilities) == b'{"tools": {}}'
        assert (description.instructions, description.ttl_ms) == ("be quick", 1000)
    async with stdio_server("legacy") as upstream:
        description = await upstream.describe()
        assert bytes(description.server_info) == b'{"name": "child", "version": "1"}'
        assert (description.instructions, description.versions) == ("be kind", ("2025-11-25",))


async def test_a_server_that_ignores_discover_is_initialized_on_the_same_process() -> None:
    async with stdio_server("legacy", "--ignore-probe", probe_seconds=0.05) as upstream:
        found = await shown(upstream)
        assert found["seen"][:3] == ["server/discover", "initialize", "notifications/initialized"]
        assert upstream.state()["restarts"] == 0


async def test_a_slow_server_of_both_eras_speaks_what_its_handshake_made_of_it() -> None:
    async with stdio_server("both", "--late-probe", probe_seconds=0.05) as upstream:
        assert (await upstream.describe()).eras == (Era.LEGACY,)
        assert "notifications/initialized" in (await shown(upstream))["seen"]


async def test_a_slow_modern_server_is_recognised_when_it_answers_at_last() -> None:
    async with stdio_server("modern", "--late-probe", probe_seconds=0.05) as upstream:
        assert (await upstream.describe()).eras == (Era.MODERN,)
        assert "notifications/initialized" not in (await shown(upstream))["seen"]
    async with stdio_server("modern", "--late-probe", "--ignore-initialize", probe_seconds=0.05) as upstream:
        assert (await upstream.describe()).eras == (Era.MODERN,)


async def test_a_server_that_dies_of_the_probe_is_started_again_without_it(tmp_path: Path) -> None:
    file = tmp_path / "starts"
    async with stdio_server("legacy", "--exit-on-probe", "--starts", str(file)) as upstream:
        assert (await shown(upstream))["seen"][0] == "initialize"
        assert starts(file) == 2
        with pytest.raises(ServerUnavailable):
            await upstream.call(tool_call("die"))
        assert (await shown(upstream))["seen"][0] == "initialize"
        assert starts(file) == 3


async def test_a_known_era_is_not_probed_again_after_a_restart() -> None:
    async with stdio_server("legacy") as upstream:
        await upstream.describe()
        with pytest.raises(ServerUnavailable):
            await upstream.call(tool_call("die"))
        assert (await shown(upstream))["seen"][:2] == ["initialize", "notifications/initialized"]


async def test_a_pinned_revision_is_spoken_without_a_probe() -> None:
    async with stdio_server("both", protocol="2025-06-18", instances=1) as upstream:
        assert (await upstream.describe()).eras == (Era.LEGACY,)
        assert (await shown(upstream))["seen"][0] == "initialize"
    async with stdio_server("both", protocol="2026-07-28") as upstream:
        assert (await upstream.describe()).eras == (Era.MODERN,)


@pytest.mark.parametrize(
    ("arguments", "settings", "words"),
    [
        (("legacy",), {"protocol": "2026-07-28"}, "pinned to 2026-07-28 by 'protocol', but refused server/discover"),
        (("modern",), {"protocol": "2025-11-25"}, "refused initialize with error -32601"),
        (("useless",), {}, "refused initialize with error -32601"),
        (("refuses-version", "--version", "2031-01-01"), {}, r"no revision Penstock speaks \(it says: 2031-01-01\)"),
        (("legacy", "--version", "1999-01-01"), {}, "answered initialize with revision '1999-01-01'"),
        (("legacy", "--ignore-probe", "--version", "1999-01-01"), {}, "answered initialize with revision '1999-01-01'"),
        (("refuses-version", "--late-probe", "--version", "2031-01-01"), {}, "no revision Penstock speaks"),
    ],
)
async def test_a_server_one_cannot_agree_with_is_refused_in_words(
    arguments: tuple[str, ...], settings: dict[str, Any], words: str
) -> None:
    async with stdio_server(*arguments, probe_seconds=0.2, **settings) as upstream:
        with pytest.raises(ServerMisbehaved, match=f"server 'child': it .*{words}"):
            await upstream.describe()


async def test_a_silent_server_is_given_up_with_what_it_said_on_stderr() -> None:
    script = "import sys, time; print('compiling', file=sys.stderr, flush=True); time.sleep(60)"
    settings = {"start_seconds": 0.4, "probe_seconds": 0.1, "close_seconds": 0.05}
    async with stdio_server(command=(*PYTHON, "-c", script), **settings) as upstream:
        with pytest.raises(ServerUnavailable, match=r"did not answer the handshake within 0.4 s .* stderr: compiling"):
            await upstream.describe()


async def test_a_modern_server_that_became_legacy_is_found_out(tmp_path: Path) -> None:
    script = tmp_path / "server"
    await asyncio.to_thread(script.write_text, "modern")
    command = (*PYTHON, child_command()[3])
    run = f"import os; os.execv({PYTHON[0]!r}, ({command!r}) + (open({str(script)!r}).read(),))"
    async with stdio_server(command=(*PYTHON, "-c", run), first_delay_seconds=0.01) as upstream:
        assert (await upstream.describe()).eras == (Era.MODERN,)
        await asyncio.to_thread(script.write_text, "legacy")
        with pytest.raises(ServerUnavailable):
            await upstream.call(tool_call("die"))
        with pytest.raises(ServerMisbehaved, match="remembered as modern, but refused server/discover"):
            await upstream.describe()
        assert (await upstream.describe()).eras == (Era.LEGACY,)


# --- what cannot be started ---


@pytest.mark.parametrize(
    ("command", "cwd", "words"),
    [
        (
            ("no-such-program",),
            None,
            r"command 'no-such-program' was not found on PATH \(.*\); install it or give its full",
        ),
        (("/no/such/program",), None, "command '/no/such/program' does not exist"),
        ((sys.executable,), "/no/such/folder", "working directory '/no/such/folder' does not exist; correct 'cwd'"),
        (("a\0b",), None, "could not be started: embedded null byte"),
    ],
)
async def test_what_cannot_be_started_is_named(command: tuple[str, ...], cwd: str | None, words: str) -> None:
    async with stdio_server(command=command, cwd=cwd) as upstream:
        with pytest.raises(ServerUnavailable, match=f"server 'child': .*{words}"):
            await upstream.describe()
        assert upstream.state()["last_error"]


async def test_a_script_with_a_missing_interpreter_or_no_program_is_named(tmp_path: Path) -> None:
    script = tmp_path / "script"
    await asyncio.to_thread(script.write_text, "#!/no/such/interpreter\n")
    await asyncio.to_thread(script.chmod, 0o755)
    async with stdio_server(command=(str(script),)) as upstream:
        with pytest.raises(ServerUnavailable, match="names an interpreter in its first line that does not exist"):
            await upstream.describe()
    await asyncio.to_thread(script.chmod, 0o644)
    async with stdio_server(command=(str(script),)) as upstream:
        with pytest.raises(ServerUnavailable, match=r"may not be executed; .* \(chmod \+x\)"):
            await upstream.describe()
    await asyncio.to_thread(script.chmod, 0o755)
    await asyncio.to_thread(script.write_bytes, b"\x00\x01")
    async with stdio_server(command=(str(script),)) as upstream:
        with pytest.raises(ServerUnavailable, match="could not be started: Exec format error"):
            await upstream.describe()


async def test_a_server_that_exits_at_start_says_why() -> None:
    async with stdio_server("modern", "--exit-at-start", "4") as upstream:
        with pytest.raises(ServerUnavailable, match="exited with status 4; its last line on stderr: no licence found"):
            await upstream.describe()
        await until(lambda: upstream.recent_log(1) == ["no licence found"])


# --- deaths ---


async def test_a_death_fails_the_calls_in_flight_with_status_and_last_words() -> None:
    async with stdio_server("modern") as upstream:
        waiting = await Waiting(upstream).arrived()
        with pytest.raises(
            ServerUnavailable, match="exited with status 3; its last line on stderr: fatal: the disk is full"
        ):
            await upstream.call(tool_call("die"))
        with pytest.raises(ServerUnavailable, match="server 'child': its process exited with status 3"):
            await waiting.task


async def test_kill_9_in_the_middle_of_a_call_costs_that_call_only() -> None:
    async with stdio_server("legacy") as upstream:
        pid = (await shown(upstream))["pid"]
        waiting = await Waiting(upstream).arrived()
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ServerUnavailable, match="was killed by SIGKILL; it wrote nothing to stderr"):
            await waiting.task
        assert (await shown(upstream))["pid"] != pid
        assert upstream.state()["restarts"] == 1
        assert not is_running(pid)


async def test_an_answer_written_before_the_death_still_counts() -> None:
    async with stdio_server("modern") as upstream:
        assert await ask(upstream, "answer_and_die") == "last words"


@pytest.mark.parametrize("tool", ["close_stdout", "close_stdin"])
async def test_a_server_that_closes_a_pipe_is_started_again(tool: str) -> None:
    async with stdio_server("modern") as upstream:
        pid = (await shown(upstream))["pid"]
        call = asyncio.create_task(upstream.call(tool_call(tool)))
        if tool == "close_stdin":
            await until(lambda: upstream.state()["in_flight"] == 1)
            while not call.done():
                more = asyncio.create_task(upstream.call(tool_call("echo")))
                await asyncio.wait((call, more), timeout=0.05)
                more.cancel()
                await asyncio.wait((more,))
        with pytest.raises(ServerUnavailable, match="closed its input or output and was ended"):
            await call
        assert (await shown(upstream))["pid"] != pid


async def test_a_server_that_cannot_be_started_says_why_at_once_between_attempts() -> None:
    clock = FakeClock()
    async with stdio_server(command=("/no/such/program",), clock=clock) as upstream:
        for _ in range(2):  # the first restart comes at once
            with pytest.raises(ServerUnavailable, match=r"'/no/such/program' does not exist; correct the path$"):
                await upstream.call(tool_call("echo"))
        await until(lambda: upstream.state()["instances"][0]["state"] == "waiting to restart")
        async with asyncio.timeout(5):
            with pytest.raises(ServerUnavailable, match=r"'/no/such/program' does not exist; correct the path$"):
                await upstream.call(tool_call("echo"))


async def test_what_a_dead_server_left_behind_dies_with_it() -> None:
    async with stdio_server("modern") as upstream:
        grandchild = int(await ask(upstream, "fork", {"stubborn": True}))
        assert is_running(grandchild)
        with pytest.raises(ServerUnavailable):
            await upstream.call(tool_call("kill"))
        await until(lambda: not is_running(grandchild))


async def test_a_crash_loop_is_slowed_down_and_calls_say_so(tmp_path: Path) -> None:
    file, clock = tmp_path / "starts", FakeClock()
    async with stdio_server(
        "modern", "--starts", str(file), "--healthy-starts", "1", clock=clock, restart_wait_seconds=2.0
    ) as upstream:
        await upstream.describe()
        with pytest.raises(ServerUnavailable):
            await upstream.call(tool_call("die"))
        delays = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0)
        for expected, delay in enumerate(delays, start=2):
            await until(lambda: upstream.state()["instances"][0]["state"] == "waiting to restart")
            assert starts(file) == expected
            if delay > 2:
                with pytest.raises(ServerUnavailable, match=rf"status 9; .* it is started again in {delay:.0f} s"):
                    await upstream.call(tool_call("echo"))
            await clock.advance(delay * 0.9)
            assert starts(file) == expected
            await clock.advance(delay * 0.1 + 0.001)
            await until(lambda: starts(file) == expected + 1)  # noqa: B023  # called before the loop goes on


async def test_a_call_waits_for_the_restart() -> None:
    async with stdio_server("modern") as upstream:
        waiting = await Waiting(upstream).arrived()
        killer = asyncio.create_task(upstream.call(tool_call("kill")))
        await asyncio.wait((killer, waiting.task))
        assert isinstance(killer.exception(), ServerUnavailable)
        assert isinstance(waiting.task.exception(), ServerUnavailable)
        assert await asyncio.gather(*(ask(upstream, "echo") for _ in range(5))) == ["{}"] * 5


async def test_a_call_waits_for_the_start_for_a_bounded_time_and_in_bounded_company() -> None:
    script = "import time; time.sleep(60)"
    clock = FakeClock()
    settings = {"start_seconds": 30.0, "close_seconds": 0.05, "max_in_flight": 1, "clock": clock}
    async with stdio_server(command=(*PYTHON, "-c", script), **settings) as upstream:
        call = asyncio.create_task(upstream.call(tool_call("echo")))
        await until(lambda: upstream.state()["in_flight"] == 2)  # the call, and the probe
        assert upstream.state()["instances"][0]["state"] == "starting"
        with pytest.raises(ServerBusy, match="1 calls wait for it to start"):
            await upstream.call(tool_call("echo"))
        while not call.done():
            await clock.advance(1)
            for _ in range(20):
                await asyncio.sleep(0)
        with pytest.raises(ServerUnavailable, match="did not answer the handshake within 30 s"):
            await call


# --- ends ---


async def test_closing_ends_a_server_that_ignores_the_end_of_its_input() -> None:
    for quirks in (("--ignore-eof",), ("--ignore-eof", "--ignore-term")):
        async with stdio_server("modern", *quirks, close_seconds=0.1, terminate_seconds=0.1) as upstream:
            pid = (await shown(upstream))["pid"]
        assert not is_running(pid)


async def test_closing_ends_the_grandchildren_too() -> None:
    async with stdio_server("modern", terminate_seconds=0.2) as upstream:
        meek = int(await ask(upstream, "fork"))
        stubborn = int(await ask(upstream, "fork", {"stubborn": True}))
        assert is_running(meek)
        assert is_running(stubborn)
    await until(lambda: not is_running(meek) and not is_running(stubborn))


async def test_closing_while_starting_leaves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "starts"
    for turns in range(12):  # each time the start is cut off a little later
        async with stdio_server("modern", "--starts", str(file)) as upstream:
            call = asyncio.create_task(upstream.call(tool_call("echo")))
            for _ in range(turns * 3):
                await asyncio.sleep(0)
        with pytest.raises(ServerUnavailable, match="being stopped"):
            await call
    if file.exists():
        pids = [int(line) for line in file.read_text().splitlines()]
        await until(lambda: not any(map(is_running, pids)))


async def test_a_caller_that_gives_up_does_not_stop_the_start() -> None:
    async with stdio_server("modern") as upstream:
        call = asyncio.create_task(upstream.call(tool_call("echo")))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait((call,))
        assert call.cancelled()
        assert await ask(upstream, "echo") == "{}"
        assert upstream.state()["restarts"] == 0


async def test_many_starts_and_stops_leave_no_descriptor_and_no_zombie() -> None:
    async with stdio_server("modern") as upstream:
        await upstream.describe()
    open_before, children_before = descriptors(), len(children_of(os.getpid()))
    guard = ChildGuard()
    for number in range(50):
        upstream = StdioUpstream("child", StdioSettings(command=child_command("modern")), guard=guard)
        if number % 2:
            assert text_of(await upstream.call(tool_call("echo"))) == "{}"
        else:
            starting = asyncio.create_task(upstream.describe())
            await asyncio.sleep(0)
            starting.cancel()
            await asyncio.wait((starting,))
        await upstream.close()
    await guard.close()
    await until(lambda: descriptors() <= open_before)
    assert len(children_of(os.getpid())) <= children_before


def test_kill_9_of_the_whole_program_leaves_no_orphan(tmp_path: Path) -> None:
    """The gateway here is a program of its own, so that it can be killed."""
    anyio_run = f"""
import asyncio, sys
sys.path[:0] = {sys.path!r}
from tests.unit.upstreams.stdio_kit import *
async def main():
    async with stdio_server("modern", "--ignore-eof") as upstream:
        grandchild = await ask(upstream, "fork", {{"stubborn": True}})
        print((await shown(upstream))["pid"], grandchild, flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""

    async def judge() -> None:
        program = await asyncio.create_subprocess_exec(sys.executable, "-c", anyio_run, stdout=asyncio.subprocess.PIPE)
        assert program.stdout is not None
        pids = [int(pid) for pid in (await program.stdout.readline()).split()]
        assert [is_running(pid) for pid in pids] == [True, True]
        program.kill()
        await program.wait()
        await until(lambda: not any(map(is_running, pids)))

    asyncio.run(judge())
