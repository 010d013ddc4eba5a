"""How TCP connections to servers are set up.

Knows: socket options. Does not know: what travels.

A stream that only listens is silent for hours when nothing changes, and a server that vanished without a word (its machine lost
power, a firewall forgot the connection) is silent in the same way: the kernel asks it now and then whether it is there.
"""

import socket
from typing import Any, Final

IDLE_SECONDS: Final = 30
"""After so much silence it is asked for the first time."""
INTERVAL_SECONDS: Final = 10
PROBES: Final = 3
"""So many unanswered questions, and it is gone: after a minute in all."""
_OPTIONS: Final = (
    ("TCP_NODELAY", 1),
    ("TCP_KEEPIDLE", IDLE_SECONDS),
    ("TCP_KEEPALIVE", IDLE_SECONDS),  # what macOS calls the same
    ("TCP_KEEPINTVL", INTERVAL_SECONDS),
    ("TCP_KEEPCNT", PROBES),
)
_KNOWN: Final = tuple((getattr(socket, name), value) for name, value in _OPTIONS if hasattr(socket, name))


def set_up(sock: Any) -> None:
    """Send small messages at once, and notice a peer that has vanished; `sock` is a socket, or what a transport has for one.

    Without effect on what is no TCP connection.
    """
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KNOWN:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
