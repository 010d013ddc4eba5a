"""Settings become bounds and openers: nothing that can be written down is lost on the way."""

import dataclasses
import socket
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.assemble.conversions import (
    admittance_of,
    client_limits,
    host_settings,
    server_limits,
    views_of,
    waiting_for_start,
)
from penstock.assemble.upstreams import UpstreamFactory
from penstock.clock import FakeClock
from penstock.config.settings import (
    LimitsSettings,
    ListenSettings,
    Secret,
    ServerConfig,
    Settings,
    ViewConfig,
)
from penstock.control.supervisor import WorkerPlace
from penstock.errors import ConfigError
from penstock.gateway.admittance import PRINCIPAL
from penstock.gateway.gateway import GatewaySettings
from penstock.http.limits import ClientLimits, ServerLimits
from penstock.upstreams.stdio import StdioUpstream
from penstock.upstreams.streamable_http import StreamableHttpUpstream

FIELDS = [field.name for field in msgspec.structs.fields(LimitsSettings)]
ELSEWHERE = {"sessions", "drain"}
"""Bounds that the gateway itself takes, see `_Process._gateway`."""


def distinct_limits() -> LimitsSettings:
    """Each bound with a value of its own."""
    return LimitsSettings(**{name: 1_000 + index for index, name in enumerate(FIELDS)})


def settings_of(upstream: Any) -> Any:
    return upstream._settings


@pytest.mark.parametrize(("of", "limits"), [(server_limits, ServerLimits), (client_limits, ClientLimits)])
def test_every_bound_of_the_http_lane_can_be_configured(of: Any, limits: Any) -> None:
    configured = set(dataclasses.astuple(of(distinct_limits())))
    assert len(configured) == len(dataclasses.fields(limits))
    assert configured <= set(range(1_000, 1_000 + len(FIELDS)))


@pytest.mark.parametrize(("of", "limits"), [(server_limits, ServerLimits), (client_limits, ClientLimits)])
def test_what_is_not_configured_is_as_the_http_lane_has_it(of: Any, limits: Any) -> None:
    assert of(LimitsSettings()) == limits()


async def test_every_limit_reaches_its_place() -> None:
    limits = distinct_limits()
    factory = UpstreamFactory(limits, FakeClock())
    http = settings_of(factory.opener(ServerConfig(name="h", url="http://127.0.0.1:9"))())
    stdio = settings_of(factory.opener(ServerConfig(name="s", command=("true",)))())
    await factory.close()
    host = host_settings(ServerConfig(name="h", url="http://127.0.0.1:9"), limits)
    gateway = GatewaySettings(
        b"{}",
        sessions=limits.sessions,
        parked_calls=limits.parked_calls,
        parked_seconds=limits.parked,
        drain_seconds=limits.drain,
    )
    places = [server_limits(limits), http, http.limits, http.connections, stdio, host, host.deadline, gateway]
    reached = {
        value for place in places for name in _names(place) if isinstance(value := getattr(place, name), int | float)
    }
    lost = {name for name in FIELDS if getattr(limits, name) not in reached}
    assert lost == set()


def _names(place: Any) -> list[str]:
    fields = getattr(place, "__struct_fields__", ()) or getattr(place, "_fields", ())
    return list(fields) or [field.name for field in dataclasses.fields(place)]


def test_a_servers_own_timeout_takes_the_place_of_the_general_one() -> None:
    general = host_settings(ServerConfig(name="a", url="http://h/"), LimitsSettings())
    own = host_settings(ServerConfig(name="a", url="http://h/", timeout=5.0), LimitsSettings())
    assert (general.deadline.idle_seconds, own.deadline.idle_seconds) == (60.0, 5.0)
    assert own.fingerprint == general.fingerprint  # the server need not be opened anew for that


@pytest.mark.parametrize(
    "change",
    [
        {"url": "http://other/"},
        {"url": Secret("http://h/?key=2", shown="http://h/?key=***")},
        {"headers": {"x": Secret("2")}},
        {"protocol": "2025-06-18"},
        {"sessions": "shared"},
        {"ca_file": "/ca"},
        {"client_cert": "/cert"},
        {"url": None, "command": ("run", Secret("2"))},
        {"url": None, "command": ("run",), "env": {"KEY": Secret("2")}},
        {"url": None, "command": ("run",), "cwd": "/tmp"},
        {"url": None, "command": ("run",), "instances": 2},
    ],
    ids=" ".join,
)
def test_what_changes_the_server_itself_changes_its_fingerprint(change: dict[str, Any]) -> None:
    before = ServerConfig(name="a", url="http://h/", headers={"x": Secret("1")})
    after = msgspec.structs.replace(before, **change)
    limits = LimitsSettings()
    assert host_settings(before, limits).fingerprint != host_settings(after, limits).fingerprint
    assert "2" not in host_settings(after, limits).target


def test_host_settings_show_how_a_server_is_reached_and_what_it_may_see() -> None:
    http = ServerConfig(
        name="a", url=Secret("http://h/?k=s3cret", shown="http://h/?k=***"), forward_headers=("X-Team",)
    )
    shown = host_settings(http, LimitsSettings())
    assert (shown.transport, shown.target) == ("http", "http://h/?k=***")
    assert shown.forward_headers == (b"x-team",)
    assert host_settings(ServerConfig(name="a", command=("run", "it")), LimitsSettings()).transport == "stdio"
    assert "s3cret" not in repr(shown)


