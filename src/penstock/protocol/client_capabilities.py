"""What a client says it can be asked, and which extensions it has, in the words of each revision.

Knows: the capabilities sampling, elicitation and roots, and what a request needs of them. Does not know: who asks whom, how a
request travels, what extensions are about.
Invariant: a request is never allowed by more than the client declared, and nothing is declared for it that it did not.

Source: ClientCapabilities in schema.ts of each revision; client/elicitation (an empty object means forms), client/sampling.
"""

from typing import Any, Final, Literal, NamedTuple

import msgspec
from msgspec import Raw

from penstock.protocol.methods import TASKS_EXTENSION
from penstock.protocol.versions import FIRST_MODERN

FIRST_ELICITATION: Final = "2025-06-18"
FIRST_MODES: Final = "2025-11-25"
"""First revision in which forms and URLs, and sampling with tools, are told apart."""
_decode_mode = msgspec.json.Decoder(Literal["form", "url"]).decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_any = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode

Words = dict[str, Any]


class Askable(NamedTuple):
    """What a client can be asked. Equal ones may share what was declared for one of them."""

    forms: bool = False
    urls: bool = False
    sampling: bool = False
    sampling_tools: bool = False
    sampling_context: bool = False
    roots: bool = False
    roots_changes: bool = False
    """It says so when its roots change."""
    extras: str = ""
    """JSON members `experimental` and `extensions`, in a fixed order, passed on as they are; empty when there are none."""

    @property
    def has_any(self) -> bool:
        """Whether there is anything at all. No `__bool__`: where it is compiled, a tuple is true unless it is empty."""
        return self.forms or self.urls or self.sampling or self.roots


NOTHING: Final = Askable()
EVERYTHING: Final = Askable(
    forms=True, urls=True, sampling=True, sampling_tools=True, sampling_context=True, roots=True
)
MAX_EXTRAS: Final = 4096
"""Bytes of extensions that are passed on."""


def read_askable(raw: bytes, revision: str) -> Askable:
    """What stands in a client's capabilities (a JSON object), as far as its revision has it.

    What cannot be read was not declared, nor was what is no object.
    """
    if len(raw) <= 2:
        return NOTHING
    members = _object(raw) or {}
    sampling, elicitation = _object(members.get("sampling")), _object(members.get("elicitation"))
    can_elicit = elicitation is not None and revision >= FIRST_ELICITATION
    details = sampling or {} if revision >= FIRST_MODES else {}
    modes = elicitation or {} if revision >= FIRST_MODES else {}
    urls = can_elicit and _has(modes, "url")
    return Askable(
        forms=can_elicit and (_has(modes, "form") or not urls),
        urls=urls,
        sampling=sampling is not None,
        sampling_tools=_has(details, "tools"),
        sampling_context=_has(details, "context"),
        roots=_has(members, "roots"),
        roots_changes=bytes((_object(members.get("roots")) or {}).get("listChanged", b"")) == b"true",
        extras=_extras(members),
    )


def declared(askable: Askable, revision: str) -> bytes:
    """The capabilities (a JSON object) to declare for such a client in that revision, modern or legacy."""
    told: Words = {}
    if askable.forms and revision >= FIRST_ELICITATION:
        told["elicitation"] = {}
    if revision >= FIRST_MODES:
        if askable.urls:
            told["elicitation"] = {"url": {}, **({"form": {}} if askable.forms else {})}
        if askable.sampling:
            tools, context = askable.sampling_tools, askable.sampling_context
            told["sampling"] = {**({"tools": {}} if tools else {}), **({"context": {}} if context else {})}
    elif askable.sampling:
        told["sampling"] = {}
    if askable.roots:
        told["roots"] = {"listChanged": True} if askable.roots_changes and revision < FIRST_MODERN else {}
    if not askable.extras:
        return _encode(told)
    return _encode(told | _decode_members(askable.extras.encode()))


def missing(askable: Askable, method: str, params: dict[str, Raw]) -> bytes | None:
    """The capability (a JSON object) a client would need to be asked this; None when it can be asked.

    Methods and modes no client can be asked need `{}`.
    """
    if method == "elicitation/create":
        mode = _mode(params.get("mode"))
        if mode is None:
            return b"{}"
        if mode == "url":
            return None if askable.urls else b'{"elicitation":{"url":{}}}'
        return None if askable.forms else b'{"elicitation":{"form":{}}}'
    if method == "sampling/createMessage":
        if not askable.sampling:
            return b'{"sampling":{}}'
        needs_tools = "tools" in params or "toolChoice" in params
        return b'{"sampling":{"tools":{}}}' if needs_tools and not askable.sampling_tools else None
    if method == "roots/list":
        return None if askable.roots else b'{"roots":{}}'
    return b"{}"


def _extras(members: dict[str, Raw]) -> str:
    kept = {name: members[name] for name in ("experimental", "extensions") if _has(members, name)}
    if "extensions" in kept:
        extensions = {
            name: value for name, value in (_object(kept["extensions"]) or {}).items() if name != TASKS_EXTENSION
        }
        kept["extensions"] = Raw(_encode(extensions))
    if not any(bytes(value) != b"{}" for value in kept.values()):
        return ""
    text = _encode_sorted(_decode_any(_encode(kept)))
    return text.decode() if len(text) <= MAX_EXTRAS else ""


def _mode(raw: Raw | None) -> Literal["form", "url"] | None:
    """Of an elicitation; None when no revision has it."""
    if raw is None:
        return "form"
    try:
        mode: Literal["form", "url"] = _decode_mode(raw)
        return mode
    except msgspec.DecodeError:
        return None


def _has(members: dict[str, Raw], name: str) -> bool:
    return _object(members.get(name)) is not None


def _object(raw: Raw | bytes | None) -> dict[str, Raw] | None:
    """Its members; None when it is not there or no object."""
    if raw is None:
        return None
    try:
        return _decode_members(raw)
    except msgspec.DecodeError:
        return None
