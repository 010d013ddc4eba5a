"""Compressed bodies: understood however they are cut, never larger than allowed."""

import gzip
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.http.client_decoding import Decoder, decoder_for
from penstock.http.client_messages import BadResponse, ResponseTooLarge

TEXT = b'{"jsonrpc":"2.0","id":1,"result":{}}' * 50


def bare_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def decode(coding: bytes, pieces: list[bytes], *, max_bytes: int | None = 1 << 30, ratio: int = 200) -> bytes:
    decoder = decoder_for(coding, max_bytes=max_bytes, ratio=ratio)
    assert isinstance(decoder, Decoder)
    decoded = b"".join(part for piece in pieces for part in decoder.feed(piece))
    decoder.finish()
    return decoded


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@given(
    st.sampled_from(["gzip", "x-gzip", "deflate", "bare"]),
    st.binary(max_size=3000),
    st.lists(st.integers(0, 4000), max_size=8),
)
def test_a_body_is_the_same_however_it_is_cut(coding: str, body: bytes, places: list[int]) -> None:
    packed = (
        bare_deflate(body) if coding == "bare" else zlib.compress(body) if coding == "deflate" else gzip.compress(body)
    )
    assert decode(b"deflate" if coding == "bare" else coding.encode(), cut(packed, places)) == body


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=5), st.lists(st.integers(0, 500), max_size=5))
def test_several_gzip_members_are_one_body(bodies: list[bytes], places: list[int]) -> None:
    assert decode(b"gzip", cut(b"".join(map(gzip.compress, bodies)), places)) == b"".join(bodies)


def test_a_large_body_comes_in_bounded_pieces() -> None:
    decoder = decoder_for(b" GZIP ", max_bytes=None, ratio=2000)
    assert decoder is not None
    body = b"\0" * 900_001
    pieces = list(decoder.feed(gzip.compress(body)))
    decoder.finish()
    assert b"".join(pieces) == body
    assert max(map(len, pieces)) <= 256 * 1024
    assert repr(decoder).endswith("bytes → 900001>")


def test_what_zlib_holds_back_at_the_end_of_a_piece_is_not_lost() -> None:
    for more in range(1, 260):  # in some of these the last match crosses the end of a piece and all input is used up
        body = b"\0" * (256 * 1024 + more)
        assert decode(b"deflate", [bare_deflate(body)], ratio=2000) == body


def test_an_empty_body_is_empty_even_if_it_claims_to_be_compressed() -> None:
    assert decode(b"gzip", []) == b""


@pytest.mark.parametrize("coding", [b"", b"identity", b" Identity"])
def test_no_coding_needs_no_decoder(coding: bytes) -> None:
    assert decoder_for(coding, max_bytes=None, ratio=1) is None


@pytest.mark.parametrize("coding", [b"br", b"zstd", b"gzip, gzip", b"gzip, deflate"])
def test_a_coding_nobody_asked_for_is_refused(coding: bytes) -> None:
    with pytest.raises(BadResponse, match="none of gzip"):
        decode(coding, [TEXT])
    assert decode(coding, []) == b""
    assert repr(decoder_for(coding, max_bytes=None, ratio=1)) == "<Decoder unknown 0 bytes → 0>"


def test_a_bomb_is_stopped_by_its_ratio_long_before_it_is_unpacked() -> None:
    decoder = decoder_for(b"gzip", max_bytes=None, ratio=200)
    assert decoder is not None
    pieces: list[int] = []
    with pytest.raises(ResponseTooLarge, match="200 times"):
        pieces.extend(map(len, decoder.feed(gzip.compress(b"\0" * 40_000_000))))
    assert 1024 * 1024 < sum(pieces) < 1024 * 1024 + 41_000 * 200


def test_a_body_beyond_the_bound_is_stopped_there() -> None:
    assert decode(b"gzip", [gzip.compress(b"a" * 100)], max_bytes=100) == b"a" * 100
    with pytest.raises(ResponseTooLarge, match="larger than 99 bytes"):
        decode(b"gzip", [gzip.compress(b"a" * 100)], max_bytes=99)


@pytest.mark.parametrize("coding", [b"gzip", b"deflate"])
def test_a_body_cut_off_in_the_middle_is_refused(coding: bytes) -> None:
    packed = gzip.compress(TEXT) if coding == b"gzip" else zlib.compress(TEXT)
    with pytest.raises(BadResponse, match="cut off"):
        decode(coding, [packed[:-3]])


def test_bytes_of_another_coding_are_refused() -> None:
    with pytest.raises(BadResponse, match="does not match"):
        decode(b"gzip", [TEXT])
    with pytest.raises(BadResponse, match="does not match"):
        decode(b"gzip", [gzip.compress(TEXT) + b"tail"])
    with pytest.raises(BadResponse, match="goes on after"):
        decode(b"deflate", [zlib.compress(TEXT) + b"tail"])
    with pytest.raises(BadResponse, match="goes on after"):
        decode(b"deflate", [zlib.compress(TEXT), b"tail"])
