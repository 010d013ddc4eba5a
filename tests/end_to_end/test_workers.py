"""`penstock serve --workers 2`: processes die, are stopped, and cannot start."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from penstock.http.client import HttpClient, RequestFailed
from penstock.protocol.event_stream import Event
from tests.end_to_end.faults_kit import (
    ERAS,
    STDIO_SERVER,
    McpClient,
    Said,
    is_alive,
    server_tables,
    stdio_servers,
    until,
)
from tests.end_to_end.workers_kit import DRAIN, Workers, eventually, port_of
from tests.peers.environments import ROOT, gateway_environment, penstock_command
from tests.peers.processes import make_home

BACK_SECONDS = 10.0
"""Within a second or two on a machine that does nothing else."""
ELICITATION: dict[str, Any] = {"elicitation": {"form": {}}}


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the gateway puts its sockets."""
    folder = tmp_path / "t"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Workers]:
    with Workers(tmp_path) as it:
        it.ready()
        yield it


def other(gateway: Workers) -> int:
    """The worker that has no stdio servers."""
    (found,) = set(gateway.workers()) - {gateway.owner()}
    return found


# --- as long as all is well ---


async def test_each_worker_gets_connections_and_all_share_one_child(gateway: Workers) -> None:
    (child,) = gateway.servers()
    for worker in gateway.workers():
        for era in ERAS:
            async with gateway.client_at(worker, era) as client:
                assert (await client.call("child_pid")).text == str(child)
    assert gateway.servers() == [child]


async def test_the_verbs_work_and_what_they_change_reaches_the_clients_of_all_workers(gateway: Workers) -> None:
    async with AsyncExitStack() as stack:
        heard: dict[int, list[str]] = {}
        for worker in gateway.workers():
            heard[worker] = []
            stack.push_async_callback(
                listen(await stack.enter_async_context(gateway.client_at(worker, "modern")), heard[worker])
            )
        await eventually(lambda: all(heard.values()), 5, "both were acknowledged")
        words = ["add", "more", "--", "env", f"--chdir={ROOT}", *STDIO_SERVER, gateway.mark]
        added = await asyncio.to_thread(gateway.verb, *words)
        assert added.returncode == 0, added.stderr
        await eventually(
            lambda: all("notifications/tools/list_changed" in said for said in heard.values()), 10, "all heard"
        )
        for worker in gateway.workers():
            async with gateway.client_at(worker, "legacy") as client:
                assert (await client.call("more_echo", {"text": "x"})).text == "x"
        assert len(gateway.servers()) == 2
        listed = await asyncio.to_thread(gateway.verb, "list", "--json")
        assert [row["name"] for row in json.loads(listed.stdout)["servers"]] == ["child", "more"]
        called = await asyncio.to_thread(gateway.verb, "call", "more_echo", "text=y")
        assert (called.returncode, called.stdout.strip()) == (0, "y")
        assert (await asyncio.to_thread(gateway.verb, "logs", "child")).returncode == 0
        for said in heard.values():
            said.clear()
        assert (await asyncio.to_thread(gateway.verb, "remove", "more")).returncode == 0
        await eventually(
            lambda: all("notifications/tools/list_changed" in said for said in heard.values()), 10, "all heard"
        )
        for worker in gateway.workers():
            async with gateway.client_at(worker, "modern") as client:
                assert (await client.call("more_echo")).error["code"] == -32602


def listen(client: McpClient, heard: list[str]) -> Callable[[], Awaitable[None]]:
    """Begin to listen for changes; returns what ends it."""
    params = {"notifications": {"toolsListChanged": True}}
    headers, body = client.written("subscriptions/listen", params, 1)

    def take(event: Event) -> bool:
        heard.append(json.loads(bytes(event.data)).get("method", "the end"))
        return False

    task = asyncio.create_task(client.http.post(client.url, headers, body, take, timeout=60))

    async def end() -> None:
        task.cancel()
        await asyncio.wait((task,))

    return end


