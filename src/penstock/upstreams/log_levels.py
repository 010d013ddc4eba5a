"""How talkative a log a call wants, and which lines it gets.

Knows: the levels of RFC 5424, calls. Does not know: transports.
"""

from typing import Final

from penstock.protocol.meta import LOG_LEVEL, LOG_LEVELS
from penstock.protocol.versions import Era
from penstock.upstreams.interface import Call, Raw

RANKS: Final = {b'"%s"' % name.encode(): rank for rank, name in enumerate(LOG_LEVELS)}
"""JSON bytes of a log level to its rank, least severe 0."""


def log_rank(call: Call) -> int | None:
    """How talkative a log the call wants, 0 the most; None when it did not say."""
    asked = call.meta.get(LOG_LEVEL) if call.meta else None
    return None if asked is None else RANKS.get(bytes(asked))


def is_wanted(call: Call, params: dict[str, Raw]) -> bool:
    """Whether the call asked for log lines of this level; a legacy caller that set none takes what the server sends."""
    asked = call.meta.get(LOG_LEVEL) if call.meta else None
    if asked is None:
        return call.caller.era is Era.LEGACY
    return is_at_least(params, asked)


def is_at_least(params: dict[str, Raw], asked: Raw) -> bool:
    """Whether a log line is of that level (JSON) or a more severe one; of an unknown level it is the least severe."""
    return RANKS.get(bytes(params.get("level", b"")), 0) >= RANKS.get(bytes(asked), 0)
