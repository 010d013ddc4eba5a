"""`penstock stdio` as clients start it: a child process before a running gateway, and one that stands alone."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from tests.end_to_end.faults_kit import (
    STDIO_SERVER,
    Gateway,
    children,
    http_server,
    is_alive,
    open_files,
    server_tables,
    stdio_servers,
    until,
)
from tests.peers.environments import ROOT, gateway_environment, penstock_command
from tests.peers.processes import make_home

SECONDS = 15.0
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


class Stdio:
    """One `penstock stdio`, and its client."""

    def __init__(self, folder: Path, *words: str, environment: Mapping[str, str] | None = None) -> None:
        if environment is None:
            environment = gateway_environment(make_home(folder), PENSTOCK_STATE_DIR=str(folder / "state"))
        folder.mkdir(parents=True, exist_ok=True)
        self._err = folder / f"stdio-{time.monotonic_ns()}.err"
        with self._err.open("wb") as err:
            self._popen = subprocess.Popen(
                [*penstock_command(), "stdio", *words],
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=err,
                start_new_session=True,
            )
        self._lines = queue.SimpleQueue[bytes]()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end_input()
        if self._popen.poll() is None:
            self._popen.kill()
            self._popen.wait(10)
        self._reader.join(10)
        assert self._popen.stdout is not None
        self._popen.stdout.close()

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def err(self) -> str:
        return self._err.read_text("utf-8", "replace")

    def write(self, raw: bytes) -> None:
        assert self._popen.stdin is not None
        self._popen.stdin.write(raw)
        self._popen.stdin.flush()

    def send(self, message: Any) -> None:
        self.write(json.dumps(message).encode() + b"\n")

    def request(self, id: Any, method: str, params: Mapping[str, Any] | None = None) -> Any:
        """Ask, and wait for the answer; notifications before it are left out."""
        self.send({"jsonrpc": "2.0", "id": id, "method": method, "params": params or {}})
        return self.answer(id)

    def modern(self, id: Any, method: str, params: Mapping[str, Any] | None = None) -> Any:
        return self.request(id, method, {**(params or {}), "_meta": META})

    def answer(self, id: Any) -> Any:
        while True:
            message = self.message()
            if message.get("id") == id:
                return message
            assert "id" not in message, message

    def message(self) -> Any:
        try:
            line = self._lines.get(timeout=SECONDS)
        except queue.Empty:
            line = b""
        assert line, f"no message; stderr: {self.err}"
        return json.loads(line)

    def initialize(self) -> Any:
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
        answer = self.request("i", "initialize", params)
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return answer["result"]

    def call(self, id: Any, tool: str, arguments: Mapping[str, Any] | None = None) -> str:
        """The text of a legacy call."""
        answer = self.request(id, "tools/call", {"name": tool, "arguments": arguments or {}})
        assert "result" in answer, answer
        return str(answer["result"]["content"][0]["text"])

    def signal(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def end_input(self) -> None:
        assert self._popen.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._popen.stdin.close()

    def wait(self, seconds: float = SECONDS) -> int:
        return self._popen.wait(seconds)

    def _read(self) -> None:
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            self._lines.put(line)
        self._lines.put(b"")


@contextmanager
def behind(folder: Path) -> Iterator[Gateway]:
    """A running gateway before a stdio server, `child`."""
    with Gateway(folder, server_tables({"child": STDIO_SERVER}) + '[limits]\ndrain = "3s"\n') as gateway:
        until(lambda: stdio_servers(gateway.pid), 10, "the child ran")
        yield gateway


def calls_in_flight(gateway: Gateway) -> int:
    with urllib.request.urlopen(f"{gateway.admin}/health/detailed", timeout=5) as answer:
        return int(json.load(answer)["calls_in_flight"])


def write_config(folder: Path, *words: str) -> Path:
    """A configuration with one stdio server, `child`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "penstock.toml"
    path.write_text(server_tables({"child": [*STDIO_SERVER, *words]}), "utf-8")
    path.chmod(0o600)
    return path


def test_it_attaches_to_the_running_gateway_in_both_eras(tmp_path: Path) -> None:
    with behind(tmp_path) as gateway, Stdio(tmp_path) as stdio:
        assert stdio.initialize()["serverInfo"]["name"] == "penstock"
        assert stdio.call(1, "child_echo", {"text": "x"}) == "x"
        answer = stdio.modern(2, "tools/call", {"name": "child_echo", "arguments": {"text": "ü\u2028y"}})
        assert answer["result"]["content"][0]["text"] == "ü\u2028y"
        stdio.write(b"no message\n")
        assert stdio.message()["error"]["code"] == -32700
        assert int(stdio.call(3, "child_pid")) in stdio_servers(gateway.pid)
        assert children(stdio.pid) == []
        stdio.end_input()
        assert stdio.wait() == 0
        assert stdio.err == f"penstock stdio: attached to the gateway at {gateway.url}\n"


