"""One named change to what travels: a mutation, as the rows of the behaviour table write it.

Knows: JSON-RPC messages, heads, events. Does not know: sockets, what a check asserts.
Invariant: what no part of a mutation names stays as it came; `applied` counts how often it changed something.

A mutation is a table of these keys:

    to       "client" (what the gateway answers) or "server" (what the gateway sends); which side the proxy stands on
    of       only in exchanges whose request has this method ("GET" and "DELETE" name those verbs)
    message  only for these messages: "response", "request", "notification", or a method
    drop     the member at a path; `@name` in a path stands for `io.modelcontextprotocol/name`, `*` for each item
    set      the member at a path, with `value`; or, for text, with `append` behind what stands there
    status   another HTTP status
    header   a header, with `value` or dropped; `field` does the same to a field of each event (id, retry)
    omit     the message does not arrive; `twice`: it arrives twice; `swap`: the first two of a stream change places;
             `late`: the first one comes when all the others have come
    behind   a message that nobody sent, behind each of these messages on a stream
    extra    a message that nobody sent, before the first one (an answer that was no stream becomes one)
    hang_up  false: that the receiver's peer went away is not passed on
"""

import copy
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

PREFIX: Final = "io.modelcontextprotocol/"
KEYS: Final = frozenset({
    "to", "of", "message", "drop", "set", "value", "append", "status", "header", "field",
    "omit", "twice", "swap", "late", "behind", "extra", "hang_up",
})  # fmt: skip

Json = dict[str, Any]
Headers = list[tuple[str, str]]


class Event:
    """One event of a stream: its fields, with the data last."""

    def __init__(self, fields: list[tuple[str, str]]) -> None:
        self.fields = fields

    @property
    def data(self) -> str:
        """The data's lines as one text; empty for an event that only names an id."""
        return "\n".join(value for name, value in self.fields if name == "data")

    def message(self) -> Any:
        """What it carries; None for nothing."""
        return json.loads(self.data) if self.data.strip() else None

    def with_message(self, message: Any) -> "Event":
        """The same event around another message."""
        return Event([(n, v) for n, v in self.fields if n != "data"] + [("data", json.dumps(message))])

    def encoded(self) -> bytes:
        """As it is written on a stream."""
        return "".join(f"{name}: {value}\n" for name, value in self.fields).encode() + b"\n"


