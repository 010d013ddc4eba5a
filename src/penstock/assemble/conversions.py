"""Settings as people write them into those of each room.

Knows: both. Does not know: what is opened with them.
"""

from dataclasses import replace
from typing import Final

from penstock.config.settings import LimitsSettings, ServerConfig, Settings
from penstock.control.supervisor import WorkerPlace
from penstock.gateway.admittance import Admittance
from penstock.gateway.hops import CONNECTIONS
from penstock.gateway.hosting import HostSettings
from penstock.gateway.snapshot import ViewSettings
from penstock.http.limits import KIB, MIB, ClientLimits, ServerLimits
from penstock.policies.deadline import DeadlineSettings

_TAKEN_LISTEN: Final = ("allowed_hosts", "allowed_origins", "public_url")
_TAKEN_LIMITS: Final = ("call_idle", "call_total", "list", "drain")
"""What of these sections a reload takes up; see `admittance_of`, `host_settings`, and the draining of the process."""


def host_settings(config: ServerConfig, limits: LimitsSettings, place: WorkerPlace | None = None) -> HostSettings:
    """What the gateway needs of one server's configuration; stdio servers belong to the first worker."""
    return HostSettings(
        name=config.name,
        transport="stdio" if config.command is not None else "http",
        target=config.target,
        fingerprint=config.fingerprint,
        deadline=DeadlineSettings(config.timeout or limits.call_idle, limits.call_total),
        forward_headers=tuple(name.lower().encode() for name in config.forward_headers),
        list_seconds=limits.list,
        is_elsewhere=config.command is not None and place is not None and not place.is_first,
    )


def waiting_for_start(before: Settings, after: Settings) -> list[str]:
    """The changed keys that a reload does not take up: those of `listen` and `limits` that are used when something is opened."""
    return [
        f"{section}.{key}"
        for section, taken in (("listen", _TAKEN_LISTEN), ("limits", _TAKEN_LIMITS))
        for key in getattr(after, section).__struct_fields__
        if key not in taken and getattr(getattr(before, section), key) != getattr(getattr(after, section), key)
    ]


def views_of(settings: Settings) -> list[ViewSettings]:
    """The configured selections."""
    return [ViewSettings(view.name, view.servers, view.include, view.exclude) for view in settings.views.values()]


def admittance_of(settings: Settings) -> Admittance:
    """Whom the data port lets in."""
    listen = settings.listen
    hosts = [*listen.allowed_hosts, *(host for host, _ in listen.data)]
    if listen.public_url is not None:
        hosts.append(listen.public_url.partition("://")[2].partition("/")[0])
    return Admittance(hosts, listen.allowed_origins)


def server_limits(limits: LimitsSettings) -> ServerLimits:
    """The HTTP lane's share of the limits."""
    return ServerLimits(
        header_bytes=limits.header_bytes,
        header_fields=limits.header_fields,
        target_bytes=limits.target_bytes,
        body_bytes=limits.body_bytes,
        chunk_overhead_bytes=limits.chunk_overhead_bytes,
        header_seconds=limits.header_deadline,
        body_bytes_per_second=limits.body_rate,
        idle_seconds=limits.idle,
        connections=limits.connections,
        pipelined_bytes=limits.pipelined_bytes,
        stream_queue_events=limits.stream_events,
        stream_queue_bytes=limits.stream_bytes,
        keepalive_comment_seconds=limits.stream_comment,
        stalled_reader_seconds=limits.stalled_reader,
        reader_bytes_per_second=limits.reader_rate,
        linger_seconds=limits.linger,
        drain_seconds=limits.drain,
    )


def door_limits(limits: LimitsSettings) -> ServerLimits:
    """What a worker takes of another: all that a client's largest request becomes on its way, over connections that rest."""
    own = server_limits(limits)
    return replace(
        own,
        header_bytes=own.header_bytes + 8 * KIB,
        header_fields=own.header_fields + 16,
        body_bytes=own.body_bytes + 64 * KIB,
        idle_seconds=max(own.idle_seconds, 2 * CONNECTIONS.idle_seconds),
    )


def sibling_limits(limits: LimitsSettings) -> ClientLimits:
    """What one connection to another worker may cost: it passes on what a server's could bring, some of it as an event."""
    most = max(limits.response_bytes, limits.event_bytes) + MIB
    return replace(client_limits(limits), response_bytes=most, event_bytes=most)


def client_limits(limits: LimitsSettings) -> ClientLimits:
    """What one connection to a server may cost."""
    return ClientLimits(
        response_bytes=limits.response_bytes,
        event_bytes=limits.event_bytes,
        header_bytes=limits.response_header_bytes,
        header_fields=limits.response_header_fields,
        interim_answers=limits.interim_answers,
        inflate_ratio=limits.inflate_ratio,
        connect_seconds=limits.connect,
        finish_grace_seconds=limits.stream_end,
        detached_seconds=limits.unawaited,
    )
