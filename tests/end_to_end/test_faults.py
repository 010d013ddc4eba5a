"""A thousand calls a second through one gateway while servers behind it are killed and restarted."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from penstock.http.client import HttpClient
from tests.end_to_end.faults_kit import (
    ERAS,
    STDIO_SERVER,
    Gateway,
    HttpServerProcess,
    McpClient,
    facts,
    server_tables,
    settled,
    stdio_servers,
    until,
)
from tests.end_to_end.faults_load import Kind, Load, kind_of

pytestmark = pytest.mark.alone

LIMITS = '[limits]\nupstream_idle = "1s"\nunawaited = "2s"\n'
CALLS_PER_SECOND = 1000.0
SERVERS = ("childa", "childb", "weba", "webb")
LEGACY_CLIENTS = 4
SLOW_SECONDS = 0.1
"""What a quarter of the calls takes, so that there are calls in flight whenever a server ends."""
CALM_SECONDS = 2.0
RESTART_SECONDS = 2.0
"""How long calls may be refused from a server's end on."""
MEMORY_MIB = 40.0
"""Connections, their buffers and what Python keeps for later; 10,000 leaked calls would be more."""


class Stage(NamedTuple):
    """A gateway before two stdio and two HTTP servers."""

    folder: Path
    gateway: Gateway
    webs: dict[str, HttpServerProcess]


def end_all(webs: dict[str, HttpServerProcess]) -> None:
    """Those that are there now."""
    for web in webs.values():
        web.end()


@contextmanager
def staged(folder: Path) -> Iterator[Stage]:
    with ExitStack() as stack:
        webs = {name: HttpServerProcess(folder / name) for name in ("weba", "webb")}
        stack.callback(end_all, webs)
        targets: dict[str, str | list[str]] = {"childa": STDIO_SERVER, "childb": STDIO_SERVER}
        targets |= {name: web.url for name, web in webs.items()}
        gateway = stack.enter_context(Gateway(folder, server_tables(targets) + LIMITS))
        until(lambda: len(stdio_servers(gateway.pid)) == 2, 10, "both children ran")
        yield Stage(folder, gateway, webs)


async def kinds_of(gateway: Gateway, http: HttpClient) -> list[Kind]:
    """Modern and legacy callers of every server in turn; each legacy client has a session of its own."""
    legacy = [McpClient(http, gateway.url, "legacy") for _ in range(LEGACY_CLIENTS)]
    modern = McpClient(http, gateway.url, "modern")
    kinds = []
    for number, client in enumerate(legacy):
        seconds = 0.0 if number else SLOW_SECONDS
        for server in SERVERS:
            kinds.append(await kind_of(client, server, gateway.address, seconds=seconds))
            kinds.append(await kind_of(modern, server, gateway.address, seconds=seconds))
    assert {kind.era for kind in kinds} == set(ERAS)
    return kinds


class Blow(NamedTuple):
    """Something done to a server, and when."""

    what: str
    server: str
    at: float


async def rain_blows(stage: Stage, pid_of: McpClient) -> list[Blow]:
    """One after the other, each with time to recover."""
    blows = []
    await asyncio.sleep(CALM_SECONDS)
    child = int((await pid_of.call("childa_pid")).text)
    blows.append(Blow("kill -9", "childa", time.monotonic()))
    os.kill(child, signal.SIGKILL)
    await asyncio.sleep(CALM_SECONDS)
    for number in (signal.SIGTERM, signal.SIGKILL):
        web = stage.webs["weba"]
        blows.append(Blow(f"{number.name} and start", "weba", time.monotonic()))
        web.signal(number)
        await asyncio.to_thread(web.wait, 5)
        stage.webs["weba"] = await asyncio.to_thread(HttpServerProcess, stage.folder / "weba", port=web.port)
        await asyncio.sleep(CALM_SECONDS)
    assert int((await pid_of.call("childa_pid")).text) != child
    return blows


def judge(load: Load, blows: list[Blow]) -> None:
    """Every call is accounted for, and every error has its blow."""
    print(f"\n{'server':8}{'sent':>8}{'answered':>10}{'named':>7}{'lost':>6}")
    for server, count in sorted(load.counts().items()):
        print(f"{server:8}{count['sent']:8}{count['answered']:10}{count['named']:7}{count['lost']:6}")
    for blow, following in zip(blows, [*blows[1:], None], strict=True):
        end = following.at if following is not None else float("inf")
        errors = [call for call in load.failed(blow.server) if blow.at < call.ended_at <= end]
        in_flight = load.in_flight_at(blow.at, blow.server)
        refused = [call for call in errors if call.sent_at > blow.at]
        last = max((call.sent_at - blow.at for call in refused), default=0.0)
        print(
            f"{blow.what} of {blow.server}: {in_flight} in flight, {len(errors) - len(refused)} of them failed; "
            f"{len(refused)} refused, the last one {last:.2f} s later"
        )
        for words in sorted({call.outcome for call in errors}):
            print(f"    {words}")
        assert len(errors) - len(refused) <= in_flight
        assert in_flight
        assert last <= RESTART_SECONDS
    print(f"the sender was at most {1000 * load.latest:.0f} ms late")
    counts = load.counts()
    assert {server: count["lost"] for server, count in counts.items()} == dict.fromkeys(SERVERS, 0)
    for server in SERVERS:
        explained = [blow.at for blow in blows if blow.server == server]
        unexplained = [call for call in load.failed(server) if not any(call.ended_at > at for at in explained)]
        assert not unexplained, unexplained[:3]
    assert all(count["sent"] == count["answered"] + count["named"] for count in counts.values())
    assert len(load.sent) == sum(count["sent"] for count in counts.values())


async def test_a_server_that_dies_under_load_costs_its_own_calls_only(tmp_path: Path) -> None:
    with staged(tmp_path) as stage:
        gateway = stage.gateway
        before = settled(gateway.pid)
        async with HttpClient() as http:
            kinds = await kinds_of(gateway, http)
            host, _, port = gateway.address.partition(":")
            load = Load(host, int(port), kinds, CALLS_PER_SECOND)
            load.start()
            blows, warm = await asyncio.gather(
                rain_blows(stage, McpClient(http, gateway.url, "modern")), memory_once_warm(gateway)
            )
            await load.stop(seconds=10)
        busy = facts(gateway.pid)
        judge(load, blows)
        assert len(load.sent) > 0.9 * CALLS_PER_SECOND * (time.monotonic() - blows[0].at)
        await asyncio.to_thread(
            until, lambda: facts(gateway.pid).descriptors <= before.descriptors, 10, "it let go of all"
        )
        after = settled(gateway.pid)
        print(f"before {before}\nwarm   {warm:.1f} MiB\nbusy   {busy}\nafter  {after}")
        assert (after.children, after.zombies) == (before.children, 0)
        assert after.memory_mib < warm + MEMORY_MIB
        assert "Traceback" not in gateway.err, gateway.err


async def memory_once_warm(gateway: Gateway) -> float:
    await asyncio.sleep(CALM_SECONDS)
    return facts(gateway.pid).memory_mib
