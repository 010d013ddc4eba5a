"""`penstock serve`: start the gateway and say how to reach it.

Knows: flags, what a newcomer needs to read. Does not know: how the gateway works; `assemble` builds it.
"""

import asyncio
import json
import os
import shlex
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from penstock.cli.address_lock import AddressLock
from penstock.cli.arguments import example_words
from penstock.cli.configuration import ConfigFlag, display, located, require_name
from penstock.cli.gateway_client import AdminClient
from penstock.cli.list import server_lines
from penstock.cli.logging import set_up_logging
from penstock.cli.output import note, say
from penstock.cli.runtime import Running, remove_runtime, running_gateways, runtime_files, state_dir, write_runtime
from penstock.config.load import Flags, find_file, mode_warnings, read_source
from penstock.config.reader import Reader
from penstock.config.settings import Settings
from penstock.errors import ConfigError, PenstockError

if TYPE_CHECKING:
    from penstock.assemble import ReadyReport

EXAMPLE = "penstock serve --demo\n  penstock serve --server time='uvx mcp-server-time' --listen 127.0.0.1:9000"
EXAMPLE_SECONDS = 2.0
MOST_WORKERS = 64


def run(
    *,
    config: ConfigFlag = None,
    listen: Annotated[tuple[str, ...], Parameter(help="Where MCP clients connect; default 127.0.0.1:8080.")] = (),
    admin: Annotated[tuple[str, ...], Parameter(help="Where operators connect; default 127.0.0.1:8081.")] = (),
    server: Annotated[tuple[str, ...], Parameter(help="NAME=URL or NAME=COMMAND, besides those of the file.")] = (),
    demo: Annotated[bool, Parameter(help="Add a small built-in server to try things with.")] = False,
    workers: Annotated[int, Parameter(help="Processes that serve; more than one per core is of no use.")] = 1,
    insecure_listen: Annotated[bool, Parameter(help="Listen beyond loopback although anybody there may call.")] = False,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Parameter(help="Least level that is logged.")
    ] = "info",
    log_json: Annotated[bool, Parameter(help="Log in JSON, one object per line.")] = False,
) -> int:
    """Start the gateway; Ctrl-C or SIGTERM ends it, SIGHUP reads the configuration again."""
    from penstock import assemble

    if not 1 <= workers <= MOST_WORKERS:
        raise ConfigError(f"--workers expects a number from 1 to {MOST_WORKERS}, got {workers}")
    path, named = located(config)
    flags = flags_from(listen, admin, server, insecure_listen)
    read = reader(path, flags, must_exist=named)
    settings = read()
    set_up_logging(log_level, as_json=log_json)
    if path.exists():
        for warning in mode_warnings(path, read_source(path)):
            note(f"warning: {warning}")
    if demo and assemble.DEMO in settings.servers:
        note(f"warning: --demo adds nothing, as {display(path)} has a server '{assemble.DEMO}' of its own")
    started = datetime.now(UTC).isoformat(timespec="seconds")
    state = state_dir(os.environ)
    with AddressLock(state, {"pid": os.getpid(), "config": str(path), "started": started}) as lock:
        lock.take([*settings.listen.data, *settings.listen.admin])
        greeter = Greeter(settings, state, path, started)
        try:
            return assemble.run(
                settings,
                read,
                assemble.RunOptions(
                    state_dir=state,
                    demo=demo,
                    workers=workers,
                    on_listening=greeter.on_listening,
                    on_ready=greeter.on_ready,
                ),
            )
        finally:
            greeter.close()


def flags_from(
    listen: tuple[str, ...], admin: tuple[str, ...], servers: tuple[str, ...], insecure_listen: bool
) -> Flags:
    """What the flags say, in the loader's terms.

    Raises:
        ConfigError: a --server is not NAME=URL or NAME=COMMAND.
    """
    values: dict[tuple[str, str], tuple[str, object]] = {}
    if listen:
        values["listen", "data"] = ("--listen", list(listen) if len(listen) > 1 else listen[0])
    if admin:
        values["listen", "admin"] = ("--admin", list(admin) if len(admin) > 1 else admin[0])
    if insecure_listen:
        values["listen", "insecure_listen"] = ("--insecure-listen", True)
    return Flags(values, dict(_server(word) for word in servers))


def reader(path: Path, flags: Flags, *, must_exist: bool) -> Reader:
    """A way to read the configuration, at the start and again."""
    return Reader(path, name=display(path), environment=os.environ, flags=flags, must_exist=must_exist)


