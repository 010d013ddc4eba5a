"""A configuration that is read again: what is a mistake then, and what was good last."""

import os
from pathlib import Path

import pytest

from penstock.config.load import Flags
from penstock.config.reader import Reader
from penstock.errors import ConfigError

ONE = '[servers.one]\nurl = "http://127.0.0.1:1/mcp"\n'


def reader_of(path: Path, *, must_exist: bool = False, **environment: str) -> Reader:
    return Reader(path, name="p.toml", environment=environment, flags=Flags(), must_exist=must_exist)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "penstock.toml"


def test_a_file_that_never_was_counts_as_empty_and_one_that_is_gone_does_not(file: Path) -> None:
    read = reader_of(file)
    assert repr(read) == "<Reader p.toml>"
    assert not read().servers
    assert read.last_good() is None
    file.write_text(ONE)
    assert list(read().servers) == ["one"]
    file.unlink()
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"^p\.toml: the file is gone; put it back"):
            read()
    file.write_text("")
    assert not read().servers


def test_a_file_that_was_named_must_be_there(file: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        reader_of(file, must_exist=True)()


def test_what_was_good_last_is_had_while_the_file_is_bad(file: Path) -> None:
    read = reader_of(file)
    file.write_text(ONE)
    read()
    file.write_text("bad = [")
    with pytest.raises(ConfigError):
        read()
    good = read.last_good()
    assert good is not None
    assert list(good.servers) == ["one"]


def test_what_a_forked_process_could_use_is_good_for_all(file: Path) -> None:
    file.write_text("# é\n" * 1000)
    read = reader_of(file)
    read.share()
    read()
    for text, servers in ((ONE, ["one"]), (ONE.replace("one", "two"), ["two"]), ("", []), (ONE, ["one"])):
        file.write_text(text)
        pid = os.fork()
        if not pid:
            os._exit(len(read().servers))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == len(servers)
        good = read.last_good()
        assert good is not None
        assert list(good.servers) == servers
    file.unlink()
    assert read.last_good() is not None
    read.close()
    assert read.last_good() is not None


def test_what_was_good_and_cannot_be_used_any_more_is_not_had(file: Path) -> None:
    environment = {"TOKEN": "x"}
    read = Reader(file, name="p.toml", environment=environment, flags=Flags(), must_exist=True)
    file.write_text(ONE + 'headers = { A = "${env:TOKEN}" }\n')
    read()
    environment.clear()
    assert read.last_good() is None