async def test_a_connection_goes_to_the_worker_that_has_what_its_session_needs(tmp_path: Path) -> None:
    tables = server_tables({"child": [*STDIO_SERVER, tmp_path.name]}, instances="per_session")
    with Workers(tmp_path, tables + DRAIN) as gateway:
        gateway.ready()
        home, away = gateway.owner(), other(gateway)
        async with gateway.client_at(home, "legacy") as client:
            child = (await client.call("child_pid")).text
            async with gateway.client_at(away, "legacy", client.session) as second:
                for _ in range(2):  # the first shows that the other is there
                    assert (await second.call("child_pid")).text == child
                assert gateway.worker_at(port_of(second.http)) == home
                os.kill(away, signal.SIGKILL)
                assert (await second.call("child_pid")).text == child


async def test_metrics_and_explain_count_calls_of_all_workers_once(gateway: Workers) -> None:
    for worker in gateway.workers():
        async with gateway.client_at(worker, "modern") as client:
            await client.tools()  # a tool that is in no list yet is counted without its name
            for _ in range(3):
                await client.call("child_echo", {"text": "x"})
    async with HttpClient() as http:
        page = (await http.get(f"{gateway.admin}/metrics")).body.decode()
    counted = [line for line in page.splitlines() if line.startswith("penstock_calls_total{") and '"echo"' in line]
    assert [line.rpartition(" ")[2] for line in counted] == ["6.0"]
    explained = await asyncio.to_thread(gateway.verb, "explain", "child_echo", "--json")
    assert json.loads(explained.stdout)["calls"]["outcomes"] == {"ok": 6}


def test_the_runtime_file_names_the_supervisor_and_is_gone_in_the_end(gateway: Workers, temporary: Path) -> None:
    (file,) = (gateway.folder / "state/runtime").glob("*.json")
    assert json.loads(file.read_text())["pid"] == gateway.pid
    gateway.signal(signal.SIGTERM)
    assert gateway.wait(10) == 0
    assert list((gateway.folder / "state/runtime").iterdir()) == []
    assert list(temporary.iterdir()) == []
    assert gateway.left() == []


# --- one dies ---


async def outcome(task: "asyncio.Task[Said]") -> Said | BaseException:
    await asyncio.wait((task,), timeout=15)
    assert task.done()
    return task.exception() or task.result()


async def test_a_dead_worker_costs_its_own_calls_alone_and_is_back_soon(gateway: Workers) -> None:
    owner, victim = gateway.owner(), other(gateway)
    async with AsyncExitStack() as stack:
        at_victim = await stack.enter_async_context(gateway.client_at(victim, "legacy"))
        at_owner = await stack.enter_async_context(gateway.client_at(owner, "legacy"))
        await at_victim.call("child_echo")
        await at_owner.call("child_echo")
        lost = asyncio.create_task(at_victim.call("child_slow", {"seconds": 2.0}))
        kept = asyncio.create_task(at_owner.call("child_slow", {"seconds": 2.0}))
        await asyncio.sleep(0.3)
        os.kill(victim, signal.SIGKILL)
        started = time.monotonic()
        assert isinstance(await outcome(lost), RequestFailed)
        assert time.monotonic() - started < 1.0
        await eventually(lambda: gateway.replaced(victim), BACK_SECONDS, "it was back")
        assert gateway.owner() == owner
        await answers(gateway, other(gateway))
        for worker in gateway.workers():
            async with gateway.client_at(worker, "legacy", session=at_victim.session) as again:
                assert (await again.call("child_echo", {"text": "x"})).text == "x"
                assert again.initializations == 0
        said = await outcome(kept)
        assert isinstance(said, Said)
        assert said.text == "slept"
    assert f"(process {victim}) was ended by signal 9; it is started again" in gateway.err
    lines = [line for line in gateway.err.splitlines() if "open files" in line]
    assert {line.rpartition(" worker=")[2] for line in lines} == {"0", "1"}, "each says whose it is"


