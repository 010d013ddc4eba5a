"""Heads that were judged before."""

import pytest

from penstock.http.messages import Head
from penstock.http.request_head import HeadParser
from penstock.http.request_repeat import MAX_BLOCK_BYTES, MAX_KNOWN, KnownHead, KnownHeads

BLOCK = b"POST /mcp HTTP/1.1\r\nHost: a\r\ncontent-length: 12\r\nmcp-name: x\r\n\r\n"


def judged(block: bytes) -> Head:
    head = HeadParser(100, 4096).parse(block)
    assert isinstance(head, Head)
    return head


def known(block: bytes = BLOCK) -> KnownHead:
    found = KnownHeads().remember(block, judged(block))
    assert found is not None
    return found


@pytest.mark.parametrize("length", [0, 7, 12, 123456])
def test_a_block_is_known_again_whatever_length_it_says(length: int) -> None:
    block = BLOCK.replace(b"12", b"%d" % length)
    assert known().found_in(block + b"{...") == (len(block), length)


@pytest.mark.parametrize(
    "other",
    [
        BLOCK.replace(b"mcp-name: x", b"mcp-name: y"),
        BLOCK.replace(b"Host: a", b"Host: b"),
        BLOCK.replace(b"12", b""),
        BLOCK.replace(b"12", b" 12"),
        BLOCK.replace(b"12", b"1_2"),
        BLOCK.replace(b"12", b"\xb2"),
        BLOCK.replace(b"12", b"1" * 19),
        BLOCK.replace(b"\r\nmcp", b"\r\ncontent-length: 12\r\nmcp"),
        BLOCK[:40],
        BLOCK[:-2],
        b"",
    ],
)
def test_anything_else_is_not_known(other: bytes) -> None:
    assert known().found_in(other) is None


@pytest.mark.parametrize("size", range(len(BLOCK)))
def test_a_part_of_a_block_is_not_known_wherever_it_is_cut(size: int) -> None:
    assert known().found_in(BLOCK[:size]) is None
    assert known().found_in(BLOCK.replace(b"12", b"7")[: size - 1] if size else b"") is None


def test_a_block_without_a_length_is_known_as_a_whole() -> None:
    block = b"GET /ready HTTP/1.1\r\nHost: a\r\n\r\n"
    assert known(block).found_in(block + b"GET") == (len(block), 0)


def test_a_length_written_in_an_unusual_way_is_known_with_its_length() -> None:
    block = BLOCK.replace(b"content-length: 12", b"CONTENT-LENGTH:12")
    found = known(block)
    assert found.found_in(block) == (len(block), 12)
    assert found.found_in(block.replace(b"12", b"13")) is None


def test_blocks_of_other_connections_are_recalled_and_forgotten_oldest_first() -> None:
    heads = KnownHeads()
    first = heads.remember(BLOCK, judged(BLOCK))
    assert first is not None
    assert heads.recall(BLOCK.replace(b"12", b"3")) is first
    for number in range(MAX_KNOWN):
        block = BLOCK.replace(b"x", b"x%d" % number)
        heads.remember(block, judged(block))
    assert len(heads) == MAX_KNOWN
    assert heads.recall(BLOCK) is None
    assert repr(heads) == f"<KnownHeads {MAX_KNOWN} of at most {MAX_KNOWN}>"
    assert "POST /mcp" in repr(first)


def test_a_long_block_is_not_remembered() -> None:
    block = BLOCK.replace(b"mcp-name: x", b"mcp-name: " + b"x" * MAX_BLOCK_BYTES)
    assert KnownHeads().remember(block, judged(block)) is None
