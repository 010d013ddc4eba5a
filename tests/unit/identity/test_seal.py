"""Sealed tokens open for whom they were made, and for nothing else."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import SealError
from penstock.identity.seal import Sealer, SealingKey

OLD, NEW = SealingKey(b"old1", b"o" * 32), SealingKey(b"new1", b"n" * 32)


@given(st.binary(max_size=500), st.binary(min_size=1, max_size=10))
def test_what_is_sealed_opens_to_the_same(payload: bytes, purpose: bytes) -> None:
    sealer = Sealer([NEW])
    token = sealer.seal(purpose, payload)
    assert sealer.open(purpose, token) == sealer.open(purpose, token.encode()) == payload
    assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


@given(st.data())
def test_one_changed_bit_opens_nothing(data: st.DataObject) -> None:
    sealer = Sealer([NEW])
    raw = bytearray(base64.urlsafe_b64decode(sealer.seal(b"session", b"payload") + "=="))
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SealError):
        sealer.open(b"session", base64.urlsafe_b64encode(raw))


@given(st.one_of(st.text(max_size=100), st.binary(max_size=100)))
def test_whatever_comes_is_refused_in_one_way(token: str | bytes) -> None:
    with pytest.raises(SealError, match="not one of ours, or has expired"):
        Sealer([NEW]).open(b"session", token)


def test_a_token_for_one_purpose_does_not_open_for_another() -> None:
    sealer = Sealer([NEW])
    with pytest.raises(SealError):
        sealer.open(b"session", sealer.seal(b"cursor", b"x"))


def test_two_seals_of_the_same_differ() -> None:
    sealer = Sealer([NEW])
    assert sealer.seal(b"p", b"x") != sealer.seal(b"p", b"x")


def test_a_new_key_first_rotates_and_old_tokens_open_on() -> None:
    before = Sealer([OLD]).seal(b"p", b"x")
    both = Sealer([NEW, OLD])
    assert both.open(b"p", before) == b"x"
    assert Sealer([NEW]).open(b"p", both.seal(b"p", b"y")) == b"y"
    with pytest.raises(SealError):
        Sealer([NEW]).open(b"p", before)
    with pytest.raises(SealError):
        Sealer([SealingKey(b"old1", b"x" * 32)]).open(b"p", before)


def test_an_oversized_token_is_not_even_decoded() -> None:
    with pytest.raises(SealError):
        Sealer([NEW]).open(b"p", "A" * 8_193)


def test_neither_key_nor_sealer_shows_the_secret() -> None:
    assert repr(NEW) == "<SealingKey 6e657731>"
    assert repr(Sealer([NEW, OLD])) == "<Sealer 2 keys, newest 6e657731>"
    assert len(SealingKey.generate().secret) == 32
    with pytest.raises(ValueError, match="at least one key"):
        Sealer([])
