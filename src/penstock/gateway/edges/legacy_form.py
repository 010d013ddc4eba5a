"""How legacy clients read answers: results and errors of either era in the words of their revision.

Knows: one revision, what a stream of it has. Does not know: sessions' ends, requests.
"""

from typing import ClassVar

from penstock.errors import ServerError
from penstock.gateway.client_questions import ClientQuestions
from penstock.gateway.edges.calling import Dialogue, RunningCall, result_body
from penstock.gateway.edges.legacy_dialogue import LegacyDialogue
from penstock.gateway.edges.listening import FIRST_PRIMED
from penstock.gateway.edges.refusal import refusal_body
from penstock.gateway.parking import Parking
from penstock.gateway.replay import CALL, EventSink, Replay
from penstock.gateway.sessions import ClientSession
from penstock.http.messages import Body
from penstock.http.server import Exchange
from penstock.protocol.envelopes import encode_error
from penstock.protocol.errors import translate_error
from penstock.protocol.messages import Fault
from penstock.protocol.results import to_legacy
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Failure, Result


class LegacyForm:
    """How clients of one legacy revision read an answer."""

    era: ClassVar[Era] = Era.LEGACY

    def __init__(self, revision: str, parking: Parking, replay: Replay) -> None:
        self._revision = revision
        self._parking = parking
        self._replay = replay

    def open_stream(self, exchange: Exchange, session: ClientSession | None) -> EventSink:
        stream = exchange.open_stream()
        if session is None or session.ends_with_stream or not stream.is_open:
            return stream
        kept = self._replay.open(session.key, CALL, stream)
        if self._revision >= FIRST_PRIMED:
            kept.prime()
        return kept

    def dialogue(self, running: RunningCall, session: ClientSession | None) -> Dialogue:
        if session is not None and session.questions is None:
            session.questions = ClientQuestions(self._parking)
        return LegacyDialogue(running, session)

    def translated(self, method: str, result: Result, request_id: bytes, _server_info: bytes) -> tuple[int, Body]:
        raw = to_legacy(result.raw, method, self._revision, result.marks)
        if isinstance(raw, Fault):
            return 200, encode_error(request_id, raw.code, raw.message, null_id=False)
        return 200, result_body(request_id, raw)

    def failure(self, method: str, failure: Failure, request_id: bytes) -> tuple[int, bytes]:
        code = translate_error(failure.code, method, failure.era, Era.LEGACY)
        return 200, encode_error(request_id, code, failure.message, failure.data, null_id=False)

    def refusal(self, error: ServerError, request_id: bytes) -> tuple[int, bytes]:
        return 200, refusal_body(request_id, error)
