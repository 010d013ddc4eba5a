import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.upstreams.child_output import LineSplitter, LineTooLong, StderrTail, printable


@given(st.lists(st.binary(max_size=20).filter(lambda line: b"\n" not in line)), st.data())
def test_lines_come_out_whole_wherever_the_bytes_are_cut(lines: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(line + b"\n" for line in lines)
    splitter, found = LineSplitter(100), []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        found += splitter.feed(stream[:cut])
        stream = stream[cut:]
    assert found == [line for line in lines if line not in {b"", b"\r"}]


def test_a_line_is_too_long_complete_or_not() -> None:
    for chunks in (
        [b"x" * 11],
        [b"x" * 11 + b"\n"],
        [b"a\n" + b"x" * 11 + b"\nb\n"],
        [b"x" * 6, b"x" * 5],
        [b"x" * 6, b"xxxxx\n"],
    ):
        splitter = LineSplitter(10)
        for chunk in chunks[:-1]:
            splitter.feed(chunk)
        with pytest.raises(LineTooLong):
            splitter.feed(chunks[-1])
    assert LineSplitter(10).feed(b"x" * 10 + b"\n") == [b"x" * 10]


def test_a_splitter_shows_how_much_it_holds() -> None:
    splitter = LineSplitter(10)
    splitter.feed(b"abc")
    assert repr(splitter) == "<LineSplitter 3 of 10 bytes>"


@given(st.lists(st.binary(max_size=50)))
def test_the_tail_never_keeps_more_than_its_bound_and_always_the_newest(chunks: list[bytes]) -> None:
    tail = StderrTail(40)
    for chunk in chunks:
        tail.feed(chunk)
        assert len(tail._kept) <= 80
    assert tail.total_bytes == sum(map(len, chunks))
    assert bytes(tail._kept).endswith(b"".join(chunks)[-40:])


def test_the_last_lines_are_safe_to_print() -> None:
    tail = StderrTail(1000)
    tail.feed("one\n\n\x1b[31mred\x1b[0m\x07 \u202etxt\r\n\xff three\n".encode() + b"\xff\n")
    assert tail.lines(10) == ["one", "red txt", "ÿ three", "\N{REPLACEMENT CHARACTER}"]
    assert tail.lines(2) == ["ÿ three", "\N{REPLACEMENT CHARACTER}"]
    assert tail.lines(4) == ["red txt", "ÿ three", "\N{REPLACEMENT CHARACTER}"]  # an empty one is counted, not shown
    assert tail.lines(0) == []
    assert tail.last_line() == "\N{REPLACEMENT CHARACTER}"
    assert StderrTail(10).last_line() == ""
    assert repr(tail).startswith("<StderrTail ")


def test_the_last_words_of_one_child_are_not_those_of_the_next() -> None:
    tail = StderrTail(1000)
    tail.feed(b"the disk is full\n")
    tail.begin()
    assert tail.last_line() == ""
    assert tail.lines(10) == ["the disk is full"]
    tail.feed(b"out of memory\n")
    assert tail.last_line() == "out of memory"
    assert tail.lines(10) == ["the disk is full", "out of memory"]


def test_lines_are_counted_from_the_first_one_on_and_an_unfinished_one_counts() -> None:
    tail = StderrTail(4)
    assert tail.total_lines == 0
    for chunk, count in ((b"one\n", 1), (b"tw", 2), (b"o\n\n", 3), (b"\n\n\n", 6)):
        tail.feed(chunk)
        assert tail.total_lines == count
    assert tail.last_line() == ""


def test_long_text_is_cut_and_kept_on_one_line() -> None:
    assert printable("a\nb", 10) == "a b"
    assert printable("x" * 20, 10) == "x" * 9 + "…"
