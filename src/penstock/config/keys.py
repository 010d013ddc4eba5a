"""The table of keys: what may stand in `penstock.toml`, of which kind, and what it is for.

Knows: names, kinds, one line on each. Does not know: how a file is read, what the gateway does with a value.
The loader, the JSON Schema and `config show` all read this table; defaults are those of the structs in `settings`.
"""

from typing import Any, Final, NamedTuple

import msgspec

from penstock.config.kinds import Choice, Count, Duration, Flag, Kind, ListOf, Size
from penstock.config.settings import LimitsSettings, ListenSettings, ServerConfig, ViewConfig
from penstock.config.text_kinds import (
    Addresses,
    Command,
    FilePath,
    HeaderName,
    Matching,
    Url,
    environment_table,
    headers_table,
    network,
)
from penstock.protocol.versions import SUPPORTED_VERSIONS

NAME_PATTERN: Final = r"^[a-z0-9][a-z0-9-]{0,31}$"
NAME_EXPECTED: Final = "a name of at most 32 of a-z, 0-9 and '-', not starting with '-'"


class Key(NamedTuple):
    """One key of a table."""

    name: str
    kind: Kind
    about: str


class Section(NamedTuple):
    """A table of the file: `[listen]`, `[limits]`, one of `[servers.*]`, one of `[views.*]`."""

    name: str
    keys: dict[str, Key]
    struct: type[msgspec.Struct]
    named: bool
    """Whether it holds named tables of these keys instead of the keys themselves."""

    def defaults(self) -> dict[str, Any]:
        """Each key's default, None where there is none."""
        values = {}
        for field in msgspec.structs.fields(self.struct):
            if field.name in self.keys:
                values[field.name] = field.default_factory() if callable(field.default_factory) else field.default
        return values


def _section(name: str, struct: type[msgspec.Struct], named: bool, *keys: Key) -> Section:
    return Section(name, {key.name: key for key in keys}, struct, named)


_COUNT: Final = Count(1, 1_000_000)
_HOST: Final = Matching("a host name", r"^[A-Za-z0-9_.:\[\]-]+$")
_ORIGIN: Final = Matching('an origin such as "https://app.example.com"', r"^(https?|[a-z][a-z0-9+.-]*)://[^\s/?#]+$")
_NAME: Final = Matching(NAME_EXPECTED, NAME_PATTERN)
_PATTERN: Final = Matching('a pattern such as "github_*"', r"^[^\s]+$")

