"""The file of sealing keys."""

import multiprocessing
import os
from pathlib import Path

import pytest

from penstock.errors import ConfigError
from penstock.identity.keys import FILE_NAME, load_or_create
from penstock.identity.seal import SealingKey

LINE = f"{'ab' * 4}:{'cd' * 32}\n"


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_a_first_key_is_made_for_its_owner_alone_and_found_again(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "state"
    keys = load_or_create(folder)
    assert load_or_create(folder) == keys
    assert len(keys) == 1
    assert (folder / FILE_NAME).stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    assert names(folder) == [FILE_NAME]  # no draft is left


def test_several_keys_are_read_newest_first(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text(LINE + f"{'01' * 4}:{'02' * 32}\n")
    assert load_or_create(tmp_path) == [
        SealingKey(b"\xab" * 4, b"\xcd" * 32),
        SealingKey(b"\x01" * 4, b"\x02" * 32),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense\n", ":1: expected KEY-ID:KEY in hex"),
        (LINE + "zz:zz\n", ":2: expected KEY-ID:KEY in hex"),
        ("abcd:" + "cd" * 32, ":1: expected 4 and 32 bytes in hex"),
        ("ab" * 4 + ":cd", ":1: expected 4 and 32 bytes in hex"),
        ("", "expected 1 to 8 keys, got 0"),
        (LINE * 9, "expected 1 to 8 keys, got 9"),
        ("é", "got binary data"),
    ],
)
def test_a_file_that_is_not_ours_is_refused_by_name_and_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / FILE_NAME).write_text(text, "utf-8")
    with pytest.raises(ConfigError) as caught:
        load_or_create(tmp_path)
    assert str(tmp_path / FILE_NAME) in caught.value.message
    assert message in caught.value.message
    assert "cdcdcd" not in caught.value.message


def test_a_folder_that_cannot_be_used_is_said_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file/state: sealing keys cannot be kept here: .*; set PENSTOCK_STATE_DIR"):
        load_or_create(tmp_path / "file" / "state")


def test_whoever_is_second_takes_the_first_ones_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def late(source: str, target: str) -> None:
        Path(target).write_text(LINE)
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    assert load_or_create(tmp_path) == [SealingKey(b"\xab" * 4, b"\xcd" * 32)]
    assert names(tmp_path) == [FILE_NAME]


def _create(folder: str) -> str:
    return load_or_create(Path(folder))[0].secret.hex()


def test_processes_that_start_at_once_agree_on_one_key(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        found = pool.map(_create, [str(tmp_path)] * 6)
    assert len(set(found)) == 1
    assert names(tmp_path) == [FILE_NAME]