async def answers(gateway: Workers, worker: int, tool: str = "child_echo") -> None:
    """Until the worker takes connections: a few are refused, or taken by others, while it starts."""

    async def one() -> bool:
        with suppress(AssertionError, RequestFailed):
            async with gateway.client_at(worker, "modern") as client:
                return (await client.call(tool, {"text": "x"})).text == "x"
        return False

    async with asyncio.timeout(BACK_SECONDS):
        while not await one():  # noqa: ASYNC110 - another process, which cannot tell us
            await asyncio.sleep(0.05)


async def test_a_worker_that_comes_back_while_the_file_is_bad_has_what_the_others_have(tmp_path: Path) -> None:
    first, second = (server_tables({name: [*STDIO_SERVER, tmp_path.name]}) for name in ("child", "late"))
    with Workers(tmp_path, first + DRAIN) as gateway:
        gateway.ready()
        gateway.write(second + DRAIN)
        await eventually(lambda: gateway.err.count("configuration: added late") == 2, 10, "both took the new file up")
        await eventually(gateway.owner, 10, "its server ran")
        gateway.write("bad = [")
        victim = other(gateway)
        os.kill(victim, signal.SIGKILL)
        await eventually(lambda: gateway.replaced(victim), BACK_SECONDS, "it was back")
        await answers(gateway, other(gateway), "late_echo")
        assert "not taken up, worker 1 has the one before: " in gateway.err
        async with HttpClient() as http:
            health = json.loads((await http.get(f"{gateway.admin}/health/detailed")).body)
        assert (health["status"], health["configuration"]["taken_up"]) == ("degraded", False)
        assert health["workers"] == {"configured": 2, "answering": 2}
        async with gateway.client_at(other(gateway), "modern") as client:
            assert (await client.call("child_echo", {"text": "x"})).error["code"] == -32602


async def test_children_of_a_dead_worker_are_ended_and_started_again_once(gateway: Workers) -> None:
    owner, survivor = gateway.owner(), other(gateway)
    (child,) = gateway.servers()
    async with gateway.client_at(survivor, "legacy") as client:
        await client.call("child_echo")
        most = 0
        os.kill(owner, signal.SIGKILL)
        give_up_at = time.monotonic() + 2 * BACK_SECONDS
        texts: list[str] = []
        while time.monotonic() < give_up_at and (not texts or texts[-1] != "x"):
            said = await client.call("child_echo", {"text": "x"})
            texts.append(said.text if "result" in said.body else said.error["data"]["reason"])
            most = max(most, len(gateway.servers()))
        assert texts[-1] == "x", texts[-3:]
        assert set(texts) <= {"x", "server_unavailable"}
        assert client.initializations == 1
    await eventually(lambda: not is_alive(child), 5, "the old child ended")
    (new,) = gateway.servers()
    assert new in stdio_servers(gateway.owner())
    assert survivor in gateway.workers()
    async with HttpClient() as http:
        assert (await http.get(f"{gateway.admin}/health/detailed")).status == 200
    assert (await asyncio.to_thread(gateway.verb, "call", "child_pid")).stdout.strip() == str(new)


@pytest.mark.parametrize("at", ["the owner", "the other"])
async def test_calls_that_were_parked_at_a_dead_worker_are_told_so(at: str, tmp_path: Path) -> None:
    config = server_tables({"child": [*STDIO_SERVER, tmp_path.name]}, protocol="2025-11-25") + DRAIN
    with Workers(tmp_path, config) as gateway:
        gateway.ready()
        owner, survivor = gateway.owner(), other(gateway)
        async with gateway.client_at(owner if at == "the owner" else survivor, "modern") as client:
            client.capabilities = ELICITATION
            asked = (await client.call("child_asks")).body["result"]
            done = await retried(client, asked)
            assert json.loads(done.text) == {"action": "decline"}
            asked = (await client.call("child_asks")).body["result"]
        os.kill(owner, signal.SIGKILL)
        await eventually(lambda: gateway.owner() not in {0, owner}, 2 * BACK_SECONDS, "it was back")
        async with gateway.client_at(survivor, "modern") as client:
            client.capabilities = ELICITATION
            said = await retried(client, asked)
            assert said.error["code"] == -32602


