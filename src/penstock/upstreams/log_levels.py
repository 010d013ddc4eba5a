"""How talkative a log a call wants, and which lines it gets.

Knows: the levels of RFC 5424, calls. Does not know: transports.
"""

from typing import Final

from penstock.protocol.meta import LOG_LEVEL, LOG_LEVELS
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Call, Caller, Raw

RANKS: Final = {b'"%s"' % name.encode(): rank for rank, name in enumerate(LOG_LEVELS)}
"""JSON bytes of a log level to its rank, least severe 0."""
EVERY_LOG: Final = Raw(b'"%b"' % LOG_LEVELS[0].encode())
"""The level that asks for all there is."""


def log_rank(call: Call) -> int | None:
    """How talkative a log the call wants, 0 the most; None when it did not say."""
    asked = call.meta.get(LOG_LEVEL) if call.meta else None
    return None if asked is None else RANKS.get(bytes(asked))


def asking_for_logs(caller: Caller, meta: dict[str, Raw] | None) -> dict[str, Raw] | None:
    """`_meta` for a modern server, which logs nothing unasked: with the level of a caller that takes every line and set none."""
    if not caller.hears_every_log or (meta and LOG_LEVEL in meta):
        return meta
    return {**(meta or {}), LOG_LEVEL: EVERY_LOG}


def is_wanted(call: Call, params: dict[str, Raw]) -> bool:
    """Whether the call asked for log lines of this level; a legacy caller that set none takes what the server sends."""
    asked = call.meta.get(LOG_LEVEL) if call.meta else None
    if asked is None:
        return call.caller.era is Era.LEGACY
    return is_at_least(params, asked)


def is_at_least(params: dict[str, Raw], asked: Raw) -> bool:
    """Whether a log line is of that level (JSON) or a more severe one; of an unknown level it is the least severe."""
    return RANKS.get(bytes(params.get("level", b"")), 0) >= RANKS.get(bytes(asked), 0)
