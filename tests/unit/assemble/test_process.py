"""A whole process from settings: it listens, reports, reloads, drains. Each runs here, in the main thread."""

import gc
import json
import logging
import os
import signal
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

import msgspec
import pytest

from penstock.assemble.process import ReadyReport, RunOptions, run
from penstock.config.settings import LimitsSettings, ListenSettings, ServerConfig, Settings, ViewConfig
from penstock.errors import ConfigError, ListenError

FREE = ListenSettings(data=(("127.0.0.1", 0),), admin=(("127.0.0.1", 0),))
HEADERS = {"content-type": "application/json", "accept": "application/json"}


class Process:
    """Runs a gateway while `drive` does things to it in a thread of its own; then tells it to stop."""

    def __init__(
        self, folder: Path, settings: Settings, drive: "Callable[[Process], None]", *, demo: bool = True
    ) -> None:
        self.settings, self.demo = settings, demo
        self.again = settings
        self.ready_seconds = 5.0
        self.failure: Exception | None = None
        self.report: ReadyReport | None = None
        self.urls = ("", "")
        self.calling = threading.Thread()
        self._drive, self._folder = drive, folder
        self._errors: list[BaseException] = []

    def run(self) -> int:
        thread = threading.Thread(target=self._drive_and_stop)
        options = RunOptions(
            self._folder / "state",
            self.demo,
            self._listening,
            self._ready(thread),
            ready_seconds=self.ready_seconds,
            watch_seconds=0.02,
        )
        threshold = gc.get_threshold()
        try:
            code = run(self.settings, self._reload, options)
        finally:
            gc.unfreeze()
            gc.set_threshold(*threshold)
        thread.join()
        if self._errors:
            raise self._errors[0]
        return code

    def call(self, tool: str = "demo_echo", **arguments: Any) -> Any:
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
        return ask(self.urls[0], body)

    def reload(self) -> Any:
        return ask(self.urls[1] + "/api/v1/reload", {})

    def servers(self) -> list[str]:
        return [row["name"] for row in ask(self.urls[1] + "/api/v1/servers")["servers"]]

    def _listening(self, url: str, admin: str) -> None:
        self.urls = (url, admin)

    def _ready(self, thread: threading.Thread) -> Callable[[ReadyReport], None]:
        def start(report: ReadyReport) -> None:
            self.report = report
            thread.start()

        return start

    def _reload(self) -> Settings:
        if self.failure is not None:
            raise self.failure
        return self.again

    def _drive_and_stop(self) -> None:
        try:
            self._drive(self)
        except BaseException as error:  # the test's own thread must see what went wrong here
            self._errors.append(error)
        os.kill(os.getpid(), signal.SIGTERM)


def ask(url: str, body: Any = None, *, tls: ssl.SSLContext | None = None) -> Any:
    """GET, or POST of JSON; the decoded answer whatever its status."""
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, HEADERS), timeout=10, context=tls) as response:
            raw: bytes = response.read()
    except HTTPError as error:
        raw = error.read()
        error.close()
    return json.loads(raw) if raw[:1] == b"{" else raw.decode()


def wait_for(condition: Callable[[], object]) -> None:
    give_up_at = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.02)


def server(name: str, url: str = "http://127.0.0.1:9/mcp", **more: Any) -> ServerConfig:
    return ServerConfig(name=name, url=url, **more)


def test_it_serves_the_demo_reports_and_stops_when_told(tmp_path: Path) -> None:
    off = server("off", enabled=False)
    found: dict[str, Any] = {}

    def drive(process: Process) -> None:
        found["answer"] = process.call(text="hello")
        found["metrics"] = ask(process.urls[1] + "/metrics")
        found["servers"] = process.servers()

    process = Process(tmp_path, Settings(listen=FREE, servers={"off": off}), drive)
    assert process.run() == 0
    assert found["answer"]["result"]["content"][0]["text"] == "hello"
    assert found["servers"] == ["demo", "off"]
    assert process.report is not None
    assert (process.report.url, process.report.admin_url) == process.urls
    assert [(row["name"], row["state"], row["tools"]) for row in process.report.servers] == [("demo", "ready", 5)]
    for line in (
        "penstock_calls_in_flight 0.0",
        "penstock_connections 1.0",
        "penstock_sessions 0.0",
        "penstock_parked_calls 0.0",
        "penstock_listeners 0.0",
        "penstock_subscriptions 0.0",
        "penstock_replay_streams 0.0",
        "penstock_replay_bytes 0.0",
        "penstock_tasks ",
        "penstock_generation ",
        "penstock_configuration_taken_up 1.0",
        'penstock_server_ready{server="demo"} 1.0',
        'penstock_calls_total{method="tools/call",outcome="ok",server="demo",tool="echo"} 1.0',
    ):
        assert line in found["metrics"]
    assert (tmp_path / "state/sealing.keys").exists()


