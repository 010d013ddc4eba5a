"""Task ids as clients get them: sealed, so that any worker knows whose task it is and at which server.

Knows: what stands in the seal. Does not know: what a task is, HTTP.
Invariant: an id opens only for the principal it was made for; what does not open reaches no server.

Source: DESIGN "Era translation"; SEP-2663, Security Implications (auth binding, ids that cannot be guessed).
"""

from typing import Final, NamedTuple

import msgspec

from penstock.clock import Clock
from penstock.errors import SealError
from penstock.identity.seal import Sealer

_PURPOSE: Final = b"task"
LIFETIME_SECONDS: Final = 365 * 86_400.0
"""How long a task really lives is its server's business, and may change while it lives; this only bounds the seal."""
MAX_TASK_ID: Final = 1024
"""Characters of a server's own id that are carried: the sealed one has to fit into the header `Mcp-Name`."""


class TaskId(NamedTuple):
    """What an id stands for."""

    server: str
    task: str
    """The server's own id."""
    principal: str
    """Who may ask about it."""


class _Sealed(msgspec.Struct, array_like=True):
    server: str
    task: str
    principal: str
    expires: float


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Sealed).decode


class TaskIds:
    """Makes and reads them."""

    __slots__ = ("_clock", "_sealer")

    def __init__(self, sealer: Sealer, clock: Clock) -> None:
        self._sealer, self._clock = sealer, clock

    def __repr__(self) -> str:
        return f"<TaskIds {self._sealer!r}>"

    def seal(self, task: TaskId) -> str:
        """The id for the client; another one each time."""
        return self._sealer.seal(_PURPOSE, _encode(_Sealed(*task, self._clock.wall() + LIFETIME_SECONDS)))

    def open(self, token: str) -> TaskId | None:
        """None when it is not ours, was altered or has expired. Whether the caller is its principal is the caller's to check."""
        try:
            sealed = _decode(self._sealer.open(_PURPOSE, token))
        except (SealError, msgspec.DecodeError):
            return None
        if sealed.expires < self._clock.wall():
            return None
        return TaskId(sealed.server, sealed.task, sealed.principal)
