"""What breaks while client and server of different eras are in the middle of something: nothing hangs, nothing stays."""

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path

import pytest

from penstock.http.client import HttpClient, RequestFailed
from tests.end_to_end.asked_clients import AskedClient, Message, Pending, reply_for, text_of
from tests.end_to_end.faults_kit import ERAS, Era, Gateway, children, command_line, facts, health, server_tables, until
from tests.end_to_end.soak import DeskProcess, stdio_desk
from tests.end_to_end.soak_samples import gauges, serving
from tests.peers.environments import modern_python

LIMITS = """[limits]
parked = "2s"
session_idle = "3s"
upstream_idle = "1s"
unawaited = "1s"
stalled_reader = "2s"
"""
URI = "desk://legacy/1"
TRANSPORTS = ("web", "pipe")
ASK = {"text": "who", "kinds": ["form"]}
LISTENERS = 20
"""So many that both of two workers have some: the kernel spreads connections by chance (1 in 500,000 that it does not)."""


class Stage:
    """A gateway before a legacy server of each transport and a modern one."""

    def __init__(self, folder: Path, stack: ExitStack, flags: tuple[str, ...] = (), limits: str = LIMITS) -> None:
        self._folder = folder
        self.web = DeskProcess(folder / "legacy", "legacy")
        self.new = DeskProcess(folder / "modern", "modern")
        stack.callback(self._end)
        targets: dict[str, str | list[str]] = {
            "web": f"http://127.0.0.1:{self.web.port}/mcp",
            "new": f"http://127.0.0.1:{self.new.port}/mcp",
            "pipe": stdio_desk("pipe", "legacy"),
        }
        self.gateway = stack.enter_context(Gateway(folder, server_tables(targets) + limits, flags=flags))
        until(lambda: set(health(self.gateway).values()) == {"ready"}, 30, "all servers were listed")

    def _end(self) -> None:
        self.web.end()
        self.new.end()

    def restart_web(self) -> None:
        """Kill it, and start it again where it was."""
        self.web.signal(signal.SIGKILL)
        self.web.wait(5)
        self.web = DeskProcess(self._folder / "legacy", "legacy", self.web.port)

    async def told(self, client: AskedClient, server: str) -> Message:
        """What the server still holds; the question itself is one of its calls."""
        found: Message = json.loads(text_of(await client.called(f"{server}_told")))
        return found

    async def until(self, holds: Callable[[dict[str, float]], object], seconds: float, what: str) -> None:
        """Wait for something the gauges show."""
        await asyncio.to_thread(until, lambda: holds(gauges(self.gateway)), seconds, f"{what}: {gauges(self.gateway)}")


@contextmanager
def staged(folder: Path, *flags: str, limits: str = LIMITS) -> Iterator[Stage]:
    with ExitStack() as stack:
        yield Stage(folder, stack, flags, limits)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as it:
        yield it
        assert "Traceback" not in it.gateway.err, it.gateway.err


async def parked_call(client: AskedClient, server: str) -> Message:
    """A modern client's call that waits for it."""
    asked = await client.call(f"{server}_ask", ASK).answer()
    assert asked["result"]["resultType"] == "input_required", asked
    return asked


async def retried(client: AskedClient, server: str, asked: Message) -> Message:
    replies = {
        "inputResponses": {key: reply_for("elicitation/create", "s") for key in asked["result"]["inputRequests"]}
    }
    state = {"requestState": asked["result"]["requestState"]}
    return await client.call(f"{server}_ask", ASK, **state, **replies).answer()


def is_free(held: dict[str, float]) -> bool:
    """Nothing waits for anybody."""
    return not any(held[f"penstock_{name}"] for name in ("parked_calls", "calls_in_flight", "replay_bytes"))


# --- the server dies while a client owes it an answer ---


