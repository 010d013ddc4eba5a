"""Every bound of a streamable HTTP server, by name.

Knows: defaults. Does not know: how they are written in a file.
"""

from pathlib import Path
from typing import Final, Literal

import msgspec

from penstock import __version__
from penstock.http.limits import ClientLimits
from penstock.upstreams.pool import PoolSettings

CONNECTIONS: Final = PoolSettings(max_size=256, idle_seconds=4.0, lifetime_seconds=300.0)
"""Idle limit: uvicorn and node end an idle connection after 5 s, and a request that crosses their goodbye is lost.
Lifetime: a changed DNS record is noticed at the latest then."""

EXCLUSIVE_SESSIONS: Final = PoolSettings(max_size=256, idle_seconds=60.0, lifetime_seconds=3600.0)


class StreamableHttpSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One server; all times in seconds. `repr` shows no header: they may hold secrets."""

    url: str
    unix_path: Path | None = None
    """Where the server listens instead of at the URL's host: another worker."""
    headers: tuple[tuple[str, str], ...] = ()
    """Sent with every request."""
    principal_header: bytes = b""
    """Says who asks, to another worker that believes it; empty: nobody is told."""
    protocol: str = "auto"
    """`auto`, or the one revision to speak."""
    sessions: Literal["auto", "shared"] = "auto"
    """`auto`: a legacy client session has a session of its own at a server that issues session ids."""
    client_info: bytes = b'{"name":"penstock","version":"%s"}' % __version__.encode()
    """JSON object: who we are where no client's word stands for us."""
    connections: PoolSettings = CONNECTIONS
    limits: ClientLimits = ClientLimits()

    handshake_seconds: float = 30.0
    """For each answer to `server/discover` and to `initialize`: nobody's deadline bounds what many callers share."""
    max_sessions: int = 1024
    """Sessions at the server that belong to one legacy client session each; beyond it the longest unused one is ended."""
    session_idle_seconds: float = 900.0
    """After this long without a call such a session is ended."""
    exclusive_sessions: PoolSettings = EXCLUSIVE_SESSIONS
    """Sessions for callers that can be asked and have none of their own; one call at a time in each, and a pool of them for
    each principal and each set of capabilities."""
    max_streams: int = 2048
    """Sessions whose stream beside the calls is listened to; those beyond it do without."""
    stream_seconds: float = 2.0
    """How long the first call of a session waits for that stream to be open."""
    close_seconds: float = 2.0
    """For ending sessions when the server is removed or we shut down."""
    background_seconds: float = 5.0
    """For what is told to the server without waiting: cancellations, answers to its requests, ends of sessions."""
    max_background: int = 4096
    """Such messages under way at a time; more are dropped and counted."""
    resume_tries: int = 5
    """Reconnections in a row to a call's stream that bring nothing, before the call fails."""
    max_retry_seconds: float = 15.0
    """The longest pause before a reconnection that a server may ask for."""

    def __repr__(self) -> str:
        return f"<StreamableHttpSettings {self.url.partition('?')[0]} protocol {self.protocol}>"
