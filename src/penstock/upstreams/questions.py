"""What a legacy server asks while it works on a call, and what becomes of it.

Knows: requests and answers of one conversation with a server. Does not know: transports, how a client is asked.
Invariants: each of the server's requests is answered exactly once, or withdrawn by it; never more than `MAX_OPEN` of one
conversation are open.

Source: basic/utilities/cancellation, basic/utilities/progress, client/* of 2025-11-25.
"""

from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

import msgspec

from penstock.protocol.envelopes import encode_error, encode_notification, encode_result, read_id
from penstock.protocol.errors import INTERNAL_ERROR, METHOD_NOT_FOUND
from penstock.protocol.messages import Request, RpcError
from penstock.protocol.meta import PROGRESS_TOKEN
from penstock.protocol.methods import INPUT_REQUESTS

Raw = msgspec.Raw
MAX_OPEN: Final = 64
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode


Reply = bytes | RpcError
"""A result (a JSON object), or why there is none."""


class Question:
    """One thing a client is asked: a legacy server's request, or one of those in a modern server's `input_required`."""

    __slots__ = ("_reply", "_report", "is_open", "method", "on_withdrawn", "params")

    def __init__(
        self,
        method: str,
        params: dict[str, Raw],
        reply: Callable[[Reply], None],
        report: Callable[[dict[str, Raw]], None] | None = None,
    ) -> None:
        """
        Args:
            params: owned, without a progress token.
            reply: takes the one answer.
            report: takes the params of the client's progress notifications; None when nobody wants them.
        """
        self.method: Final = method
        self.params: Final = params
        self._reply: Final = reply
        self._report: Final = report
        self.is_open = True
        """Neither answered nor withdrawn."""
        self.on_withdrawn: Callable[[], object] | None = None
        """Told once when the answer is not wanted any more."""

    def __repr__(self) -> str:
        return f"<Question {self.method} {'open' if self.is_open else 'closed'}>"

    @property
    def reporter(self) -> Callable[[dict[str, Raw]], None] | None:
        """What takes the client's progress; None when nobody wants to hear of it."""
        return self._report

    @property
    def wants_progress(self) -> bool:
        """Whether the server would like to hear how the client comes along."""
        return self._report is not None

    def answer(self, reply: Reply) -> None:
        """Give the server the client's answer; without effect when it is not wanted any more."""
        if self.is_open:
            self.is_open = False
            self.on_withdrawn = None  # what is told there holds the question
            self._reply(reply)

    def report(self, params: dict[str, Raw]) -> None:
        """Pass the client's progress on."""
        if self.is_open and self._report is not None:
            self._report(params)

    def withdraw(self) -> None:
        """The server has lost interest: whoever was to answer is told."""
        if self.is_open:
            self.is_open = False
            told, self.on_withdrawn = self.on_withdrawn, None
            if told is not None:
                told()


Ask = Callable[[Question], None]
"""Takes a question to whoever may answer it. Must not raise or block."""


class Counts(Protocol):
    """Where it is counted that nobody was there to answer."""

    refused_requests: int


class Questions:
    """The open questions of one conversation with a legacy server."""

    __slots__ = ("_counts", "_open", "_send")

    def __init__(self, send: Callable[[bytes], None], counts: Counts) -> None:
        """`send` takes one message for the server."""
        self._send = send
        self._counts: Final = counts
        self._open: dict[bytes, Question] = {}

    def __repr__(self) -> str:
        return f"<Questions [{len(self._open)} open]>"

    def __len__(self) -> int:
        return len(self._open)

    def asked(self, request: Request, ask: Ask | None) -> None:
        """The server asks; `ask` reaches the client whose call it is about, None when nobody does."""
        if request.method == "ping":
            self._send(encode_result(request.id, b"{}"))
        elif request.method not in INPUT_REQUESTS:
            self._refuse(request, METHOD_NOT_FOUND, f"Penstock does not answer {request.method[:64]!r}")
        elif ask is None:
            self._refuse(request, METHOD_NOT_FOUND, f"no client is there that can be asked {request.method!r}")
        elif len(self._open) >= MAX_OPEN or request.id in self._open:
            why = (
                f"{MAX_OPEN} requests are open, the most that may"
                if len(self._open) >= MAX_OPEN
                else "its id is in use"
            )
            self._refuse(request, INTERNAL_ERROR, f"{request.method!r} is not passed on: {why}")
        else:
            question = self._open[request.id] = self._question(request)
            ask(question)

    def cancelled(self, params: dict[str, Raw]) -> None:
        """The server has sent `notifications/cancelled`."""
        request_id = read_id(bytes(params.get("requestId", b"")))
        question = self._open.pop(request_id, None) if isinstance(request_id, bytes) else None
        if question is not None:
            question.withdraw()

    def close(self) -> None:
        """The conversation is over: nobody waits for answers any more."""
        self._send = _unheard  # the conversation holds us, and need not be held by us
        questions, self._open = self._open, {}
        for question in questions.values():
            question.withdraw()

    def _question(self, request: Request) -> Question:
        params = {key: Raw(bytes(value)) for key, value in request.params.items()}
        token = _take_token(params)
        report = None if token is None else partial(self._report, token)
        return Question(request.method, params, partial(self._reply, request.id), report)

    def _reply(self, request_id: bytes, reply: Reply) -> None:
        if self._open.pop(request_id, None) is None:
            return  # the conversation is over
        if isinstance(reply, bytes):
            self._send(encode_result(request_id, reply))
        else:
            self._send(encode_error(request_id, reply.code, reply.message, reply.data, null_id=False))

    def _report(self, token: Raw, params: dict[str, Raw]) -> None:
        self._send(encode_notification("notifications/progress", params | {PROGRESS_TOKEN: token}))

    def _refuse(self, request: Request, code: int, message: str) -> None:
        self._counts.refused_requests += 1
        self._send(encode_error(request.id, code, message, null_id=False))


def _unheard(_message: bytes) -> None:
    """Nobody is there who would hear it."""


def _take_token(params: dict[str, Raw]) -> Raw | None:
    """Take the server's progress token out of `_meta`: the client gets one of ours."""
    meta = params.pop("_meta", None)
    if meta is None:
        return None
    try:
        members = _decode_members(meta)
    except msgspec.DecodeError:
        return None
    token = members.pop(PROGRESS_TOKEN, None)
    if members:
        params["_meta"] = Raw(msgspec.json.encode(members))
    return token
