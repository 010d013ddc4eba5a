"""A call of a server that asks: it rests while its client owes answers, and gets them when its turn comes again.

Knows: one call's turn and its open questions. Does not know: messages, other calls.
Invariant: while the call rests, no answer of its client reaches the server, so the server goes on with one call at a time.
"""

import asyncio
from typing import Final

from penstock.upstreams.questions import Ask, Question, Reply
from penstock.upstreams.turns import Habits, Turn

GATHER_SECONDS: Final = 0.05
"""A server that asks several things at once does so within this time; only then others may work."""


class AskingTurn:
    """One call's turn, and what it has asked."""

    __slots__ = ("_answers", "_habits", "_loop", "_open", "_timer", "_turn")

    def __init__(self, turn: Turn, habits: Habits, loop: asyncio.AbstractEventLoop) -> None:
        self._turn: Final = turn
        self._habits: Final = habits
        self._loop: Final = loop
        self._open = 0
        self._answers: list[tuple[Question, Reply]] = []
        """Of the client, for when the turn comes."""
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<AskingTurn {self._turn!r} [{self._open} open]>"

    @property
    def is_at_work(self) -> bool:
        """Whether it may be this call the server speaks of."""
        return self._turn.is_at_work

    def asking(self, ask: Ask | None) -> Ask | None:
        """The same `ask`, for a question of this call."""
        if ask is None:
            return None

        def asked(question: Question) -> None:
            if self._open and self._timer is None:
                self._habits.asks_in_parallel = True
            self._open += 1
            mine = Question(
                question.method, question.params, lambda reply: self._answered(question, reply), question.reporter
            )
            question.on_withdrawn = lambda: self._withdrawn(mine)
            if self._timer is None:
                self._timer = self._loop.call_later(GATHER_SECONDS, self._rest)
            ask(mine)

        return asked

    def _rest(self) -> None:
        self._timer = None
        if self._open:
            self._turn.rest()

    def _withdrawn(self, mine: Question) -> None:
        """The server does not want the answer any more, so it is at work on this call."""
        self._open -= 1
        mine.withdraw()
        if not self._open:
            self._turn.stir()

    def _answered(self, question: Question, reply: Reply) -> None:
        self._open -= 1
        self._answers.append((question, reply))
        if len(self._answers) == 1:
            self._turn.wake(self._hand_over)

    def _hand_over(self) -> None:
        answers, self._answers = self._answers, []
        for question, reply in answers:
            question.answer(reply)
        if self._open and self._timer is None:
            self._timer = self._loop.call_later(GATHER_SECONDS, self._rest)
