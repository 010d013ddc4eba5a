"""URLs of servers: where to connect, and what to write into the request's head.

Knows: the syntax of http(s) URLs. Does not know: name look-up, connections, which addresses are allowed.
"""

from typing import NamedTuple
from urllib.parse import quote, urlsplit

DEFAULT_PORTS = {"http": 80, "https": 443}
_KEPT_IN_TARGET = "/?%:@!$&'()*+,;=-._~[]"
_HOST_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-._")


class Origin(NamedTuple):
    """Whom to connect to: what a pool is keyed by."""

    scheme: str
    host: str
    """Lower case, IDNA-encoded; an IPv6 literal without its brackets."""
    port: int

    @property
    def authority(self) -> str:
        """`host[:port]` as the Host header writes it: brackets around IPv6, no default port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


def parse_url(url: str) -> tuple[Origin, bytes, bytes]:
    """Split an http(s) URL into its origin, the request target and the value of the Host header.

    The fragment is dropped, as it is never sent. Credentials in the URL are refused: they would show up in logs.

    Raises:
        ValueError: the text is no usable http(s) URL; the message says why, without the URL's query.
    """
    if any(character <= " " or character in '\x7f\\<>"' for character in url):
        raise ValueError("the URL contains a space or a character that is not allowed")
    parts = urlsplit(url)
    if parts.scheme not in DEFAULT_PORTS:
        raise ValueError(f"'{parts.scheme or url.partition('?')[0]}' is not http or https")
    if "@" in parts.netloc:
        raise ValueError("the URL contains a user name or password; use a header instead")
    try:
        port = parts.port
    except ValueError as error:
        raise ValueError("the URL's port is not a number from 1 to 65535") from error
    if port == 0:
        raise ValueError("the URL's port is not a number from 1 to 65535")
    host = _host(parts.hostname or "", bracketed="[" in parts.netloc)
    origin = Origin(parts.scheme, host, port or DEFAULT_PORTS[parts.scheme])
    target = parts.path or "/"
    if parts.query:
        target += "?" + parts.query
    return origin, quote(target, safe=_KEPT_IN_TARGET).encode("ascii"), origin.authority.encode("ascii")


def _host(host: str, *, bracketed: bool) -> str:
    if not host:
        raise ValueError("the URL names no host")
    if bracketed:
        if "%" in host:
            raise ValueError("IPv6 zone identifiers are not supported in URLs")
        return host
    if not host.isascii():
        try:
            host = host.encode("idna").decode("ascii")
        except UnicodeError as error:
            raise ValueError(f"'{host}' is not a host name") from error
    if not _HOST_CHARACTERS.issuperset(host) or any(not 0 < len(label) < 64 for label in host.rstrip(".").split(".")):
        raise ValueError(f"'{host}' is not a host name")
    return host
