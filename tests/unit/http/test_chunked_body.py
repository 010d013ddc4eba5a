from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.http.chunked_body import ChunkedBody
from penstock.http.request_head import Refusal


def feed(
    pieces: list[bytes], *, max_bytes: int = 1000, max_overhead: int = 200
) -> tuple[bytes, bytes] | Refusal | None:
    """The body and what follows it, a refusal, or None when it is not complete."""
    chunks = ChunkedBody(max_bytes, max_overhead)
    for index, piece in enumerate(pieces):
        result = chunks.feed(piece)
        if isinstance(result, Refusal):
            return result
        if result is not None:
            return chunks.body(), result + b"".join(pieces[index + 1 :])
    return None


def split(data: bytes, at: list[int]) -> list[bytes]:
    cuts = [0, *sorted(at), len(data)]
    return [data[start:end] for start, end in pairwise(cuts) if end > start]


@pytest.mark.parametrize(
    ("wire", "body"),
    [
        (b"0\r\n\r\n", b""),
        (b"3\r\nabc\r\n0\r\n\r\n", b"abc"),
        (b"003\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n", b"abc0123456789"),
        (b"3;name=value\r\nabc\r\n0;x\r\n\r\n", b"abc"),
        (b'3 ;a="b c"\r\n\r\n\r\r\n0\r\n\r\n', b"\r\n\r"),
        (b"0\r\nTrailer: x\r\nContent-Length: 5\r\n\r\n", b""),
    ],
)  # fmt: skip
def test_a_body_comes_out_the_same_however_it_is_cut(wire: bytes, body: bytes) -> None:
    assert feed([wire + b"NEXT"]) == (body, b"NEXT")
    for cut in range(1, len(wire)):
        assert feed([wire[:cut], wire[cut:] + b"NEXT"]) == (body, b"NEXT"), cut
    assert feed([bytes([byte]) for byte in wire]) == (body, b"")


@pytest.mark.parametrize(
    "wire",
    [
        b"\r\n",
        b"x\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b"0x3\r\n",
        b" 3\r\n",
        b"3 \r\n",
        b"3\t\r\n",
        b"3_0\r\n",
        b"3,3\r\n",
        b"3\n",
        b"3\rabc",
        b"3\r\nabcd\r\n",
        b"3\r\nabc\n",
        b"3\r\nabc0\r\n\r\n",
        b"3\r\nab\r\n0\r\n\r\n",
        b"000000003\r\n",
        b"fffffffff\r\n",
        b"10000000000000003\r\n",
        b";a\r\n",
        b"3;\x00\r\n",
        b"3;a\nb\r\n",
        b"3;" + b"a" * 300 + b"\r\n",
        b"a" * 5000,
        b"0\r\nX\r\n",
        b"0\r\n X: y\r\n",
        b"0\r\nX: \x01\r\n",
        b"0\r\nX: y\n\r\n",
        b"0\r\nX: " + b"y" * 300 + b"\r\n",
        b"1;" + b"a" * 60 + b"\r\nx\r\n" + (b"1;" + b"a" * 60 + b"\r\nx\r\n") * 10,
    ],
)
def test_nonsense_is_refused_however_it_is_cut(wire: bytes) -> None:
    refusal = Refusal(400, "malformed_chunk")
    assert feed([wire]) == refusal
    for cut in range(1, len(wire), 1 + len(wire) // 50):
        assert feed([wire[:cut], wire[cut:]]) == refusal, cut


def test_a_body_beyond_the_limit_is_refused_when_its_chunk_is_announced() -> None:
    assert feed([b"3e8\r\n"]) is None
    assert feed([b"3e9\r\n"]) == Refusal(413, "body_too_large")
    assert feed([b"1\r\nx\r\n3e8\r\n"]) == Refusal(413, "body_too_large")


def test_it_shows_where_it_is() -> None:
    chunks = ChunkedBody(10, 10)
    chunks.feed(b"3\r\na")
    assert repr(chunks) == "<ChunkedBody data [3 B]>"


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=8), st.lists(st.integers(0, 600), max_size=20))
def test_any_cut_of_any_body_gives_the_same_body(pieces: list[bytes], cuts: list[int]) -> None:
    wire = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    assert feed(split(wire + b"GET", cuts)) == (b"".join(pieces), b"GET")
