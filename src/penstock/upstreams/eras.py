"""Remember which eras an HTTP server speaks, and say which to speak with a caller.

Knows: the rules (2026-07-28 basic/versioning 'Backward Compatibility', streamable-http 'Backward Compatibility'). Does not
know: HTTP, how a server is asked.
Invariants: what was not seen is not assumed; a pinned revision is never probed and never forgotten; a server that has both
eras is spoken to in its caller's.
"""

from collections.abc import Mapping
from typing import Any, Final

from penstock.protocol.versions import LATEST_LEGACY, LATEST_MODERN, LEGACY_VERSIONS, MODERN_VERSIONS, Era, era_of

_ERAS: Final = (Era.MODERN, Era.LEGACY)


class Eras:
    """What is known of one server: of each era yes, no, or not yet."""

    __slots__ = ("_has", "_version", "choice", "pinned")

    def __init__(self, protocol: str = "auto", remembered: Mapping[str, Any] | None = None) -> None:
        """`remembered`: what `export` gave in an earlier life of the same configuration; what does not fit is ignored."""
        self.pinned: Final = None if protocol == "auto" else era_of(protocol)
        self._version: dict[Era, str] = {Era.MODERN: LATEST_MODERN, Era.LEGACY: LATEST_LEGACY}
        self._has: dict[Era, bool | None] = {Era.MODERN: None, Era.LEGACY: None}
        self.choice: dict[Era, Era | None] = {}
        """For a caller of that era: the era to speak, or None when the server must be asked first."""
        if self.pinned is not None:
            self._version[self.pinned] = protocol
            self._has = {era: era is self.pinned for era in _ERAS}
        elif remembered is not None:
            self._import(remembered)
        self._choose()

    def __repr__(self) -> str:
        words = {True: "yes", False: "no", None: "unknown"}
        pinned = " | pinned" if self.pinned else ""
        return f"<Eras modern {words[self._has[Era.MODERN]]} legacy {words[self._has[Era.LEGACY]]}{pinned}>"

    def has(self, era: Era) -> bool | None:
        """Whether the server speaks it; None when it was not tried."""
        return self._has[era]

    def version(self, era: Era) -> str:
        """The revision to ask for."""
        return self._version[era]

    def spoken(self, preferred: Era = Era.MODERN) -> tuple[Era, ...]:
        """The eras the server was seen to speak, the preferred one first."""
        order = (Era.MODERN, Era.LEGACY) if preferred is Era.MODERN else (Era.LEGACY, Era.MODERN)
        return tuple(era for era in order if self._has[era])

    def next_probe(self, preferred: Era) -> Era | None:
        """The era to try next for a caller of that era; None when nothing is left to try.

        The modern question comes first, as only it has answers that tell the eras apart.
        """
        if self.choice[preferred] is not None:
            return None
        if self._has[Era.MODERN] is None:
            return Era.MODERN
        return Era.LEGACY if self._has[Era.LEGACY] is None else None

    def found(self, era: Era, version: str, named: tuple[str, ...] = ()) -> None:
        """The server spoke it. `named`: all revisions it says it supports: an era named there counts as seen."""
        if self.pinned is not None:
            return
        self._has[era] = True
        self._version[era] = version
        for other, known in ((Era.MODERN, MODERN_VERSIONS), (Era.LEGACY, LEGACY_VERSIONS)):
            common = next((revision for revision in known if revision in named), None)
            if other is not era and common is not None and self._has[other] is None:
                self._has[other] = True
                self._version[other] = common
        self._choose()

    def missing(self, era: Era) -> None:
        """The server does not speak it."""
        if self.pinned is None:
            self._has[era] = False
            self._choose()

    def forget(self) -> None:
        """What was learned has stopped to fit: ask again."""
        if self.pinned is None:
            self._has = {Era.MODERN: None, Era.LEGACY: None}
            self._version = {Era.MODERN: LATEST_MODERN, Era.LEGACY: LATEST_LEGACY}
            self._choose()

    def export(self) -> dict[str, Any]:
        """JSON-ready, for the constructor of a later life."""
        return {era.value: {"spoken": self._has[era], "version": self._version[era]} for era in _ERAS}

    def _import(self, remembered: Mapping[str, Any]) -> None:
        for era, known in ((Era.MODERN, MODERN_VERSIONS), (Era.LEGACY, LEGACY_VERSIONS)):
            entry = remembered.get(era.value)
            if isinstance(entry, Mapping) and isinstance(entry.get("spoken"), bool) and entry.get("version") in known:
                self._has[era] = entry["spoken"]
                self._version[era] = entry["version"]

    def _choose(self) -> None:
        for preferred, other in ((Era.MODERN, Era.LEGACY), (Era.LEGACY, Era.MODERN)):
            if self._has[preferred]:
                self.choice[preferred] = preferred
            elif self._has[preferred] is False and self._has[other]:
                self.choice[preferred] = other
            else:
                self.choice[preferred] = None
