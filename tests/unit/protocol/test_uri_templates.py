"""Matching URIs with templates: right, and linear."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.protocol.uri_templates import MAX_URI_CHARACTERS, UriTemplate, compiled, matches


@pytest.mark.parametrize(
    ("template", "uri", "expected"),
    [
        ("test://static", "test://static", True),
        ("test://static", "test://staticx", False),
        ("test://{id}", "test://1", True),
        ("test://{id}", "test://", False),
        ("test://{id}", "test://1/2", False),
        ("test://{id}", "test://1?x", False),
        ("test://{id}/data", "test://1/data", True),
        ("test://{id}/data", "test://1/dat", False),
        ("test://{id}/data", "tess://1/data", False),
        ("test://{a}/{b}", "test://1/2", True),
        ("test://{a}/{b}", "test://1/", False),
        ("{a}{b}", "x", False),
        ("{a}{b}", "xy", True),
        ("{a}-{b}-{c}", "1-2", False),
        ("{a}-{b}-{c}", "1--2--3", True),
        ("file:///{+path}", "file:///a/b/c.txt", True),
        ("file:///{path*}", "file:///a", True),
        ("file:///{path:3}", "file:///abc", True),
        ("{+a}-{b}", "x-y/z-w", True),
        ("x{.ext}", "x.tar.gz", True),
        ("x{.ext}", "xtar", False),
        ("x{;a,b}", "x;a=1;b=2", True),
        ("d{/a,b}/e", "d/1/2/e", True),
        ("d{/a}", "d?x", False),
        ("s{?q,n}", "s?q=1&n=2", True),
        ("s{?q}", "s", True),
        ("s{?q}", "sq", False),
        ("s?a=1{&b}", "s?a=1&b=2", True),
        ("p{#frag}", "p#a/b?c", True),
        ("p{#frag}", "p", True),
        ("é{x}", "éz", True),
        ("{x", "{x", True),
        ("{}", "{}", True),
        ("{x}", "a\x00", True),
    ],
)
def test_a_template_matches_what_its_expressions_can_give(template: str, uri: str, expected: bool) -> None:
    assert matches(template, uri) is expected


LITERALS = st.sampled_from(["", "/", "a", "-", "ab", "?"])


@given(
    st.lists(st.tuples(LITERALS, st.sampled_from(["", "+"])), min_size=1, max_size=4),
    LITERALS,
    st.text(alphabet="ab/-?", max_size=10),
)
def test_matching_agrees_with_regular_expressions(parts: list[tuple[str, str]], end: str, uri: str) -> None:
    template = "".join(f"{literal}{{{operator}v}}" for literal, operator in parts) + end
    pattern = "".join(re.escape(literal) + ("(?s:.+)" if operator else "[^/?#]+") for literal, operator in parts)
    assert matches(template, uri) is (re.fullmatch(pattern + re.escape(end), uri) is not None)


def test_a_hostile_template_and_uri_take_no_exponential_time() -> None:
    assert not matches("{+a}-" * 30 + "!", "-" * MAX_URI_CHARACTERS)
    assert not matches("x{+a}-" + "{b}-" * 30 + "y", "x" + "-a" * 4000 + "/-y")


def test_a_very_long_uri_matches_no_template() -> None:
    assert not matches("{+x}", "a" * (MAX_URI_CHARACTERS + 1))
    assert matches("{+x}", "a" * MAX_URI_CHARACTERS)


def test_a_template_is_taken_apart_once_and_shows_itself() -> None:
    assert compiled("t://{a}/{b}") is compiled("t://{a}/{b}")
    assert repr(UriTemplate("t://{a}")) == "<UriTemplate t://{a} [1 expressions]>"
