"""Which methods exist in which era and revision, and what each needs.

Knows: the tables. Does not know: servers, routes, who serves what.

Source: the `method:` constants of schema.ts of each revision; `tasks/*`: core in 2025-11-25, extension
`io.modelcontextprotocol/tasks` in 2026-07-28 (not wire-compatible with each other).
"""

from typing import Final, Literal, NamedTuple

from penstock.protocol.versions import Era

Kind = Literal["routed", "list", "local", "completion", "task"]
"""Who answers: one server found by name; all servers of the view, merged; Penstock itself; the server of the `ref`; the server
that has the task.
"""
Sender = Literal["client", "server", "both"]


class MethodRule(NamedTuple):
    """What a request of one method needs and may get."""

    kind: Kind
    name_field: Literal["name", "uri", "taskId"] | None = None
    """The member of `params` that names its target; mirrored as `Mcp-Name` in the modern era."""
    capability: str | None = None
    """The server capability it belongs to; without it the method is unknown (-32601)."""
    input_required_allowed: bool = False
    """Whether the answer may be `input_required`."""
    cacheable: bool = False
    """Whether a modern result carries `ttlMs` and `cacheScope`."""
    since: str = "2024-11-05"
    """First revision that has it."""


class NotificationRule(NamedTuple):
    """Who may send a notification, and since when."""

    sender: Sender
    since: str = "2024-11-05"


TASKS_EXTENSION: Final = "io.modelcontextprotocol/tasks"
_FIRST_MODERN: Final = "2026-07-28"
_TASKS: Final = "2025-11-25"

_BOTH: Final[dict[str, MethodRule]] = {
    "tools/list": MethodRule("list", None, "tools", cacheable=True),
    "tools/call": MethodRule("routed", "name", "tools", input_required_allowed=True),
    "prompts/list": MethodRule("list", None, "prompts", cacheable=True),
    "prompts/get": MethodRule("routed", "name", "prompts", input_required_allowed=True),
    "resources/list": MethodRule("list", None, "resources", cacheable=True),
    "resources/templates/list": MethodRule("list", None, "resources", cacheable=True),
    "resources/read": MethodRule("routed", "uri", "resources", input_required_allowed=True, cacheable=True),
    "completion/complete": MethodRule("completion", None, "completions"),
}
_MODERN: Final[dict[str, MethodRule]] = {
    "server/discover": MethodRule("local", cacheable=True, since=_FIRST_MODERN),
    "subscriptions/listen": MethodRule("local", since=_FIRST_MODERN),
    "tasks/get": MethodRule("task", "taskId", TASKS_EXTENSION, since=_FIRST_MODERN),
    "tasks/update": MethodRule("task", "taskId", TASKS_EXTENSION, since=_FIRST_MODERN),
    "tasks/cancel": MethodRule("task", "taskId", TASKS_EXTENSION, since=_FIRST_MODERN),
}
_LEGACY: Final[dict[str, MethodRule]] = {
    "initialize": MethodRule("local"),
    "ping": MethodRule("local"),
    "logging/setLevel": MethodRule("local", None, "logging"),
    "resources/subscribe": MethodRule("local", "uri", "resources"),
    "resources/unsubscribe": MethodRule("local", "uri", "resources"),
    "tasks/get": MethodRule("task", "taskId", "tasks", since=_TASKS),
    "tasks/result": MethodRule("task", "taskId", "tasks", since=_TASKS),
    "tasks/cancel": MethodRule("task", "taskId", "tasks", since=_TASKS),
    "tasks/list": MethodRule("list", None, "tasks", since=_TASKS),
}

METHODS: Final[dict[Era, dict[str, MethodRule]]] = {
    Era.MODERN: _BOTH | _MODERN,
    Era.LEGACY: _BOTH | _LEGACY,
}
"""Requests a client sends."""

_MODERN_RULES: Final = METHODS[Era.MODERN]  # hashing an Enum member costs more than all else in `lookup`
_LEGACY_RULES: Final = METHODS[Era.LEGACY]

SERVER_REQUESTS: Final[dict[str, tuple[str | None, str]]] = {
    "ping": (None, "2024-11-05"),
    "sampling/createMessage": ("sampling", "2024-11-05"),
    "roots/list": ("roots", "2024-11-05"),
    "elicitation/create": ("elicitation", "2025-06-18"),
    "tasks/get": ("tasks", _TASKS),
    "tasks/result": ("tasks", _TASKS),
    "tasks/cancel": ("tasks", _TASKS),
    "tasks/list": ("tasks", _TASKS),
}
"""Requests a legacy server sends: the client capability each needs, and its first revision."""

INPUT_REQUESTS: Final = frozenset({"sampling/createMessage", "roots/list", "elicitation/create"})
"""What a modern server may ask for inside an `input_required` result."""

_ANY_ERA: Final[dict[str, NotificationRule]] = {
    "notifications/cancelled": NotificationRule("both"),
    "notifications/progress": NotificationRule("server"),
    "notifications/message": NotificationRule("server"),
    "notifications/tools/list_changed": NotificationRule("server"),
    "notifications/prompts/list_changed": NotificationRule("server"),
    "notifications/resources/list_changed": NotificationRule("server"),
    "notifications/resources/updated": NotificationRule("server"),
}
NOTIFICATIONS: Final[dict[Era, dict[str, NotificationRule]]] = {
    Era.MODERN: _ANY_ERA
    | {
        "notifications/subscriptions/acknowledged": NotificationRule("server", _FIRST_MODERN),
        "notifications/tasks": NotificationRule("server", _FIRST_MODERN),
    },
    Era.LEGACY: _ANY_ERA
    | {
        "notifications/initialized": NotificationRule("client"),
        "notifications/progress": NotificationRule("both"),
        "notifications/roots/list_changed": NotificationRule("client"),
        "notifications/tasks/status": NotificationRule("both", _TASKS),
        "notifications/elicitation/complete": NotificationRule("server", _TASKS),
    },
}


def lookup(era: Era, method: str) -> MethodRule | None:
    """The rule of a method, or None when the era does not have it (-32601)."""
    return (_MODERN_RULES if era is Era.MODERN else _LEGACY_RULES).get(method)


def lookup_notification(era: Era, method: str) -> NotificationRule | None:
    """The rule of a notification, or None when the era does not have it (then it is ignored)."""
    return NOTIFICATIONS[era].get(method)
