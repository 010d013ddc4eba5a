"""Heads of answers that were judged before."""

import pytest

from penstock.http.client_repeat import RepeatedHead

DATE = b"Sun, 06 Nov 1994 08:49:37 GMT"


def fixed(body: bytes, *, date: bytes = DATE, kind: bytes = b"application/json") -> bytes:
    """An answer as a server writes it."""
    return b"HTTP/1.1 200 OK\r\ndate: %b\r\ncontent-type: %b\r\nContent-Length: %d\r\n\r\n%b" % (
        date,
        kind,
        len(body),
        body,
    )


def chunked(body: bytes, *, date: bytes = DATE) -> bytes:
    """An answer in one chunk."""
    head = (
        b"HTTP/1.1 200 OK\r\nDate: %b\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n" % date
    )
    return b"%b%x\r\n%b\r\n0\r\n\r\n" % (head, len(body), body)


def learnt(read: bytes) -> RepeatedHead:
    fields = dict(line.lower().split(b": ", 1) for line in read.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:])
    found = RepeatedHead.learn(read, 200, fields)
    assert found is not None
    return found


@pytest.mark.parametrize("answer", [fixed, chunked])
def test_the_body_is_found_whatever_length_and_date_the_head_says(answer: type) -> None:
    head = learnt(answer(b"first"))
    for body in (b"first", b"x", b"y" * 1000, b"first"):
        for date in (DATE, DATE.replace(b"37", b"38"), DATE):
            read: bytes = answer(body, date=date)
            found = head.body_in(read)
            assert found is not None
            assert read[found[0] : found[1]] == body


@pytest.mark.parametrize("answer", [fixed, chunked])
def test_a_part_of_an_answer_is_for_the_parser_wherever_it_is_cut(answer: type) -> None:
    head = learnt(answer(b"first"))
    for date in (DATE, DATE.replace(b"37", b"38")):
        whole: bytes = answer(b"another", date=date)
        for size in range(len(whole)):
            assert head.body_in(whole[:size]) is None


@pytest.mark.parametrize("name", [b"content-length", b"CONTENT-LENGTH", b"Content-LEngth"])
def test_fields_may_be_written_in_any_case(name: bytes) -> None:
    head = learnt(fixed(b"first").replace(b"Content-Length", name).replace(b"date", b"DaTE"))
    read = fixed(b"another", date=DATE.replace(b"37", b"38")).replace(b"Content-Length", name).replace(b"date", b"DaTE")
    found = head.body_in(read)
    assert found is not None
    assert read[found[0] : found[1]] == b"another"


def test_an_empty_body_of_known_length_is_one() -> None:
    read = fixed(b"")
    assert learnt(fixed(b"first")).body_in(read) == (len(read), len(read))


@pytest.mark.parametrize(
    "read",
    [
        fixed(b"other", kind=b"text/plain"),
        fixed(b"first")[:-1],
        fixed(b"first") + b"H",
        fixed(b"first").replace(b": 5", b": 05 "),
        fixed(b"first").replace(b": 5", b": +5"),
        fixed(b"first").replace(b": 5", b": "),
        fixed(b"first").replace(b": 5", b": 5\r\nContent-Length: 5"),
        fixed(b"first").replace(b": 5", b": " + b"5" * 16),
        fixed(b"first", date=DATE[:-1]),
        fixed(b"first", date=DATE[:-4] + b"\nab:"),
        fixed(b"first", date=b"x" * 29),
        fixed(b"first").replace(b"200 OK", b"200 Ok"),
        b"",
    ],
)
def test_anything_else_is_for_the_parser(read: bytes) -> None:
    assert learnt(fixed(b"first")).body_in(read) is None


@pytest.mark.parametrize(
    "read",
    [
        chunked(b"first")[:-1],
        chunked(b"first") + b"H",
        chunked(b"first").replace(b"\r\n\r\n5\r\n", b"\r\n\r\n5;x\r\n"),
        chunked(b"first").replace(b"\r\n\r\n5\r\n", b"\r\n\r\n\r\n"),
        chunked(b""),
        chunked(b"first").replace(b"0\r\n\r\n", b"1\r\nx\r\n0\r\n\r\n"),
    ],
)
def test_a_chunked_answer_in_another_shape_is_for_the_parser(read: bytes) -> None:
    assert learnt(chunked(b"first")).body_in(read) is None


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        (404, {b"content-length": b"5"}),
        (204, {b"content-length": b"5"}),
        (200, {b"content-length": b"5", b"content-encoding": b"gzip"}),
        (200, {b"content-type": b"text/plain"}),
    ],
)
def test_some_heads_are_not_worth_remembering(status: int, fields: dict[bytes, bytes]) -> None:
    assert RepeatedHead.learn(fixed(b"first"), status, fields) is None


def test_it_shows_what_it_is() -> None:
    assert repr(learnt(fixed(b"first"))) == "<RepeatedHead 200 of known length>"
    assert repr(learnt(chunked(b"first"))) == "<RepeatedHead 200 chunked>"
