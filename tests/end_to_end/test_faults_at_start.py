"""What `serve` refuses to start with, and what it says then."""

import os
import socket
import subprocess
from pathlib import Path

import pytest

from tests.end_to_end.faults_kit import Gateway
from tests.peers.environments import ROOT, gateway_environment, penstock_command
from tests.peers.processes import make_home

FREE = ("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")


def serve(folder: Path, config: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A gateway that is expected not to start."""
    file = folder / "penstock.toml"
    file.write_text(config, "utf-8")
    file.chmod(0o600)
    return subprocess.run(
        [*penstock_command(), "serve", "--config", str(file), *words],
        cwd=ROOT,
        env=gateway_environment(make_home(folder), PENSTOCK_STATE_DIR=str(folder / "state")),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("[servers.web]\nulr = 'http://x/'\n", ["penstock.toml:2: servers.web.ulr: ", "'url'"]),
        ("\n[limts]\ndrain = '1s'\n", ["penstock.toml:2: limts", "'limits'"]),
        ("[servers.web]\nurl = 'htp://x/'\n", ["penstock.toml:2: servers.web.url: ", "http"]),
        ("[limits]\n\ndrain = 'soon'\n", ["penstock.toml:3: limits.drain: ", '"30s"']),
        ("[servers.Web]\nurl = 'http://x/'\n", ["penstock.toml:1: servers.Web", "a-z"]),
    ],
    ids=["key", "section", "url", "duration", "name"],
)
def test_what_is_written_wrong_is_refused_with_file_line_key_and_what_was_meant(
    config: str, words: list[str], tmp_path: Path
) -> None:
    done = serve(tmp_path, config, *FREE)
    assert done.returncode == 2, done
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
    assert [word for word in words if word not in done.stderr] == []


def test_a_port_somebody_has_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = serve(tmp_path, "", "--listen", address, "--admin", "127.0.0.1:0")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1)
    assert f"{address} is in use" in done.stderr


def test_a_second_gateway_is_told_who_was_first(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as found:
        address = f"127.0.0.1:{found.getsockname()[1]}"
    with Gateway(tmp_path / "first", "", listen=address) as first:
        state = tmp_path / "first/state"
        file = tmp_path / "penstock.toml"
        file.write_text("")
        done = subprocess.run(
            [*penstock_command(), "serve", "--config", str(file), "--listen", address, "--admin", "127.0.0.1:0"],
            cwd=ROOT,
            env=first.environment | {"PENSTOCK_STATE_DIR": str(state)},
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1)
        assert address in done.stderr
        assert str(first.pid) in done.stderr
        assert first.is_running()


def test_a_lock_of_a_gateway_that_was_killed_holds_nobody_up(tmp_path: Path) -> None:
    with Gateway(tmp_path, "") as first:
        address = first.address
        os.kill(first.pid, 9)
        first.wait(5)
    with Gateway(tmp_path, listen=address) as second:
        assert second.address == address


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0"])
def test_listening_beyond_loopback_needs_a_word(address: str, tmp_path: Path) -> None:
    done = serve(tmp_path, "", "--listen", address, "--admin", "127.0.0.1:0")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "--insecure-listen" in done.stderr