@pytest.mark.parametrize("server", TRANSPORTS)
async def test_the_retry_of_a_parked_call_whose_server_has_died_says_so(stage: Stage, server: str) -> None:
    async with HttpClient() as http:
        client = AskedClient(http, stage.gateway.url, "modern")
        pid = int(text_of(await client.called(f"{server}_pid")))
        asked = await parked_call(client, server)
        os.kill(pid, signal.SIGKILL)
        if server == "web":
            stage.web.wait(5)
        await asyncio.to_thread(until, lambda: not Path(f"/proc/{pid}/fd/0").exists(), 5, "it was dead")
        refused = await retried(client, server, asked)
        assert (refused["status"], refused["error"]["code"]) == (503, 503), refused
        assert refused["error"]["data"]["server"] == server
        assert f"'{server}'" in refused["error"]["message"]
        await stage.until(is_free, 3, "all was let go of")
        again = await retried(client, server, asked)
        assert again["error"]["code"] == -32602, "a state takes a call up once"
        if server == "web":
            await asyncio.to_thread(stage.restart_web)
        assert "s" in text_of(await retried(client, server, await parked_call(client, server)))


@pytest.mark.parametrize("server", TRANSPORTS)
async def test_a_legacy_client_is_told_that_the_server_that_asked_it_has_died(stage: Stage, server: str) -> None:
    async with HttpClient() as http:
        client = await AskedClient(http, stage.gateway.url, "legacy").open()
        pid = int(text_of(await client.called(f"{server}_pid")))
        pending = client.call(f"{server}_ask", ASK)
        question = await pending.asked()
        os.kill(pid, signal.SIGKILL)
        refused = await pending.answer()
        assert refused["error"]["data"] | {"retryable": 0} == {
            "reason": "server_unavailable",
            "server": server,
            "retryable": 0,
        }
        withdrawn = await pending.heard("notifications/cancelled")
        assert withdrawn["params"]["requestId"] == question["id"]
        assert await client.reply(question, reply_for("elicitation/create", "late")) == 202
        await stage.until(is_free, 3, "all was let go of")


async def test_a_parked_call_at_an_sdk_server_that_dies_ends_as_clearly(tmp_path: Path) -> None:
    command = [modern_python(), "-m", "tests.peers.servers.conformance_server", "legacy", "stdio"]
    limits = LIMITS.replace('parked = "2s"', 'parked = "20s"')
    with Gateway(tmp_path, server_tables({"sdk": command}) + limits) as gateway:
        await asyncio.to_thread(until, lambda: health(gateway)["sdk"] == "ready", 40, "the server was listed")
        async with HttpClient() as http:
            client = AskedClient(http, gateway.url, "modern")
            tool = "sdk_test_input_required_result_elicitation"
            asked = (await client.called(tool))["result"]
            pids = [child for child in children(gateway.pid) if "conformance_server" in command_line(child)]
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            await asyncio.to_thread(
                until, lambda: not gauges(gateway)["penstock_calls_in_flight"], 5, "the call was over"
            )
            replies = {key: reply_for("elicitation/create", "s") for key in asked["inputRequests"]}
            more = {"requestState": asked["requestState"], "inputResponses": replies}
            refused = await client.call(tool, {}, **more).answer()
            assert refused["error"]["data"]["server"] == "sdk", refused
            assert gauges(gateway)["penstock_parked_calls"] == 0


# --- the client vanishes in the middle of a question ---


@pytest.mark.parametrize("server", TRANSPORTS)
async def test_a_modern_client_that_never_returns_frees_its_place_and_its_server_is_told(
    stage: Stage, server: str
) -> None:
    async with HttpClient() as http:
        client = AskedClient(http, stage.gateway.url, "modern")
        asked = await parked_call(client, server)
        assert gauges(stage.gateway)["penstock_parked_calls"] == 1
        await stage.until(is_free, 5, "the bound of two seconds was kept")
        await wait_for_told(stage, client, server, under_way=1, questions=0)
        late = await retried(client, server, asked)
        assert late["error"]["code"] == -32602
        assert "waited too long" in late["error"]["message"]


