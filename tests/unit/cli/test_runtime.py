"""How the verbs find a gateway."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.cli.runtime import (
    Running,
    choose_gateway,
    gateway_of,
    is_alive,
    remove_runtime,
    running_gateways,
    state_dir,
    write_runtime,
)
from penstock.errors import GatewayNotFound

HERE = os.getpid()


def running(port: int, config: str = "", pid: int = HERE) -> Running:
    return Running(f"http://127.0.0.1:{port}/mcp", f"http://127.0.0.1:{port + 1}", pid, "now", config)


def dead_pid() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


@pytest.mark.parametrize(
    ("environment", "directory"),
    [
        ({"PENSTOCK_STATE_DIR": "/s", "XDG_DATA_HOME": "/x", "HOME": "/h"}, "/s"),
        ({"XDG_DATA_HOME": "/x", "HOME": "/h"}, "/x/penstock"),
        ({"HOME": "/h"}, "/h/.local/share/penstock"),
    ],
)
def test_state_lies_where_it_is_expected(environment: dict[str, str], directory: str) -> None:
    assert state_dir(environment) == Path(directory)


def test_what_was_written_is_found_until_it_is_removed(tmp_path: Path) -> None:
    path = write_runtime(tmp_path / "state", running(80))
    assert path.name == "127.0.0.1_80.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    assert running_gateways(tmp_path / "state") == [running(80)]
    remove_runtime(path, HERE + 1)
    assert path.exists()
    remove_runtime(path, HERE)
    remove_runtime(path, HERE)
    assert running_gateways(tmp_path / "state") == []


@pytest.mark.parametrize(
    "content",
    ["{", "[]", "{}", json.dumps(running(80, pid=-1)._asdict()), json.dumps({**running(80)._asdict(), "url": 3})],
    ids=[
        "cut off",
        "a list",
        "empty",
        "no such process",
        "no url",
    ],  # a pid in a name would differ between test processes
)
def test_files_that_count_for_nothing_are_removed(content: str, tmp_path: Path) -> None:
    path = write_runtime(tmp_path, running(80))
    path.write_text(content)
    assert running_gateways(tmp_path) == []
    assert not path.exists()


def test_a_gateway_whose_process_is_gone_is_forgotten(tmp_path: Path) -> None:
    path = write_runtime(tmp_path, running(80, pid=dead_pid()))
    assert running_gateways(tmp_path) == []
    assert not path.exists()
    assert is_alive(1)


def test_the_gateway_of_our_configuration_is_preferred(tmp_path: Path) -> None:
    config = tmp_path / "penstock.toml"
    write_runtime(tmp_path, running(80, str(config)))
    assert choose_gateway(tmp_path, tmp_path / "other.toml", flag=None, environment={}).url.endswith(":80/mcp")
    write_runtime(tmp_path, running(90, str(tmp_path / "b.toml")))
    assert choose_gateway(tmp_path, config, flag=None, environment={}) == running(80, str(config))
    assert gateway_of(tmp_path, config) == running(80, str(config))
    assert gateway_of(tmp_path, tmp_path / "c.toml") is None
    with pytest.raises(
        GatewayNotFound, match=r"several gateways run \(http://127.0.0.1:80/mcp, http://127.0.0.1:90/mcp\); choose one"
    ):
        choose_gateway(tmp_path, tmp_path / "c.toml", flag=None, environment={})


@pytest.mark.parametrize(
    ("flag", "environment", "expected"),
    [
        ("http://127.0.0.1:80", {}, running(80)),
        ("127.0.0.1:80", {}, running(80)),
        ("http://127.0.0.1:81/", {}, running(80)),
        ("http://127.0.0.1:80/mcp", {}, running(80)),
        (None, {"PENSTOCK_URL": "http://127.0.0.1:80"}, running(80)),
        ("http://127.0.0.1:80/mcp/time", {}, running(80)._replace(url="http://127.0.0.1:80/mcp/time")),
        ("https://far.example", {}, Running("https://far.example/mcp", "https://far.example", 0, "", "")),
        ("https://far.example/mcp/x", {}, Running("https://far.example/mcp/x", "https://far.example", 0, "", "")),
    ],
)
def test_a_gateway_can_be_named(
    flag: str | None, environment: dict[str, str], expected: Running, tmp_path: Path
) -> None:
    write_runtime(tmp_path, running(80))
    write_runtime(tmp_path, running(90))
    assert choose_gateway(tmp_path, tmp_path / "c", flag=flag, environment=environment) == expected


def test_without_any_gateway_the_next_step_is_said(tmp_path: Path) -> None:
    with pytest.raises(GatewayNotFound, match="start one with 'penstock serve'"):
        choose_gateway(tmp_path, tmp_path, flag=None, environment={})
