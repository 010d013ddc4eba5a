"""The kinds of values a key may take: durations, sizes, counts, choices, lists.

Knows: how a value is written, judged, described as JSON Schema and shown. Does not know: which keys exist.
One object serves the loader, the schema and `config show`, so that the three cannot disagree.
"""

import difflib
import re
from pathlib import Path
from typing import Any, Final

from penstock.config.interpolation import Unresolved
from penstock.config.settings import MASK, Bytes, Seconds, Secret

Schema = dict[str, Any]
PLACEHOLDER_SCHEMA: Final[Schema] = {"type": "string", "pattern": r"\$\{(env|file):"}

_DURATION_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_DURATION: Final = r"^(?=.*[1-9])([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+$"
_SECONDS: Final = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_SIZE: Final = r"^(?=.*[1-9])([0-9]+)(B|KiB|MiB|GiB|KB|MB|GB)$"
_BYTES: Final = {"GiB": 2**30, "MiB": 2**20, "KiB": 2**10, "GB": 10**9, "MB": 10**6, "KB": 10**3, "B": 1}
LONGEST: Final = 7 * 86_400.0
LARGEST: Final = 2**34


class BadValue(Exception):
    """A value is not of its kind. `path` leads from the key to the part that is wrong."""

    def __init__(self, message: str, *path: str) -> None:
        super().__init__(message)
        self.path: Final = path


class Kind:
    """One kind of value."""

    expected: str = "a value"

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.expected}>"

    def read(self, value: object, directory: Path) -> Any:
        """The value in the form the settings hold it; relative paths start at `directory`.

        An `Unresolved` value that this kind cannot keep as a text is returned as it came.

        Raises:
            BadValue: it is not of this kind.
        """
        if isinstance(value, Unresolved):
            return value
        if isinstance(value, Secret):
            try:
                return self.judge(self.from_text(value.reveal()), directory)
            except BadValue as error:
                raise BadValue(
                    f"expected {self.expected}, got {MASK} from {', '.join(value.sources)}", *error.path
                ) from None
        return self.judge(value, directory)

    def judge(self, value: object, directory: Path) -> Any:
        """As `read`, for a value without placeholders."""
        raise NotImplementedError

    def from_text(self, text: str) -> object:
        """What a flag or an environment variable means, in the form the file would hold it."""
        return text

    def schema(self) -> Schema:
        """JSON Schema of the value, placeholders included."""
        raise NotImplementedError

    def show(self, value: Any) -> str:
        """The value as it would be written in the file."""
        return quoted(str(value))

    def refuse(self, value: object, hint: str = "") -> BadValue:
        meant = f" (did you mean {hint}?)" if hint else ""
        return BadValue(f"expected {self.expected}, got {shown(value)}{meant}")


class Duration(Kind):
    """Seconds, written with a unit."""

    expected = 'a duration such as "30s", "15m" or "250ms"'

    def judge(self, value: object, directory: Path) -> Seconds:
        if isinstance(value, int | float) and not isinstance(value, bool):
            raise self.refuse(value, f'"{value}s"')
        if not isinstance(value, str) or not re.fullmatch(_DURATION, value):
            raise self.refuse(value)
        seconds = sum(float(amount) * _SECONDS[unit] for amount, unit in _DURATION_PART.findall(value))
        if seconds > LONGEST:
            raise BadValue(f"expected at most 7 days, got {shown(value)}")
        return seconds

    def schema(self) -> Schema:
        return interpolable({"type": "string", "pattern": _DURATION})

    def show(self, value: Seconds) -> str:
        for unit, seconds in _SECONDS.items():
            if value >= seconds and (value / seconds).is_integer():
                return f'"{value / seconds:.0f}{unit}"'
        return f'"{value * 1000:g}ms"'


class Size(Kind):
    """Bytes, written with a unit."""

    expected = 'a size such as "4MiB", "16KiB" or "512B"'

    def judge(self, value: object, directory: Path) -> Bytes:
        if isinstance(value, int) and not isinstance(value, bool):
            raise self.refuse(value, self.show(value) if value > 0 else "")
        match = re.fullmatch(_SIZE, value) if isinstance(value, str) else None
        if match is None:
            raise self.refuse(value)
        size = int(match.group(1)) * _BYTES[match.group(2)]
        if size > LARGEST:
            raise BadValue(f"expected at most 16GiB, got {shown(value)}")
        return size

    def schema(self) -> Schema:
        return interpolable({"type": "string", "pattern": _SIZE})

    def show(self, value: Bytes) -> str:
        for unit in ("GiB", "MiB", "KiB"):
            if value >= _BYTES[unit] and value % _BYTES[unit] == 0:
                return f'"{value // _BYTES[unit]}{unit}"'
        return f'"{value}B"'