def test_a_view_has_its_own_names(tmp_path: Path) -> None:
    with behind(tmp_path) as gateway, Stdio(tmp_path, "--view", "child", "--gateway", gateway.url) as stdio:
        assert {"echo", "pid"} <= {tool["name"] for tool in stdio.modern(1, "tools/list")["result"]["tools"]}
        stdio.initialize()
        assert stdio.call(2, "echo", {"text": "y"}) == "y"


@pytest.mark.parametrize("ends", ["end of input", "SIGTERM", "SIGINT"])
def test_its_end_cancels_what_it_left_at_the_gateway(tmp_path: Path, ends: str) -> None:
    with behind(tmp_path) as gateway, Stdio(tmp_path) as stdio:
        stdio.initialize()
        stdio.send({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "child_never"}})
        params = {"name": "child_never", "_meta": META}
        stdio.send({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params})
        until(lambda: calls_in_flight(gateway) == 2, 10, "both calls were under way")
        if ends == "end of input":
            stdio.end_input()
        else:
            stdio.signal(signal.Signals[ends])
        assert stdio.wait() == 0
        until(lambda: calls_in_flight(gateway) == 0, 5, "both calls were cancelled")


def test_calls_cancelled_at_once_are_cancelled(tmp_path: Path) -> None:
    """The cancelling must not overtake the call, though it travels on another connection."""
    with behind(tmp_path) as gateway, Stdio(tmp_path) as stdio:
        stdio.initialize()
        for number in range(40):
            call = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": {"name": "child_never"}}
            if number % 2:
                call["params"] = {"name": "child_never", "_meta": META}
            cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": number}}
            stdio.write(json.dumps(call).encode() + b"\n" + json.dumps(cancel).encode() + b"\n")
        assert stdio.call("e", "child_echo", {"text": "on"}) == "on"
        until(lambda: calls_in_flight(gateway) == 0, 5, "all calls were cancelled")


def test_a_restart_of_the_gateway_is_not_noticed(tmp_path: Path) -> None:
    with behind(tmp_path) as gateway, Stdio(tmp_path) as stdio:
        stdio.initialize()
        assert stdio.call(1, "child_echo", {"text": "before"}) == "before"
        gateway.signal(signal.SIGTERM)
        assert gateway.wait(10) == 0
        stdio.send({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "child_echo"}})
        with Gateway(tmp_path, listen=gateway.address):
            assert "result" in stdio.answer(2)
            assert stdio.call(3, "child_echo", {"text": "after"}) == "after"
        assert "initialize" not in stdio.err


def test_a_gateway_with_other_keys_is_not_noticed_either(tmp_path: Path) -> None:
    with behind(tmp_path) as gateway, Stdio(tmp_path) as stdio:
        stdio.initialize()
        gateway.signal(signal.SIGTERM)
        assert gateway.wait(10) == 0
        for key in (tmp_path / "state").glob("*key*"):
            key.unlink()
        with Gateway(tmp_path, listen=gateway.address):
            assert stdio.call(1, "child_echo", {"text": "after"}) == "after"
        assert "a new one was opened" in stdio.err


def test_a_gateway_that_is_gone_is_an_error_and_nothing_else(tmp_path: Path) -> None:
    with behind(tmp_path) as gateway, Stdio(tmp_path) as stdio:
        stdio.initialize()
        gateway.end()
        error = stdio.modern(1, "tools/list")["error"]
        assert (error["code"], error["data"]["reason"]) == (503, "gateway_unavailable")
        assert "penstock serve" in error["message"]
        assert stdio.modern(2, "tools/list")["error"]["code"] == 503
        stdio.end_input()
        assert stdio.wait() == 0


