"""The comparison as a page for people: docs/http-conformance.md.

Knows: Markdown. Does not know: servers; it is written from the corpus and the outcomes that were written down.
"""

from collections import Counter
from pathlib import Path
from typing import Final

from tests.http_corpus.comparison import OURS, PEERS, Record
from tests.http_corpus.corpus import RULES, SECTIONS, Message
from tests.http_corpus.verdicts import VERDICTS, offence, verdict

PAGE: Final = Path(__file__).parents[2] / "docs/http-conformance.md"
_INTRODUCTION: Final = """# The HTTP lane, message by message

Penstock reads HTTP/1.1 with a lane of its own. Here it is compared with {peers} over a corpus of {count} messages,
{malformed} of them malformed. The messages are ours; their ideas come from published work on request smuggling and from the
tests of other parsers (llhttp, the HTTP Garden, smuggler, T-Reqs, http-desync-guardian, PortSwigger's research, Http11Probe,
gunicorn, Go, hyper, nginx). Each is sent byte for byte to every server on a new connection; compared are the status of each
answer, the requests that the application saw, the body it echoed, and what became of the connection.

**On none of them does our lane go against a MUST of RFC 9110 or RFC 9112.**

```sh
scripts/prepare dev system                        # once: the peers, nginx among them
.venv/bin/python -m tests.http_corpus             # plays everything, names what is not as written below
.venv/bin/python -m tests.http_corpus cl-te       # plays one message, prints every server's outcome
.venv/bin/python -m tests.http_corpus --write     # records what came, and writes this page
```

The first of these is part of `scripts/test`: it fails when our lane changes, when a difference appears that is not listed
here, and when a listed one is gone. The messages stand in `tests/http_corpus/messages`, the outcomes in
`tests/http_corpus/outcomes.toml`. nginx relays what it took for a request to h11, which says what it got.
"""
_FUZZING: Final = """## Bytes nobody thought of

The same messages are what coverage-guided fuzzing starts from (atheris, on Linux). Three targets: a server's connection, a
client's connection, and what reads event streams and JSON-RPC. Each input is also cut in several ways and said twice. What
must hold for every one: no error that nobody handled or that was only logged, no second of processor time, the same reading
however it was cut, no task, descriptor or memory left behind.

```sh
.venv/bin/python -m tests.fuzz --seconds 600      # all three; what was found lies in .cache/fuzz
```

A run of seconds is part of `scripts/test`.
"""
_READING: Final = """## How to read the lists

An outcome is what came back: `200 POST / "hello" · 400 · closed` is an answer of the application, which saw that request
(with the value of its field `X-Probe` in braces), a refusal, and the end of the connection. The connection may also stay
`open` (the next request on it is answered) or be left `waiting` for more. `unanswered` is a request that the application
saw and whose answer never came; `no status line` is an answer in HTTP/0.9.
"""


def page(messages: list[Message], record: Record) -> str:
    """The whole page."""
    parts = [
        _INTRODUCTION.format(
            peers=_peers(record), count=len(messages), malformed=sum(message.malformed for message in messages)
        ),
        "## Summary\n",
        _summary(messages, record),
        _READING,
        "What the RFCs ask:\n",
        "\n".join(f"- *{name}*: {text}." for name, text in RULES.items()),
        "\nWhat a difference means:\n",
        "\n".join(f"- *{name}*: {text}." for name, text in VERDICTS.items()),
        "",
    ]
    for section, title in SECTIONS.items():
        rows = [_row(message, record) for message in messages if message.section == section]
        shown = [row for row in rows if row]
        parts.append(
            f"## {title}\n\n{len(rows)} messages, {len(rows) - len(shown)} of them with one outcome everywhere.\n"
        )
        parts.append("| message | RFC | asked | ours | different |\n|---|---|---|---|---|\n" + "\n".join(shown) + "\n")
    return "\n".join([*parts, _FUZZING])


def _peers(record: Record) -> str:
    found = record.versions
    return (
        f"uvicorn {found['uvicorn']} (with h11 and with httptools {found['httptools']}), aiohttp {found['aiohttp']}, "
        f"h11 {found['h11']} alone and nginx {found['nginx']}"
    )


def _summary(messages: list[Message], record: Record) -> str:
    lines = ["| | differences | " + " | ".join(VERDICTS) + " | messages on which it goes against a MUST or misreads |"]
    lines.append("|---|---" + "|---" * len(VERDICTS) + "|---|")
    for name in (OURS, *PEERS):
        counts: Counter[str] = Counter()
        for message in messages:
            theirs = record.differences(message).get(name)
            if theirs is not None:
                counts[verdict(message, record.outcomes[OURS][message.id], theirs)] += 1
        wrong = sum(offence(message, record.outcomes[name][message.id]) is not None for message in messages)
        cells = [name, counts.total(), *(counts[word] for word in VERDICTS), wrong]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def _row(message: Message, record: Record) -> str:
    """One line of a list; empty where all servers agree."""
    ours = record.outcomes[OURS][message.id]
    groups: dict[str, list[str]] = {}
    for name, theirs in record.differences(message).items():
        groups.setdefault(theirs, []).append(name)
    if not groups:
        return ""
    different = []
    for theirs, names in groups.items():
        reason = offence(message, theirs)
        word = verdict(message, ours, theirs)
        different.append(f"{', '.join(names)}: {_code(theirs)} *{word}*" + (f": {reason}" if reason else ""))
    clause = f"[{message.clause_title.removeprefix('RFC ')}]({message.clause_link})"
    cells = [f"`{message.id}`: {_plain(message.why)}", clause, message.rule, _code(ours), "<br>".join(different)]
    return "| " + " | ".join(cells) + " |"


def _code(outcome: str) -> str:
    """In backticks, which nothing an outcome holds can end."""
    fence = "``" if "`" in outcome else "`"
    return f"{fence}{outcome.replace('|', chr(92) + '|')}{fence}"


def _plain(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")
