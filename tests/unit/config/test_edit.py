"""Commands change one server and nothing else, in one step."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.config.edit import add_server, edit_file, remove_server, set_enabled, toml_value
from penstock.errors import ConfigError

names = st.from_regex(r"[a-z0-9][a-z0-9-]{0,9}", fullmatch=True)
texts = st.text(st.characters(codec="utf-8"), max_size=12)
comments = st.sampled_from(["", "# note\n", "\n", "\n# [servers.x] is no table\n\n", "   # indented\n"])
values = st.one_of(
    st.builds(lambda url: {"url": "http://" + url}, texts),
    st.builds(
        lambda parts, env: {"command": parts, "env": env}, st.lists(texts, min_size=1), st.dictionaries(texts, texts)
    ),
)


@st.composite
def files(draw: st.DrawFn) -> tuple[str, list[str]]:
    """A file with comments everywhere and servers written in several forms."""
    found = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    text = draw(st.sampled_from(["", "# head\n[limits]\nidle = '1s' # why\n", "[listen]\n"]))
    for name in found:
        text += draw(comments)
        table = draw(values)
        form = draw(st.integers(0, 2))
        if form == 0:
            text += f"[servers.{name}]  # table\n" + "".join(
                f"{key} = {toml_value(value)}\n" for key, value in table.items()
            )
        elif form == 1:
            text += f"[servers . '{name}']\n# inside\nurl = 'http://x' # end\n\n"
            text += f"[servers.{name}.headers] # sub\nA = '''\n[servers.no]\n'''\n"
        else:
            text += f"  [servers.{name}]\n  command = [ # list\n    'x', # [\n    ']',\n  ]\n  enabled = true # on\n"
    return text + draw(comments), found


@given(files(), names, values)
@settings(max_examples=60, deadline=None)
def test_adding_keeps_every_byte_before_it(file: tuple[str, list[str]], name: str, table: dict[str, Any]) -> None:
    text, found = file
    if name in found:
        with pytest.raises(ConfigError, match="there is a server of that name already"):
            add_server(text, name, table)
        return
    new = add_server(text, name, table)
    assert new.startswith(text)
    assert tomllib.loads(new)["servers"][name] == table


@given(files(), names, values)
@settings(max_examples=60, deadline=None)
def test_what_was_added_can_be_removed_without_a_trace(
    file: tuple[str, list[str]], name: str, table: dict[str, Any]
) -> None:
    text, found = file
    if name not in found:
        assert remove_server(add_server(text, name, table), name).rstrip("\n") == text.rstrip("\n")


@given(files(), st.data())
@settings(max_examples=100, deadline=None)
def test_removing_keeps_every_line_of_the_others(file: tuple[str, list[str]], data: st.DataObject) -> None:
    text, found = file
    name = data.draw(st.sampled_from(found))
    new = remove_server(text, name)
    before, after = tomllib.loads(text), tomllib.loads(new)
    del before["servers"][name]
    assert after.get("servers", {}) == before["servers"]
    assert new.count("# note") == text.count("# note")
    old_lines = iter(text.splitlines())
    assert all(line in old_lines for line in new.splitlines())


@given(files(), st.data())
@settings(max_examples=100, deadline=None)
def test_switching_changes_one_line(file: tuple[str, list[str]], data: st.DataObject) -> None:
    text, found = file
    name = data.draw(st.sampled_from(found))
    off = set_enabled(text, name, False)
    assert tomllib.loads(off)["servers"][name]["enabled"] is False
    old, new = text.splitlines(), off.splitlines()
    assert len(new) - len(old) in {0, 1}
    assert len(set(new) - set(old)) == 1
    assert set_enabled(off, name, False) == off
    assert tomllib.loads(set_enabled(off, name, True))["servers"][name]["enabled"] is True


def test_windows_line_ends_stay() -> None:
    text = "[servers.a]\r\nurl = 'http://x'\r\n"
    added = add_server(text, "b", {"url": "http://y"})
    assert added == text + '\r\n[servers.b]\r\nurl = "http://y"\r\n'
    assert remove_server(added, "b") == text
    assert set_enabled(text, "a", False) == "[servers.a]\r\nenabled = false\r\nurl = 'http://x'\r\n"


def test_a_last_line_without_its_end_is_no_obstacle() -> None:
    assert set_enabled("[servers.a]", "a", False) == "[servers.a]\nenabled = false\n"
    assert add_server("a = 1", "b", {}) == "a = 1\n\n[servers.b]\n"


def test_dotted_keys_are_understood() -> None:
    text = "servers.a.url = 'http://x'\nservers.b.url = 'http://y'\n"
    assert remove_server(text, "a") == "servers.b.url = 'http://y'\n"
    assert (
        set_enabled(text, "b", False)
        == "servers.a.url = 'http://x'\nservers.b.enabled = false\nservers.b.url = 'http://y'\n"
    )
    assert set_enabled("[servers]\na.url = 'x'\n", "a", False) == "[servers]\na.enabled = false\na.url = 'x'\n"
    assert remove_server("[servers]\na = { url = 'x' } # one\n\n# two\n", "a") == "[servers]\n\n# two\n"


def test_what_stands_inside_another_value_is_left_to_a_person() -> None:
    text = "servers = { a = { url = 'x' }, b = { url = 'y' } }\n"
    by_hand = r"servers\.a: 'a' is written inside another value; edit the file by hand"
    with pytest.raises(ConfigError, match=by_hand):
        remove_server(text, "a")
    with pytest.raises(ConfigError, match=by_hand):
        set_enabled(text, "a", False)
    with pytest.raises(ConfigError, match="cannot be made without touching other lines"):
        add_server(text, "c", {"url": "z"})


def test_a_server_that_is_not_there_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="there is no server 'tim'; did you mean 'time'"):
        remove_server("[servers.time]\n", "tim")
    with pytest.raises(ConfigError, match="known servers: none"):
        set_enabled("servers = 3\n", "tim", True)


def test_a_new_file_is_private_and_its_folder_is_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "penstock.toml"
    assert edit_file(path, lambda text: add_server(text, "a", {"url": "http://x"}))
    assert path.read_text() == '[servers.a]\nurl = "http://x"\n'
    assert path.stat().st_mode & 0o777 == 0o600
    assert not edit_file(path, lambda text: text)


def test_mode_and_symlink_stay(tmp_path: Path) -> None:
    target, link = tmp_path / "real.toml", tmp_path / "link.toml"
    target.write_text("# mine\n")
    target.chmod(0o640)
    link.symlink_to(target)
    edit_file(link, lambda text: add_server(text, "a", {"url": "http://x"}))
    assert link.is_symlink()
    assert target.read_text().startswith("# mine\n")
    assert target.stat().st_mode & 0o777 == 0o640
    assert {path.name for path in tmp_path.iterdir()} == {"link.toml", "real.toml"}


def test_a_refused_change_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "penstock.toml"
    path.write_text("a = [\n")
    with pytest.raises(ConfigError, match=r"penstock.toml: not TOML, so it cannot be edited"):
        edit_file(path, lambda text: add_server(text, "a", {}))
    path.write_text("[servers.a]\n")
    with pytest.raises(ConfigError, match=r"penstock.toml: servers.a: there is a server of that name already"):
        edit_file(path, lambda text: add_server(text, "a", {}))
    path.write_bytes(b"\xe9")
    with pytest.raises(ConfigError, match="not UTF-8"):
        edit_file(path, lambda text: text)
    assert path.read_bytes() == b"\xe9"
    with pytest.raises(ConfigError, match="cannot be changed: "):
        edit_file(path / "below.toml", lambda text: text)


def test_a_failed_write_leaves_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "penstock.toml"
    path.write_text("# old\n")
    with pytest.raises(UnicodeEncodeError):
        edit_file(path, lambda text: "\ud800")
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "# old\n"


@given(
    st.recursive(
        st.one_of(st.booleans(), st.integers(), texts),
        lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
        max_leaves=8,
    )
)
def test_every_value_can_be_written(value: object) -> None:
    assert tomllib.loads(f"a = {toml_value(value)}\n")["a"] == value
