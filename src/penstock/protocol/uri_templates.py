"""Does a URI match a resource template? For finding the server it belongs to, not for taking variables out.

Knows: RFC 6570 expressions of levels 1 to 3 (and their level 4 modifiers, which change nothing here). Does not know: servers.

`{x}` stands for one or more characters other than `/ ? #` (a conforming client percent-encodes those), `{+x}` for any,
`{.x}` and `{;x}` for `.` or `;` and what `{x}` takes, `{/x}` for `/` and anything within the path; `{?x}`, `{&x}` and `{#x}` may
be absent altogether. All ways to match are followed at once, as bits of one integer: the time is that of a scan per part of
the template, whatever the template.
"""

import re
from functools import lru_cache
from typing import Final

MAX_URI_CHARACTERS: Final = 8192
"""Longer URIs match no template."""

_EXPRESSION: Final = re.compile(r"\{([+#./;?&]?)[^{}]+\}")
_IN_SEGMENT: Final = "/?#"
_IN_PATH: Final = "?#"
_ANYTHING: Final = ""
_OPERATORS: Final[dict[str, tuple[str, str, bool]]] = {
    "": ("", _IN_SEGMENT, False),
    "+": ("", _ANYTHING, False),
    ".": (".", _IN_SEGMENT, False),
    ";": (";", _IN_SEGMENT, False),
    "/": ("/", _IN_PATH, False),
    "?": ("?", "#", True),
    "&": ("&", "#", True),
    "#": ("#", _ANYTHING, True),
}
"""Operator → what it begins with, what its value may not contain, whether it may be absent."""


class UriTemplate:
    """A template, taken apart once."""

    __slots__ = ("_head", "_parts", "template")

    def __init__(self, template: str) -> None:
        self.template: Final = template
        pieces = _EXPRESSION.split(template)
        self._head: Final = pieces[0]
        self._parts: Final = tuple(
            (*_OPERATORS[operator], literal) for operator, literal in zip(pieces[1::2], pieces[2::2], strict=True)
        )

    def __repr__(self) -> str:
        return f"<UriTemplate {self.template} [{len(self._parts)} expressions]>"

    def matches(self, uri: str) -> bool:
        """Whether some values of the variables give this URI."""
        if not self._parts or len(uri) > MAX_URI_CHARACTERS:
            return uri == self.template
        tail = self._parts[-1][3]
        if not uri.startswith(self._head) or not uri.endswith(tail):
            return False
        here = 1 << len(self._head)  # bit i: the template so far can end before character i
        for begin, excluded, may_be_absent, literal in self._parts:
            there = _one_or_more(uri, _step(uri, here, begin), excluded)
            here = _step(uri, there | here if may_be_absent else there, literal)
            if not here:
                return False
        return here >> len(uri) == 1


def _step(uri: str, here: int, literal: str) -> int:
    """The places after `literal` where it stands at one of the places `here`."""
    if not literal or not here:
        return here
    first = (here & -here).bit_length() - 1
    if here == 1 << first:
        return here << len(literal) if uri.startswith(literal, first) else 0
    last = len(uri)
    marks = bytearray(b"0") * (last + 1)
    at = uri.find(literal, first)
    while at >= 0:
        marks[last - at] = 49
        at = uri.find(literal, at + 1)
    return (int(marks, 2) & here) << len(literal)


def _one_or_more(uri: str, here: int, excluded: str) -> int:
    """The places reached from `here` over one or more characters that are not excluded.

    Adding the starting bits to the mask of allowed characters carries through each run of allowed characters to its end;
    what changed is what was crossed.
    """
    if excluded:
        allowed = int("0" + "".join(["0" if character in excluded else "1" for character in reversed(uri)]), 2)
    else:
        allowed = (1 << len(uri)) - 1
    start = here & allowed
    crossed = (((allowed + start) ^ allowed) | start) & allowed
    return crossed << 1


@lru_cache(maxsize=1024)
def compiled(template: str) -> UriTemplate:
    """The template, taken apart once for all who ask."""
    return UriTemplate(template)


def matches(template: str, uri: str) -> bool:
    """Whether the template can give the URI."""
    return compiled(template).matches(uri)
