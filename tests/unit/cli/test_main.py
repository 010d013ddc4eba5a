"""The front door: what loads, how errors and interruptions end."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from penstock import __version__
from penstock.cli.main import VERBS, main
from penstock.http import connection
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake_gateway import FakeGateway

HEAVY = {"asyncio", "cyclopts", "msgspec", "rich", "tomllib", "logging", "json"}
LOADED = "import sys; old = set(sys.modules); from penstock.cli.main import main; main([{!r}]); print(*set(sys.modules) - old)"


@pytest.mark.parametrize("word", ["--version", "-V", "--help"])
def test_nothing_heavy_is_loaded_for_version_and_help(word: str) -> None:
    done = subprocess.run([sys.executable, "-c", LOADED.format(word)], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.splitlines()[-1].split())
    assert "penstock.cli.main" in done.stdout.splitlines()[-1]


def test_the_version_is_printed_and_whether_modules_are_compiled(run: Run) -> None:
    is_compiled = not str(connection.__file__).endswith(".py")
    assert run("--version") == (0, f"penstock {__version__}{' (compiled)' if is_compiled else ''}\n", "")


def test_help_lists_every_verb(run: Run) -> None:
    said = run("--help")
    assert said.code == 0
    assert all(f"\n  {verb} " in said.out for verb in VERBS)
    assert run() == (2, said.out, "")


def test_an_example_of_the_help_can_be_pasted(run: Run) -> None:
    assert "--header 'Authorization=Bearer ${env:DOCS_TOKEN}'\n" in run("add", "--help").out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb: str, run: Run) -> None:
    said = run(verb, "--help")
    assert (said.code, said.err) == (0, "")
    assert f"Example:\n  penstock {verb}" in said.out
    assert "\x1b" not in said.out
    assert run("help", verb).out == said.out


@pytest.mark.parametrize("command", ["show", "check", "schema"])
def test_commands_of_config_have_help_too(command: str, run: Run) -> None:
    assert f"penstock config {command}" in run("config", command, "--help").out


def test_an_unknown_verb_is_refused_with_the_nearest(run: Run) -> None:
    assert run("serv") == (
        2,
        "",
        "penstock: there is no command 'serv'; did you mean 'serve'? 'penstock --help' lists them\n",
    )
    assert run("qqq") == (2, "", "penstock: there is no command 'qqq'; 'penstock --help' lists them\n")


def test_windows_is_pointed_to_wsl(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    said = run("list")
    assert (said.code, said.out) == (2, "")
    assert "WSL" in said.err


def test_a_reader_that_goes_away_ends_the_command_quietly(place: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    code = "import sys; from penstock.cli.main import main; sys.exit(main(['config', 'schema']))"
    done = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_ctrl_c_ends_the_command_quietly(gateway: FakeGateway) -> None:
    gateway.answers["/api/v1/servers/a/log"] = (200, {"lines": ["one"], "cursor": 1})
    code = (
        "import signal, sys; from penstock.cli.main import main; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); "  # whoever runs us in the background has it ignored
        "sys.exit(main(['logs', 'a', '-f']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "one\n"
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=20)
    assert (child.returncode, err) == (130, "")


def test_the_command_line_is_read_from_the_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["penstock", "--version"])
    assert main() == 0
    assert capsys.readouterr().out.startswith(f"penstock {__version__}")