@pytest.mark.parametrize("how", ["DELETE", "never"])
@pytest.mark.parametrize("server", [*TRANSPORTS, "new"])
async def test_a_legacy_client_that_loses_its_connection_with_a_question_open(
    stage: Stage, server: str, how: str
) -> None:
    async with HttpClient() as http:
        client = await AskedClient(http, stage.gateway.url, "legacy").open()
        watch = AskedClient(http, stage.gateway.url, "modern")
        pending = client.call(f"{server}_ask", ASK)
        await pending.asked()
        await pending.vanish()
        assert gauges(stage.gateway)["penstock_parked_calls"] == 1
        if how == "DELETE":
            assert await client.end() == 204
            assert gauges(stage.gateway)["penstock_sessions"] == 0
        await stage.until(
            lambda held: is_free(held) and not held["penstock_sessions"], 10, "the question and the session were over"
        )
        cancelled = 0 if server == "new" or how == "never" else 1  # a modern server is not at work while it asks
        await wait_for_told(stage, watch, server, cancelled=cancelled, under_way=1, questions=0)


async def wait_for_told(stage: Stage, client: AskedClient, server: str, **wanted: int) -> None:
    found: Message = {}
    for _ in range(50):
        found = await stage.told(client, server)
        if {name: found[name] for name in wanted} == wanted:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{server} was not told: {found}")


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_calls_that_wait_for_their_clients_hold_no_stop_up(tmp_path: Path, workers: str) -> None:
    limits = LIMITS.replace('parked = "2s"', 'parked = "60s"').replace('drain = "5s"', 'drain = "30s"')
    with staged(tmp_path, "--workers", workers, limits=limits) as stage:
        async with HttpClient() as http, HttpClient() as other:
            for server in TRANSPORTS:
                for client in (
                    AskedClient(http, stage.gateway.url, "modern"),
                    AskedClient(other, stage.gateway.url, "modern"),
                ):
                    await parked_call(client, server)
            assert gauges(stage.gateway)["penstock_parked_calls"] >= 2
            began_at = time.monotonic()
            stage.gateway.signal(signal.SIGTERM)
            assert await asyncio.to_thread(stage.gateway.wait, 15) == 0
            assert time.monotonic() - began_at < 10


# --- a listener that reads nothing ---


async def deaf(stage: Stage, client: AskedClient, request: bytes) -> socket.socket:
    """A connection that asks and reads nothing but the head of its answer."""
    host, _, port = stage.gateway.address.partition(":")
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, (host, int(port)))
    await loop.sock_sendall(sock, request)
    head = await asyncio.wait_for(loop.sock_recv(sock, 300), 10)
    assert head.startswith(b"HTTP/1.1 200"), head
    return sock


def raw(client: AskedClient, method: str, message: Message | None) -> bytes:
    body = json.dumps(message).encode() if message is not None else b""
    rpc = str((message or {}).get("method", ""))
    lines = client._headers(rpc, (message or {}).get("params", {})) | {
        "content-length": str(len(body)),
        "host": "127.0.0.1",
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} /mcp HTTP/1.1\r\n{head}\r\n".encode() + body


@pytest.mark.alone
@pytest.mark.parametrize("era", ERAS)
async def test_a_listener_that_reads_nothing_is_cut_and_holds_little(stage: Stage, era: Era) -> None:
    async with HttpClient() as http, AsyncExitStack() as stack:
        client = await AskedClient(http, stage.gateway.url, era).open()
        storm = AskedClient(http, stage.gateway.url, "modern")
        listening: Message | None = None
        if era == "modern":
            wanted = {"toolsListChanged": True, "resourceSubscriptions": [URI]}
            params = {"notifications": wanted, "_meta": client._meta()}
            listening = {"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": params}
        else:
            assert "result" in await client.begin("resources/subscribe", {"uri": URI}).answer()
        await storm.called("web_change", {"text": "x"})
        before = facts(stage.gateway.pid)
        sock = stack.enter_context(
            await deaf(stage, client, raw(client, "POST" if era == "modern" else "GET", listening))
        )
        connections = gauges(stage.gateway)["penstock_connections"]
        highest = 0.0
        for number in range(60):  # 2 MB each, of which no more may wait than limits.stream_bytes, 4 MiB
            padded = {"text": "x", "uri": URI, "times": 1000, "padding": 2000, "round": number}
            await storm.called("web_touch", padded, 30)
            await storm.called("web_change", {"text": "x"})
            highest = max(highest, facts(stage.gateway.pid).memory_mib)
            if number > 10 and gauges(stage.gateway)["penstock_connections"] < connections:
                break
        await stage.until(lambda held: held["penstock_connections"] < connections, 6, "the deaf one was cut")
        sock.close()
        print(f"{highest - before.memory_mib:.1f} MiB")
        assert highest - before.memory_mib < 12.0, f"from {before.memory_mib:.1f} to {highest:.1f} MiB"
        if era == "modern":
            await stage.until(lambda held: not held["penstock_listeners"], 3, "it listens no longer")
        await stage.until(
            lambda held: not held["penstock_subscriptions"] and is_free(held), 10, "nobody is subscribed any more"
        )


