"""What the gateway is told to be, after files, environment and flags were read and judged.

Knows: names, values in seconds and bytes, defaults. Does not know: TOML, where a value came from, whether a server answers.
Durations are seconds, sizes are bytes. Whatever may hold a secret is a `Secret`: printing it shows what it stands for, never
what it is; `reveal` gives the text to whoever must send it.
"""

import hashlib
from typing import Final

import msgspec

Seconds = float
Bytes = int
Address = tuple[str, int]
"""Host and port; `localhost` means both families, port 0 any free one."""

MASK: Final = "***"
KIB: Final = 1024
MIB: Final = 1024 * KIB


class Secret:
    """A text that must not be shown: `str`, `repr` and formatting give `shown`, `reveal()` the text itself."""

    __slots__ = ("_text", "shown", "sources")

    def __init__(self, text: str, *, shown: str = MASK, sources: tuple[str, ...] = ()) -> None:
        self._text: Final = text
        self.shown: Final = shown
        """What people may see in its place: `***`, or the text with its secret parts replaced by `***`."""
        self.sources: Final = sources
        """The placeholders it was made from, as written: `${env:TOKEN}`."""

    def reveal(self) -> str:
        return self._text

    def __str__(self) -> str:
        return self.shown

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


Text = str | Secret
"""A text that became a Secret when something was interpolated into it or it carries credentials."""


def reveal(text: Text) -> str:
    """The text itself, to be sent and never printed."""
    return text if isinstance(text, str) else text.reveal()


class ListenSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the gateway listens and whom it lets in."""

    data: tuple[Address, ...] = (("127.0.0.1", 8080),)
    admin: tuple[Address, ...] = (("127.0.0.1", 8081),)
    tls_cert: str | None = None
    tls_key: str | None = None
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    public_url: str | None = None
    trusted_proxies: tuple[str, ...] = ()
    """Networks in CIDR form."""
    insecure_listen: bool = False


class LimitsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Every bound of the gateway by its name; what each means stands in `config/keys.py`."""

    header_bytes: Bytes = 16 * KIB
    header_fields: int = 100
    target_bytes: Bytes = 8 * KIB
    body_bytes: Bytes = 4 * MIB
    chunk_overhead_bytes: Bytes = 16 * KIB
    header_deadline: Seconds = 10.0
    body_rate: Bytes = KIB
    idle: Seconds = 75.0
    connections: int = 20_000
    pipelined_bytes: Bytes = 64 * KIB
    stream_events: int = 1024
    stream_bytes: Bytes = 4 * MIB
    stream_comment: Seconds = 15.0
    stalled_reader: Seconds = 30.0
    reader_rate: Bytes = KIB
    linger: Seconds = 2.0
    drain: Seconds = 30.0
    connect: Seconds = 5.0
    response_header_bytes: Bytes = 64 * KIB
    response_header_fields: int = 256
    interim_answers: int = 16
    response_bytes: Bytes = 64 * MIB
    inflate_ratio: int = 200
    event_bytes: Bytes = 16 * MIB
    stream_end: Seconds = 1.0
    unawaited: Seconds = 30.0
    upstream_connections: int = 256
    upstream_idle: Seconds = 4.0
    upstream_lifetime: Seconds = 300.0
    waiting: int = 1024
    wait: Seconds = 10.0
    sessions: int = 10_000
    session_idle: Seconds = 1800.0
    call_idle: Seconds = 60.0
    call_total: Seconds = 900.0
    parked_calls: int = 256
    parked: Seconds = 600.0
    list: Seconds = 10.0


class ServerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One server behind the gateway: exactly one of `url` and `command` is set."""

    name: str
    url: Text | None = None
    headers: dict[str, Secret] = {}
    command: tuple[Text, ...] | None = None
    env: dict[str, Secret] = {}
    cwd: str | None = None
    protocol: str = "auto"
    timeout: Seconds | None = None
    """Takes the place of `limits.call_idle` for this server."""
    sessions: str = "auto"
    instances: str | int = "shared"
    enabled: bool = True
    forward_headers: tuple[str, ...] = ()
    """Lower-case names."""
    ca_file: str | None = None
    client_cert: str | None = None

    @property
    def target(self) -> str:
        """What it is reached by, fit to be shown."""
        return str(self.url) if self.url is not None else " ".join(str(part) for part in self.command or ())

    @property
    def fingerprint(self) -> str:
        """Changes with anything about the server, secrets included, and shows none of it."""
        facts = [
            reveal(self.url or ""),
            [reveal(part) for part in self.command or ()],
            {name: secret.reveal() for name, secret in self.headers.items()},
            {name: secret.reveal() for name, secret in self.env.items()},
            [self.cwd, self.protocol, self.sessions, self.instances, self.ca_file, self.client_cert],
        ]
        return hashlib.sha256(msgspec.json.encode(facts)).hexdigest()


class ViewConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A named selection of servers' tools, prompts and resources with its own endpoint."""

    name: str
    servers: tuple[str, ...] = ()
    include: tuple[str, ...] = ("*",)
    """Patterns over prefixed names."""
    exclude: tuple[str, ...] = ()


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was configured."""

    listen: ListenSettings = ListenSettings()
    limits: LimitsSettings = LimitsSettings()
    servers: dict[str, ServerConfig] = {}
    """In configuration order."""
    views: dict[str, ViewConfig] = {}
    file: str | None = None
    """The file it came from; None when there is none yet."""
