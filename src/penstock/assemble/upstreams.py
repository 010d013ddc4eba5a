"""Servers as they are configured into what speaks to them.

Knows: every transport. Does not know: how settings were written down, what the gateway does with a server.
"""

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from penstock.assemble.conversions import client_limits, sibling_limits
from penstock.clock import Clock
from penstock.config.settings import LimitsSettings, ServerConfig, reveal
from penstock.control.supervisor import WorkerPlace
from penstock.errors import ConfigError
from penstock.gateway.admittance import PRINCIPAL
from penstock.http.tls import client_context
from penstock.upstreams.child_guard import ChildGuard
from penstock.upstreams.interface import Upstream
from penstock.upstreams.pool import PoolSettings
from penstock.upstreams.stdio import StdioUpstream
from penstock.upstreams.stdio_settings import StdioSettings
from penstock.upstreams.streamable_http import StreamableHttpSettings, StreamableHttpUpstream
from penstock.upstreams.streamable_http_settings import EXCLUSIVE_SESSIONS


class UpstreamFactory:
    """Opens upstreams; holds what they share: TLS contexts by trust domain and the guard of child processes."""

    def __init__(self, limits: LimitsSettings, clock: Clock, place: WorkerPlace | None = None) -> None:
        self._limits = limits
        self._place = place
        self._clock = clock
        self._tls: dict[tuple[str | None, str | None], ssl.SSLContext] = {}
        self._guard: ChildGuard | None = None

    def opener(self, config: ServerConfig) -> Callable[[], Upstream]:
        """How to open that server, when the time comes."""
        if config.command is not None and self._place is not None and not self._place.is_first:
            owner = self._place.siblings[0]
            return lambda: self._open_at(config, owner)
        if config.command is not None:
            return lambda: self._open_stdio(config)
        tls = self._tls_context(config) if reveal(config.url or "").startswith("https:") else None
        return lambda: self._open_http(config, tls)

    async def close(self) -> None:
        if self._guard is not None:
            await self._guard.close()

    def kill(self) -> None:
        """End all child processes without manners."""
        if self._guard is not None:
            self._guard.kill()

    def _open_stdio(self, config: ServerConfig) -> Upstream:
        if self._guard is None:
            self._guard = ChildGuard()
        settings = StdioSettings(
            command=tuple(reveal(part) for part in config.command or ()),
            env={name: secret.reveal() for name, secret in config.env.items()},
            cwd=config.cwd,
            protocol=config.protocol,
            instances=_instances(config.instances),
            session_idle_seconds=self._limits.session_idle,
            turn_seconds=self._limits.wait,
            line_bytes=self._limits.event_bytes,
        )
        return StdioUpstream(config.name, settings, guard=self._guard, clock=self._clock)

    def _open_at(self, config: ServerConfig, owner: Path) -> Upstream:
        """A program that runs under another worker, which serves it in both eras: in that worker's view of its own."""
        limits = self._limits
        settings = StreamableHttpSettings(
            url=f"http://worker/mcp/{config.name}",
            unix_path=owner,
            principal_header=PRINCIPAL,
            sessions="auto" if config.instances == "per_session" else "shared",
            max_sessions=limits.sessions,
            session_idle_seconds=limits.session_idle,
            limits=sibling_limits(limits),
            connections=PoolSettings(max_size=4096, max_waiting=limits.waiting, wait_seconds=limits.wait),
        )
        return StreamableHttpUpstream(config.name, settings, clock=self._clock)

    def _open_http(self, config: ServerConfig, tls: ssl.SSLContext | None) -> Upstream:
        limits = self._limits
        settings = StreamableHttpSettings(
            url=reveal(config.url or ""),
            headers=tuple((name, secret.reveal()) for name, secret in config.headers.items()),
            protocol=config.protocol,
            sessions="shared" if config.sessions == "shared" else "auto",
            max_sessions=limits.sessions,
            session_idle_seconds=limits.session_idle,
            limits=client_limits(limits),
            connections=PoolSettings(
                max_size=limits.upstream_connections,
                max_waiting=limits.waiting,
                wait_seconds=limits.wait,
                idle_seconds=limits.upstream_idle,
                lifetime_seconds=limits.upstream_lifetime,
            ),
            exclusive_sessions=msgspec.structs.replace(
                EXCLUSIVE_SESSIONS,
                max_size=limits.upstream_connections,
                idle_seconds=min(EXCLUSIVE_SESSIONS.idle_seconds, limits.session_idle),
            ),
        )
        return StreamableHttpUpstream(config.name, settings, tls=tls, clock=self._clock)

    def _tls_context(self, config: ServerConfig) -> ssl.SSLContext:
        key = (config.ca_file, config.client_cert)
        if key not in self._tls:
            try:
                self._tls[key] = client_context(config.ca_file, config.client_cert)
            except (OSError, ssl.SSLError) as error:
                raise ConfigError(
                    f"ca_file or client_cert cannot be used: {error}", key=f"servers.{config.name}"
                ) from error
        return self._tls[key]


def _instances(value: str | int) -> int | Literal["shared", "per_session"]:
    if isinstance(value, int):
        return value
    return "per_session" if value == "per_session" else "shared"
