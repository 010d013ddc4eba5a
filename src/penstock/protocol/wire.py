"""What the decoder of envelopes fills in: every member a JSON-RPC message may have, judged by nobody yet.

Knows: names and JSON types. Does not know: which members go together; that is `envelopes`.
"""

from typing import Literal

import msgspec
from msgspec import UNSET, Raw, UnsetType


class WireError(msgspec.Struct):
    """The `error` of a reply."""

    code: int
    message: str = ""
    data: Raw | UnsetType = UNSET


class Wire(msgspec.Struct, gc=False):
    """A message of any kind."""

    jsonrpc: str | UnsetType = UNSET
    id: Raw | UnsetType = UNSET
    method: str | UnsetType = UNSET
    params: dict[str, Raw] | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    error: WireError | UnsetType | None = UNSET


class Asked(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A request with nothing else in it: what nearly all messages are."""

    jsonrpc: Literal["2.0"]
    id: Raw
    method: str
    params: dict[str, Raw]