def test_views_and_admittance_are_taken_over() -> None:
    listen = ListenSettings(
        data=(("192.0.2.1", 8080),),
        allowed_hosts=("gateway.example",),
        allowed_origins=("https://app.example",),
        public_url="https://public.example:444/mcp",
    )
    settings = Settings(
        listen=listen, views={"v": ViewConfig(name="v", servers=("a",), include=("a_*",), exclude=("a_x",))}
    )
    assert [(view.name, view.servers, view.include, view.exclude) for view in views_of(settings)] == [
        ("v", ("a",), ("a_*",), ("a_x",))
    ]
    admittance = admittance_of(settings)
    for host in (b"192.0.2.1:8080", b"gateway.example", b"public.example:444", b"localhost"):
        assert admittance.refusal({b"host": host}) is None, host
    assert admittance.refusal({b"host": b"evil.example"}) is not None
    assert admittance.refusal({b"host": b"localhost", b"origin": b"https://app.example"}) is None
    assert admittance_of(Settings()).refusal({b"host": b"public.example:444"}) is not None


async def test_openers_make_the_transport_that_was_configured() -> None:
    factory = UpstreamFactory(LimitsSettings(), FakeClock())
    headers = {"authorization": Secret("Bearer s3cret")}
    http = factory.opener(ServerConfig(name="h", url="http://127.0.0.1:9/mcp", headers=headers, sessions="shared"))()
    assert isinstance(http, StreamableHttpUpstream)
    assert settings_of(http).headers == (("authorization", "Bearer s3cret"),)
    assert settings_of(http).sessions == "shared"
    assert "s3cret" not in repr(http) + repr(settings_of(http))
    config = ServerConfig(name="s", command=("run", Secret("k")), env={"K": Secret("v")}, instances="per_session")
    stdio = factory.opener(config)()
    assert isinstance(stdio, StdioUpstream)
    assert settings_of(stdio).command == ("run", "k")
    assert settings_of(stdio).env == {"K": "v"}
    assert settings_of(stdio).instances == "per_session"
    second = factory.opener(ServerConfig(name="t", command=("run",), instances=3))()
    assert settings_of(second).instances == 3
    third = factory.opener(ServerConfig(name="u", command=("run",)))()
    assert settings_of(third).instances == "shared"
    await factory.close()


async def test_a_program_of_another_worker_is_reached_through_that_which_believes_us_who_asks(tmp_path: Path) -> None:
    stdio = ServerConfig(name="s", command=("run",))
    http = ServerConfig(name="h", url="http://127.0.0.1:9/mcp")
    with socket.socket(socket.AF_UNIX) as listener:
        place = WorkerPlace(1, 2, listener, (tmp_path / "0", tmp_path / "1"), alive=-1)
        factory = UpstreamFactory(LimitsSettings(), FakeClock(), place)
        elsewhere, directly = (settings_of(factory.opener(config)()) for config in (stdio, http))
    assert (elsewhere.unix_path, elsewhere.principal_header) == (tmp_path / "0", PRINCIPAL)
    assert (directly.unix_path, directly.principal_header) == (None, b"")
    await factory.close()


async def test_a_trust_domain_has_one_context_and_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    factory = UpstreamFactory(LimitsSettings(), FakeClock())
    first = factory.opener(ServerConfig(name="a", url="https://127.0.0.1:9/mcp"))()
    second = factory.opener(ServerConfig(name="b", url="https://127.0.0.1:10/mcp"))()
    assert isinstance(first, StreamableHttpUpstream)
    assert isinstance(second, StreamableHttpUpstream)
    assert len(factory._tls) == 1
    missing = str(tmp_path / "missing.pem")
    with pytest.raises(ConfigError, match=r"servers\.c: ca_file or client_cert cannot be used: .*No such file"):
        factory.opener(ServerConfig(name="c", url="https://127.0.0.1:9/mcp", ca_file=missing))
    await factory.close()


def test_a_reload_names_what_it_does_not_take_up() -> None:
    before = Settings()
    assert waiting_for_start(before, before) == []
    listen, limits = before.listen, before.limits
    replace = msgspec.structs.replace
    taken = Settings(
        listen=replace(listen, allowed_hosts=("a",), allowed_origins=("https://a",), public_url="https://a"),
        limits=replace(limits, call_idle=1.0, call_total=2.0, list=3.0, drain=4.0),
    )
    assert waiting_for_start(before, taken) == []
    more = Settings(listen=replace(listen, tls_cert="cert.pem"), limits=replace(taken.limits, body_bytes=5, sessions=6))
    assert waiting_for_start(before, more) == ["listen.tls_cert", "limits.body_bytes", "limits.sessions"]


def test_what_a_stdio_server_seals_is_left_to_the_worker_that_has_it() -> None:
    child, web = ServerConfig(name="s", command=("true",)), ServerConfig(name="h", url="http://127.0.0.1:9")
    with socket.socket() as listener:
        for index, config, wanted in [(0, child, False), (1, child, True), (1, web, False)]:
            place = WorkerPlace(index, 2, listener, (Path("0"), Path("1")), -1)
            assert host_settings(config, LimitsSettings(), place).is_elsewhere is wanted
    assert not host_settings(child, LimitsSettings()).is_elsewhere
