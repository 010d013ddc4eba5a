"""Read the variables out of a URI by a template of level 1: `{name}` stands for one or more characters but no slash.

Knows: text. Does not know: percent-encoding, resources, templates written by strangers (see protocol/uri_templates).
"""

import re


class Template:
    """One URI template."""

    __slots__ = ("_pattern", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        parts = re.split(r"\{([a-zA-Z_][a-zA-Z0-9_]*)\}", text)
        literals = [re.escape(part) for part in parts[::2]]
        groups = [f"(?P<{name}>[^/]+)" for name in parts[1::2]]
        woven = [literals[0], *(group + literal for group, literal in zip(groups, literals[1:], strict=True))]
        self._pattern = re.compile("".join(woven))

    def __repr__(self) -> str:
        return f"<Template {self.text}>"

    def match(self, uri: str) -> dict[str, str] | None:
        """The variables' values, or None when the URI does not fit."""
        found = self._pattern.fullmatch(uri)
        return None if found is None else found.groupdict()
