"""A place of its own for every verb: home, state, folder; and a gateway to talk to."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from penstock.cli.main import main
from penstock.cli.runtime import Running, write_runtime
from tests.unit.cli.fake_gateway import FakeGateway


class Said(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


Run = Callable[..., Said]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in which commands run, with a state directory beside the files."""
    for name in [name for name in os.environ if name.startswith("PENSTOCK_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PENSTOCK_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def run(place: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process."""

    def command(*words: str) -> Said:
        capsys.readouterr()
        code = main(words)
        out, err = capsys.readouterr()
        return Said(code, out, err)

    return command


@pytest.fixture
def gateway(place: Path) -> Iterator[FakeGateway]:
    """A gateway that runs with the folder's penstock.toml."""
    fake = FakeGateway()
    config = place / "penstock.toml"
    config.write_text('[servers.web]\nurl = "http://web.example/mcp"\n')
    config.chmod(0o600)
    write_runtime(
        place.parent / "state", Running(f"{fake.url}/mcp", fake.url, os.getpid(), "now", os.path.realpath(config))
    )
    yield fake
    fake.close()
