"""`penstock serve`: what it says, where it is found, what it refuses."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.cli.runtime import running_gateways
from penstock.cli.serve import command, flags_from, reachable, snippets
from penstock.errors import ConfigError
from tests.unit.cli.conftest import Run

SERVE = "import sys; from penstock.cli.main import main; sys.exit(main(['serve', *sys.argv[1:]]))"
FREE = ("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")


class Serving:
    """A gateway process, and what it printed until it was ready."""

    def __init__(self, *words: str) -> None:
        self.child = subprocess.Popen(
            [sys.executable, "-c", SERVE, *FREE, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.lines: list[str] = []
        assert self.child.stdout is not None
        for line in self.child.stdout:
            self.lines.append(line.rstrip("\n"))
            if line.startswith("Admin: "):
                break

    def stop(self) -> int:
        self.child.send_signal(signal.SIGTERM)
        self.child.communicate(timeout=30)
        return self.child.returncode


@pytest.fixture
def serving(place: Path) -> Iterator[Serving]:
    one = Serving("--demo", "--log-level", "error")
    yield one
    if one.child.poll() is None:
        one.stop()


def test_a_newcomer_reads_url_servers_first_call_and_snippets_in_this_order(
    serving: Serving, run: Run, place: Path
) -> None:
    text = "\n".join(serving.lines)
    (running,) = running_gateways(place.parent / "state")
    assert running.pid == serving.child.pid
    order = [
        f"Penstock listens on {running.url}\n",
        "  demo  ready  5 tools",
        "  penstock call demo_",
        f"    claude mcp add --transport http penstock {running.url}\n",
        '    {"mcpServers": {"penstock": {"url": ',
        '    code --add-mcp \'{"name": "penstock"',
        'penstock", "args": ["stdio"]}}}\n',
        "  penstock add time -- uvx mcp-server-time\n",
        f"Admin: {running.admin}   Configuration: ~/.config/penstock/penstock.toml",
    ]
    places = [text.find(part) for part in order]
    assert -1 not in places
    assert places == sorted(places)
    ready = re.search(r"  penstock (call .*)", text)
    assert ready is not None
    assert run(*ready.group(1).split()).code == 0


def test_an_ended_gateway_leaves_no_trace(serving: Serving, place: Path) -> None:
    assert serving.stop() == 0
    assert list((place.parent / "state/runtime").iterdir()) == []


def test_a_second_gateway_on_the_address_is_refused(serving: Serving, run: Run, place: Path) -> None:
    (running,) = running_gateways(place.parent / "state")
    address = running.url.removeprefix("http://").removesuffix("/mcp")
    said = run("serve", "--listen", address, "--admin", "127.0.0.1:0")
    assert said == (
        3,
        "",
        f"penstock: {address} is in use by another program; choose another address with --listen or --admin\n",
    )


def test_a_server_added_to_an_empty_gateway_is_taken_up(place: Path, run: Run) -> None:
    serving = Serving("--log-level", "error")
    try:
        assert "  no servers yet" in serving.lines
        assert "  penstock add docs https://mcp.example.com/mcp" in serving.lines
        assert not any(line.startswith("Try it") for line in serving.lines), "there is nothing to try"
        said = run("add", "gone", "http://127.0.0.1:9/mcp")
        assert said.code == 0
        assert "took the change up" in said.err
        assert said.out.splitlines()[1].startswith("gone: failed: ")
    finally:
        serving.stop()


def test_a_file_others_can_read_is_warned_of_at_the_start(place: Path) -> None:
    file = place / "penstock.toml"
    file.write_text("[servers.a]\nurl = 'http://127.0.0.1:9/'\nheaders = { X = 'planted' }\nenabled = false\n")
    file.chmod(0o644)
    serving = Serving("--log-level", "error")
    serving.child.send_signal(signal.SIGTERM)
    _, err = serving.child.communicate(timeout=30)
    assert "can be read by other users (mode 0644)" in err
    assert "planted" not in err


def test_flags_become_settings() -> None:
    flags = flags_from(("a", "b"), ("c",), ("time=uvx 'mcp server'", "web= https://x/mcp "), True)
    assert flags.values == {
        ("listen", "data"): ("--listen", ["a", "b"]),
        ("listen", "admin"): ("--admin", "c"),
        ("listen", "insecure_listen"): ("--insecure-listen", True),
    }
    assert flags.servers == {"time": {"command": ["uvx", "mcp server"]}, "web": {"url": "https://x/mcp"}}
    one = flags_from(("a",), ("b", "c"), (), False)
    assert one.values == {("listen", "data"): ("--listen", "a"), ("listen", "admin"): ("--admin", ["b", "c"])}
    with pytest.raises(ConfigError, match="'A' cannot name a server"):
        flags_from((), (), ("A=x",), False)


def test_the_line_to_paste_calls_us_as_the_person_did(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PENSTOCK_COMMAND", raising=False)
    assert command("call", "t", "text=a b") == "penstock call t 'text=a b'"
    monkeypatch.setenv("PENSTOCK_COMMAND", "scripts/penstock")
    assert command("tools") == "scripts/penstock tools"


def test_addresses_that_mean_every_interface_are_shown_as_loopback() -> None:
    assert reachable("http://0.0.0.0:8080/mcp") == "http://127.0.0.1:8080/mcp"
    assert reachable("http://[::]:8080/mcp") == "http://[::1]:8080/mcp"
    assert reachable("https://gate.example:8080/mcp") == "https://gate.example:8080/mcp"
    assert len(snippets("http://x/mcp")) == 9


def test_the_snippet_for_stdio_clients_names_program_and_configuration_in_full(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "scripts").mkdir()
    (place / "scripts/penstock").touch()
    monkeypatch.setenv("PENSTOCK_COMMAND", "scripts/penstock")
    said = json.loads(snippets("http://x/mcp", Path("penstock.toml"))[-1])["mcpServers"]["penstock"]
    assert said == {
        "command": str(place / "scripts/penstock"),
        "args": ["stdio", "--config", str(place / "penstock.toml")],
    }
    monkeypatch.delenv("PENSTOCK_COMMAND")
    assert json.loads(snippets("http://x/mcp")[-1])["mcpServers"]["penstock"]["command"].endswith("penstock")


def test_state_stays_private(serving: Serving, place: Path) -> None:
    assert (place.parent / "state").stat().st_mode & 0o777 == 0o700
    assert next((place.parent / "state/runtime").iterdir()).stat().st_mode & 0o777 == 0o600


def test_a_server_called_demo_is_said_to_hide_the_one_that_is_built_in(place: Path) -> None:
    (place / "penstock.toml").write_text('[servers.demo]\nurl = "http://127.0.0.1:1/mcp"\n')
    one = Serving("--demo", "--log-level", "error")
    one.child.send_signal(signal.SIGTERM)
    _, said = one.child.communicate(timeout=30)
    assert "--demo adds nothing, as penstock.toml has a server 'demo' of its own" in said
