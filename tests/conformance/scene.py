"""What a check sees: a client of one era, and what stands behind it, with or without a gateway between.

Knows: how requests of both eras are written. Does not know: which of them should fail, or how.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, Self

from tests.conformance.mutating_proxy import Note, Port
from tests.conformance.plain_client import NAMED_BY
from tests.conformance.wire import Json, Reply, SilenceError, send

MODERN: Final = "2026-07-28"
LEGACY: Final = "2025-11-25"
IDENTITY: Final = {"name": "behaviours", "version": "1.0.0"}
CAPABILITIES: Final[Json] = {"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {}}
META: Final = "io.modelcontextprotocol/"
TASKS: Final = f"{META}tasks"
TAKES_TASKS: Final[Json] = {"extensions": {TASKS: {}}}
"""The capabilities of a client of 2026-07-28 whose calls may become tasks."""
JSON: Final = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
DROPPED: Final = None
"""As a header's value: it is not sent."""


def without(mapping: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """The mapping less these names."""
    return {name: value for name, value in mapping.items() if name not in names}


class Session:
    """A legacy session: what `initialize` said, and how requests are sent in it."""

    def __init__(self, scene: "Scene", opened: Reply, asked: str) -> None:
        self.scene = scene
        self.opened = opened
        self.result = opened.result
        self.id = opened.headers.get("mcp-session-id")
        self.headers = {"mcp-protocol-version": self.result["protocolVersion"]}
        if self.id is not None:
            self.headers["mcp-session-id"] = self.id
        self.asked = asked

    def say(self, method: str, headers: Mapping[str, str | None] | None = None, **params: Any) -> Reply:
        """Send a notification."""
        return self.scene.post({"method": method, "params": params}, {**self.headers, **(headers or {})})

    def answer(self, question: Json, **result: Any) -> Reply:
        """Answer a request of the server."""
        return self.scene.post({"id": question["id"], "result": result}, self.headers)


class Scene:
    """One client before one server. `era` is the client's."""

    def __init__(self, url: str, era: str, seconds: float, back: Port | None = None) -> None:
        self.url = url
        self.era = era
        self.seconds = seconds
        self._back = back
        self._since = len(back.notes) if back else 0
        self._session: Session | None = None
        self._last_id = 100
        self._replies: list[Reply] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for reply in self._replies:
            reply.close()

    @property
    def is_modern(self) -> bool:
        """Whether the client speaks 2026-07-28."""
        return self.era == "modern"

    # --- what the client sends -----------------------------------------------------------------------------------------

    def post(self, message: Any, headers: Mapping[str, str | None], seconds: float | None = None) -> Reply:
        """POST a message (or bytes as they are) with exactly these headers and the two that every POST has."""
        body = message if isinstance(message, bytes) else json.dumps(_enveloped(message)).encode()
        return self.http("POST", {**JSON, **headers}, body, seconds)

    def http(
        self, verb: str, headers: Mapping[str, str | None], body: bytes | None = None, seconds: float | None = None
    ) -> Reply:
        """Any HTTP request."""
        kept = {name: value for name, value in headers.items() if value is not None}
        reply = send(self.url, verb, kept, body, seconds or self.seconds)
        self._replies.append(reply)
        return reply

    def ask(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        headers: Mapping[str, str | None] | None = None,
        meta: Mapping[str, Any] | None = None,
        capabilities: Mapping[str, Any] | None = None,
        request_id: Any = None,
    ) -> Reply:
        """Send a request in the words of the client's era. `meta` None-values leave a member out."""
        number = self.next_id() if request_id is None else request_id
        params = dict(params or {})
        if not self.is_modern:
            if meta:
                params["_meta"] = dict(meta)
            all_headers = {**self.session(capabilities).headers, **(headers or {})}
            return self.post({"id": number, "method": method, "params": params}, all_headers)
        full = {
            f"{META}protocolVersion": MODERN,
            f"{META}clientInfo": IDENTITY,
            f"{META}clientCapabilities": CAPABILITIES if capabilities is None else capabilities,
            **(meta or {}),
        }
        params["_meta"] = {name: value for name, value in full.items() if value is not None}
        own: dict[str, str | None] = {"mcp-protocol-version": MODERN, "mcp-method": method}
        if method in NAMED_BY and NAMED_BY[method] in params:
            own["mcp-name"] = params[NAMED_BY[method]]
        return self.post({"id": number, "method": method, "params": params}, {**own, **(headers or {})})

    def call(self, tool: str, arguments: Mapping[str, Any] | None = None, **more: Any) -> Reply:
        """`tools/call`; `params` among `more` are further members."""
        extra = more.pop("params", {})
        return self.ask("tools/call", {"name": tool, "arguments": dict(arguments or {}), **extra}, **more)

    def another(self) -> "Scene":
        """Another client at the same place; its connections end with this one's."""
        scene = Scene(self.url, self.era, self.seconds)
        scene._replies = self._replies
        return scene

    def next_id(self) -> int:
        """An id that this client has not used."""
        self._last_id += 1
        return self._last_id

    def session(self, capabilities: Mapping[str, Any] | None = None) -> Session:
        """The client's session, opened when it is first needed."""
        if self._session is None:
            self._session = self.initialize(capabilities=capabilities)
        return self._session

    def initialize(self, revision: str = LEGACY, capabilities: Mapping[str, Any] | None = None) -> Session:
        """Open a legacy session and say that it is."""
        declared = CAPABILITIES if capabilities is None else capabilities
        params = {"protocolVersion": revision, "capabilities": declared, "clientInfo": IDENTITY}
        opened = self.post({"id": self.next_id(), "method": "initialize", "params": params}, {})
        session = Session(self, opened, revision)
        session.say("notifications/initialized").close()
        return session

    def listen(self, **wanted: Any) -> Reply:
        """`subscriptions/listen`, or a legacy session's GET stream (with its subscriptions)."""
        if self.is_modern:
            return self.ask("subscriptions/listen", {"notifications": wanted})
        session = self.session()
        stream = self.http("GET", {"accept": "text/event-stream", **session.headers})
        for uri in wanted.get("resourceSubscriptions", []):
            assert "result" in self.ask("resources/subscribe", {"uri": uri}).response()
        return stream

    # --- what the server was sent --------------------------------------------------------------------------------------

    @property
    def sent(self) -> list[Note]:
        """What the gateway sent the server since this scene began."""
        return self._port.notes[self._since :]

    @property
    def history(self) -> list[Note]:
        """What it sent since it started, but for what other runs have mutated."""
        return [note for note in self._port.notes if note.mutation in {None, self._port.mutation}]

    def sent_call(self, method: str = "tools/call") -> Note:
        """The request of that method that the gateway sent.

        Raises:
            SilenceError: there was none in time.
        """
        note = self._port.wait_for(lambda note: note.method == method, self._since, self.seconds)
        if note is None:
            raise SilenceError(f"the server was not sent '{method}', but {[note.method for note in self.sent]}")
        return note

    def sent_when(self, wanted: Callable[[Note], bool]) -> Note | None:
        """The first exchange that is wanted, if it comes in time."""
        return self._port.wait_for(wanted, self._since, self.seconds)

    @property
    def server_url(self) -> str:
        """Where the server itself is."""
        return f"http://{self._port.host}:{self._port.target_port}{self._port.path}"

    def hold(self, method: str | None) -> None:
        """Keep back the server's answers to requests of a method; None lets them go."""
        self._port.held = method

    @property
    def _port(self) -> Port:
        assert self._back is not None, "this check looks at what the server is sent: say so with @check(…, back=True)"
        return self._back


def _enveloped(message: Any) -> Any:
    if isinstance(message, list):
        return [_enveloped(member) for member in message]
    return {"jsonrpc": "2.0", **message}
