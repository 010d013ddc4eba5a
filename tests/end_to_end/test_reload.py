"""The configuration changes under load: nobody else's calls fail, and a bad change changes nothing."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from penstock.http.client import HttpClient
from tests.end_to_end.faults_kit import (
    STDIO_SERVER,
    Gateway,
    McpClient,
    http_server,
    is_alive,
    server_tables,
    stdio_servers,
    until,
)
from tests.end_to_end.faults_load import Load, kind_of

CALLS_PER_SECOND = 200.0
TAKEN_UP_SECONDS = 5.0
"""The file is looked at once a second."""


class Stage(NamedTuple):
    """A gateway with an HTTP server and a stdio server that nobody touches, and another server to add."""

    gateway: Gateway
    kept: str
    """The configuration of those two."""
    more: str
    """URL of the other one."""


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with ExitStack() as stack:
        web = stack.enter_context(http_server(tmp_path / "web"))
        more = stack.enter_context(http_server(tmp_path / "more"))
        kept = "# written by hand\n" + server_tables({"web": web.url, "child": STDIO_SERVER})
        gateway = stack.enter_context(Gateway(tmp_path, kept))
        until(lambda: stdio_servers(gateway.pid), 10, "the child ran")
        yield Stage(gateway, kept, more.url)


@asynccontextmanager
async def under_load(stage: Stage) -> AsyncIterator[McpClient]:
    """Call the two servers all the while; not one call fails, and the child stays the same."""
    gateway = stage.gateway
    async with HttpClient() as http:
        clients = [McpClient(http, gateway.url, "modern"), McpClient(http, gateway.url, "legacy")]
        kinds = [await kind_of(client, server, gateway.address) for client in clients for server in ("web", "child")]
        child = (await clients[0].call("child_pid")).text
        host, _, port = gateway.address.partition(":")
        load = Load(host, int(port), kinds, CALLS_PER_SECOND)
        load.start()
        try:
            yield clients[0]
        finally:
            await load.stop(10)
        print(f"\n{load.counts()}")
        assert [call for call in load.sent if call.outcome != "ok"] == []
        assert (await clients[0].call("child_pid")).text == child
        assert [str(pid) for pid in stdio_servers(gateway.pid)] == [child]


async def verb(gateway: Gateway, *words: str) -> str:
    """Run a command; what it said, once it has succeeded and the gateway has taken the change up."""
    done = await asyncio.to_thread(gateway.verb, *words)
    assert done.returncode == 0, done
    assert "took the change up" in done.stderr, done
    return done.stdout


async def until_tool(client: McpClient, tool: str, *, there: bool) -> None:
    async with asyncio.timeout(TAKEN_UP_SECONDS):
        while (tool in await client.tools()) is not there:  # noqa: ASYNC110  # another process changes its mind
            await asyncio.sleep(0.05)


async def test_commands_change_servers_without_a_failed_call(stage: Stage) -> None:
    gateway = stage.gateway
    async with under_load(stage) as client:
        for _ in range(2):
            await verb(gateway, "add", "more", stage.more)
            assert (await client.call("more_echo", {"text": "x"})).text == "x"
            await verb(gateway, "disable", "more")
            assert "more_echo" not in await client.tools()
            assert (await client.call("more_echo")).error["code"] == -32602
            await verb(gateway, "enable", "more")
            assert (await client.call("more_echo", {"text": "x"})).text == "x"
            await verb(gateway, "remove", "more")
            assert "more_echo" not in await client.tools()
    assert gateway.config.read_text() == stage.kept


async def test_edits_of_the_file_change_servers_without_a_failed_call(stage: Stage) -> None:
    gateway = stage.gateway
    table = server_tables({"more": stage.more})
    async with under_load(stage) as client:
        gateway.write(stage.kept + table)
        await until_tool(client, "more_echo", there=True)
        gateway.write(stage.kept + table + "enabled = false\n")
        await until_tool(client, "more_echo", there=False)
        gateway.write(stage.kept + table)
        gateway.signal(signal.SIGHUP)
        await until_tool(client, "more_echo", there=True)
        gateway.write(stage.kept)
        await until_tool(client, "more_echo", there=False)
    assert "configuration: disabled more" in gateway.err


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        ("[servers.web]\nulr = 'x'\n", "Cannot declare 'servers.web' twice"),
        ("[servers.more]\nulr = 'http://127.0.0.1:9/mcp'\n", "servers.more.ulr: "),
        ("[limits]\ndrain = 'soon'\n", "limits.drain: "),
        ("[servers.more]\nurl = 'http://127.0.0.1:9/${env:NO_SUCH_VARIABLE}'\n", "servers.more.url: "),
        ("[views.some]\nservers = ['nobody']\n", "views.some.servers"),
        ("this is no TOML\n", ""),
    ],
    ids=["table twice", "misspelt key", "bad value", "missing variable", "unknown server", "no TOML"],
)
async def test_a_bad_edit_changes_nothing_and_says_where_it_is(edit: str, words: str, stage: Stage) -> None:
    gateway = stage.gateway
    line = stage.kept.count("\n") + 1
    async with under_load(stage) as client:
        before = await client.tools()
        gateway.write(stage.kept + edit)
        refused = "configuration not taken up, the old one stays: "
        await asyncio.to_thread(until, lambda: refused in gateway.err, TAKEN_UP_SECONDS, "the edit was refused")
        said = gateway.err.partition(refused)[2].splitlines()[0]
        print(said)
        assert any(f"penstock.toml:{number}: " in said for number in (line, line + 1)), said
        assert words in said
        assert await client.tools() == before
        checked = await asyncio.to_thread(gateway.verb, "config", "check")
        assert (checked.returncode, words in checked.stderr) == (2, True), checked
        gateway.write(stage.kept + server_tables({"more": stage.more}))
        await until_tool(client, "more_echo", there=True)


async def test_a_changed_timeout_goes_to_the_same_child(stage: Stage) -> None:
    gateway = stage.gateway
    async with under_load(stage) as client:
        slow = asyncio.create_task(client.call("child_slow", {"seconds": 3.0}))
        await asyncio.sleep(0.1)
        gateway.write(stage.kept + 'timeout = "1s"\n')  # the last table is the child's
        give_up_at = time.monotonic() + TAKEN_UP_SECONDS
        while (said := await client.call("child_slow", {"seconds": 1.8})).status != 504:
            assert time.monotonic() < give_up_at, "the new timeout was never used"
        assert "within 1 s" in said.error["message"]
        assert (await slow).text == "slept"  # begun under the old one


async def test_a_removed_server_ends_its_calls_first_and_then_its_child(stage: Stage) -> None:
    gateway = stage.gateway
    async with under_load(stage) as client:
        await asyncio.to_thread(gateway.verb, "add", "other", "--", "env", f"--chdir={Path.cwd()}", *STDIO_SERVER)
        (child,) = {int((await client.call("other_pid")).text)}
        slow = asyncio.create_task(client.call("other_slow", {"seconds": 4.0}))
        await asyncio.sleep(0.1)
        await verb(gateway, "remove", "other")
        assert (await client.call("other_echo")).error["code"] == -32602
        assert is_alive(child)
        assert (await slow).text == "slept"
        await asyncio.to_thread(until, lambda: not is_alive(child), 10, "the child ended")