# --- the server forgets its sessions ---


@pytest.mark.parametrize("how", ["is restarted", "forgets"])
async def test_a_server_that_lost_its_sessions_is_called_subscribed_to_and_heard_again(stage: Stage, how: str) -> None:
    async with HttpClient() as http:
        old = await AskedClient(http, stage.gateway.url, "legacy").open()
        new = AskedClient(http, stage.gateway.url, "modern")
        streams = [old.listen(), new.listen((URI,))]
        await streams[1].heard("notifications/subscriptions/acknowledged")
        assert "result" in await old.begin("resources/subscribe", {"uri": URI}).answer()
        for client in (old, new):
            assert text_of(await client.called("web_echo", {"text": "before"})) == "before"
        slow = [client.call("web_slow", {"text": "slow", "seconds": 30}) for client in (old, new)]
        if how == "forgets":
            assert "result" in await new.called("web_forget", {"text": "x"})
        else:
            await asyncio.to_thread(stage.restart_web)
            for pending in slow:
                assert (await pending.answer())["error"]["data"]["server"] == "web"
        for client in (old, new):
            await until_called(client)
        await until_subscribed(stage, new)
        for stream in streams:
            stream.messages.clear()
        await new.called("web_change", {"text": "x"})
        await new.called("web_touch", {"text": "x", "uri": URI})
        for stream in streams:
            await stream.heard("notifications/tools/list_changed")
            assert (await stream.heard("notifications/resources/updated"))["params"]["uri"] == URI
        for pending in (*streams, *slow):
            await pending.vanish()


async def until_called(client: AskedClient) -> None:
    """Calls go on, in a new session."""
    answer: Message = {}
    for _ in range(40):
        answer = await client.called("web_echo", {"text": "after"})
        if "result" in answer:
            assert text_of(answer) == "after"
            return
        assert answer["error"]["data"]["reason"] == "server_unavailable", answer
        await asyncio.sleep(0.1)
    raise AssertionError(answer)


async def until_subscribed(stage: Stage, client: AskedClient) -> None:
    told: Message = {}
    for _ in range(100):
        told = await stage.told(client, "web")
        if told["subscribed"] == [URI] and told["streams"]:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"the subscription was not renewed: {told}")


# --- a thousand sessions ---


@pytest.mark.alone
async def test_a_thousand_abandoned_sessions_leave_nothing(stage: Stage) -> None:
    async def visit(number: int, server: str) -> None:
        async with HttpClient() as http:
            client = await AskedClient(http, stage.gateway.url, "legacy").open()
            assert text_of(await client.called(f"{server}_echo", {"text": str(number)})) == str(number)

    async def visits(count: int) -> None:
        for first in range(0, count, 20):
            servers = [("web", "new", "pipe")[number % 3] for number in range(20)]
            await asyncio.gather(*(visit(first + number, server) for number, server in enumerate(servers)))
        await stage.until(
            lambda held: not held["penstock_sessions"] and held["penstock_upstream_sessions"] <= 2,
            15,
            "all were forgotten",
        )

    await visits(1000)  # so many at a time take room that is used again, but not given back
    before, held = facts(stage.gateway.pid), gauges(stage.gateway)
    await visits(1000)
    await asyncio.to_thread(
        until, lambda: facts(stage.gateway.pid).descriptors <= before.descriptors, 10, "descriptors came back"
    )
    slack = {"penstock_tasks": 2}
    await stage.until(
        lambda now: all(now[name] <= value + slack.get(name, 0) for name, value in held.items()), 10, "nothing was left"
    )
    grown = facts(stage.gateway.pid).memory_mib - before.memory_mib
    assert grown < 4.0, f"{grown:.2f} MiB for a thousand sessions"
    async with HttpClient() as http:
        watch, told = AskedClient(http, stage.gateway.url, "modern"), Message()
        for _ in range(100):  # the server is told in the background
            told = await stage.told(watch, "web")
            if told["sessions"] <= 2:
                break
            await asyncio.sleep(0.1)
        assert told["sessions"] <= 2, told