class Mutation:
    """A change, and how often it was made."""

    def __init__(self, table: Mapping[str, Any]) -> None:
        if unknown := table.keys() - KEYS:
            raise ValueError(f"a mutation has no key {', '.join(sorted(unknown))}; there are {', '.join(sorted(KEYS))}")
        if table.get("to") not in {"client", "server"}:
            raise ValueError(f"a mutation says to = 'client' or 'server', got {dict(table)}")
        self.table = table
        self.to: str = table["to"]
        self.applied = 0
        self._held: Event | None = None

    def __str__(self) -> str:
        shown = (f"{key} {json.dumps(value)}" for key, value in self.table.items() if key != "to")
        return f"to the {self.to}: {', '.join(shown)}"

    def concerns(self, method: str) -> bool:
        """Whether it applies to the exchange that a request of that method opens."""
        return "of" not in self.table or self.table["of"] == method

    def passes_hang_up(self) -> bool:
        """Whether the other side learns that this one is gone."""
        if "hang_up" in self.table:
            self.applied += 1
        return bool(self.table.get("hang_up", True))

    def head(self, status: int, headers: Headers) -> tuple[int, Headers]:
        """A status line and the headers below it."""
        if "status" in self.table:
            self.applied += 1
            status = self.table["status"]
        if "header" in self.table:
            before, name = headers, self.table["header"]
            headers = [(n, v) for n, v in headers if n.lower() != name]
            if "value" in self.table:
                headers.append((name, self.table["value"]))
            self.applied += headers != before
        return status, headers

    def body(self, message: Any) -> list[Any]:
        """What a body that is one message becomes: it, another one, or none."""
        if {"extra", "behind", "field", "swap", "late"} & self.table.keys() or not self.is_meant(message):
            return [message]
        if self.table.get("omit"):
            self.applied += 1
            return []
        return [self._changed(message)]

    def makes_stream(self, status: int, body: bytes) -> bool:
        """Whether an answer in one piece must become a stream, for there to be room for another message."""
        return "extra" in self.table and status == 200 and bool(body)

    def events(self, event: Event) -> Iterator[Event]:
        """What an event of a stream becomes."""
        message = event.message()
        if "extra" in self.table and not self.applied:
            self.applied += 1
            yield Event([]).with_message(self.table["extra"])
        if "field" in self.table:
            event = self._with_field(event)
        if message is None or not self.is_meant(message):
            yield event
        elif self.table.get("swap"):
            yield from self._swapped(event)
        elif self.table.get("late") and not self.applied:
            self.applied += 1
            self._held = event
        elif self.table.get("omit"):
            self.applied += 1
        else:
            event = event.with_message(self._changed(message))
            yield event
            if self.table.get("twice"):
                self.applied += 1
                yield event
            if "behind" in self.table:
                self.applied += 1
                yield Event([]).with_message(self.table["behind"])

    def last_events(self) -> Iterator[Event]:
        """What was held back when the stream ended."""
        if self._held is not None:
            yield self._held

    def _with_field(self, event: Event) -> Event:
        name = self.table["field"]
        fields = [pair for pair in event.fields if pair[0] != name]
        if "value" in self.table and len(fields) < len(event.fields):
            fields.insert(0, (name, str(self.table["value"])))
        self.applied += fields != event.fields
        return Event(fields)

    def _swapped(self, event: Event) -> Iterator[Event]:
        if self.applied:
            yield event
        elif self._held is None:
            self._held = event
        else:
            held, self._held = self._held, None
            self.applied += 1
            yield event
            yield held

    def is_meant(self, message: Any) -> bool:
        """Whether it is about that message."""
        wanted = self.table.get("message")
        if wanted is None or not isinstance(message, dict):
            return wanted is None
        kind = ("request" if "id" in message else "notification") if "method" in message else "response"
        return wanted in {kind, message.get("method")}

    def _changed(self, message: Any) -> Any:
        path = self.table.get("drop") or self.table.get("set")
        if path is None:
            return message
        changed = copy.deepcopy(message)
        for holder, key in _places(changed, path.replace("@", PREFIX), creates="value" in self.table):
            if "drop" in self.table:
                del holder[key]
            elif "append" in self.table:
                holder[key] = f"{holder[key]}{self.table['append']}"
            else:
                holder[key] = self.table["value"]
        self.applied += changed != message
        return changed


def _places(root: Any, path: str, *, creates: bool) -> list[tuple[Any, Any]]:
    """Every (holder, key) that a path leads to. Dots inside the prefix of `@` names do not part it."""
    keys = [key.replace("\0", PREFIX) for key in path.replace(PREFIX, "\0").split(".")]
    holders = [root]
    for key in keys[:-1]:
        holders = [inner for holder in holders for inner in _inside(holder, key)]
    found: list[tuple[Any, Any]] = []
    for holder in holders:
        if isinstance(holder, list):
            found += [(holder, index) for index in (range(len(holder)) if keys[-1] == "*" else [int(keys[-1])])]
        elif isinstance(holder, dict) and keys[-1] == "*":
            found += [(holder, key) for key in holder]
        elif isinstance(holder, dict) and (creates or keys[-1] in holder):
            found.append((holder, keys[-1]))
    return found


def _inside(holder: Any, key: str) -> list[Any]:
    if isinstance(holder, list):
        return list(holder) if key == "*" else holder[int(key) : int(key) + 1]
    if isinstance(holder, dict):
        return list(holder.values()) if key == "*" else [holder[key]] if key in holder else []
    return []
