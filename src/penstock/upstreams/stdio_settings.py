"""Every bound of a stdio server, by name.

Knows: defaults. Does not know: how they are written in a file.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec

from penstock import __version__

MIB = 1024 * 1024


class StdioSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One stdio server; all times in seconds. `repr` shows neither arguments nor environment: both may hold secrets."""

    command: tuple[str, ...]
    """argv; never handed to a shell."""
    env: Mapping[str, str] = {}
    """Added to the allow-listed part of our own environment."""
    cwd: str | None = None
    protocol: str = "auto"
    """`auto`, or the one revision to speak."""
    instances: int | Literal["shared", "per_session"] = "shared"
    """How many children: one, that many, or one for each legacy client session."""
    client_info: bytes = b'{"name":"penstock","version":"%s"}' % __version__.encode()
    """JSON object: who we are in a legacy handshake, and in a modern one that nobody's call caused."""

    probe_seconds: float = 5.0
    """How long `server/discover` may stay unanswered before `initialize` is sent after it."""
    start_seconds: float = 60.0
    """From the start of the process to the end of the handshake; `npx` may have to download first."""
    restart_wait_seconds: float = 10.0
    """How long a call waits for a server that ran before and is being started again."""
    first_delay_seconds: float = 0.1
    """Pause before the second restart in a row; it doubles from there. The first one comes at once."""
    longest_delay_seconds: float = 30.0
    healthy_seconds: float = 60.0
    """A child that ran this long is healthy: its next restart counts as the first again."""
    close_seconds: float = 2.0
    """How long a child may take to exit after its stdin was closed."""
    terminate_seconds: float = 1.0
    """How long it may take after SIGTERM; then comes SIGKILL."""

    turn_seconds: float = 10.0
    """How long a call waits for the one before it, at a server that asks clients and so is given one call at a time."""
    max_in_flight: int = 256
    """Calls a child works on, and calls that wait for it to start, at a time."""
    max_unsent_bytes: int = 8 * MIB
    """What may wait for a child that does not read; the call after that is refused."""
    line_bytes: int = 16 * MIB
    """Longest message of a server."""
    junk_lines: int = 1000
    """Lines in a row that are no messages, until the server is given up and started again."""
    stderr_bytes: int = 256 * 1024
    """How much of stderr is kept."""
    max_sessions: int = 32
    """Children of `per_session`."""
    session_idle_seconds: float = 900.0
    """After this long without a call the child of a session is ended."""

    def __repr__(self) -> str:
        return f"<StdioSettings {self.command[0] if self.command else ''!r} instances {self.instances}>"
