"""What a client says it can be asked, in the words of each revision.

Knows: the capabilities sampling, elicitation and roots, and what a request needs of them. Does not know: who asks whom, how a
request travels.
Invariant: a request is never allowed by more than the client declared, and nothing is declared for it that it did not.

Source: ClientCapabilities in schema.ts of each revision; client/elicitation (an empty object means forms), client/sampling.
"""

from typing import Final, NamedTuple

import msgspec
from msgspec import Raw

FIRST_ELICITATION: Final = "2025-06-18"
FIRST_MODES: Final = "2025-11-25"
"""First revision in which forms and URLs, and sampling with tools, are told apart."""
_URL_MODE: Final = b'"url"'
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.Encoder().encode

Words = dict[str, dict[str, dict[str, bool]]]


class Askable(NamedTuple):
    """What a client can be asked. Equal ones may share what was declared for one of them."""

    forms: bool = False
    urls: bool = False
    sampling: bool = False
    sampling_tools: bool = False
    sampling_context: bool = False
    roots: bool = False

    def __bool__(self) -> bool:
        """Whether there is anything at all."""
        return self.forms or self.urls or self.sampling or self.roots


NOTHING: Final = Askable()
EVERYTHING: Final = Askable(*[True] * 6)


def read_askable(raw: bytes) -> Askable:
    """What stands in a client's capabilities (a JSON object); what cannot be read was not declared."""
    if len(raw) <= 2:
        return NOTHING
    members = _object(raw)
    sampling, elicitation = _object(members.get("sampling")), _object(members.get("elicitation"))
    can_elicit = "elicitation" in members
    return Askable(
        forms=can_elicit and ("form" in elicitation or "url" not in elicitation),
        urls=can_elicit and "url" in elicitation,
        sampling="sampling" in members,
        sampling_tools="tools" in sampling,
        sampling_context="context" in sampling,
        roots="roots" in members,
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
        told["roots"] = {}
    return _encode(told)


def missing(askable: Askable, method: str, params: dict[str, Raw]) -> bytes | None:
    """The capability (a JSON object) a client would need to be asked this; None when it can be asked.

    Methods no client can be asked need `{}`.
    """
    if method == "elicitation/create":
        if bytes(params.get("mode", b"")) == _URL_MODE:
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


def _object(raw: Raw | bytes | None) -> dict[str, Raw]:
    if raw is None:
        return {}
    try:
        return _decode_members(raw)
    except msgspec.DecodeError:
        return {}