def test_without_a_gateway_it_stands_alone_and_nobody_else_gets_in(tmp_path: Path) -> None:
    with http_server(tmp_path / "web") as web:
        config = tmp_path / "penstock.toml"
        config.write_text(server_tables({"web": web.url, "child": STDIO_SERVER}), "utf-8")
        config.chmod(0o600)
        with Stdio(tmp_path) as stdio:
            stdio.initialize()
            assert stdio.call(1, "child_echo", {"text": "x"}) == "x"
            answer = stdio.modern(2, "tools/call", {"name": "web_echo", "arguments": {"text": "y"}})
            assert answer["result"]["content"][0]["text"] == "y"
            assert not list((tmp_path / "state").glob("runtime/*"))
            assert not [file for file in open_files(stdio.pid) if "state 10" in file]  # listening
            family = children(stdio.pid)
            assert family
            stdio.end_input()
            assert stdio.wait() == 0
            until(lambda: not any(map(is_alive, family)), 3, "the children ended")
            assert stdio.err == ("penstock stdio: no gateway runs; started one in this process with penstock.toml\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("words", [(), ("stubborn",)], ids=["meek child", "stubborn child"])
def test_a_signal_leaves_no_process_behind(tmp_path: Path, number: signal.Signals, words: tuple[str, ...]) -> None:
    config = write_config(tmp_path, *words)
    with Stdio(tmp_path, "--config", str(config)) as stdio:
        stdio.initialize()
        stdio.call(1, "child_pid")
        stdio.send({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "child_never"}})
        family = children(stdio.pid)
        assert len(family) == 2  # the server, and the guard that ends it where we cannot
        stdio.signal(number)
        code = stdio.wait()
        assert code == (0 if number == signal.SIGTERM else -signal.SIGKILL)
        until(lambda: not any(map(is_alive, family)), 5, "the children ended")


def test_an_edit_of_the_file_is_taken_up_while_it_stands_alone(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    with Stdio(tmp_path) as stdio:
        assert len(stdio.modern(1, "tools/list")["result"]["tools"]) > 2
        config.write_text("", "utf-8")
        until(_lists(stdio, 0), 10, "the server was gone")


def _lists(stdio: Stdio, wanted: int) -> Callable[[], bool]:
    return lambda: len(stdio.modern(1, "tools/list")["result"]["tools"]) == wanted


def test_a_configuration_that_was_named_is_served_by_its_own_gateway_or_none(tmp_path: Path) -> None:
    other = write_config(tmp_path / "other")
    with behind(tmp_path) as gateway:
        with Stdio(tmp_path, "--config", str(other)) as stdio:
            assert stdio.modern(1, "tools/list")["result"]["tools"]
            assert "started one in this process" in stdio.err
        with Stdio(tmp_path, "--config", str(gateway.config)) as stdio:
            assert stdio.modern(1, "tools/list")["result"]["tools"]
            assert "attached to the gateway" in stdio.err


def test_what_cannot_be_used_is_said_on_stderr_alone(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    config.write_text("[servers.web]\nurl = 7\n", "utf-8")
    environment = gateway_environment(make_home(tmp_path), PENSTOCK_STATE_DIR=str(tmp_path / "state"))
    for words, said in (((), "servers.web.url"), (("--view", "No Such"), "--view"), (("--gateway", "x:y"), "no URL")):
        run = subprocess.run(
            [*penstock_command(), "stdio", *words],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert (run.returncode, run.stdout) == (2, ""), run.stderr
        assert said in run.stderr


def test_a_file_with_faults_does_not_keep_it_from_attaching(tmp_path: Path) -> None:
    with behind(tmp_path) as gateway:
        (tmp_path / "odd").mkdir()
        (tmp_path / "odd/penstock.toml").write_text("[nonsense]\n", "utf-8")
        with Stdio(tmp_path / "odd", environment=gateway.environment) as stdio:
            assert stdio.modern(1, "tools/list")["result"]["tools"]


def test_input_and_output_may_be_files_and_answers_come_after_the_end_of_input(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    messages = tmp_path / "messages"
    call = {"name": "child_slow", "arguments": {"seconds": 0.5}, "_meta": META}
    messages.write_text(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}), "utf-8")
    environment = gateway_environment(make_home(tmp_path), PENSTOCK_STATE_DIR=str(tmp_path / "state"))
    with messages.open("rb") as source, (tmp_path / "answers").open("wb") as target:
        command = [*penstock_command(), "stdio", "--config", str(config)]
        code = subprocess.run(command, cwd=ROOT, env=environment, stdin=source, stdout=target, timeout=20, check=False)
    assert code.returncode == 0
    (line,) = (tmp_path / "answers").read_text("utf-8").splitlines()
    assert json.loads(line)["result"]["content"][0]["text"] == "slept"


def test_it_ends_quietly_when_its_client_is_gone(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    environment = gateway_environment(make_home(tmp_path), PENSTOCK_STATE_DIR=str(tmp_path / "state"))
    read, write = os.pipe()
    with subprocess.Popen(
        [*penstock_command(), "stdio", "--config", str(config)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        os.close(write)
        os.close(read)
        assert process.stdin is not None
        process.stdin.write('{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
        process.stdin.flush()
        assert process.wait(SECONDS) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
