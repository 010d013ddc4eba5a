"""The HTTP lane beside uvicorn, aiohttp, h11 and nginx, message by message."""

import pytest

from tests.http_corpus.__main__ import offences, surprises
from tests.http_corpus.comparison import OURS, PEERS, Found, Record, observe
from tests.http_corpus.corpus import RULES, Message, load, unescape
from tests.http_corpus.player import PROBE
from tests.http_corpus.report import PAGE, page
from tests.http_corpus.verdicts import offence, verdict

MESSAGES = load()
RECORD = Record.load()


@pytest.fixture(scope="module")
def found() -> Found:
    return observe(MESSAGES, RECORD)


@pytest.mark.parametrize("server", [OURS, *PEERS])
def test_every_outcome_is_the_recorded_one(server: str, found: Found) -> None:
    lines = [line for line in surprises(MESSAGES, found, RECORD) if f" on {server}: " in line]
    if lines:
        pytest.fail("see docs/http-conformance.md\n" + "\n".join(lines), pytrace=False)


def test_our_lane_goes_against_no_must(found: Found) -> None:
    lines = offences(MESSAGES, found)
    if lines:
        pytest.fail("\n".join(lines), pytrace=False)


def test_the_corpus_is_large_and_each_message_is_one_of_its_kind() -> None:
    assert len(MESSAGES) >= 300
    assert sum(message.malformed for message in MESSAGES) >= 120
    assert len({(message.raw, message.eof) for message in MESSAGES}) == len(MESSAGES)
    assert {message.rule for message in MESSAGES} == set(RULES)
    assert all(message.why and message.source for message in MESSAGES)
    assert not any(PROBE in message.raw for message in MESSAGES)


def test_the_record_holds_just_the_messages_there_are() -> None:
    assert set(RECORD.outcomes[OURS]) == {message.id for message in MESSAGES}


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == page(MESSAGES, RECORD), "write it with: python -m tests.http_corpus --write"


def test_bytes_are_written_with_escapes_and_repetitions() -> None:
    assert unescape(r"a\r\n\x00⟨xy*3⟩\\") == b"a\r\n\0xyxyxy\\"


def message(**changes: object) -> Message:
    fields: dict[str, object] = {
        "id": "x",
        "raw": b"",
        "why": "",
        "source": "",
        "clause": "9112-6.1",
        "rule": "either",
        "reading": ("GET /",),
        "malformed": True,
        "section": "length",
    }
    return Message(**(fields | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "line", "reason"),
    [
        ({}, "200 GET / · open", None),
        ({}, "400 · closed", None),
        ({}, "closed", None),
        ({}, "200 GET /evil · open", "reads what is not said"),
        ({}, "200 GET / · 200 GET /evil · closed", "reads what is not said"),
        ({}, "400 · unanswered GET /evil · closed", "reads what is not said"),
        ({}, "200 GET / with another body · open", "reads what is not said"),
        ({"close": True}, "200 GET / · open", "keeps a connection that MUST be closed"),
        ({"close": True}, "200 GET / · closed", None),
        ({"rule": "accept"}, "400 · closed", "does not take what conforms"),
        ({"rule": "accept"}, "200 GET / · open", None),
        ({"rule": "must-refuse", "reading": ()}, "200 GET / · open", "takes what MUST be refused"),
        ({"rule": "must-refuse", "reading": ()}, "open", "does not refuse what MUST be refused"),
        ({"rule": "must-refuse", "reading": ()}, "431 · closed", None),
        ({"rule": "must-refuse", "reading": (), "status": 400}, "431 · closed", "answers 431 where 400 is a MUST"),
        ({"raw": b"GET / HTTP/1.0\r\n\r\n"}, "100 · 200 GET / · closed", "sends an interim answer to HTTP/1.0"),
    ],
)
def test_an_outcome_is_held_to_the_rule(changes: dict[str, object], line: str, reason: str | None) -> None:
    assert offence(message(**changes), line) == reason


@pytest.mark.parametrize(
    ("ours", "theirs", "word"),
    [
        ("400 · closed", "200 GET / · open", "stricter"),
        ("200 GET / · open", "400 · closed", "milder"),
        ("400 · closed", "501 · closed", "either way"),
        ("400 · closed", "200 GET /evil · open", "peer wrong"),
    ],
)
def test_a_difference_gets_its_verdict(ours: str, theirs: str, word: str) -> None:
    assert verdict(message(), ours, theirs) == word
