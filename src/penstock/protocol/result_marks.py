"""What stands in a result, and whether it is a JSON object at all.

Knows: the members the gateway looks at. Does not know: what they mean to an era; that is `results`.

It is one pass over memory for `json_members`, which is there where modules are compiled; msgspec takes three times as long.
Whatever that does not judge is msgspec's.
"""

from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import UNSET, Raw, UnsetType

from penstock.protocol.messages import FoundMarks

Places = tuple[int, ...]
"""Where the values of members begin and end, two numbers for each; -1: it is not there."""
FindMembers = Callable[[bytes | memoryview, tuple[bytes, ...]], Places | None]
members_of: FindMembers | None
count_openings: Callable[[bytes], int] | None
"""How many brackets open objects and arrays, those in strings included."""
try:
    from penstock.protocol.json_members import count_openings, members_of
except ImportError:
    members_of = count_openings = None

_NAMES: Final = (b"isError", b"resultType", b"content", b"structuredContent", b"ttlMs", b"cacheScope", b"_meta")
_ERROR: Final = 0
"""Numbers of the names; constants, as compiled they are not looked up."""
TYPE: Final = 1
CONTENT: Final = 2
STRUCTURED: Final = 3
TTL: Final = 4
SCOPE: Final = 5
META: Final = 6
COMPLETE: Final = b'"complete"'
"""The `resultType` of what is no less than a result, as JSON."""
_decode_marks: Final = msgspec.json.Decoder(FoundMarks).decode


class ResultMarks:
    """The members of a result that the gateway looks at; what is not there is UNSET. Raw slices of the result's own bytes."""

    __slots__ = ("_places", "_text", "_values", "is_complete", "is_error")

    def __init__(
        self,
        is_error: bool,
        is_complete: bool,
        text: bytes | memoryview,
        places: Places,
        values: tuple[Raw | UnsetType, ...] = (),
    ) -> None:
        self.is_error: Final = is_error
        self.is_complete: Final = is_complete
        """It says that it is no less than a result, or does not say (as in a legacy server's)."""
        self._text: Final = text
        self._places: Final = places
        self._values: Final = values
        """Of msgspec, which does not say where they stand: in the order of the names."""

    def __repr__(self) -> str:
        kind = "" if self.is_complete else " incomplete"
        return f"<ResultMarks{' error' if self.is_error else kind} of {len(self._text)} bytes>"

    @property
    def is_structure_object(self) -> bool:
        """Whether `structuredContent` is there and an object: what revisions before 2026-07-28 can have."""
        structured = self.value(STRUCTURED)
        return structured is not UNSET and bytes(memoryview(structured)[:1]) == b"{"

    def has(self, number: int) -> bool:
        """Whether the member of that number is there."""
        if self._values:
            return self._values[number] is not UNSET
        return self._places[2 * number] >= 0

    def value(self, number: int) -> Raw | UnsetType:
        """The JSON of the member of that number."""
        if self._values:
            return self._values[number]
        begin, end = self._places[2 * number], self._places[2 * number + 1]
        return UNSET if begin < 0 else Raw(memoryview(self._text)[begin:end])


def read_marks(result: bytes | memoryview, find: FindMembers | None = members_of) -> ResultMarks | None:
    """What stands in a result; None when it is no JSON object in UTF-8, or its `isError` no boolean.

    `find` judges the result, or leaves it open; none: it is msgspec's.
    """
    places = None if find is None else find(result, _NAMES)
    if places is not None:
        return _marks_at(result, places)
    try:
        whole = result.obj if isinstance(result, memoryview) else result
        if not isinstance(whole, bytes) or not whole.isascii():
            str(result, "utf-8")
        found = _decode_marks(result)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    kind = found.result_type
    is_complete = kind is UNSET or bytes(kind) == COMPLETE
    return ResultMarks(found.is_error, is_complete, result, (), msgspec.structs.astuple(found))


def _marks_at(result: bytes | memoryview, places: Places) -> ResultMarks | None:
    said = _part(result, places, _ERROR) or b"false"
    is_error = said == b"true"
    if not is_error and said != b"false":
        return None
    return ResultMarks(is_error, (_part(result, places, TYPE) or COMPLETE) == COMPLETE, result, places)


def _part(text: bytes | memoryview, places: Places, number: int) -> bytes:
    """The value of that member; empty where it is not there."""
    begin, end = places[2 * number], places[2 * number + 1]
    if begin < 0:
        return b""
    return text[begin:end] if isinstance(text, bytes) else bytes(text[begin:end])
