"""Event streams: the WHATWG rules, however the bytes are cut."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.protocol.event_stream import Event, EventParser, EventTooLarge, encode_event


def parse(*chunks: bytes, limit: int = 10_000) -> list[Event]:
    parser = EventParser(limit)
    return [event for chunk in chunks for event in parser.feed(chunk)]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\n", [Event(b"a")]),
        (b"data:a\n\n", [Event(b"a")]),
        (b"data:  a \n\n", [Event(b" a ")]),
        (b"data: a\r\rdata: b\r\n\r\n", [Event(b"a"), Event(b"b")]),
        (b"data: a\ndata: b\n\n", [Event(b"a\nb")]),
        (b"data: a\r\ndata: b\r\n\r\n", [Event(b"a\nb")]),
        (b"data\n\n", [Event(b"")]),
        (b"data\ndata\n\n", [Event(b"\n")]),
        (b"data: YHOO\ndata: +2\ndata: 10\n\n", [Event(b"YHOO\n+2\n10")]),
        (b": test stream\n\ndata: first\nid: 1\n\ndata:second\nid\n\ndata:  third\n\n",
         [Event(b"first", id=b"1"), Event(b"second", id=b""), Event(b" third")]),
        (b"event: endpoint\ndata: /x\n\n", [Event(b"/x", b"endpoint")]),
        (b"event: a\nevent:\ndata: x\n\n", [Event(b"x")]),
        (b"event: lost\n\ndata: x\n\n", [Event(b"x")]),
        (b"id: 1\nretry: 500\ndata:\n\n", [Event(b"", id=b"1", retry_ms=500)]),
        (b"retry: 5x\nretry:\nretry: -1\ndata: x\n\n", [Event(b"x")]),
        (b"retry: 99999999999999999999\ndata: x\n\n", [Event(b"x")]),
        (b"id: a\0b\ndata: x\n\n", [Event(b"x")]),
        (b"unknown: y\n DATA: z\ndatas: 1\ndata: x\n\n", [Event(b"x")]),
        (b"\xef\xbb\xbfdata: x\n\n", [Event(b"x")]),
        (b"\xef\xbb\xbf\xef\xbb\xbfdata: x\n\n", []),
        (b"data: never ended\n", []),
        (b"data: never ended", []),
        (b"\n\n\r\r\n", []),
        (b"", []),
        ("data: é\n\n".encode(), [Event("é".encode())]),
    ],
)  # fmt: skip
def test_a_stream_gives_the_same_events_however_it_is_cut(stream: bytes, events: list[Event]) -> None:
    assert parse(stream) == events
    assert parse(*(stream[at : at + 1] for at in range(len(stream)))) == events
    for cut in range(len(stream) + 1):
        assert parse(stream[:cut], b"", stream[cut:]) == events


ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])
LINES = st.sampled_from([b"", b"", b"data: a", b"data", b"data:b:c", b"id: 7", b"event: e", b"retry: 3", b":c", b"x"])


@given(st.lists(st.tuples(LINES, ENDS), max_size=20), st.lists(st.integers(0, 200), max_size=6))
def test_cutting_and_line_ends_never_matter(lines: list[tuple[bytes, bytes]], cuts: list[int]) -> None:
    plain = b"".join(line + b"\n" for line, _ in lines)
    expected = parse(plain)
    # a lone CR before an LF of its own would be one line end; the standard has no way to tell them apart
    ends = [end if end != b"\r" or not (index + 1 < len(lines) and lines[index + 1] == (b"", b"\n")) else b"\r\n"
            for index, (_, end) in enumerate(lines)]  # fmt: skip
    stream = b"".join(line + end for (line, _), end in zip(lines, ends, strict=True))
    places = sorted(min(cut, len(stream)) for cut in cuts)
    chunks = [stream[start:end] for start, end in zip([0, *places], [*places, len(stream)], strict=True)]
    assert parse(*chunks) == expected


@given(st.binary(max_size=60), st.integers(0, 60))
def test_any_bytes_give_the_same_events_cut_or_whole(stream: bytes, cut: int) -> None:
    assert parse(stream[:cut], stream[cut:]) == parse(stream)


def test_the_last_id_and_the_retry_time_are_remembered_also_without_data() -> None:
    parser = EventParser(1000)
    assert parser.feed(b"id: 1\nretry: 250\n\n") == []
    assert (parser.last_event_id, parser.retry_ms) == (b"1", 250)
    assert parser.feed(b"data: x\n\n") == [Event(b"x")]
    assert parser.last_event_id == b"1"


@pytest.mark.parametrize(
    "chunks",
    [
        (b"data: " + b"x" * 200,),
        (b"data: " + b"x" * 40, b"x" * 200),
        (b"data: " + b"x" * 200 + b"\n\n",),
        (b"data: x\n" * 40,),
        (b"id: 1\n" * 40,),
        (b":" + b"x" * 200,),
        (b"data: " + b"x" * 80 + b"\ndata: " + b"x" * 60,),
    ],
)
def test_an_event_beyond_the_limit_is_refused(chunks: tuple[bytes, ...]) -> None:
    with pytest.raises(EventTooLarge, match="100 bytes"):
        parse(*chunks, limit=100)


def test_many_small_events_and_comments_stay_within_the_limit() -> None:
    assert len(parse(b"data: x\n\n" * 1000, limit=20)) == 1000
    assert parse(b": keep alive\n\n" * 1000, limit=20) == []


def test_a_parser_shows_what_is_pending() -> None:
    parser = EventParser(100)
    parser.feed(b"id: 1\ndata: ab")
    assert repr(parser) == "<EventParser pending 13 bytes | last id b'1'>"


# --- writing ---


@given(st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner, max_size=3), max_leaves=5), st.booleans())
def test_a_written_event_reads_back_as_one_event(value: object, pretty: bool) -> None:
    data = json.dumps(value, indent=2 if pretty else None).replace("\n", "\r\n").encode()
    (event,) = parse(encode_event(data, event=b"x", id=b"7"))
    assert json.loads(bytes(event.data)) == value
    assert (event.event, event.id) == (b"x", b"7")


def test_data_cannot_start_a_line_of_its_own() -> None:
    written = encode_event(b'{"a":1}\n\nevent: evil\rdata: x')
    assert written == b'event: message\ndata: {"a":1}  event: evil data: x\n\n'
    assert len(parse(written)) == 1


@pytest.mark.parametrize("bad", [b"a\nb", b"a\rb", b"a\0b"])
def test_a_name_or_id_with_a_line_break_is_refused(bad: bytes) -> None:
    with pytest.raises(ValueError, match="line breaks"):
        encode_event(b"{}", event=bad)
    with pytest.raises(ValueError, match="line breaks"):
        encode_event(b"{}", id=bad)


def test_an_event_in_tiny_pieces_costs_what_it_is_long() -> None:
    parser = EventParser(1 << 20)
    text = b"data: " + b"xy" * 100_000
    for at in range(0, len(text), 2):
        assert parser.feed(text[at : at + 2]) == []
    assert len(parser._partial) < 2_000
    (event,) = parser.feed(b"\n\n")
    assert event.data == b"xy" * 100_000
