"""A call on its way to a server, who makes it, and how it ends.

The inside speaks modern semantics: a call yields notifications, then an answer. Bytes stay in the form their sender gave
them (`Result.era`), so that a call between two sides of one era is never re-encoded.

Knows: raw JSON slices. Does not know: HTTP of the client's side, views, policies, how servers are reached.
"""

from collections.abc import Callable, Iterable
from typing import Final, Protocol

import msgspec

from penstock import __version__
from penstock.errors import ServerError
from penstock.protocol.client_capabilities import EVERYTHING, declared, read_askable
from penstock.protocol.result_marks import ResultMarks
from penstock.protocol.versions import LATEST_MODERN, Era
from penstock.upstreams.questions import Ask, Question

Raw = msgspec.Raw
Notify = Callable[[str, "dict[str, msgspec.Raw]"], None]
"""Takes a notification's method and params, already carrying the caller's own progress token. Must not raise or block."""


class Sink(Protocol):
    """The stream of a legacy client beside its calls."""

    @property
    def is_open(self) -> bool:
        """Whether the client listens."""
        ...

    def ask(self, question: Question) -> None:
        """A server asks outside any call. Must not raise or block."""

    def notify(self, method: str, params: "dict[str, msgspec.Raw]") -> None:
        """A server logs outside any call. Must not raise or block."""

    def subscriptions(self, server: str) -> Iterable[str]:
        """The resources of that server it has subscribed to."""
        ...

    def hear_apart(self, uri: str, *, apart: bool) -> None:
        """Whether it hears of that resource by `updated` alone, or by what is told to all."""

    def updated(self, uri: str) -> bool:
        """A resource, or a part of one, was updated; False when it does not hear apart of it. Must not raise or block."""
        ...


_UNASKED: Final = "the gateway"
"""Never what callers that are asked share: that has a line's end in it."""


class Caller:
    """Who calls, as far as a server may learn it.

    One object for each legacy client session and for each distinct modern `_meta`; compared by identity on the hot path.
    """

    __slots__ = (
        "askable",
        "can_be_asked",
        "capabilities",
        "client_info",
        "encoded_meta",
        "era",
        "hears_every_log",
        "modern_capabilities",
        "principal",
        "revision",
        "session",
        "shared_key",
        "sink",
    )

    def __init__(
        self,
        era: Era,
        revision: str,
        session: str | None,
        capabilities: bytes = b"{}",
        client_info: bytes = b"",
        principal: str = "",
        *,
        is_asked: bool = True,
    ) -> None:
        """`is_asked`: False for the gateway itself, which declares everything so that servers show everything, and refuses."""
        self.era: Final = era
        self.revision: Final = revision
        self.session: Final = session
        """A stable name of the legacy client session (never the token itself); None for modern and session-less callers."""
        self.capabilities: Final = capabilities
        """JSON object."""
        self.client_info: Final = client_info
        """JSON object, or empty when the client did not say."""
        self.principal: Final = principal
        """Who asks, as sign-in has it; empty where there is none."""
        self.askable: Final = read_askable(capabilities, revision)
        """What a server may ask while it works on a call of this client."""
        self.can_be_asked: Final = self.askable.has_any and is_asked
        self.hears_every_log: Final = era is Era.LEGACY and session is not None
        """Until it sets a level it takes whatever its server logs; a modern server has to be asked for that."""
        self.sink: Sink | None = None
        """Takes what belongs to a legacy client's session and to none of its calls; None where there is no session."""
        self.modern_capabilities: Final = capabilities if era is Era.MODERN else declared(self.askable, LATEST_MODERN)
        """The same as a modern server is told, JSON object."""
        equals = f"{principal}\n{declared(self.askable, LATEST_MODERN).decode()}" if is_asked else _UNASKED
        self.shared_key: Final = ("shared", equals)
        """Callers of equal ones may share a session at a legacy server."""
        self.encoded_meta: tuple[str, Raw] | None = None
        """Revision, and the `_meta` object that says the above in it; kept by upstreams so that it is encoded once."""

    def __repr__(self) -> str:
        return f"<Caller {self.era.value} {self.revision}{' session' if self.session else ''}>"


PENSTOCK: Final = Caller(
    Era.MODERN,
    LATEST_MODERN,
    None,
    declared(EVERYTHING, LATEST_MODERN),
    b'{"name":"penstock","version":"%b"}' % __version__.encode(),
    is_asked=False,
)
"""Who asks when the gateway asks for itself. It declares all there is, as servers hide what their client is not up to; a client's
own calls declare what that client can."""
Heard = Notify
"""Takes what a server says beside its calls: that a list has changed, or a resource somebody subscribed to."""


class Cancellable(Protocol):
    """A task, as far as a watch needs one."""

    def cancel(self) -> object:
        """Raise CancelledError in it where it waits."""
        ...


