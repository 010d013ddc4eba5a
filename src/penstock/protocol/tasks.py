"""Tasks of the modern era, the extension `io.modelcontextprotocol/tasks`: what of them the gateway looks at.

Knows: who declares them, their ids. Does not know: servers, seals, how a task is watched. The tasks of 2025-11-25 are another
thing and no business of this file.

Source: SEP-2663 (Capability Negotiation, Polymorphic Results, Error Handling).
"""

from typing import Final

import msgspec
from msgspec import UNSET, Raw, UnsetType

from penstock.protocol.errors import missing_capability_data
from penstock.protocol.input_required import INPUT_REQUIRED
from penstock.protocol.methods import TASKS_EXTENSION

TASK_ID: Final = "taskId"
NOTIFICATION: Final = "notifications/tasks"
LACKS_TASKS: Final = missing_capability_data(b'{"extensions":{"%b":{}}}' % TASKS_EXTENSION.encode())
"""The `data` of the -32021 for a client that asks about tasks and has not declared them."""
_TASK: Final = b'"task"'


class _Declared(msgspec.Struct):
    extensions: dict[str, Raw] | UnsetType = UNSET


class _Task(msgspec.Struct, rename="camel"):
    task_id: Raw | UnsetType = UNSET
    result_type: Raw | UnsetType = UNSET


_decode_declared = msgspec.json.Decoder(_Declared).decode
_decode_task = msgspec.json.Decoder(_Task).decode
_decode_text = msgspec.json.Decoder(str).decode


def declares_tasks(capabilities: bytes | Raw) -> bool:
    """Whether capabilities of the modern era, a client's or a server's, name the extension."""
    try:
        extensions = _decode_declared(capabilities).extensions
    except msgspec.DecodeError:
        return False
    return extensions is not UNSET and bytes(extensions.get(TASKS_EXTENSION, b""))[:1] == b"{"


def is_unfinished(result: bytes) -> bool:
    """Whether a modern result is none yet: the client is asked for something, or is to come back for it."""
    return (INPUT_REQUIRED in result and _type_of(result) == INPUT_REQUIRED) or is_task(result)


def is_task(result: bytes) -> bool:
    """Whether a modern result says that the call has become a task."""
    return _TASK in result and _type_of(result) == _TASK


def task_id_of(members: bytes | Raw) -> str | None:
    """The `taskId` of a result, or of a notification's parameters; None when there is none."""
    try:
        found = _decode_task(members).task_id
        if found is not UNSET:
            return _decode_text(found)
    except msgspec.DecodeError:
        return None
    return None


def _type_of(result: bytes) -> bytes:
    """As it is written; empty when there is none."""
    try:
        found = _decode_task(result).result_type
    except msgspec.DecodeError:
        return b""
    return b"" if found is UNSET else bytes(found)
