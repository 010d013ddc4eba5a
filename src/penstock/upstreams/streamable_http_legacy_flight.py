"""The legacy side of calls that were written at once: each session judges the answers of its own.

Knows: which session a flight belongs to. Does not know: how a session is opened, lost or told something; that is asked of the
legacy side of its server.
"""

from typing import Final, Protocol

import msgspec

from penstock.http.client import RequestFailed, Response
from penstock.protocol.envelopes import compact_result
from penstock.protocol.input_required import NOT_FOR_LEGACY
from penstock.protocol.meta import LOG_LEVEL, PROGRESS_TOKEN
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Answer, Call, Raw, Result
from penstock.upstreams.sessions import LegacySession
from penstock.upstreams.streamable_http_reception import Reception

_encode: Final = msgspec.json.Encoder().encode


class Legacy(Protocol):
    """What a session's flights ask of their server's legacy side."""

    def reception(self, request_id: bytes, session: LegacySession | None, call: Call | None) -> Reception:
        """What takes in an answer that comes in more than one piece."""

    async def unusual(
        self, session: LegacySession, call: Call, reception: Reception, came: Response | RequestFailed
    ) -> Answer:
        """What becomes of a flight whose answer is not ordinary."""

    def give_back(self, session: LegacySession) -> None:
        """Others may use it."""

    def cancel(self, session: LegacySession, request_id: bytes) -> None:
        """Tell the server that a call's answer is not wanted any more."""


class SessionSide:
    """The legacy side of the flights of one session."""

    __slots__ = ("_legacy", "_session")

    def __init__(self, legacy: Legacy, session: LegacySession) -> None:
        self._legacy, self._session = legacy, session

    def reception(self, call: Call, request_id: bytes) -> Reception:
        """See `Side`."""
        return self._legacy.reception(request_id, self._session, call)

    def ordinary(self, body: bytes | memoryview, request_id: bytes) -> Answer | None:
        """See `Side`."""
        compact = compact_result(body, request_id)
        return None if compact is None else Result(compact[0], Era.LEGACY, compact[1])

    async def unusual(self, call: Call, reception: Reception, came: Response | RequestFailed) -> Answer:
        """See `Side`."""
        return await self._legacy.unusual(self._session, call, reception, came)

    def cancelled(self, request_id: bytes) -> None:
        """See `Side`."""
        self._legacy.cancel(self._session, request_id)

    def landed(self, request_id: bytes) -> None:
        """See `Side`."""
        self._session.calls.pop(request_id, None)
        self._legacy.give_back(self._session)


def params_of(call: Call, request_id: bytes) -> dict[str, Raw]:
    """The params of a legacy request: without words of the other era, and our id in the place of the caller's progress token."""
    meta, params = call.meta, call.params
    if not NOT_FOR_LEGACY.isdisjoint(params):
        params = {key: value for key, value in params.items() if key not in NOT_FOR_LEGACY}
    if not meta:
        return params
    rest = {key: value for key, value in meta.items() if key != LOG_LEVEL}
    if PROGRESS_TOKEN in rest:
        rest[PROGRESS_TOKEN] = Raw(request_id)
    return params | {"_meta": Raw(_encode(rest))} if rest else params
