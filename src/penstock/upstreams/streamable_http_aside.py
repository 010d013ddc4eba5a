"""What a legacy session's server says on its GET stream: beside the calls, as far as that can be told.

Knows: the session's calls, the stream of its client. Does not know: connections, how the stream is opened.
Invariant: what could be about several calls reaches none of them.

Source: 2025-11-25 basic/transports: such messages SHOULD be unrelated to calls, and servers that name no call send theirs here.
"""

from collections.abc import Callable
from time import monotonic
from typing import Final

from penstock.protocol.messages import Message, Notification, Request
from penstock.protocol.meta import PROGRESS_TOKEN
from penstock.protocol.subscriptions import CAPABILITY_OF, UPDATED
from penstock.upstreams.calls import Call, Raw, Sink
from penstock.upstreams.log_levels import is_wanted
from penstock.upstreams.questions import Ask
from penstock.upstreams.sessions import LegacySession
from penstock.upstreams.streamable_http_reception import HttpCounts

HeardIn = Callable[[str, dict[str, Raw], LegacySession], None]
"""Takes method and params of what is said of a change, and the session in which it is said."""


class Aside:
    """Takes the messages of one session's stream."""

    __slots__ = ("_counts", "_heard", "_session", "_sink")

    def __init__(self, session: LegacySession, sink: Sink | None, heard: HeardIn, counts: HttpCounts) -> None:
        """
        Args:
            sink: of the client the session belongs to; None when it is lent to one caller after the other.
            heard: takes what the server says of changes.
        """
        self._session: Final = session
        self._sink: Final = sink
        self._heard: Final[HeardIn] = heard
        self._counts: Final = counts

    def __repr__(self) -> str:
        return f"<Aside {self._session!r}>"

    def take(self, message: Message) -> None:
        """One message of the stream."""
        if isinstance(message, Request):
            if self._session.questions is not None:
                self._session.questions.asked(message, self._ask())
        elif isinstance(message, Notification):
            self._notified(message.method, message.params)

    def _ask(self) -> Ask | None:
        """Whom the server asks: its client's own stream, as it was asked there; else the only call under way."""
        if self._sink is not None and self._sink.is_open:
            return self._sink.ask
        call = self._only_call()
        return call.ask if call is not None else None

    def _notified(self, method: str, params: dict[str, Raw]) -> None:
        if method in CAPABILITY_OF or method == UPDATED:
            self._heard(method, params, self._session)
        elif method == "notifications/progress":
            self._progressed(params)
        elif method == "notifications/message":
            self._logged(params)
        elif method == "notifications/cancelled" and self._session.questions is not None:
            self._session.questions.cancelled(params)
        else:
            self._counts.other_notifications += 1

    def _progressed(self, params: dict[str, Raw]) -> None:
        call = self._session.calls.get(bytes(params.get(PROGRESS_TOKEN, b"")))
        token = call.meta.get(PROGRESS_TOKEN) if call is not None and call.meta else None
        if call is None or token is None:
            self._counts.stray_progress += 1
            return
        call.progress_at = monotonic()
        if call.notify is not None:
            call.notify("notifications/progress", params | {PROGRESS_TOKEN: token})

    def _logged(self, params: dict[str, Raw]) -> None:
        call = self._only_call()
        if self._sink is not None and self._sink.is_open:
            self._sink.notify("notifications/message", params)
        elif call is not None and call.notify is not None and is_wanted(call, params):
            call.notify("notifications/message", params)
        else:
            self._counts.unwanted_logs += 1

    def _only_call(self) -> Call | None:
        calls = self._session.calls
        return next(iter(calls.values())) if len(calls) == 1 else None