@pytest.mark.parametrize("asked_at", ["the owner", "the other"])
async def test_a_call_is_taken_up_by_whichever_worker_its_client_comes_back_to(asked_at: str, tmp_path: Path) -> None:
    config = server_tables({"child": [*STDIO_SERVER, tmp_path.name]}, protocol="2025-11-25") + DRAIN
    with Workers(tmp_path, config) as gateway:
        gateway.ready()
        first, second = gateway.owner(), other(gateway)
        if asked_at == "the other":
            first, second = second, first
        async with gateway.client_at(first, "modern") as client, gateway.client_at(second, "modern") as later:
            client.capabilities = later.capabilities = ELICITATION
            asked = (await client.call("child_asks")).body["result"]
            assert json.loads((await retried(later, asked)).text) == {"action": "decline"}
            said = await retried(client, asked)
            assert said.error["code"] == -32602, "it was taken up already"


async def retried(client: McpClient, asked: dict[str, object]) -> Said:
    questions = asked["inputRequests"]
    assert isinstance(questions, dict)
    responses = {key: {"action": "decline"} for key in questions}
    params = {"name": "child_asks", "arguments": {}, "requestState": asked["requestState"], "inputResponses": responses}
    return await client.request("tools/call", params)


async def test_a_worker_that_is_started_again_knows_what_was_added_meanwhile(gateway: Workers) -> None:
    words = ["add", "more", "--", "env", f"--chdir={ROOT}", *STDIO_SERVER, gateway.mark]
    assert (await asyncio.to_thread(gateway.verb, *words)).returncode == 0
    victim = other(gateway)
    os.kill(victim, signal.SIGKILL)
    await eventually(lambda: gateway.replaced(victim), BACK_SECONDS, "it was back")
    await answers(gateway, other(gateway))
    async with gateway.client_at(other(gateway), "modern") as client:
        assert (await client.call("more_echo", {"text": "x"})).text == "x"


async def test_workers_and_their_children_end_when_the_supervisor_is_killed(gateway: Workers, temporary: Path) -> None:
    gateway.workers()
    gateway.signal(signal.SIGKILL)
    gateway.wait(5)
    await eventually(lambda: not gateway.left(), 8, "all ended")
    assert list(temporary.iterdir()) == []


# --- the end ---


@pytest.mark.parametrize("where", ["at all workers", "not at the one that has the child"])
async def test_calls_under_way_end_before_the_workers_do(where: str, gateway: Workers, temporary: Path) -> None:
    workers = gateway.workers() if where == "at all workers" else [other(gateway)]
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(gateway.client_at(worker, era)) for worker in workers for era in ERAS
        ]
        for client in clients:
            await client.call("child_echo")
        slow = [asyncio.create_task(client.call("child_slow", {"seconds": 1.5})) for client in clients]
        await asyncio.sleep(0.4)
        started = time.monotonic()
        gateway.signal(signal.SIGTERM)
        assert [said.text for said in await asyncio.gather(*slow)] == ["slept"] * len(slow)
        assert await asyncio.to_thread(gateway.wait, 10) == 0
        assert time.monotonic() - started < 5.0
    assert gateway.left() == []
    assert list(temporary.iterdir()) == []


async def test_a_stop_with_nothing_under_way_takes_no_time(gateway: Workers) -> None:
    async with AsyncExitStack() as stack:
        for worker in gateway.workers():
            for era in ERAS:
                client = await stack.enter_async_context(gateway.client_at(worker, era))
                assert (await client.call("child_echo", {"text": "x"})).text == "x"
                if era == "modern":
                    stack.push_async_callback(listen(client, []))
        started = time.monotonic()
        gateway.signal(signal.SIGTERM)
        assert await asyncio.to_thread(gateway.wait, 20) == 0
        assert time.monotonic() - started < 2.0, "that of a session which nobody ends any more"
    assert gateway.left() == []


