"""What the gateway may ask of a server behind it, whatever its transport and era.

The inside speaks modern semantics: a call yields notifications, then an answer. Bytes stay in the form their sender gave
them (`Answer.era`), so that a call between two sides of one era is never re-encoded.

Knows: raw JSON slices. Does not know: HTTP of the client's side, views, policies.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol, runtime_checkable

import msgspec

from penstock import __version__
from penstock.errors import ServerError
from penstock.protocol.client_capabilities import EVERYTHING, declared, read_askable
from penstock.protocol.messages import ResultMarks
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
        self.can_be_asked: Final = bool(self.askable) and is_asked
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


class Call(msgspec.Struct, eq=False):
    """One request on its way to a server. Made by an edge, read by policies, used up by one upstream.

    `params` hold everything but `_meta`; `meta` holds `_meta` without the modern per-request fields Penstock itself writes
    (protocolVersion, clientInfo, clientCapabilities): an upstream adds those its era needs from `caller`.
    """

    method: str
    params: dict[str, msgspec.Raw]
    caller: Caller
    name: str | None = None
    """The server's own name of the tool or prompt, or the resource's URI: the value of `Mcp-Name`."""
    meta: dict[str, msgspec.Raw] | None = None
    notify: Notify | None = None
    """None when the caller cannot take notifications."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """Extra request headers (lower-case names): `mcp-param-*` and what `forward_headers` names. HTTP servers only."""
    started_at: float = 0.0
    """When the request was complete. All four are `time.monotonic()` (uvloop's own clock ticks in ms); 0.0: not reached."""
    on_end: "OnEnd | None" = None
    """Who takes the outcome of a call that was sent by `QuickUpstream.start`."""
    sent_at: float = 0.0
    """When a connection or session was had and the request was written: the pool wait ends here."""
    first_byte_at: float = 0.0
    """When the first byte of the server's answer came."""
    progress_at: float = 0.0
    """When the server last showed progress; the idle deadline counts from here."""
    task: Cancellable | None = None
    """The call's one task, when somebody may want to end it."""
    watch: Watch | None = None
    """Who bounds the call's time, once a policy does."""
    expired_after: float = 0.0
    """Seconds after which `watch` ended the call; 0.0 while it has not."""
    hear: Heard | None = None
    """Takes notifications of changes: the call is a `subscriptions/listen` of ours. None for all other calls."""
    poll: Callable[[int], None] | None = None
    """Told when a server lets its caller come back for the rest of the answer, after so many ms; None when nobody could."""
    ask: Ask | None = None
    """Takes what a legacy server asks; None when the caller cannot be asked anything."""
    asking_since: float = 0.0
    """Since when the client owes an answer, so that the server is not to blame for the time that passes; 0.0: it owes none."""
    asked_seconds: float = 0.0
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


class Result(msgspec.Struct, eq=False, gc=False):
    """A server's result: a JSON object, as it sent it."""

    json: bytes | memoryview
    """Owned bytes, or where it is large a view of the server's whole answer, so that it need not be copied."""
    era: Era
    """Era of the server: a legacy result has no `resultType`."""
    marks: ResultMarks | None = None
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


class Description(msgspec.Struct, frozen=True):
    """What a server says of itself (`server/discover`, or the result of `initialize`)."""

    eras: tuple[Era, ...]
    """Eras it was seen to speak, preferred first."""
    versions: tuple[str, ...]
    server_info: Raw
    """JSON object, `{}` when it did not say."""
    capabilities: Raw
    """JSON object."""
    instructions: str = ""
    ttl_ms: int = 0


@runtime_checkable
class QuickUpstream(Protocol):
    """An upstream that can send some calls at once, without a coroutine."""

    def start(self, call: Call) -> Cancellable | None:
        """Send the call now if nothing has to be waited for before: `call.on_end` takes the outcome, in a later turn of the loop.

        None: nothing was sent; use `Upstream.call`. Cancelling what is returned does what cancelling `call` does.
        """
        ...


@runtime_checkable
class SubscribesApart(Protocol):
    """An upstream some of whose servers tell of a resource only in the session that has subscribed to it, or has changed it."""

    async def subscribe_apart(self, caller: Caller, uri: str) -> None:
        """Subscribe in that caller's own session too, if it has one; of what is heard there its `sink` is told."""

    async def unsubscribe_apart(self, caller: Caller, uri: str) -> None:
        """Stop that; whatever the server says."""


class Upstream(Protocol):
    """One configured server. Implementations: streamable_http, stdio, in_memory."""

    @property
    def name(self) -> str: ...

    async def call(self, call: Call) -> Answer:
        """Send one request, hand its notifications to `call.notify`, return the answer.

        Cancelling the awaiting task cancels the call at the server in its own era's way (modern HTTP: the stream is closed;
        otherwise `notifications/cancelled`), without waiting for the server.

        Raises:
            ServerError: the server could not be reached or did not answer properly; nothing is held afterwards.
        """
        ...

    async def describe(self, caller: Caller | None = None) -> Description:
        """Detect eras if unknown and return what the server says of itself.

        Raises:
            ServerError: as for `call`.
        """
        ...

    async def close_session(self, session: str) -> None:
        """The legacy client session of that name has ended: end what was opened for it at the server."""
        ...

    def binds(self, caller: Caller) -> bool:
        """Whether the server holds something for that caller's own session: then all its calls must come through one worker."""
        ...

    def roots_changed(self, caller: Caller) -> None:
        """The roots of a legacy client are others now: tell a server that holds something for its session."""
        ...

    def hear(self, heard: Heard) -> None:
        """Tell of changes from now on, and ask the server to tell them where it has to be asked; the last one given hears.

        Whatever becomes of connection, session or process, it is asked again, until `close`. That a list has changed may be told
        more than once: by each session in which the server says it.
        """
        ...

    async def subscribe(self, uri: str) -> Failure | None:
        """Tell of updates of that resource as well; the server's error when it refuses. Once for each resource.

        Raises:
            ServerError: as for `call`.
        """
        ...

    async def unsubscribe(self, uri: str) -> None:
        """Stop that; whatever the server says."""
        ...

    def state(self) -> dict[str, Any]:
        """JSON-ready facts for `list` and `explain`: sessions, connections, process. No secrets. Every transport gives:

        transport; eras: the names of those it was seen to speak; spoken_with: by the era of the client, the one spoken to the
        server for it, None while it is not known; last_error: empty when there was none.
        """
        ...

    def recent_log(self, lines: int) -> list[str]:
        """The last lines a stdio server wrote to stderr, oldest first; empty for other transports."""
        ...

    async def close(self) -> None:
        """End sessions, connections and processes. Idempotent; bounded in time (5 s)."""
        ...