def test_a_reload_takes_effect_whole_or_not_at_all(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "penstock.assemble")
    found: list[Any] = []

    def drive(process: Process) -> None:
        more = msgspec.structs.replace(
            process.settings,
            servers={"far": server("far")},
            views={"some": ViewConfig(name="some", servers=("demo",))},
            listen=msgspec.structs.replace(FREE, allowed_origins=("https://app.example",)),
            limits=LimitsSettings(body_bytes=5, call_idle=7.0),
        )
        process.again = more
        found.append(process.reload())
        found.append(ask(process.urls[0] + "/some", {"jsonrpc": "2.0", "id": 1, "method": "ping"}))
        process.failure = ConfigError("odd", key="servers.far.url")
        found.append(process.reload())
        found.append(process.servers())
        found.append(ask(process.urls[1] + "/health/detailed")["configuration"])
        found.append(ask(process.urls[1] + "/metrics"))
        os.kill(os.getpid(), signal.SIGHUP)
        wait_for(lambda: "not taken up, the old one stays: servers.far.url: odd" in caplog.text)
        process.failure, process.again = None, process.settings
        os.kill(os.getpid(), signal.SIGHUP)
        wait_for(lambda: process.servers() == ["demo"])
        found.append(ask(process.urls[1] + "/health/detailed")["configuration"])

    assert Process(tmp_path, Settings(listen=FREE), drive).run() == 0
    assert found[0]["changes"] == ["added far", "views changed", "at the next start take effect: limits.body_bytes"]
    assert found[1] == {"jsonrpc": "2.0", "id": 1, "result": {}}
    assert found[2] == {"error": "servers.far.url: odd"}
    assert found[3] == ["far", "demo"]
    assert (found[4]["taken_up"], found[4]["error"]) == (False, "servers.far.url: odd")
    assert "penstock_configuration_taken_up 0.0" in found[5]
    assert found[6] == {"taken_up": True}
    assert "configuration: removed far" in caplog.text


def test_an_edit_of_the_file_is_taken_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "penstock.toml"
    file.write_text("")
    settings = Settings(listen=FREE, file=str(file))

    def drive(process: Process) -> None:
        process.again = msgspec.structs.replace(settings, servers={"far": server("far")})
        file.write_text("[servers.far]")
        wait_for(lambda: process.servers() == ["far", "demo"])
        process.failure = ConfigError("odd")
        file.write_text("odd")
        wait_for(lambda: "not taken up, the old one stays: odd" in caplog.text)
        process.failure, process.again = None, settings
        file.unlink()
        wait_for(lambda: process.servers() == ["demo"])

    assert Process(tmp_path, settings, drive).run() == 0


def test_calls_under_way_end_before_it_does(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    answers: list[Any] = []

    def drive(process: Process) -> None:
        process.calling = threading.Thread(
            target=lambda: answers.append(process.call("demo_count_down", start=2, interval_ms=400))
        )
        process.calling.start()
        wait_for(lambda: "penstock_calls_in_flight 1.0" in ask(process.urls[1] + "/metrics"))

    process = Process(tmp_path, Settings(listen=FREE), drive)
    assert process.run() == 0
    process.calling.join()
    assert "result" in answers[0]
    assert "cut at the deadline" not in caplog.text


def test_a_second_signal_ends_it_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def drive(process: Process) -> None:
        process.calling = threading.Thread(target=lambda: hung_up(process))
        process.calling.start()
        wait_for(lambda: "penstock_calls_in_flight 1.0" in ask(process.urls[1] + "/metrics"))
        os.kill(os.getpid(), signal.SIGTERM)
        wait_for(lambda: "calls under way have" in caplog.text)

    def hung_up(process: Process) -> None:
        with pytest.raises((ConnectionError, HTTPException, URLError)):
            process.call("demo_count_down", start=2, interval_ms=10_000)

    caplog.set_level(logging.INFO, "penstock.assemble")
    process = Process(tmp_path, Settings(listen=FREE), drive)
    began = time.monotonic()
    assert process.run() == 0
    process.calling.join()
    assert time.monotonic() - began < 8
    assert "a second signal: ending at once" in caplog.text
    assert "stopped with calls cut by a second signal" in caplog.text


def test_tls_files_are_used_or_refused_by_name(tmp_path: Path) -> None:
    missing = msgspec.structs.replace(FREE, tls_cert="/missing.pem", tls_key="/missing.key")
    with pytest.raises(ListenError, match=r"listen\.tls_cert, listen\.tls_key: /missing\.pem and /missing\.key cannot"):
        run(Settings(listen=missing), Settings, RunOptions(tmp_path))


def test_the_report_does_not_wait_for_ever(tmp_path: Path) -> None:
    silent = ServerConfig(name="silent", command=("sleep", "60"))
    listen = ListenSettings(data=(("::1", 0),), admin=())
    process = Process(tmp_path, Settings(listen=listen, servers={"silent": silent}), lambda _: None, demo=False)
    process.ready_seconds = 0.1
    assert process.run() == 0
    assert process.report is not None
    assert [row["state"] for row in process.report.servers] == ["starting"]
    assert process.urls[0].startswith("http://[::1]:")
    assert process.urls[1] == ""
