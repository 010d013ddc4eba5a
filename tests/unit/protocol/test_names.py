"""Names of servers, and of tools in an aggregated view."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.protocol.names import is_header_safe, is_server_name, prefixed_name, server_name_from


@pytest.mark.parametrize("name", ["a", "0", "git-hub", "a-", "x" * 32])
def test_a_server_name_is_lower_case_letters_digits_and_dashes(name: str) -> None:
    assert is_server_name(name)
    assert server_name_from(name) == name


@pytest.mark.parametrize("name", ["", "-a", "a_b", "A", "a b", "x" * 33, "é", "a\n"])
def test_other_names_are_refused(name: str) -> None:
    assert not is_server_name(name)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("GitHub Server", "git-hub-server"),
        ("my_server", "my-server"),
        ("@scope/pkg", "scope-pkg"),
        ("--", "server"),
        ("日本", "server"),
        ("x" * 31 + "_y", "x" * 31),
        ("API", "api"),
    ],
)
def test_import_makes_valid_names_from_others(text: str, name: str) -> None:
    assert server_name_from(text) == name


@given(st.text(max_size=80))
def test_any_text_gives_a_valid_server_name(text: str) -> None:
    assert is_server_name(server_name_from(text))


def test_a_prefixed_name_of_up_to_64_characters_is_server_underscore_name() -> None:
    assert prefixed_name("git", "log") == "git_log"
    assert prefixed_name("git", "x" * 60) == "git_" + "x" * 60


def test_a_longer_name_is_cut_and_ends_in_a_hash_of_the_whole() -> None:
    one, other = prefixed_name("git", "x" * 60 + "a"), prefixed_name("git", "x" * 60 + "b")
    assert len(one) == len(other) == 64
    assert one[:57] == other[:57] == ("git_" + "x" * 60)[:57]
    assert one[57] == "_"
    assert one != other
    assert one == prefixed_name("git", "x" * 60 + "a")


@given(st.from_regex(r"[a-z0-9-]{1,32}", fullmatch=True), st.text(max_size=80), st.text(max_size=80))
def test_different_tools_of_a_server_get_different_names(server: str, one: str, other: str) -> None:
    assert (prefixed_name(server, one) == prefixed_name(server, other)) is (one == other)


def test_header_safe_names_are_visible_ascii() -> None:
    assert is_header_safe("get_weather")
    assert not is_header_safe("wetter für morgen")
    assert not is_header_safe(" x")