async def test_calls_that_do_not_end_are_cut_when_the_drain_is_over(tmp_path: Path) -> None:
    config = server_tables({"child": [*STDIO_SERVER, tmp_path.name]}) + '[limits]\ndrain = "1s"\n'
    with Workers(tmp_path, config) as gateway:
        gateway.ready()
        async with AsyncExitStack() as stack:
            never = []
            for worker in gateway.workers():
                client = await stack.enter_async_context(gateway.client_at(worker, "modern"))
                never.append(asyncio.create_task(client.call("child_never")))
            await asyncio.sleep(0.3)
            started = time.monotonic()
            gateway.signal(signal.SIGTERM)
            for one in never:
                assert isinstance(await outcome(one), RequestFailed)
            assert await asyncio.to_thread(gateway.wait, 10) == 0
            assert 0.9 < time.monotonic() - started < 5.0
        assert gateway.left() == []


async def test_a_second_signal_ends_all_at_once(gateway: Workers) -> None:
    async with AsyncExitStack() as stack:
        never = []
        for worker in gateway.workers():
            client = await stack.enter_async_context(gateway.client_at(worker, "modern"))
            never.append(asyncio.create_task(client.call("child_never")))
        await asyncio.sleep(0.3)
        gateway.signal(signal.SIGTERM)
        await eventually(lambda: "stopping" in gateway.err, 5, "the drain began")
        await asyncio.sleep(0.1)
        started = time.monotonic()
        gateway.signal(signal.SIGTERM)
        for one in never:
            said = await outcome(one)  # the child of one worker may be gone before the other is
            assert said.error["code"] == 503 if isinstance(said, Said) else isinstance(said, RequestFailed)
        await asyncio.to_thread(gateway.wait, 10)
        assert time.monotonic() - started < 2.5
    await eventually(lambda: not gateway.left(), 4, "all ended")


# --- it cannot start ---


def started(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A gateway that is expected to end by itself."""
    environment = gateway_environment(make_home(folder), PENSTOCK_STATE_DIR=str(folder / "state"))
    command = [*penstock_command(), "serve", "--admin", "127.0.0.1:0", "--demo", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=20, check=False)


def test_an_address_another_program_has_is_one_sentence(tmp_path: Path, temporary: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = started(tmp_path, "--listen", f"127.0.0.1:{port}", "--workers", "2")
    assert ended.returncode == 3
    assert ended.stderr.count("is in use by another program") == 1
    assert "Traceback" not in ended.stderr
    assert list(temporary.iterdir()) == []


def test_a_gateway_refuses_the_address_of_another(tmp_path: Path) -> None:
    with Workers(tmp_path / "a", server_tables({})) as gateway:
        until(lambda: len(gateway.workers()) == 2, 10, "both ran")
        (tmp_path / "state").symlink_to(tmp_path / "a/state")
        for workers in ("1", "2"):
            ended = started(tmp_path, "--listen", gateway.address, "--workers", workers)
            assert ended.returncode == 3
            assert "is in use by another program" in ended.stderr


def test_what_only_workers_find_out_reads_as_from_one_process(tmp_path: Path, temporary: Path) -> None:
    (tmp_path / "penstock.toml").write_text('[listen]\ntls_cert = "no.pem"\ntls_key = "no.key"\n')
    for name in ("no.pem", "no.key"):
        (tmp_path / name).write_text("not a certificate")
    ended = [started(tmp_path, "--listen", "127.0.0.1:0", "--workers", workers) for workers in ("1", "3")]
    assert ended[0].returncode == ended[1].returncode == 3
    said = [[line for line in one.stderr.splitlines() if line.startswith("penstock: ")] for one in ended]
    assert said[0] == said[1]
    assert len(said[0]) == 1
    assert list(temporary.iterdir()) == []