class Greeter:
    """Writes the gateway down once it listens, and tells the person at the terminal once it is ready."""

    def __init__(self, settings: Settings, state: Path, config: Path, started: str) -> None:
        self._settings = settings
        self._state = state
        self._config = config
        self._started = started
        self._pid = os.getpid()
        """Of the supervisor, where there is one."""
        self._running: Running | None = None
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Greeter {self._running.url if self._running else 'not listening'}>"

    def on_listening(self, url: str, admin: str) -> None:
        url, admin = reachable(url), reachable(admin)
        self._running = Running(url, admin, self._pid, self._started, os.path.realpath(self._config))
        write_runtime(self._state, self._running)
        say(f"Penstock listens on {self._settings.listen.public_url or url}", flush=True)

    def on_ready(self, report: "ReadyReport") -> None:
        self._task = asyncio.get_running_loop().create_task(self._greet(report.servers))

    def close(self) -> None:
        for file in runtime_files(self._state):
            remove_runtime(file, self._pid)

    async def _greet(self, servers: list[dict[str, Any]]) -> None:
        running = self._running
        if running is None:
            return
        url = str(self._settings.listen.public_url or running.url)
        blocks = [server_lines(servers, indent="  ") or ["  no servers yet"]]
        if servers:
            blocks.append(["Try it, in another terminal:", "  " + await self._example(running, servers)])
        config = None if self._config.absolute() == _found_from_anywhere() else self._config
        named = () if config is None else ("--config", str(config.absolute()))
        blocks += [
            snippets(url, config),
            [
                "Add servers of yours; the running gateway takes them up:",
                f"  {command('add', 'time', *named)} -- uvx mcp-server-time",
                f"  {command('add', 'docs', 'https://mcp.example.com/mcp', *named)}",
            ],
            [f"Admin: {running.admin}   Configuration: {display(self._config)}"],
        ]
        say("\n" + "\n\n".join("\n".join(block) for block in blocks), flush=True)

    async def _example(self, running: Running, servers: list[dict[str, Any]]) -> str:
        """A call to paste, of a built-in server's tool; of other servers nobody knows what a call does."""
        others = [one for one in running_gateways(self._state) if one.pid != running.pid]
        gateway = ("--gateway", running.url) if others else ()
        built_in = {row.get("name") for row in servers if row.get("transport") == "built-in"}
        if built_in:
            try:
                async with asyncio.timeout(EXAMPLE_SECONDS):
                    tools = await AdminClient(running).tools()
            except (PenstockError, TimeoutError):
                tools = []
            for tool in tools:
                words = example_words(tool.get("input_schema"))
                if tool.get("server") in built_in and words:
                    return command("call", str(tool["name"]), *words, *gateway)
        return command("tools", *gateway)


def command(*words: str) -> str:
    """A line to paste, as this person calls us."""
    return " ".join([os.environ.get("PENSTOCK_COMMAND") or "penstock", *map(shlex.quote, words)])


def snippets(url: str, config: Path | None = None) -> list[str]:
    """How clients are connected; `config` is the file the gateway serves, None when it is the one found without being named."""
    cursor = json.dumps({"mcpServers": {"penstock": {"url": url}}})
    code = json.dumps({"name": "penstock", "type": "http", "url": url})
    program, arguments = own_path(), ["stdio", *(() if config is None else ("--config", str(config.absolute())))]
    desktop = json.dumps({"mcpServers": {"penstock": {"command": program, "args": arguments}}})
    return [
        "Connect a client:",
        "  Claude Code",
        f"    claude mcp add --transport http penstock {shlex.quote(url)}",
        "  Cursor (.cursor/mcp.json)",
        f"    {cursor}",
        "  VS Code",
        f"    code --add-mcp {shlex.quote(code)}",
        "  Claude Desktop, and others that speak stdio only (claude_desktop_config.json)",
        f"    {desktop}",
    ]


def own_path() -> str:
    """This program by its full path: clients start it from elsewhere, and with another PATH."""
    started = Path(os.environ.get("PENSTOCK_COMMAND") or sys.argv[0])
    if started.name == "penstock" and started.is_file():
        return str(started.absolute())
    return shutil.which("penstock") or "penstock"


def _found_from_anywhere() -> Path:
    """The configuration that is used where none is named, and none lies in the folder."""
    environment = {name: value for name, value in os.environ.items() if name != "PENSTOCK_CONFIG"}
    return find_file(None, environment, Path("/"))[0]


def reachable(url: str) -> str:
    """The URL by which this machine reaches an address that means every interface."""
    return url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")


def _server(word: str) -> tuple[str, dict[str, object]]:
    name, equals, target = word.partition("=")
    if not equals or not target.strip():
        raise ConfigError(f"--server expects NAME=URL or NAME=COMMAND, got '{word}'")
    require_name(name)
    if "://" in target.split()[0]:
        return name, {"url": target.strip()}
    try:
        return name, {"command": shlex.split(target)}
    except ValueError as error:
        raise ConfigError(f"--server {name}: the command cannot be read: {error}") from None
