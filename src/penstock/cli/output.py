"""How the command line speaks: answers on stdout, everything else on stderr, always plain text.

Knows: text and streams. Does not know: what is said. Nothing is ever coloured, so pipes and NO_COLOR need no care.
"""

import json
import sys
from collections.abc import Sequence
from typing import Final

OK: Final = 0
TOOL_ERROR: Final = 1
USAGE: Final = 2
REFUSED: Final = 3
NO_GATEWAY: Final = 4
INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141
_CONTROL: Final = dict.fromkeys([*range(0x20), 0x7F, *range(0x80, 0xA0)], "\ufffd")


def say(text: str = "", *, flush: bool = False) -> None:
    """An answer, on stdout."""
    print(text, flush=flush)


def note(text: str) -> None:
    """Something beside the answer, on stderr; behind what the answer said so far, where both go the same way."""
    sys.stdout.flush()
    print(text, file=sys.stderr, flush=True)


def complain(text: str) -> None:
    """An error, in one sentence, on stderr."""
    note(f"penstock: {text}")


def say_json(value: object) -> None:
    """An answer for programs, on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def progress(text: str, *, done: bool = False) -> None:
    """One line on stderr that is written over; without a terminal only its final form is written."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="\n" if done else "", file=sys.stderr, flush=True)
    elif done:
        note(text)


def columns(rows: Sequence[Sequence[str]], *, indent: str = "") -> list[str]:
    """Rows as lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        (indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip()
        for row in rows
    ]


def harmless(text: str, *, lines: bool = False) -> str:
    """Text from elsewhere without what would steer a terminal."""
    table = {code: mark for code, mark in _CONTROL.items() if not (lines and code in {0x09, 0x0A})}
    return text.translate(table)
