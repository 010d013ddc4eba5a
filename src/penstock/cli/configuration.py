"""What verbs that read or change the configuration file have in common.

Knows: where the file is, how a running gateway is told of a change. Does not know: single verbs.
"""

import asyncio
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from penstock.cli.gateway_client import AdminClient, Refused
from penstock.cli.output import complain, note, progress, say
from penstock.cli.runtime import Running, choose_gateway, gateway_of, state_dir
from penstock.config.edit import Change, edit_file
from penstock.config.keys import NAME_EXPECTED
from penstock.config.load import Flags, Source, find_file, judge, load, read_source
from penstock.config.settings import Settings
from penstock.errors import ConfigError, GatewayNotFound
from penstock.protocol.names import is_server_name

ConfigFlag = Annotated[
    str | None,
    Parameter(help="Configuration file; else $PENSTOCK_CONFIG, ./penstock.toml, ~/.config/penstock/penstock.toml."),
]
GatewayFlag = Annotated[str | None, Parameter(help="URL of the gateway, when several run; else $PENSTOCK_URL.")]
JsonFlag = Annotated[bool, Parameter(name="--json", help="Answer in JSON.")]
UNSETTLED = frozenset(("starting",))
SETTLE_SECONDS = 10.0
_PASSWORD = re.compile(r"(?i)authorization|token|secret|key|passw")


def located(config: str | None) -> tuple[Path, bool]:
    """The configuration file, and whether it was named by the caller."""
    return find_file(config, os.environ, Path.cwd())


def display(path: Path) -> str:
    """The path as people would write it from here."""
    for base, prefix in ((Path.cwd(), ""), (Path.home(), "~/")):
        if path.is_relative_to(base):
            return prefix + str(path.relative_to(base))
    return str(path)


def file_source(path: Path) -> Source:
    """The file's text, empty if there is none yet."""
    return read_source(path, display(path)) if path.exists() else Source("", "", path.absolute().parent)


def file_settings(path: Path) -> Settings:
    """What the file says, placeholders left alone."""
    if not path.exists():
        return Settings(file=str(path))
    return load(path, name=display(path), environment={}, resolve=False).settings


def chosen_gateway(gateway: str | None, config: str | None = None) -> Running:
    """The gateway a verb talks to.

    Raises:
        GatewayNotFound: none runs, or it cannot be told which is meant.
    """
    return choose_gateway(state_dir(os.environ), located(config)[0], flag=gateway, environment=os.environ)


def require_name(name: str) -> None:
    """
    Raises:
        ConfigError: it cannot be a server's name.
    """
    if not is_server_name(name):
        raise ConfigError(f"'{name}' cannot name a server; expected {NAME_EXPECTED}")


def pairs(texts: tuple[str, ...], flag: str) -> dict[str, str]:
    """`K=V` words as a table; messages never show a value.

    Raises:
        ConfigError: one has no `=` or an empty key.
    """
    table = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            shown = "" if _PASSWORD.search(text) else f", got '{text[:40]}'"
            raise ConfigError(f"{flag} expects KEY=VALUE{shown}")
        table[key.strip()] = value
    return table


def change_file(config: str | None, change: Change, done: str, *, quiet: bool = False) -> tuple[Path, bool]:
    """Change the file so that the result can be loaded, and say so.

    Raises:
        ConfigError: the change cannot be made, or the file could not be used afterwards.
    """
    path, _ = located(config)

    def checked(text: str) -> str:
        new = change(text)
        source = Source(new, display(path), path.absolute().parent)
        check(source, path)
        return new

    changed = edit_file(path, checked, name=display(path))
    (note if quiet else say)(f"{done} in {display(path)}" if changed else f"nothing to change in {display(path)}")
    return path, changed


def check(source: Source, path: Path) -> None:
    """
    Raises:
        ConfigError: the file could not be used.
    """
    _, problems = judge(source, path=path, environment={}, flags=Flags(), resolve=False)
    if problems:
        raise problems[0]


def tell_gateway(path: Path, *, watch: tuple[str, ...] = (), quiet: bool = False) -> int:
    """Have the gateway that serves this file take up the change, and report on the servers in `watch`.

    Returns the exit code: 0 also when no gateway runs.
    """
    gateway = gateway_of(state_dir(os.environ), path)
    if gateway is None:
        note("no gateway runs with this file; the change counts from the next 'penstock serve'")
        return 0
    try:
        asyncio.run(_reload_and_watch(gateway, watch, note if quiet else say))
    except Refused as error:
        complain(f"the running gateway keeps its old configuration: {error}")
        return 3
    except GatewayNotFound as error:
        note(f"the change is not taken up yet: {error}")
    return 0


async def _reload_and_watch(gateway: Running, watch: tuple[str, ...], tell: Callable[[str], None]) -> None:
    client = AdminClient(gateway)
    answer = await client.reload()
    note(f"the gateway at {gateway.url} took the change up (generation {answer.get('generation')})")
    for name in watch:
        row = await _settled(client, name)
        tell(server_line(row))
        if row.get("state") == "failed" and (row.get("detail") or {}).get("stderr_lines"):
            note(f"'penstock logs {name}' shows what it wrote to stderr")


async def _settled(client: AdminClient, name: str) -> dict[str, Any]:
    """The server's row, once it is no longer starting or the time is up."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    while True:
        rows = (await client.servers()).get("servers", [])
        row: dict[str, Any] = next((row for row in rows if row.get("name") == name), {"name": name, "state": "unknown"})
        passed = loop.time() - started
        if row.get("state") not in UNSETTLED or passed >= SETTLE_SECONDS:
            progress("", done=False)
            return row
        progress(f"{name} is starting … {passed:.0f} s")
        await asyncio.sleep(0.2)


def server_line(row: Mapping[str, Any]) -> str:
    """A server's state in one line."""
    name = row.get("name")
    error = ": " + str(row["error"]).removeprefix(f"server '{name}': ") if row.get("error") else ""
    return f"{name}: {row.get('state')}{offers(row) and ', ' + offers(row)}{error}"


def offers(row: Mapping[str, Any]) -> str:
    """What a server offers: `3 tools, 1 prompt`."""
    kinds = (("tools", "tool"), ("prompts", "prompt"), ("resources", "resource"), ("templates", "template"))
    counted = [(row.get(key) or 0, word) for key, word in kinds]
    return ", ".join(f"{count} {word}{'' if count == 1 else 's'}" for count, word in counted if count)