LISTEN: Final = _section(
    "listen",
    ListenSettings,
    False,
    Key("data", Addresses(8080), "where MCP clients connect"),
    Key("admin", Addresses(8081), "where operators connect: API, metrics"),
    Key("tls_cert", FilePath(), "certificate chain (PEM) of the data port; needs tls_key"),
    Key("tls_key", FilePath(), "private key (PEM) of tls_cert"),
    Key("allowed_hosts", ListOf(_HOST), "values of Host accepted besides loopback and the listening address"),
    Key("allowed_origins", ListOf(_ORIGIN), "values of Origin accepted besides loopback"),
    Key("public_url", Url(), "how clients reach the data port, when that is not its address"),
    Key("trusted_proxies", ListOf(network()), "networks whose Forwarded headers are believed"),
    Key("insecure_listen", Flag(), "listen beyond loopback although anybody there may call"),
)
LIMITS: Final = _section(
    "limits",
    LimitsSettings,
    False,
    Key("header_bytes", Size(), "request line and headers of a client"),
    Key("header_fields", Count(8, 10_000), "header fields of a client's request"),
    Key("target_bytes", Size(), "path and query of a client's request"),
    Key("body_bytes", Size(), "body of a client's request"),
    Key("chunk_overhead_bytes", Size(), "what a chunked body of a client may hold besides its data"),
    Key("header_deadline", Duration(), "time for a client to send its headers"),
    Key("body_rate", Size(), "bytes per second a client's body must come at"),
    Key("idle", Duration(), "time a client's connection may rest between requests"),
    Key("connections", _COUNT, "connections of clients"),
    Key("pipelined_bytes", Size(), "requests of one connection that were sent ahead and wait for their turn"),
    Key("stream_events", _COUNT, "events that wait for a slow reader of one stream"),
    Key("stream_bytes", Size(), "bytes of events that wait for a slow reader of one stream"),
    Key("stream_comment", Duration(), "silence on a stream after which a comment keeps it open"),
    Key("stalled_reader", Duration(), "time over which a client that is behind with reading must keep reader_rate"),
    Key("reader_rate", Size(), "bytes per second such a client must read"),
    Key("linger", Duration(), "time a refused client may go on sending before it is cut"),
    Key("drain", Duration(), "time calls have to end when the gateway stops"),
    Key("connect", Duration(), "time to connect to a server"),
    Key("response_header_bytes", Size(), "headers of a server's answer"),
    Key("response_header_fields", Count(8, 10_000), "header fields of a server's answer"),
    Key("interim_answers", Count(1, 1_000), "interim answers (1xx) of a server before the real one"),
    Key("response_bytes", Size(), "body of a server's answer, unpacked"),
    Key("inflate_ratio", Count(1, 100_000), "unpacked bytes for each packed byte of a server's answer, beyond 1 MiB"),
    Key("event_bytes", Size(), "one event of a server's stream"),
    Key("stream_end", Duration(), "time a server's stream has to end after its answer, else its connection is closed"),
    Key("unawaited", Duration(), "time a server's answer is waited for when its caller is gone and must not cancel"),
    Key("upstream_connections", _COUNT, "connections or sessions to one server"),
    Key("upstream_idle", Duration(), "time a connection to a server may rest"),
    Key("upstream_lifetime", Duration(), "age at which a connection to a server is replaced"),
    Key("waiting", _COUNT, "calls that wait for a connection to one server"),
    Key("wait", Duration(), "time a call waits for a connection"),
    Key("sessions", _COUNT, "sessions of legacy clients"),
    Key("session_idle", Duration(), "time after which a resting legacy session is forgotten"),
    Key("call_idle", Duration(), "time a call may take without showing progress"),
    Key("call_total", Duration(), "time a call may take in all"),
    Key("parked_calls", _COUNT, "calls whose clients owe their servers an answer"),
    Key("parked", Duration(), "time a client has to answer what a server asks in the course of its call"),
    Key("list", Duration(), "time a server has to list itself before its last known list is used"),
)
SERVER: Final = _section(
    "servers",
    ServerConfig,
    True,
    Key("url", Url(), "address of a streamable HTTP server"),
    Key("headers", headers_table(), "headers sent with every request to it"),
    Key("command", Command(), "program that speaks MCP on stdin and stdout"),
    Key(
        "env", environment_table(), "variables the program gets besides PATH, HOME, USER, LANG, TZ, TMPDIR, SHELL, TERM"
    ),
    Key("cwd", FilePath(), "directory the program starts in"),
    Key("protocol", Choice("auto", *SUPPORTED_VERSIONS), "revision to speak; auto finds out"),
    Key("timeout", Duration(), "takes the place of limits.call_idle for this server"),
    Key("sessions", Choice("auto", "shared"), "shared: legacy sessions of this server hold no state of a client"),
    Key("instances", Choice("shared", "per_session", count=Count(1, 1000)), "processes of the program"),
    Key("enabled", Flag(), "false: keep it here, do not use it"),
    Key("forward_headers", ListOf(HeaderName()), "headers of the client's request that are passed on"),
    Key("ca_file", FilePath(), "certificates (PEM) to trust for its address"),
    Key("client_cert", FilePath(), "certificate and key (PEM) to show it"),
)
VIEW: Final = _section(
    "views",
    ViewConfig,
    True,
    Key("servers", ListOf(_NAME, least=1), "servers in it"),
    Key("include", ListOf(_PATTERN), "patterns of prefixed names in it"),
    Key("exclude", ListOf(_PATTERN), "patterns of prefixed names not in it"),
)
SECTIONS: Final = {section.name: section for section in (LISTEN, LIMITS, SERVER, VIEW)}
