"""One call's waterfall as a `Server-Timing` header, for a caller that asked.

Knows: moments on the loop's clock. Does not know: HTTP. Source: W3C Server Timing (metrics `name;dur=milliseconds`).
"""


def server_timing(
    *, received_at: float, routed_at: float, sent_at: float, first_byte_at: float, answered_at: float
) -> bytes:
    """The header's value. A moment of 0.0 was never reached; what depends on it is left out.

    `auth` is 0 while sign-in is off and `queue` is 0 while no policy queues; both stand so that readers need not guess.
    """
    parts = [b"auth;dur=0", b"route;dur=" + _ms(routed_at - received_at), b"queue;dur=0"]
    if sent_at:
        parts.append(b"pool;dur=" + _ms(sent_at - routed_at))
        if first_byte_at:
            parts.append(b"ttfb;dur=" + _ms(first_byte_at - sent_at))
        parts.append(b"upstream;dur=" + _ms(answered_at - sent_at))
    return b", ".join(parts)


def _ms(seconds: float) -> bytes:
    return b"%.3f" % (max(0.0, seconds) * 1000)
