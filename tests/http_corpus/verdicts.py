"""What the RFCs say of an outcome, and of two that differ.

Knows: the rules of `corpus.RULES`, the lines of `player`. Does not know: who is who; ours and theirs are judged alike.
"""

import re
from typing import Final, NamedTuple

from tests.http_corpus.corpus import Message

VERDICTS: Final = {
    "peer wrong": "the peer goes against a MUST, or reads something that the message does not say",
    "stricter": "we refuse what the RFC lets a server refuse or take; the peer takes it, and reads it rightly",
    "milder": "the peer refuses what the RFC lets a server refuse or take; we take it, and read it rightly",
    "either way": "both refuse or both take it, and differ in the status or in whether the connection goes on",
}
_ANSWER: Final = re.compile(r"(?P<status>[0-9]{3})(?: (?P<seen>.+))?")


class Outcome(NamedTuple):
    """The parts of an outcome's line."""

    statuses: tuple[int, ...]
    """Final ones that the server gave by itself, without the application."""
    seen: tuple[str, ...]
    """What the application saw."""
    fate: str

    @classmethod
    def parse(cls, line: str) -> "Outcome":
        """Take a line of `player` apart."""
        *answers, fate = line.split(" · ")
        statuses, seen = [], []
        for answer in answers:
            match = _ANSWER.fullmatch(answer)
            if match is None:
                if answer.startswith("unanswered "):
                    seen.append(answer.removeprefix("unanswered "))
            elif match["seen"]:
                seen.append(match["seen"])
            elif match["status"][0] != "1":
                statuses.append(int(match["status"]))
        return cls(tuple(statuses), tuple(seen), fate)

    @property
    def is_refusal(self) -> bool:
        """The server ended by not taking what it was sent."""
        return bool(self.statuses) and self.statuses[-1] >= 400


def offence(message: Message, line: str) -> str | None:
    """How an outcome goes against the RFCs; None where it does not."""
    outcome = Outcome.parse(line)
    seen, reading = outcome.seen, message.reading
    if message.rule == "must-refuse" and len(seen) > len(reading):
        return "takes what MUST be refused"
    if seen != reading[: len(seen)]:
        return "reads what is not said"
    if "with another body" in line:
        return "gives the application another body"
    if message.rule == "accept":
        if seen != reading or (outcome.is_refusal and not message.malformed):
            return "does not take what conforms"
    elif message.rule == "must-refuse":
        if not outcome.is_refusal and outcome.fate == "open":
            return "does not refuse what MUST be refused"
        if message.status and outcome.is_refusal and outcome.statuses[-1] != message.status:
            return f"answers {outcome.statuses[-1]} where {message.status} is a MUST"
    if message.close and outcome.fate == "open":
        return "keeps a connection that MUST be closed"
    if b" HTTP/1.0\r\n" in message.raw and line.startswith("100 "):
        return "sends an interim answer to HTTP/1.0"
    return None


def verdict(message: Message, ours: str, theirs: str) -> str:
    """One of VERDICTS, for outcomes that differ."""
    if offence(message, theirs):
        return "peer wrong"
    our_seen, their_seen = Outcome.parse(ours).seen, Outcome.parse(theirs).seen
    if len(our_seen) == len(their_seen):
        return "either way"
    return "stricter" if len(our_seen) < len(their_seen) else "milder"
