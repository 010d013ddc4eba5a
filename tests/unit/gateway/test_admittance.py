"""Whose browser may talk to us."""

import pytest

from penstock.gateway.admittance import Admittance, is_loopback

ADMITTANCE = Admittance(["Gateway.Example", "other.example:8443", "0.0.0.0"], ["https://app.example/", "app://inside"])


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1:8080", True),
        ("127.9.9.9", True),
        ("localhost", True),
        ("LOCALHOST:1", True),
        ("a.localhost:1", True),
        ("[::1]:8080", True),
        ("[::1]", True),
        ("::1", True),
        ("gateway.example", True),
        ("GATEWAY.example:9", True),
        ("other.example:8443", True),
        ("other.example:8444", False),
        ("other.example", False),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("evillocalhost", False),
        ("127.0.0.1.evil.example", False),
        ("127.0.0.1@evil.example", False),
        ("[2001:db8::1]:80", False),
        ("192.0.2.1", False),
        ("", True),
    ],
)
def test_hosts_are_loopback_or_named(host: str, allowed: bool) -> None:
    refusal = ADMITTANCE.refusal({b"host": host.encode()})
    assert (refusal is None) is allowed
    if refusal is not None:
        assert "name it in listen.allowed_hosts" in refusal


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost:3000", True),
        ("http://127.0.0.1", True),
        ("https://[::1]:9", True),
        ("https://app.example", True),
        ("HTTPS://APP.EXAMPLE", True),
        ("app://inside", True),
        ("https://app.example:444", False),
        ("http://app.example", False),
        ("https://evil.example", False),
        ("https://localhost.evil.example", False),
        ("null", False),
        ("file://", False),
        ("http://[", False),
        ("", False),
    ],
)
def test_origins_are_loopback_or_named(origin: str, allowed: bool) -> None:
    refusal = ADMITTANCE.refusal({b"host": b"localhost", b"origin": origin.encode()})
    assert (refusal is None) is allowed
    if refusal is not None:
        assert "name it in listen.allowed_origins" in refusal


def test_every_origin_is_allowed_only_when_someone_said_so() -> None:
    assert Admittance((), ["*"]).refusal({b"host": b"localhost", b"origin": b"https://evil.example"}) is None


def test_a_refusal_quotes_only_so_much() -> None:
    assert len(ADMITTANCE.refusal({b"host": b"x" * 5_000}) or "") < 250


def test_verdicts_are_remembered_within_a_bound() -> None:
    admittance = Admittance()
    for number in range(1_030):
        admittance.refusal({b"host": b"host%d.example" % number})
    assert len(admittance._verdicts) == 1_030 - 1_024
    assert admittance.refusal({b"host": b"host1029.example"}) is admittance.refusal({b"host": b"host1029.example"})
    assert repr(ADMITTANCE).startswith("<Admittance hosts ['0.0.0.0', 'gateway.example', 'other.example:8443']")


def test_loopback_is_told_from_the_rest() -> None:
    assert is_loopback("127.0.0.1")
    assert not is_loopback("10.0.0.1")
    assert not is_loopback("")


def test_only_browsers_get_cors_lines() -> None:
    assert ADMITTANCE.cors({}) == b""
    lines = ADMITTANCE.cors({b"origin": b"http://localhost:3000"}).decode().split("\r\n")
    assert lines[:2] == ["access-control-allow-origin: http://localhost:3000", "vary: Origin"]
    assert lines[2].startswith("access-control-expose-headers: Mcp-Session-Id")
