"""The revisions of MCP and the two eras they fall into.

Source: docs/specification/2026-07-28/basic/versioning (terminology), and each revision's lifecycle page.
"""

from enum import Enum
from typing import Final


class Era(Enum):
    """How two sides agree on what they speak."""

    MODERN = "modern"
    """2026-07-28 and later: each request carries its own metadata; no handshake, no session."""
    LEGACY = "legacy"
    """2024-11-05 to 2025-11-25: an `initialize` handshake opens a session."""

    __hash__ = object.__hash__  # an enum's own is written in Python, and every call looks an era up


MODERN_VERSIONS: Final = ("2026-07-28",)
"""Newest first."""
LEGACY_VERSIONS: Final = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
"""Newest first."""
SUPPORTED_VERSIONS: Final = MODERN_VERSIONS + LEGACY_VERSIONS
LATEST_MODERN: Final = MODERN_VERSIONS[0]
LATEST_LEGACY: Final = LEGACY_VERSIONS[0]
DEFAULT_LEGACY: Final = "2025-03-26"
"""What a request without version header and without session speaks (streamable HTTP, backwards compatibility)."""
FIRST_MODERN: Final = "2026-07-28"


def era_of(version: str) -> Era:
    """The era of a revision by its date, known to us or not.

    Revisions are ISO dates, so text order is date order; what is no date sorts somewhere and is refused later by name.
    """
    return Era.MODERN if version >= FIRST_MODERN else Era.LEGACY


def answer_to_initialize(requested: str) -> str:
    """The revision a legacy `initialize` is answered with: the one asked for if we have it, else our newest legacy one."""
    return requested if requested in LEGACY_VERSIONS else LATEST_LEGACY


def writes_null_id(version: str) -> bool:
    """Whether an error about an unreadable request says `"id":null`; from 2025-11-25 on the schema leaves the id out instead."""
    return version < "2025-11-25"
