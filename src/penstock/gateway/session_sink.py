"""The stream of a legacy client beside its calls, as servers behind the gateway see it.

Knows: one client session, its GET stream, its log level. Does not know: servers, how the stream was opened.
Invariant: the client is asked only what it declared, and hears no log line below its level.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from penstock.gateway.client_questions import UNREACHABLE, ClientQuestions
from penstock.gateway.edges.refused_questions import not_declared
from penstock.gateway.parking import Parking
from penstock.gateway.sessions import ClientSession
from penstock.protocol.client_capabilities import missing
from penstock.protocol.envelopes import encode_notification
from penstock.protocol.event_stream import encode_event
from penstock.upstreams.log_levels import is_at_least
from penstock.upstreams.questions import Question


class SessionSink:
    """See `Sink`."""

    __slots__ = ("_parking", "_session")

    def __init__(self, session: ClientSession, parking: Parking) -> None:
        self._session: Final = session
        self._parking: Final = parking

    def __repr__(self) -> str:
        return f"<SessionSink of {self._session!r}>"

    @property
    def is_open(self) -> bool:
        """See `Sink`."""
        listener = self._session.listener
        return listener is not None and listener.stream is not None and listener.stream.is_open

    def ask(self, question: Question) -> None:
        """See `Sink`."""
        session = self._session
        if missing(session.caller.askable, question.method, question.params) is not None:
            question.answer(not_declared(question.method))
        elif not self.is_open:
            question.answer(UNREACHABLE)
        else:
            if session.questions is None:
                session.questions = ClientQuestions(self._parking)
            session.questions.ask(question, self._say)

    def notify(self, method: str, params: dict[str, msgspec.Raw]) -> None:
        """See `Sink`."""
        level = self._session.log_level
        if level is None or is_at_least(params, level):
            self._say(encode_notification(method, params))

    def subscriptions(self, server: str) -> Iterable[str]:
        """See `Sink`."""
        listener = self._session.listener
        return [] if listener is None else [uri for uri, its in listener.uris.items() if its == server]

    def hear_apart(self, uri: str, *, apart: bool) -> None:
        """See `Sink`."""
        listener = self._session.listener
        if listener is not None:
            listener.hear_apart(uri, apart=apart)

    def updated(self, uri: str) -> bool:
        """See `Sink`."""
        listener = self._session.listener
        return listener is not None and listener.tell_apart(uri)

    def _say(self, message: bytes) -> bool:
        listener = self._session.listener
        if listener is None or listener.stream is None:
            return False
        listener.stream.send(encode_event(message))
        return listener.stream.is_open
