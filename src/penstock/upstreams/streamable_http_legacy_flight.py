"""The legacy side of calls that were written at once: each session judges the answers of its own.

Knows: which session a flight belongs to. Does not know: how a session is opened, lost or told something; that is asked of the
legacy side of its server.
"""

from collections.abc import Coroutine
from typing import Any, ClassVar, Final, Protocol

from penstock.http.client import RequestFailed, Response
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Answer, Call
from penstock.upstreams.sessions import LegacySession
from penstock.upstreams.streamable_http_legacy_requests import LegacyRequests
from penstock.upstreams.streamable_http_reception import Reception


class Legacy(Protocol):
    """What a session's flights ask of their server's legacy side."""

    def reception(self, request_id: bytes, session: LegacySession | None, call: Call | None) -> Reception:
        """What takes in an answer that comes in more than one piece."""

    def unusual(
        self, session: LegacySession, call: Call, reception: Reception, came: Response | RequestFailed
    ) -> Coroutine[Any, Any, Answer]:
        """What becomes of a flight whose answer is not ordinary."""

    def cancel(self, session: LegacySession, request_id: bytes) -> None:
        """Tell the server that a call's answer is not wanted any more."""


class SessionSide:
    """The legacy side of the flights of one session."""

    __slots__ = ("_legacy", "_requests", "_session")
    era: ClassVar[Era] = Era.LEGACY

    def __init__(self, legacy: Legacy, requests: LegacyRequests, session: LegacySession) -> None:
        self._legacy: Final = legacy
        self._requests: Final = requests
        self._session: Final = session

    def reception(self, call: Call, request_id: bytes) -> Reception:
        """See `Side`."""
        return self._legacy.reception(request_id, self._session, call)

    def unusual(self, call: Call, reception: Reception, came: Response | RequestFailed) -> Coroutine[Any, Any, Answer]:
        """See `Side`."""
        return self._legacy.unusual(self._session, call, reception, came)

    def cancelled(self, request_id: bytes) -> None:
        """See `Side`."""
        self._legacy.cancel(self._session, request_id)

    def landed(self, request_id: bytes) -> None:
        """See `Side`."""
        self._requests.landed(self._session, request_id)
