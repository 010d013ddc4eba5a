"""`requestState` as modern clients get it: sealed, and good for one caller's one request only.

Knows: what it must be bound to. Does not know: what is parked, HTTP.
Invariant: a state opens only for the principal, server, method and parameters it was made for, and only for a while.

Source: 2026-07-28 basic/patterns/mrtr, server requirements (integrity, replay).
"""

import hashlib
from typing import Final, Literal

import msgspec

from penstock.clock import Clock
from penstock.errors import SealError
from penstock.identity.seal import Sealer
from penstock.protocol.input_required import request_fingerprint

_PURPOSE: Final = b"requestState"
LIFETIME_SECONDS: Final = 3600.0
MAX_SERVER_STATE: Final = 256 * 1024
"""Characters of a server's own state that are carried."""
_MAX_TOKEN: Final = 6 * MAX_SERVER_STATE
"""Of four bytes for a character base64 makes five and a third."""
Kind = Literal["parked", "server", "again"]


class RequestState(msgspec.Struct, array_like=True, frozen=True):
    """What a state says."""

    kind: Kind
    """`parked`: the call waits under the key `text`; `server`: its server's own state is `text`; `again`: send it once more."""
    text: str


class _Sealed(msgspec.Struct, array_like=True):
    state: RequestState
    expires: float
    binding: bytes


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Sealed).decode


class RequestStates:
    """Makes and reads them."""

    __slots__ = ("_clock", "_sealer")

    def __init__(self, sealer: Sealer, clock: Clock) -> None:
        self._sealer, self._clock = sealer, clock

    def __repr__(self) -> str:
        return f"<RequestStates {self._sealer!r}>"

    def seal(self, state: RequestState, binding: bytes) -> str:
        """`binding`: see `binding_of`."""
        sealed = _Sealed(state, self._clock.wall() + LIFETIME_SECONDS, binding)
        return self._sealer.seal(_PURPOSE, _encode(sealed))

    def open(self, token: str, binding: bytes) -> RequestState | None:
        """None when it is not ours, was altered, has expired or belongs to another request."""
        try:
            sealed = _decode(self._sealer.open(_PURPOSE, token, max_token=_MAX_TOKEN))
        except (SealError, msgspec.DecodeError):
            return None
        if sealed.binding != binding or sealed.expires < self._clock.wall():
            return None
        return sealed.state


def binding_of(principal: str, server: str, method: str, params: dict[str, msgspec.Raw]) -> bytes:
    """What a state belongs to."""
    told = f"{principal}\n{server}\n".encode() + request_fingerprint(method, params)
    return hashlib.sha256(told).digest()[:16]
