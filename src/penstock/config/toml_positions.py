"""Where in a TOML text each key stands.

Knows: the grammar of TOML 1.0, well enough to walk a text that `tomllib` has already accepted. Does not know: what keys mean.
The standard parser gives values without places; messages need the line, and edits need the exact span of each statement so
that everything else stays as it is, byte for byte.
"""

import re
import tomllib
from typing import Final, Literal, NamedTuple

Path = tuple[str, ...]
"""Keys from the root; positions in arrays as decimal text."""

_BLANK: Final = re.compile(r"[ \t\r\n]*")
_SPACE: Final = re.compile(r"[ \t]*")
_TO_END_OF_LINE: Final = re.compile(r"[^\n]*\n?")
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_BARE_VALUE: Final = re.compile(r"[^,\]}#\r\n]*")
_STRING: Final = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?:"{1,2}(?!"))?'
    r"|'''.*?'''(?:'{1,2}(?!'))?"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)


class Statement(NamedTuple):
    """A table header or a key with its value."""

    kind: Literal["table", "array", "pair"]
    path: Path
    """From the root, the table's own path included."""
    start: int
    """Offset of the first character of its first line."""
    end: int
    """Offset behind its last line, trailing comment and line end included."""
    value: tuple[int, int]
    """Span of a pair's value; of a header, an empty span at its end."""


class Positions:
    """The statements of one text and the line of every key in it."""

    def __init__(self, text: str) -> None:
        self.statements: Final[list[Statement]] = []
        self._text = text
        self._offsets: dict[Path, int] = {}
        self._walk()

    def __repr__(self) -> str:
        return f"<Positions {len(self.statements)} statements, {len(self._offsets)} keys>"

    def line(self, path: Path) -> int:
        """The 1-based line of the key, or of its nearest ancestor that is written; 0 when nothing of it is."""
        while path:
            offset = self._offsets.get(path)
            if offset is not None:
                return self._text.count("\n", 0, offset) + 1
            path = path[:-1]
        return 0

    def _walk(self) -> None:
        text, at, table = self._text, 0, Path()
        while (at := _end(_BLANK, text, at)) < len(text):
            start = text.rfind("\n", 0, at) + 1
            if text[at] == "#":
                at = _end(_TO_END_OF_LINE, text, at)
            elif text[at] == "[":
                brackets = 2 if text.startswith("[[", at) else 1
                table, after = self._key(at + brackets, ())
                after = text.index("]", after) + brackets
                at = _end(_TO_END_OF_LINE, text, after)
                kind: Literal["table", "array"] = "array" if brackets == 2 else "table"
                self.statements.append(Statement(kind, table, start, at, (after, after)))
            else:
                path, after, value_end = self._pair(at, table)
                at = _end(_TO_END_OF_LINE, text, value_end)
                self.statements.append(Statement("pair", path, start, at, (after, value_end)))

    def _pair(self, at: int, table: Path) -> tuple[Path, int, int]:
        path, at = self._key(at, table)
        at = _end(_SPACE, self._text, self._text.index("=", at) + 1)
        return path, at, self._value(at, path)

    def _key(self, at: int, table: Path) -> tuple[Path, int]:
        text, path = self._text, table
        while True:
            at = _end(_SPACE, text, at)
            bare = _BARE_KEY.match(text, at)
            if bare:
                path, after = (*path, bare.group()), bare.end()
            else:
                after = _end(_STRING, text, at)
                path = (*path, str(tomllib.loads(f"k = {text[at:after]}")["k"]))
            self._offsets.setdefault(path, at)
            dot = _end(_SPACE, text, after)
            if text[dot] != ".":
                return path, after
            at = dot + 1

    def _value(self, at: int, path: Path) -> int:
        text = self._text
        if text[at] in "\"'":
            return _end(_STRING, text, at)
        if text[at] == "[":
            return self._array(at + 1, path)
        if text[at] == "{":
            return self._inline_table(at + 1, path)
        return at + len(text[at : _end(_BARE_VALUE, text, at)].rstrip())

    def _array(self, at: int, path: Path) -> int:
        index = 0
        while True:
            at = self._skip(at)
            if self._text[at] == "]":
                return at + 1
            item = (*path, str(index))
            self._offsets.setdefault(item, at)
            at = self._value(at, item)
            index += 1

    def _inline_table(self, at: int, path: Path) -> int:
        while True:
            at = self._skip(at)
            if self._text[at] == "}":
                return at + 1
            _, _, at = self._pair(at, path)

    def _skip(self, at: int) -> int:
        """Past blanks, comments and commas between values."""
        while True:
            at = _end(_BLANK, self._text, at)
            if self._text[at] == "#":
                at = _end(_TO_END_OF_LINE, self._text, at)
            elif self._text[at] == ",":
                at += 1
            else:
                return at


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    assert match is not None, f"not TOML at offset {at}"
    return match.end()