# --- one of two workers dies ---


async def opened(stage: Stage, https: Sequence[HttpClient], era: Era) -> list[tuple[AskedClient, Pending]]:
    """A listener over each connection."""
    found = []
    for http in https:
        client = await AskedClient(http, stage.gateway.url, era).open()
        found.append((client, client.listen()))
    return found


@pytest.mark.parametrize("era", ERAS)
async def test_listeners_of_a_worker_that_dies_hear_again_once_they_come_back(tmp_path: Path, era: Era) -> None:
    with staged(tmp_path, "--workers", "2") as stage:
        https = [HttpClient() for _ in range(LISTENERS)]
        await stage.until(lambda held: held["penstock_listeners"] == 1, 10, "the second worker listened to the first")
        all_of_them = LISTENERS + 1
        try:
            listening = await opened(stage, https, era)
            await stage.until(lambda held: held["penstock_listeners"] == all_of_them, 5, "all listened")
            kill_second_worker(stage)
            lost = [(client, stream) for client, stream in listening if await has_ended(stream)]
            assert 0 < len(lost) < LISTENERS, "the other worker's went on"
            again = [client.listen() for client, _ in lost]
            kept = [stream for _, stream in listening if not stream.task or not stream.task.done()]
            await stage.until(lambda held: held["penstock_listeners"] == all_of_them, 10, "all listen again")
            for stream in kept:
                stream.messages.clear()
            storm = AskedClient(https[0], stage.gateway.url, "modern")
            assert "result" in await storm.called("web_change", {"text": "x"})
            for stream in (*again, *kept):
                await stream.heard("notifications/tools/list_changed")
                await stream.vanish()
        finally:
            for http in https:
                await http.aclose()


async def has_ended(stream: Pending) -> bool:
    """Whether the connection of a stream was lost within a moment."""
    assert stream.task is not None
    done, _ = await asyncio.wait((stream.task,), timeout=0.5)
    return bool(done) and isinstance(stream.task.exception(), RequestFailed)


def kill_second_worker(stage: Stage) -> None:
    workers = serving(stage.gateway)[1:]
    assert len(workers) == 2, workers
    os.kill(workers[1], signal.SIGKILL)
    until(lambda: len(set(serving(stage.gateway)[1:]) - {workers[1]}) == 2, 10, "it was started again")


async def test_calls_parked_in_a_worker_that_dies_end_clearly_and_the_others_go_on(tmp_path: Path) -> None:
    limits = LIMITS.replace('parked = "2s"', 'parked = "20s"')
    with staged(tmp_path, "--workers", "2", limits=limits) as stage:
        https = [HttpClient() for _ in range(LISTENERS)]
        try:
            clients = [AskedClient(http, stage.gateway.url, "modern") for http in https]
            asked = [await parked_call(client, "web") for client in clients]
            assert gauges(stage.gateway)["penstock_parked_calls"] == LISTENERS
            kill_second_worker(stage)
            answers = [await retried(client, "web", one) for client, one in zip(clients, asked, strict=True)]
            lost = [answer for answer in answers if "error" in answer]
            assert 0 < len(lost) < LISTENERS, answers
            for answer in lost:
                assert answer["error"]["code"] == -32602, answer
                assert "send it anew" in answer["error"]["message"]
            await stage.until(is_free, 5, "all was let go of")
        finally:
            for http in https:
                await http.aclose()
