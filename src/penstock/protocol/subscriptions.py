"""What a client may want to hear of: the filter of `subscriptions/listen`, and the notifications it stands for.

Knows: their shapes in both eras. Does not know: streams, servers, who listens.

Source: 2026-07-28 basic/patterns/subscriptions; 2025-11-25 server/{tools,prompts,resources}.
"""

from typing import Final, NamedTuple

import msgspec
from msgspec import Raw

from penstock.protocol.errors import INVALID_PARAMS
from penstock.protocol.messages import Fault
from penstock.protocol.meta import SUBSCRIPTION_ID
from penstock.protocol.tasks import NOTIFICATION, TASK_ID

UPDATED: Final = "notifications/resources/updated"
ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"
LIST_CHANGED: Final = {
    "tools": "notifications/tools/list_changed",
    "prompts": "notifications/prompts/list_changed",
    "resources": "notifications/resources/list_changed",
}
"""By the capability whose list has changed."""
CAPABILITY_OF: Final = {method: capability for capability, method in LIST_CHANGED.items()}
CHANGES: Final = frozenset({*CAPABILITY_OF, UPDATED, ACKNOWLEDGED, NOTIFICATION})
"""What is said beside the calls."""
MAX_URIS: Final = 1_000
"""Resources of one filter."""
MAX_TASKS: Final = 100
"""Tasks of one filter."""
MAX_FILTER_BYTES: Final = 256 * 1024
"""Of one filter: it is kept for as long as somebody listens."""
_SUBSCRIPTION_ID: Final = SUBSCRIPTION_ID.encode()
_encode = msgspec.json.Encoder().encode


class Filter(NamedTuple):
    """What one listener wants to hear of."""

    lists: frozenset[str]
    """Capabilities whose list may change: tools, prompts, resources."""
    uris: tuple[str, ...]
    """Resources that may be updated."""
    tasks: tuple[str, ...] = ()
    """Ids of tasks that may get on (2026-07-28, where the extension is declared)."""


class _Filter(msgspec.Struct, rename="camel", omit_defaults=True):
    tools_list_changed: bool = False
    prompts_list_changed: bool = False
    resources_list_changed: bool = False
    resource_subscriptions: tuple[str, ...] = ()
    task_ids: tuple[str, ...] = ()


_decode_filter = msgspec.json.Decoder(_Filter).decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode


def read_filter(raw: Raw | None) -> Filter | Fault:
    """The `notifications` of a client's `subscriptions/listen`."""
    if raw is not None and len(raw) > MAX_FILTER_BYTES:
        return Fault(INVALID_PARAMS, f"Invalid params: 'notifications' is longer than {MAX_FILTER_BYTES} bytes")
    found = _filter_in(raw)
    if found is None:
        return Fault(INVALID_PARAMS, "Invalid params: 'notifications' must say which notifications are wanted")
    if len(found.uris) > MAX_URIS:
        return Fault(INVALID_PARAMS, f"Invalid params: more than {MAX_URIS} resources are named")
    if len(found.tasks) > MAX_TASKS:
        return Fault(INVALID_PARAMS, f"Invalid params: more than {MAX_TASKS} tasks are named")
    return found


def read_honoured(raw: Raw | None, wanted: Filter) -> Filter:
    """The `notifications` of a server's acknowledgement: what it agrees to of what was wanted; however much that is."""
    found = _filter_in(raw) or Filter(frozenset(), ())
    agreed, tasks = frozenset(found.uris), frozenset(found.tasks)
    return Filter(
        found.lists & wanted.lists,
        tuple(uri for uri in wanted.uris if uri in agreed),
        tuple(task for task in wanted.tasks if task in tasks),
    )


def _filter_in(raw: Raw | None) -> Filter | None:
    try:
        found = _decode_filter(raw if raw is not None else b"")
    except msgspec.DecodeError:
        return None
    wanted = {
        "tools": found.tools_list_changed,
        "prompts": found.prompts_list_changed,
        "resources": found.resources_list_changed,
    }
    uris = tuple(dict.fromkeys(found.resource_subscriptions))
    tasks = tuple(dict.fromkeys(found.task_ids))
    return Filter(frozenset(name for name, is_wanted in wanted.items() if is_wanted), uris, tasks)


def write_filter(wanted: Filter) -> bytes:
    """The same as JSON, in a fixed order."""
    return _encode(
        _Filter(
            "tools" in wanted.lists,
            "prompts" in wanted.lists,
            "resources" in wanted.lists,
            tuple(wanted.uris),
            tuple(wanted.tasks),
        )
    )


def acknowledgement(subscription_id: bytes, honoured: Filter) -> bytes:
    """The first message on a listener's stream; the id is that of its request, JSON bytes."""
    return (
        b'{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":'
        b'{"_meta":{"%b":%b},"notifications":%b}}' % (_SUBSCRIPTION_ID, subscription_id, write_filter(honoured))
    )


def list_changed(capability: str, subscription_id: bytes | None) -> bytes:
    """The notification; the id is a modern listener's, None for a legacy one."""
    method = LIST_CHANGED[capability].encode()
    if subscription_id is None:
        return b'{"jsonrpc":"2.0","method":"%b"}' % method
    return b'{"jsonrpc":"2.0","method":"%b","params":{"_meta":{"%b":%b}}}' % (method, _SUBSCRIPTION_ID, subscription_id)


def updated(uri: str, subscription_id: bytes | None) -> bytes:
    """The notification that a resource has changed."""
    meta = b"" if subscription_id is None else b'"_meta":{"%b":%b},' % (_SUBSCRIPTION_ID, subscription_id)
    return b'{"jsonrpc":"2.0","method":"%b","params":{%b"uri":%b}}' % (UPDATED.encode(), meta, _encode(uri))


def task_changed(params: dict[str, Raw], task_id: str, subscription_id: bytes) -> bytes:
    """A server's `notifications/tasks` for a client that knows the task by another id, and has its own subscription's."""
    try:
        meta = _decode_members(params.get("_meta", b"{}"))
    except msgspec.DecodeError:
        meta = {}
    own = {"_meta": meta | {SUBSCRIPTION_ID: Raw(subscription_id)}, TASK_ID: task_id}
    return b'{"jsonrpc":"2.0","method":"%b","params":%b}' % (NOTIFICATION.encode(), _encode(params | own))


def closing_result(subscription_id: bytes) -> bytes:
    """The result with which a subscription ends in good order."""
    return b'{"resultType":"complete","_meta":{"%b":%b}}' % (_SUBSCRIPTION_ID, subscription_id)


def subscription_of(params: dict[str, Raw]) -> bytes | None:
    """The id of the subscription a modern notification belongs to, JSON bytes; None when it does not say."""
    meta = params.get("_meta")
    if meta is None:
        return None
    try:
        found = _decode_members(meta).get(SUBSCRIPTION_ID)
    except msgspec.DecodeError:
        return None
    return None if found is None else bytes(found)


def uri_of(params: dict[str, Raw]) -> str | None:
    """The `uri` of an update; None when there is none."""
    try:
        return msgspec.json.decode(params.get("uri", b""), type=str)
    except msgspec.DecodeError:
        return None
