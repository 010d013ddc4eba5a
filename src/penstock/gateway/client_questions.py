"""What a legacy client has been asked and has not answered yet.

Knows: ids of ours, the questions behind them. Does not know: over which stream a question went, HTTP.
Invariants: an id is used once in a session; never more than `MAX_OPEN` questions of a session are open; each of them is closed
by the client's answer, by the server, by the end of its call, or when its time is over.
"""

import os
from collections.abc import Callable
from typing import Final

import msgspec

from penstock.gateway.parking import Parking
from penstock.protocol.envelopes import encode_notification, encode_request
from penstock.protocol.errors import INTERNAL_ERROR
from penstock.protocol.messages import Reply, RpcError
from penstock.protocol.meta import PROGRESS_TOKEN
from penstock.upstreams.questions import Question

Raw = msgspec.Raw
Say = Callable[[bytes], bool]
"""Sends one message to the client; False when it cannot be reached."""
MAX_OPEN: Final = 64
TOO_MANY: Final = RpcError(INTERNAL_ERROR, "too many requests wait for clients already")
UNREACHABLE: Final = RpcError(INTERNAL_ERROR, "the client cannot be reached with a request now")
LATE: Final = RpcError(INTERNAL_ERROR, "the client has not answered in time")
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode


class Asked:
    """One question on its way to the client and back."""

    __slots__ = ("_book", "id", "on_closed", "place", "question", "say")

    def __init__(self, book: "ClientQuestions", id: bytes, question: Question, say: Say) -> None:
        self._book: Final = book
        self.id: Final = id
        self.question: Final = question
        self.say: Final = say
        self.place = ""
        """Its key in the parking."""
        self.on_closed: Callable[[], object] | None = None
        """Told once when nothing is awaited any more."""

    def __repr__(self) -> str:
        return f"<Asked {self.id.decode()} {self.question!r}>"

    def expire(self) -> None:
        """See `Parked`."""
        self.retract("it was not answered in time")
        self.question.answer(LATE)

    def withdrawn(self) -> None:
        """The server does not want the answer any more."""
        self.retract("the server does not want the answer any more")

    def retract(self, reason: str) -> None:
        """Tell the client that no answer is wanted."""
        if self._book.close(self):
            params = {"requestId": Raw(self.id), "reason": Raw(msgspec.json.encode(reason))}
            self.say(encode_notification("notifications/cancelled", params))


class ClientQuestions:
    """The open questions to one client session."""

    __slots__ = ("_last", "_open", "_parking", "_prefix")

    def __init__(self, parking: Parking) -> None:
        self._parking: Final = parking
        self._prefix: Final = b"penstock-%d-%b" % (parking.worker, os.urandom(4).hex().encode())
        """A session outlives its worker and what is known of it here: counting alone would use ids again."""
        self._open: dict[bytes, Asked] = {}
        self._last = 0

    def __repr__(self) -> str:
        return f"<ClientQuestions [{len(self._open)} open]>"

    def __len__(self) -> int:
        return len(self._open)

    def ask(self, question: Question, say: Say) -> Asked | None:
        """Send the question to the client; None when that cannot be: then it has been answered with the reason."""
        if len(self._open) >= MAX_OPEN:
            question.answer(TOO_MANY)
            return None
        self._last += 1
        asked = Asked(self, b'"%b-%d"' % (self._prefix, self._last), question, say)
        place = self._parking.enter(asked)
        if place is None:
            question.answer(TOO_MANY)
            return None
        asked.place = place
        if not say(encode_request(asked.id, question.method, _params_for_client(question, asked.id))):
            self._parking.leave(place)
            question.answer(UNREACHABLE)
            return None
        question.on_withdrawn = asked.withdrawn
        self._open[asked.id] = asked
        return asked

    def answered(self, reply: Reply) -> None:
        """The client's answer; one to a question that is closed already is dropped."""
        asked = self._open.get(reply.id) if reply.id is not None else None
        if asked is not None and self.close(asked):
            error = reply.error
            asked.question.answer(error if error is not None else reply.result or b"{}")

    def progressed(self, params: dict[str, Raw]) -> None:
        """The client says how far it is with a question."""
        asked = self._open.get(bytes(params.get(PROGRESS_TOKEN, b"")))
        if asked is not None:
            asked.question.report(params)

    def close(self, asked: Asked) -> bool:
        """Whether it was open until now."""
        if self._open.pop(asked.id, None) is None:
            return False
        self._parking.leave(asked.place)
        told, asked.on_closed = asked.on_closed, None  # what is told there holds the question
        if told is not None:
            told()
        return True


def worker_of(question_id: bytes) -> int | None:
    """The worker that asked, by the id of its question; None when it is none of ours."""
    parts = question_id.strip(b'"').split(b"-")
    return (
        int(parts[1])
        if len(parts) == 4 and parts[0] == b"penstock" and parts[1].isdigit() and len(parts[1]) < 5
        else None
    )


def _params_for_client(question: Question, id: bytes) -> dict[str, Raw]:
    """The question's parameters, with our id as progress token where the server wants to hear of progress."""
    if not question.wants_progress:
        return question.params
    meta = question.params.get("_meta")
    members = _decode_members(meta) if meta is not None else {}
    return question.params | {"_meta": Raw(msgspec.json.encode(members | {PROGRESS_TOKEN: Raw(id)}))}
