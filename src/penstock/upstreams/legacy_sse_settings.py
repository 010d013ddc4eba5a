"""Every bound of a server that is spoken to over HTTP+SSE, by name.

Knows: defaults, and which of them a streamable HTTP server's settings have. Does not know: how they are written in a file.
"""

import msgspec

from penstock.upstreams.streamable_http_settings import StreamableHttpSettings

MIB = 1024 * 1024


class LegacySseSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One server; all times in seconds."""

    http: StreamableHttpSettings
    """The server's, as it was taken for one of the later transport."""
    max_in_flight: int = 256
    """Calls under way in one conversation at a time."""
    max_unsent_bytes: int = 8 * MIB
    """What may be on its way to the server in one conversation; the call after that is refused."""
    junk_lines: int = 1000
    """Events in a row that are no messages, until the conversation is given up."""
    endpoint_bytes: int = 8192
    """Longest address the server may announce for messages."""
    open_wait_seconds: float = 10.0
    """How long a call waits for the next attempt to reach a server that has failed several times."""
    first_delay_seconds: float = 0.1
    """Pause before the second such attempt in a row; it doubles from there. The first one comes at once."""
    longest_delay_seconds: float = 30.0
    healthy_seconds: float = 10.0
    """A conversation that lasted this long ended for a reason of its own: the next one is opened at once."""

    @property
    def turn_seconds(self) -> float:
        """How long a call waits for the one before it, at a server that asks clients."""
        return self.http.connections.wait_seconds

    @property
    def client_info(self) -> bytes:
        """JSON object: who we are where no client's word stands for us."""
        return self.http.client_info

    def __repr__(self) -> str:
        return f"<LegacySseSettings {self.http!r}>"
