"""Whose browser may talk to us: `Host` and `Origin` against what is allowed, and CORS.

Knows: header values. Does not know: tokens, principals (that is identity), paths. Loopback hosts and origins are always
allowed, on any port; everything else must be named. Source: RFC 6454, Fetch (CORS); DNS rebinding is why `Host` is looked at.
"""

import ipaddress
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from penstock.http.server import Exchange
from penstock.protocol.headers import decode_value

HOPPED: Final = b"penstock-hop"
"""Header of a request that came from a client by another worker: it is counted where it is answered. Means nothing elsewhere."""
PRINCIPAL: Final = b"penstock-principal"
"""How one worker tells another who asks."""
_CACHED: Final = 1_024
_ALLOW_METHODS: Final = b"access-control-allow-methods: GET, POST, DELETE, OPTIONS\r\n"
_ALLOWED_HEADERS: Final = (
    b"Content-Type, Accept, Authorization, MCP-Protocol-Version, Mcp-Session-Id, Mcp-Method, Mcp-Name,"
    b" Last-Event-ID, Penstock-Timing"
)
_EXPOSED: Final = b"access-control-expose-headers: Mcp-Session-Id, Server-Timing, WWW-Authenticate\r\n"


def is_loopback(host: str) -> bool:
    """Whether a host name or address literal means this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Admittance:
    """Remembers verdicts by header value, so that a call pays a dict hit for each."""

    def __init__(self, hosts: Iterable[str] = (), origins: Iterable[str] = (), *, is_internal: bool = False) -> None:
        """`is_internal`: another worker has let them in."""
        self.is_internal: Final = is_internal
        self._hosts = {host.lower() for host in hosts}
        """Names, with or without a port."""
        self._origins = {origin.lower().rstrip("/") for origin in origins}
        self._verdicts: dict[tuple[bytes, bytes | None], str | None] = {}

    def __repr__(self) -> str:
        return f"<Admittance hosts {sorted(self._hosts)} origins {sorted(self._origins)}>"

    def refusal(self, headers: dict[bytes, bytes]) -> str | None:
        """Why the request is not let in, or None."""
        if self.is_internal:
            return None
        key = headers.get(b"host", b""), headers.get(b"origin")
        try:
            return self._verdicts[key]
        except KeyError:
            verdict = self._judge(*key)
        if len(self._verdicts) >= _CACHED:
            self._verdicts.clear()
        self._verdicts[key] = verdict
        return verdict

    def _judge(self, host: bytes, origin: bytes | None) -> str | None:
        authority = host.decode("latin-1").lower()
        name = _host_of(authority)
        if name and not is_loopback(name) and name not in self._hosts and authority not in self._hosts:
            return f"Forbidden: Host '{authority[:100]}' is not allowed; name it in listen.allowed_hosts"
        if origin is None:
            return None
        said = origin.decode("latin-1").lower()
        try:
            origin_host = urlsplit(said).hostname or ""
        except ValueError:
            origin_host = ""
        if said in self._origins or "*" in self._origins or is_loopback(origin_host):
            return None
        return f"Forbidden: Origin '{said[:100]}' is not allowed; name it in listen.allowed_origins"

    def principal(self, headers: dict[bytes, bytes]) -> str:
        """Who asks; empty while there is no sign-in. Another worker says it of those it has let in."""
        return (decode_value(headers.get(PRINCIPAL, b"")) or "") if self.is_internal else ""

    def cors(self, headers: dict[bytes, bytes]) -> bytes:
        """Header lines that let an allowed browser page read the answer; nothing for other clients."""
        origin = headers.get(b"origin")
        if origin is None or self.is_internal:
            return b""
        return b"access-control-allow-origin: %b\r\nvary: Origin\r\n%b" % (origin, _EXPOSED)

    def answer_preflight(self, exchange: Exchange) -> None:
        """OPTIONS; the origin was judged before."""
        headers = exchange.request.headers
        asked = headers.get(b"access-control-request-headers", b"")
        extra = [
            name.strip()
            for name in asked.split(b",")
            if name.strip().lower().startswith((b"mcp-param-", b"penstock-")) and name.strip().isascii()
        ]
        allowed = b", ".join([_ALLOWED_HEADERS, *extra[:50]])
        lines = b"access-control-allow-headers: %b\r\naccess-control-max-age: 600\r\n" % allowed
        exchange.respond(204, headers=_ALLOW_METHODS + lines)


def _host_of(authority: str) -> str:
    """The host without its port; IPv6 literals without brackets."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0]
    return authority.rpartition(":")[0] if authority.count(":") == 1 else authority
