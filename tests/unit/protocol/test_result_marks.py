"""What stands in a result: the same whether `json_members` looks or msgspec, for what is JSON and for what is not.

`json_members` is there when the modules are compiled. Where they are not, a slow one written here stands in for it.
"""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from penstock.protocol.envelopes import openings_slowly
from penstock.protocol.messages import FoundMarks
from penstock.protocol.result_marks import Places, ResultMarks, count_openings, members_of, read_marks

NAMES = ("resultType", "content", "structuredContent", "ttlMs", "cacheScope", "_meta")
FILLER = "x" * 200
"""Longer than a few of the blocks that are looked at together."""
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=30,
)
NOT_TEXT = [
    b'"\xff"',
    b'"\xc0\xaf"',
    b'"\xed\xa0\x80"',
    b'"\xf4\x90\x80\x80"',
    b'"\xf5\x80\x80\x80"',
    b'"\xe0\x9f\xbf"',
    b'"\xf0\x8f\xbf\xbf"',
    b'"\xe2\x82"',
    b'"\xc2"',
    b'"\x80"',
]
NOT_JSON = [
    b'"\n"',
    b'"\x00"',
    b'"\x1f"',
    b'"\\x"',
    b'"\\"',
    b'"\\u12g4"',
    b'"\\u123"',
    b"01",
    b"-",
    b"1.",
    b"1.e1",
    b".5",
    b"1e",
    b"1e+",
    b"+1",
    b"tru",
    b"truex",
    b"nul",
    b"NaN",
    b"'a'",
    b"[1,]",
    b"[,]",
    b"[1 2]",
    b'{"a":1,}',
    b'{"a"}',
    b'{"a" 1}',
    b"{a:1}",
    b'{"a":1]',
    b"[1}",
    b"[",
    b"{",
    b'"',
    b"",
    b"\x0c1",
    b"1\x00",
    b"/**/1",
]


def reference(result: bytes) -> dict[str, Any] | None:
    """What msgspec and Python's own UTF-8 decoder say."""
    try:
        result.decode()
        return values(msgspec.json.decode(result, type=FoundMarks))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def values(marks: ResultMarks | FoundMarks | None) -> dict[str, Any] | None:
    if marks is None:
        return None
    names = FoundMarks.__struct_fields__
    if isinstance(marks, FoundMarks):
        found = {name: getattr(marks, name) for name in names}
    else:
        found = {name: marks.value(number) for number, name in enumerate(names) if number}
        assert [marks.has(number) for number in range(1, 7)] == [value is not UNSET for value in found.values()]
    found = {name: bytes(value) if isinstance(value, msgspec.Raw) else value for name, value in found.items()}
    if isinstance(marks, ResultMarks):
        found["is_error"] = marks.is_error
        assert marks.is_complete is (found["result_type"] in {UNSET, b'"complete"'})
        structured = found["structured_content"]
        assert marks.is_structure_object is (structured is not UNSET and structured.startswith(b"{"))
    return found


def slow_members_of(text: bytes | memoryview, names: tuple[bytes, ...]) -> Places | None:
    """What `json_members` says, in a few lines: it keeps the same promise."""
    result, at = bytes(text), 0
    places: dict[bytes, tuple[int, int]] = {}
    try:
        result.decode()
        members = msgspec.json.decode(result, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    for name, value in members.items():
        at = result.find(b'"%b"' % name.encode(), at) + len(name.encode()) + 2
        if at < len(name.encode()) + 2 or result.count(b'"%b"' % name.encode()) > 1:
            return None
        at = result.find(bytes(value), at)
        places[name.encode()] = (at, at + len(value))
        at += len(value)
    return tuple(place for name in names for place in places.get(name, (-1, -1)))


FIND = members_of or slow_members_of


def both(result: bytes) -> dict[str, Any] | None:
    """As bytes, and as a view from the middle of something larger."""
    around = memoryview(b"{" + result + b"}")[1:-1]
    as_bytes, as_view = values(read_marks(result, FIND)), values(read_marks(around, FIND))
    assert as_bytes == as_view
    return as_bytes


def long(value: bytes) -> bytes:
    return b'{"filler":"%b","content":%b}' % (FILLER.encode(), value)


def long_behind(value: bytes) -> bytes:
    """The same where the value has much behind it: other instructions look at it then."""
    return b'{"content":%b,"filler":"%b"}' % (value, FILLER.encode())


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from(NAMES) | st.text(), JSON), st.booleans(), st.sampled_from([None, 1, (",", ": ")])
)
def test_marks_are_the_same_as_msgspec_finds(members: dict[str, Any], ascii_only: bool, spaces: Any) -> None:
    separators, indent = (spaces, None) if isinstance(spaces, tuple) else (None, spaces)
    text = json.dumps({"a": FILLER} | members, ensure_ascii=ascii_only, separators=separators, indent=indent)
    result = text.encode("utf-8", "surrogatepass")
    assert both(result) == reference(result)


