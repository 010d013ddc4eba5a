"""JSON-RPC messages as values.

Knows: what a message consists of. Does not know: how it is read or written; that is `envelopes`.

Who owns which bytes: `Request.id`, `Reply.id`, `Reply.result` and `RpcError.data` are owned copies and may be kept. The
values of `params` are slices that keep the whole body alive: copy (`bytes(raw)`) what outlives the call.

Source: JSON-RPC 2.0; "Messages" of basic/index of each revision.
"""

import msgspec
from msgspec import UNSET, Raw, UnsetType


class RpcError(msgspec.Struct, frozen=True):
    """The `error` member of a reply."""

    code: int
    message: str
    data: bytes | None = None
    """JSON value bytes, owned."""


class Request(msgspec.Struct):
    """Somebody wants an answer."""

    id: bytes
    """JSON bytes of a string or an integer, in one canonical spelling: equal ids are equal bytes."""
    method: str
    params: dict[str, Raw]


class Notification(msgspec.Struct):
    """Somebody says something and wants no answer."""

    method: str
    params: dict[str, Raw]


class Reply(msgspec.Struct):
    """The answer to a request: exactly one of `result` and `error` is set."""

    id: bytes | None
    """None only where a peer could not read the id of what it refuses."""
    result: bytes | None = None
    """A JSON object."""
    error: RpcError | None = None


class Fault(msgspec.Struct, frozen=True):
    """Why bytes are no message. A value, not an exception."""

    code: int
    """-32700, -32600, or one of Penstock's own codes when a limit of ours was exceeded; -32602 for a bad `_meta`."""
    message: str
    id: bytes | None = None
    """Of the faulty request, when it could be read."""
    reason: str = ""
    """One word for programs, set with Penstock's own codes."""


Message = Request | Notification | Reply


class FoundHead(msgspec.Struct, rename="camel", gc=False):
    """What `results` looks at in a result nobody has looked into."""

    result_type: str = "complete"
    is_error: bool | None = False
    ttl_ms: float | None = 0
    cache_scope: str | None = "private"


class FoundMarks(msgspec.Struct, rename="camel", gc=False):
    """What `result_marks` looks at in a result, as msgspec finds it; what is not there is UNSET."""

    is_error: bool = False
    result_type: Raw | UnsetType = UNSET
    content: Raw | UnsetType = UNSET
    structured_content: Raw | UnsetType = UNSET
    ttl_ms: Raw | UnsetType = UNSET
    cache_scope: Raw | UnsetType = UNSET
    meta: Raw | UnsetType = msgspec.field(default=UNSET, name="_meta")
