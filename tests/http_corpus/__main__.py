"""Play the corpus: `python -m tests.http_corpus [--write] [ID…]`.

Exit code 1 when an outcome is not the one that was written down, or goes against a MUST.
"""

import argparse
import sys

from tests.http_corpus.comparison import OURS, PEERS, Record, observe, versions
from tests.http_corpus.corpus import Message, load
from tests.http_corpus.report import PAGE, page
from tests.http_corpus.verdicts import offence


def surprises(messages: list[Message], found: dict[str, dict[str, str]], record: Record) -> list[str]:
    """Outcomes that are not the recorded ones."""
    lines = []
    for name in (OURS, *PEERS):
        for message in messages:
            came, recorded = found[name][message.id], record.outcomes[name].get(message.id, "nothing")
            if came != recorded:
                lines.append(f"{message.id} on {name}: {came}; recorded: {recorded}")
    return lines


def offences(messages: list[Message], found: dict[str, dict[str, str]]) -> list[str]:
    """Where our lane goes against an RFC."""
    lines = []
    for message in messages:
        reason = offence(message, found[OURS][message.id])
        if reason:
            lines.append(f"{message.id}: {found[OURS][message.id]}: {reason} ({message.clause_title})")
    return lines


def main() -> int:
    """Play, and print, compare or write."""
    parser = argparse.ArgumentParser(prog="python -m tests.http_corpus")
    parser.add_argument("--write", action="store_true", help="record what comes, and write docs/http-conformance.md")
    parser.add_argument("ids", nargs="*", metavar="ID", help="play these only, and print every outcome")
    options = parser.parse_args()
    messages = [message for message in load() if not options.ids or message.id in options.ids]
    if options.ids:
        found = observe(messages)
        for message in messages:
            print(f"{message.id} ({message.rule}, {message.clause_title}): {message.raw[:300]!r}")
            for name in (OURS, *PEERS):
                print(f"  {name:18} {found[name][message.id]}")
        return 0
    if options.write:
        record = Record(versions(), observe(messages))
        record.write(messages)
        PAGE.write_text(page(messages, record))
        problems = offences(messages, record.outcomes)
    else:
        record = Record.load()
        found = observe(messages, record)
        problems = surprises(messages, found, record) + offences(messages, found)
    print("\n".join(problems) or f"{len(messages)} messages on {1 + len(PEERS)} servers: all as recorded")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