@given(st.dictionaries(st.sampled_from(NAMES), JSON), st.data())
def test_one_changed_byte_is_judged_as_msgspec_judges_it(members: dict[str, Any], data: st.DataObject) -> None:
    result = bytearray(json.dumps(members | {"a": FILLER}, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    place = data.draw(st.integers(0, min(len(result) - len(FILLER), 400)))
    result[place] = data.draw(st.sampled_from(b'"\\{}[],: \n\x00\x1f\x7f\x80\xc3\xff0-.eEu/') | st.integers(0, 255))
    assert both(bytes(result)) == reference(bytes(result))


@pytest.mark.parametrize("value", NOT_TEXT + NOT_JSON, ids=repr)
def test_what_is_no_json_in_utf_8_has_no_marks(value: bytes) -> None:
    assert both(long(value)) is None
    assert both(long_behind(value)) is None


@pytest.mark.parametrize("value", [b"%b", b"[%b]", b'{"a":%b}', b'{"%b":1}'])
@pytest.mark.parametrize("offset", range(0, 130, 7))
def test_strings_end_where_they_end_wherever_blocks_do(value: bytes, offset: int) -> None:
    for text in (b"", b"\\\\", b'\\"', b'\\\\\\"', "é€😀".encode(), b"\\ud83d\\ude00", b"\\u0041\\n"):
        inside = b"y" * offset + text + b"z" * (130 - offset)
        written = value % (inside if b'"' in value[:-4] and value.startswith(b'{"%') else b'"' + inside + b'"')
        for result in (long(written), long_behind(written)):
            found = both(result)
            assert found is not None
            assert found["content"] == written
            assert found == reference(result)


def test_the_last_of_two_members_counts() -> None:
    found = both(b'{"isError":false,"isError":true,"content":[],"filler":"%b","content":[1]}' % FILLER.encode())
    assert found is not None
    assert (found["is_error"], found["content"]) == (True, b"[1]")


def test_a_name_counts_however_it_is_written() -> None:
    found = both(b'{"is\\u0045rror":true,"filler":"%b"}' % FILLER.encode())
    assert found is not None
    assert found["is_error"] is True


@pytest.mark.parametrize("tail", [b"}", b"x", b",", b'{"id":1}', b"\x00"])
def test_nothing_is_smuggled_in_behind_the_object(tail: bytes) -> None:
    assert both(long(b"[]") + tail) is None


@pytest.mark.parametrize("first", [b"1", b'"a"', b"null"])
def test_a_member_that_comes_twice_is_judged_twice(first: bytes) -> None:
    result = b'{"isError":%b,"isError":true,"filler":"%b"}' % (first, FILLER.encode())
    assert both(result) == reference(result)


def test_is_error_has_to_be_a_boolean() -> None:
    assert both(b'{"isError":1,"filler":"%b"}' % FILLER.encode()) is None


def test_many_members_and_deep_nesting_are_left_to_msgspec() -> None:
    many = b"{%b}" % b",".join(b'"n%d":"%b"' % (number, b"x" * 100) for number in range(100))
    assert both(many) == reference(many)
    deep = long(b"[" * 200 + b"]" * 200)
    found = both(deep)
    assert found is not None
    assert found["content"] == b"[" * 200 + b"]" * 200
    assert found["result_type"] is UNSET
    assert both(long(b"[" * 100_000 + b"]" * 100_000)) is None


def test_an_incomplete_result_is_known_for_one() -> None:
    for result, is_complete in ((b"{}", True), (b'{"resultType":"complete"}', True), (b'{"resultType":"task"}', False)):
        for find in (FIND, None):
            marks = read_marks(result, find)
            assert marks is not None
            assert marks.is_complete is is_complete
    marks = read_marks(b'{"resultType":"task"}')
    assert repr(marks) == "<ResultMarks incomplete of 21 bytes>"


@given(st.binary() | st.text(alphabet='[{]}"\\a').map(str.encode), st.integers(0, 40))
def test_openings_are_counted_wherever_blocks_end(text: bytes, offset: int) -> None:
    for count in (openings_slowly, count_openings or openings_slowly):
        for body in (b"x" * offset + text, b"[" * (16 * 256 + offset) + text):
            assert count(body) == body.count(b"[") + body.count(b"{")
