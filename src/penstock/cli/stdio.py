"""`penstock stdio`: the gateway as an MCP server on stdin and stdout, for clients that speak nothing else.

Knows: flags, which gateway is meant, the process's own stdin and stdout. Does not know: messages; the bridge does.
Invariant: nothing but the bridge writes to what was this process's stdout.
"""

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Final, Literal

import uvloop
from cyclopts import Parameter

from penstock.cli.bridge.bridge import Bridge, BridgeSettings
from penstock.cli.bridge.link import GatewayLink
from penstock.cli.configuration import ConfigFlag, GatewayFlag, chosen_gateway, display, file_settings, located
from penstock.cli.logging import set_up_logging
from penstock.cli.output import note
from penstock.cli.runtime import Running, gateway_of, state_dir
from penstock.cli.serve import flags_from, reader
from penstock.clock import SystemClock
from penstock.config.settings import LimitsSettings
from penstock.errors import ConfigError, GatewayNotChosen, GatewayNotFound
from penstock.http.client import ClientConnection, Origin, connect, connect_over, parse_url
from penstock.http.limits import ClientLimits
from penstock.http.tls import client_context
from penstock.protocol.names import is_server_name

EXAMPLE = "penstock stdio\n  penstock stdio --view github --config ~/work/penstock.toml"
HERE: Final = Origin("http", "localhost", 80)
"""What a gateway in this process is called in requests."""


def run(
    *,
    view: Annotated[
        str | None, Parameter(help="Serve one view, or one server, under its own names; default: all servers.")
    ] = None,
    gateway: GatewayFlag = None,
    config: ConfigFlag = None,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Parameter(help="Least level that is logged, to stderr.")
    ] = "warning",
) -> int:
    """Be an MCP server on stdin and stdout: the running gateway, or a gateway of its own when none runs."""
    if view is not None and not is_server_name(view):
        raise ConfigError(f"--view expects the name of a view or a server, got '{view}'")
    set_up_logging(log_level, as_json=False)
    running = attached(gateway, config)
    fds = _taken_over()
    if running is None:
        return _stand_alone(fds, view, config)
    url = running.url.rstrip("/") + (f"/{view}" if view else "")
    origin, target, authority = _parsed(url)
    note(f"penstock stdio: attached to the gateway at {url}")
    limits = _limits(config)
    tls = client_context() if origin.scheme == "https" else None
    link = GatewayLink(
        lambda: connect(origin, limits=_client_limits(limits), tls=tls),
        target=target,
        authority=authority,
        url=url,
        clock=SystemClock(),
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_until_signalled(link, fds, limits))
    return 0


def attached(gateway: str | None, config: str | None) -> Running | None:
    """The gateway to speak through; None to stand alone: none runs, or none with the configuration that was named.

    Raises:
        GatewayNotChosen: several run, and nobody said which is meant.
    """
    path, is_named = located(config)
    if is_named and not gateway and not os.environ.get("PENSTOCK_URL"):
        return gateway_of(state_dir(os.environ), path)
    try:
        return chosen_gateway(gateway, config)
    except GatewayNotChosen:
        raise
    except GatewayNotFound:
        return None


def _stand_alone(fds: tuple[int, int], view: str | None, config: str | None) -> int:
    from penstock import assemble

    path, is_named = located(config)
    read = reader(path, flags_from((), (), (), insecure_listen=False), must_exist=is_named)
    settings = read()
    note(f"penstock stdio: no gateway runs; started one in this process with {_described(path)}")
    target = f"/mcp/{view}" if view else "/mcp"

    async def inside(join: Callable[[], Awaitable[socket.socket]], stop: asyncio.Event) -> None:
        limits = settings.limits
        link = _inner_link(join, target, limits)
        await Bridge(link, fds, SystemClock(), BridgeSettings(line_bytes=limits.body_bytes)).run(stop)

    options = assemble.RunOptions(state_dir=state_dir(os.environ), inside=inside)
    return assemble.run(settings, read, options)


def _inner_link(join: Callable[[], Awaitable[socket.socket]], target: str, limits: LimitsSettings) -> GatewayLink:
    async def open_connection() -> ClientConnection:
        return await connect_over(await join(), HERE, limits=_client_limits(limits))

    url = f"http://localhost{target} (in this process)"
    return GatewayLink(open_connection, target=target.encode(), authority=b"localhost", url=url, clock=SystemClock())


async def _until_signalled(link: GatewayLink, fds: tuple[int, int], limits: LimitsSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await Bridge(link, fds, SystemClock(), BridgeSettings(line_bytes=limits.body_bytes)).run(stop)


def _limits(config: str | None) -> LimitsSettings:
    """What the file says, for want of what the gateway was told; a file with faults does not keep us from attaching."""
    try:
        return file_settings(located(config)[0]).limits
    except ConfigError:
        return LimitsSettings()


def _client_limits(limits: LimitsSettings) -> ClientLimits:
    """Of an answer: what the gateway itself takes from servers, and the envelope it puts around it."""
    size = limits.response_bytes + limits.header_bytes
    return ClientLimits(response_bytes=size, event_bytes=size, connect_seconds=limits.connect)


def _taken_over() -> tuple[int, int]:
    """Descriptors of stdin and stdout for us alone: whatever else reads finds nothing, whatever else writes goes to stderr."""
    taken = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return taken


def _parsed(url: str) -> tuple[Origin, bytes, bytes]:
    try:
        return parse_url(url)
    except ValueError as error:
        raise ConfigError(f"'{url}' is no URL of a gateway: {error}") from None


def _described(path: Path) -> str:
    return display(path) if path.exists() else f"no servers ({display(path)} does not exist)"
