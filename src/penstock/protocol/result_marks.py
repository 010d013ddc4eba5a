"""What stands in a result, and whether it is a JSON object at all.

Knows: the members the gateway looks at. Does not know: what they mean to an era; that is `results`.

A large result is one pass over memory for `json_members`, which is there where modules are compiled; msgspec takes three times
as long. Whatever that does not judge, and everything else, is msgspec's.
"""

from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import UNSET, Raw, UnsetType

from penstock.protocol.messages import ResultMarks

Places = dict[bytes, tuple[int, int]]
"""Where the values of members begin and end."""

FindMembers = Callable[[bytes | memoryview], Places | None]
members_of: FindMembers | None
try:
    from penstock.protocol.json_members import members_of
except ImportError:
    members_of = None

LONG_BYTES: Final = 4096
"""From here on looking for the members oneself is worth the objects it takes."""
_BOOLEANS: Final = {b"true": True, b"false": False}
_decode_marks: Final = msgspec.json.Decoder(ResultMarks).decode


def read_marks(result: bytes | memoryview, find: FindMembers | None = members_of) -> ResultMarks | None:
    """What stands in a result; None when it is no JSON object in UTF-8, or its `isError` no boolean.

    Slices of the result stand in the marks. `find` judges long results, or leaves them open; none: they are msgspec's, too.
    """
    if find is not None and len(result) >= LONG_BYTES:
        places = find(result)
        marks = None if places is None else _marks_at(memoryview(result), places)
        if marks is not None:
            return marks
    try:
        whole = result.obj if isinstance(result, memoryview) else result
        if not isinstance(whole, bytes) or not whole.isascii():
            str(result, "utf-8")
        return _decode_marks(result)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _marks_at(result: memoryview, places: Places) -> ResultMarks | None:
    is_error = places.get(b"isError")
    failed = False if is_error is None else _BOOLEANS.get(bytes(result[is_error[0] : is_error[1]]))
    if failed is None:
        return None
    return ResultMarks(
        failed,
        _slice(result, places.get(b"resultType")),
        _slice(result, places.get(b"content")),
        _slice(result, places.get(b"structuredContent")),
        _slice(result, places.get(b"ttlMs")),
        _slice(result, places.get(b"cacheScope")),
        _slice(result, places.get(b"_meta")),
    )


def _slice(result: memoryview, place: tuple[int, int] | None) -> Raw | UnsetType:
    return UNSET if place is None else Raw(result[place[0] : place[1]])
