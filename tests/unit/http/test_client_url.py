"""Where a URL leads, and which URLs are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.http.client_url import Origin, parse_url


@pytest.mark.parametrize(
    ("url", "origin", "target", "authority"),
    [
        ("http://example.com", Origin("http", "example.com", 80), b"/", b"example.com"),
        ("http://example.com:80/mcp", Origin("http", "example.com", 80), b"/mcp", b"example.com"),
        ("HTTPS://Example.COM/mcp?a=b%20c", Origin("https", "example.com", 443), b"/mcp?a=b%20c", b"example.com"),
        ("http://127.0.0.1:8080/mcp#part", Origin("http", "127.0.0.1", 8080), b"/mcp", b"127.0.0.1:8080"),
        ("http://[::1]:8080/mcp", Origin("http", "::1", 8080), b"/mcp", b"[::1]:8080"),
        ("https://[2001:DB8::1]/", Origin("https", "2001:db8::1", 443), b"/", b"[2001:db8::1]"),
        ("http://bücher.example/ü", Origin("http", "xn--bcher-kva.example", 80), b"/%C3%BC", b"xn--bcher-kva.example"),
        ("http://a.example?x=1", Origin("http", "a.example", 80), b"/?x=1", b"a.example"),
        ("http://a.example.:81/", Origin("http", "a.example.", 81), b"/", b"a.example.:81"),
    ],
)
def test_a_url_gives_origin_target_and_host_header(url: str, origin: Origin, target: bytes, authority: bytes) -> None:
    assert parse_url(url) == (origin, target, authority)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("htp://example.com", "'htp' is not http or https"),
        ("example.com/mcp?token=secret", "'example.com/mcp' is not http or https"),
        ("http://user:secret@example.com/", "user name"),
        ("http://example.com:0/", "port"),
        ("http://example.com:65536/", "port"),
        ("http://example.com:x/", "port"),
        ("http:///mcp", "names no host"),
        ("http://exa mple.com/", "space"),
        ("http://example.com/\r\nx: y", "space"),
        ("http://example.com\\@evil.example/", "not allowed"),
        ("http://[fe80::1%25eth0]/", "zone"),
        ("http://[::1/", "Invalid IPv6"),
        ("http://a..b/", "not a host name"),
        ("http://a*b/", "not a host name"),
        ("http://" + "ü" * 70 + "/", "not a host name"),
    ],
)
def test_an_unusable_url_is_refused_with_the_reason(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        parse_url(url)
    assert "secret" not in str(caught.value)


def test_an_origin_reads_as_a_url() -> None:
    assert str(Origin("https", "::1", 443)) == "https://[::1]"


@given(st.text(max_size=60))
def test_whatever_is_in_a_path_the_target_is_one_line_of_ascii(path: str) -> None:
    try:
        _, target, _ = parse_url("http://example.com/" + path)
    except ValueError:
        return
    assert target.startswith(b"/")
    assert all(33 <= byte < 127 for byte in target)