class Count(Kind):
    """A whole number within bounds."""

    def __init__(self, minimum: int, maximum: int) -> None:
        self._minimum, self._maximum = minimum, maximum
        self.expected = f"a whole number from {minimum} to {maximum}"

    def judge(self, value: object, directory: Path) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not self._minimum <= value <= self._maximum:
            raise self.refuse(value)
        return value

    def from_text(self, text: str) -> object:
        return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else text

    def schema(self) -> Schema:
        return interpolable({"type": "integer", "minimum": self._minimum, "maximum": self._maximum})

    def show(self, value: int) -> str:
        return str(value)


class Flag(Kind):
    """True or false."""

    expected = "true or false"
    _words: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}

    def judge(self, value: object, directory: Path) -> bool:
        if not isinstance(value, bool):
            word = self._words.get(value.lower()) if isinstance(value, str) else None
            raise self.refuse(value, "" if word is None else str(word).lower())
        return value

    def from_text(self, text: str) -> object:
        return self._words.get(text.lower(), text)

    def schema(self) -> Schema:
        return interpolable({"type": "boolean"})

    def show(self, value: bool) -> str:
        return str(value).lower()


class Choice(Kind):
    """One of some words; with `count`, or a whole number."""

    def __init__(self, *words: str, count: Count | None = None) -> None:
        self._words, self._count = words, count
        self.expected = (
            "one of " + ", ".join(f'"{word}"' for word in words) + (f" or {count.expected}" if count else "")
        )

    def judge(self, value: object, directory: Path) -> str | int:
        if isinstance(value, str) and value in self._words:
            return value
        if self._count and isinstance(value, int):
            try:
                return self._count.judge(value, directory)
            except BadValue:
                raise self.refuse(value) from None
        near = nearest(value, self._words) if isinstance(value, str) else ""
        raise self.refuse(value, f'"{near}"' if near else "")

    def from_text(self, text: str) -> object:
        return self._count.from_text(text) if self._count else text

    def schema(self) -> Schema:
        words: Schema = {"enum": list(self._words)}
        return interpolable(words, *(self._count.schema()["anyOf"][:1] if self._count else ()))

    def show(self, value: Any) -> str:
        return str(value) if isinstance(value, int) else quoted(value)


class ListOf(Kind):
    """A list of values of one kind."""

    def __init__(self, item: Kind, *, least: int = 0) -> None:
        self._item, self._least = item, least
        self.expected = f"a list of {item.expected}" if least == 0 else f"a list of at least {least}: {item.expected}"

    def judge(self, value: object, directory: Path) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise self.refuse(value, f"[{quoted(value)}]" if isinstance(value, str) else "")
        if len(value) < self._least:
            raise self.refuse(value)
        read = []
        for index, item in enumerate(value):
            try:
                read.append(self._item.read(item, directory))
            except BadValue as error:
                raise BadValue(str(error), str(index), *error.path) from None
        return tuple(item for item in read if not isinstance(item, Unresolved))

    def from_text(self, text: str) -> object:
        return [part.strip() for part in text.split(",") if part.strip()]

    def schema(self) -> Schema:
        least = {"minItems": self._least} if self._least else {}
        return interpolable({"type": "array", "items": self._item.schema(), **least})

    def show(self, value: tuple[Any, ...]) -> str:
        return "[" + ", ".join(self._item.show(item) for item in value) + "]"


def interpolable(*schemas: Schema) -> Schema:
    """A schema that takes a placeholder in the value's place."""
    return {"anyOf": [*schemas, PLACEHOLDER_SCHEMA]}


def nearest(word: str, known: tuple[str, ...]) -> str:
    """The known word it most resembles, or ''."""
    close = difflib.get_close_matches(word, known, 1, 0.6) or difflib.get_close_matches(word.lower(), known, 1, 0.6)
    return close[0] if close else ""


def quoted(text: str) -> str:
    """A TOML basic string."""
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return '"' + "".join(escapes.get(c) or (c if c >= " " and c != "\x7f" else f"\\u{ord(c):04X}") for c in text) + '"'


def shown(value: object) -> str:
    """A value in a message: short, on one line, never a secret."""
    match value:
        case Secret():
            return MASK
        case bool():
            return str(value).lower()
        case str():
            return repr(value if len(value) <= 60 else value[:57] + "…")
        case dict():
            return "a table"
        case list():
            return "an empty list" if not value else "a list"
        case _:
            return str(value)
