"""Bytes become lines, and no line becomes large."""

import pytest

from penstock.cli.bridge.lines import LineReader, TooLong

LONG = b"x" * 5000


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_lines_come_whole_however_they_are_cut(size: int) -> None:
    text = b'{"a":1}\n\n \t\n{"b":2}\r\n{"c":3}'
    reader, found = LineReader(100), []
    for start in range(0, len(text), size):
        found += reader.feed(text[start : start + size])
    assert found == [b'{"a":1}', b'{"b":2}']
    assert reader.finish() == [b'{"c":3}']
    assert reader.finish() == []


@pytest.mark.parametrize(
    ("before", "after", "id"),
    [
        (b'{"jsonrpc":"2.0","id":12,"method":"x","params":{"a":"', b'"}}', b"12"),
        (b'{"id":"a","method":"x","params":{"a":"', b'"}}', b'"a"'),
        (b' { "jsonrpc" : "2.0" , "id" : -3 , "method" : "x","params":{"a":"', b'"}}', b"-3"),
        (b'{"method":"x","params":{"a":"', b'"},"jsonrpc":"2.0","id":5}', b"5"),
        (b'{"method":"x","params":{"a":"', b'"},"id":"five","jsonrpc":"2.0"} \r', b'"five"'),
        (b'{"jsonrpc":"2.0","method":"x","params":{"a":"', b'"},"id":5}', b"5"),
        (b'{"method":"x","params":{"a":"', b'"}}', None),  # a notification
        (b'{"jsonrpc":"2.0","id":12,"result":{"a":"', b'"}}', None),  # a reply: its id is not the client's own
        (b'{"result":{"a":"', b'"},"jsonrpc":"2.0","id":5}', None),
        (b'{"method":"x","params":{"id":5,"a":"', b'"}}', None),
        (b'{"method":"x","params":{"a":"', b'","id":5}}', None),
        (b'{"method":"x","params":{"a":"', b'\\"id\\":5}"}', None),
        (b"junk", b"junk", None),
    ],
)
def test_a_line_too_long_is_dropped_and_its_request_named(before: bytes, after: bytes, id: bytes | None) -> None:
    reader = LineReader(1000)
    assert reader.feed(before + LONG) == []
    assert reader.feed(LONG) == []
    assert len(reader._partial) == 0
    assert reader.feed(after + b"\n{}\n") == [TooLong(id), b"{}"]
    assert "0 of 1000" in repr(reader)


def test_the_last_line_may_be_too_long_as_well() -> None:
    reader = LineReader(10)
    reader.feed(LONG)
    assert "dropping" in repr(reader)
    assert reader.finish() == [TooLong(None)]
