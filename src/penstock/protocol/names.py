"""The names Penstock gives: servers, views, and tools of an aggregated view.

Knows: which names are valid and how they are put together. Does not know: which names are taken.

Source: SEP-986 for tool names (64 characters); model APIs refuse longer ones.
"""

import re
from hashlib import sha256
from typing import Final

from penstock.protocol.headers import encode_value

MAX_SERVER_NAME: Final = 32
MAX_TOOL_NAME: Final = 64
_HASH_CHARACTERS: Final = 6

_SERVER_NAME: Final = re.compile(rf"[a-z0-9][a-z0-9-]{{0,{MAX_SERVER_NAME - 1}}}").fullmatch
_NOT_ALLOWED: Final = re.compile(r"[^a-z0-9]+")


def is_server_name(text: str) -> bool:
    """Whether a text may name a server or a view: `[a-z0-9][a-z0-9-]{0,31}`.

    No underscore: it parts server and tool in prefixed names, so `a_b` + `c` can never equal `a` + `b_c`.
    """
    return _SERVER_NAME(text) is not None


def server_name_from(text: str) -> str:
    """The nearest valid server name: lower case, everything else a single `-`; `server` when nothing is left."""
    if is_server_name(text):
        return text
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])", "-", text)
    return _NOT_ALLOWED.sub("-", spaced.lower()).strip("-")[:MAX_SERVER_NAME].rstrip("-") or "server"


def prefixed_name(server: str, name: str) -> str:
    """The name of a server's tool or prompt in an aggregated view: `{server}_{name}`.

    Over 64 characters it is cut and ends in `_` and six characters of a hash of the whole: stable, and different for names
    that only differ in what was cut.
    """
    whole = f"{server}_{name}"
    if len(whole) <= MAX_TOOL_NAME:
        return whole
    return f"{whole[: MAX_TOOL_NAME - _HASH_CHARACTERS - 1]}_{sha256(whole.encode()).hexdigest()[:_HASH_CHARACTERS]}"


def is_header_safe(name: str) -> bool:
    """Whether a name travels in `Mcp-Name` as it is, without Base64."""
    return encode_value(name) == name.encode()