class Watch(Protocol):
    """Who bounds a call's time by cancelling its task."""

    @property
    def leave(self) -> "Callable[[Call], None]":
        """Tells that the call has ended."""
        ...

    def refusal(self, call: "Call") -> ServerError | None:
        """What the cancelling of the call's task means; None when it was not the watch's doing."""


class Call:
    """One request on its way to a server. Made by an edge, read by policies, used up by one upstream.

    `params` hold everything but `_meta`; `meta` holds `_meta` without the modern per-request fields Penstock itself writes
    (protocolVersion, clientInfo, clientCapabilities): an upstream adds those its era needs from `caller`.
    """

    __slots__ = (
        "ask",
        "asked_seconds",
        "asking_since",
        "caller",
        "expired_after",
        "first_byte_at",
        "headers",
        "hear",
        "meta",
        "method",
        "name",
        "notify",
        "on_end",
        "params",
        "poll",
        "progress_at",
        "sent_at",
        "started_at",
        "task",
        "watch",
    )

    def __init__(
        self,
        method: str,
        params: dict[str, msgspec.Raw],
        caller: Caller,
        name: str | None = None,
        meta: dict[str, msgspec.Raw] | None = None,
        notify: Notify | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        started_at: float = 0.0,
        *,
        on_end: "OnEnd | None" = None,
        hear: Heard | None = None,
        ask: Ask | None = None,
    ) -> None:
        self.method = method
        self.params = params
        self.caller: Final = caller
        self.name = name
        """The server's own name of the tool or prompt, or the resource's URI: the value of `Mcp-Name`."""
        self.meta = meta
        self.notify = notify
        """None when the caller cannot take notifications."""
        self.headers = headers
        """Extra request headers (lower-case names): `mcp-param-*` and what `forward_headers` names. HTTP servers only."""
        self.started_at = started_at
        """When the request was complete. All four are `time.monotonic()` (uvloop's own clock ticks in ms); 0.0: not reached."""
        self.on_end = on_end
        """Who takes the outcome of a call that was sent by `QuickUpstream.start`."""
        self.sent_at = 0.0
        """When a connection or session was had and the request was written: the pool wait ends here."""
        self.first_byte_at = 0.0
        """When the first byte of the server's answer came."""
        self.progress_at = 0.0
        """When the server last showed progress; the idle deadline counts from here."""
        self.task: Cancellable | None = None
        """The call's one task, when somebody may want to end it."""
        self.watch: Watch | None = None
        """Who bounds the call's time, once a policy does."""
        self.expired_after = 0.0
        """Seconds after which `watch` ended the call; 0.0 while it has not."""
        self.hear = hear
        """Takes notifications of changes: the call is a `subscriptions/listen` of ours. None for all other calls."""
        self.poll: Callable[[int], None] | None = None
        """Told when a server lets its caller come back for the rest of the answer, after so many ms; None when nobody could."""
        self.ask = ask
        """Takes what a legacy server asks; None when the caller cannot be asked anything."""
        self.asking_since = 0.0
        """Since when the client owes an answer, so that the server is not to blame for the time; 0.0: it owes none."""
        self.asked_seconds = 0.0
        """How long it has owed answers in all."""

    def __repr__(self) -> str:
        return f"<Call {self.method} {self.name or ''}>"

    def begin_asking(self, now: float) -> None:
        """The client owes an answer from now on."""
        self.asking_since = self.asking_since or now

    def end_asking(self, now: float) -> None:
        """It owes none any more: now it is the server's turn."""
        if self.asking_since:
            self.asked_seconds += now - self.asking_since
            self.asking_since = 0.0
            self.progress_at = now


class Result:
    """A server's result: a JSON object, as it sent it."""

    __slots__ = ("era", "json", "marks")

    def __init__(self, json: bytes | memoryview, era: Era, marks: ResultMarks | None = None) -> None:
        self.json: Final = json
        """Owned bytes, or where it is large a view of the server's whole answer, so that it need not be copied."""
        self.era: Final = era
        """Era of the server: a legacy result has no `resultType`."""
        self.marks: Final = marks
        """What stands in it; None when nobody has looked."""

    def __repr__(self) -> str:
        return f"<Result {self.era.value} {len(self.json)} bytes>"

    @property
    def raw(self) -> bytes:
        """The same as bytes of its own."""
        return bytes(self.json)


class Failure:
    """A server's own JSON-RPC error, passed on as it came but for what the client's era words differently."""

    __slots__ = ("code", "data", "era", "message")

    def __init__(self, code: int, message: str, data: bytes | None, era: Era) -> None:
        self.code: Final = code
        self.message: Final = message
        self.data: Final = data
        """JSON value bytes, or None."""
        self.era: Final = era

    def __repr__(self) -> str:
        return f"<Failure {self.code} {self.message!r}>"


Answer = Result | Failure
OnEnd = Callable[[Answer | ServerError | None], None]
"""Takes how a call ended: its answer, why there is none, or None when it was cancelled. Called once; must not raise."""
