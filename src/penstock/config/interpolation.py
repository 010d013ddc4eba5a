"""Placeholders in values: `${env:NAME}` and `${file:PATH}`.

Knows: the environment it is given, files. Does not know: what the values are for.
A text with a placeholder becomes a `Secret` whatever it holds. `$${` writes a plain `${`.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from penstock.config.settings import MASK, Secret, Text

FILE_BYTES: Final = 64 * 1024
"""A file that a value is read from may be no larger."""
PLACEHOLDER: Final = re.compile(r"\$(\$\{)|\$\{([^}]*)\}?")
_KNOWN: Final = re.compile(r"(env):([A-Za-z_][A-Za-z0-9_]*)|(file):(.+)")


class Unresolved(Secret):
    """A text whose placeholders were left alone; `reveal` gives it as written."""


class MissingValue(Exception):
    """A placeholder has nothing to stand for, or is none of ours."""


class Interpolator:
    """Fills placeholders from one environment and from files beside one directory."""

    def __init__(self, environment: Mapping[str, str], directory: Path) -> None:
        self._environment = environment
        self._directory = directory

    def __repr__(self) -> str:
        return f"<Interpolator {self._directory}>"

    def fill(self, text: str) -> Text:
        """The text with its placeholders filled; unchanged if it has none.

        Raises:
            MissingValue: a variable is not set, a file cannot be read, or the placeholder is malformed.
        """
        return _replace(text, self._look_up) if "${" in text else text

    def _look_up(self, source: str, name: str) -> str:
        if source == "env":
            value = self._environment.get(name)
            if value is None:
                raise MissingValue(f"the environment variable {name} is not set; set it where the gateway starts")
            return value
        path = self._directory / Path(name).expanduser()
        try:
            with path.open("rb") as file:
                content = file.read(FILE_BYTES + 1)
        except OSError as error:
            raise MissingValue(f"the file {path} cannot be read: {error.strerror}") from None
        if len(content) > FILE_BYTES:
            raise MissingValue(f"the file {path} is larger than {FILE_BYTES // 1024} KiB")
        try:
            return content.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise MissingValue(f"the file {path} is not UTF-8 text") from None


def unresolved(text: str) -> Text:
    """The text with its placeholders left alone; as it is if it has none.

    Raises:
        MissingValue: a placeholder is malformed.
    """
    if "${" not in text:
        return text
    filled = _replace(text, lambda source, name: "")
    return Unresolved(text, shown=filled.shown, sources=filled.sources) if isinstance(filled, Secret) else filled


def _replace(text: str, look_up: Callable[[str, str], str]) -> Text:
    filled, shown, sources, at = [], [], [], 0
    for match in PLACEHOLDER.finditer(text):
        before = text[at : match.start()]
        at = match.end()
        if match.group(1):
            filled.append(before + "${")
            shown.append(before + "${")
            continue
        known = _KNOWN.fullmatch(match.group(2)) if match.group().endswith("}") else None
        if known is None:
            raise MissingValue(
                f"'{match.group()}' is no placeholder; expected ${{env:NAME}} or ${{file:PATH}}, "
                "or '$${' for a plain '${'"
            )
        filled.append(before + look_up(known.group(1) or known.group(3), known.group(2) or known.group(4)))
        shown.append(before + MASK)
        sources.append(match.group())
    whole = "".join(filled) + text[at:]
    return Secret(whole, shown="".join(shown) + text[at:], sources=tuple(sources)) if sources else whole
