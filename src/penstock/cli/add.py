"""`penstock add`: write a server into the configuration file.

Knows: what the words mean. Does not know: whether the server answers; a running gateway finds that out.
"""

import re
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

from penstock.cli.configuration import ConfigFlag, change_file, pairs, require_name, tell_gateway
from penstock.config.edit import add_server
from penstock.errors import ConfigError

SYNOPSIS = "Usage: penstock add NAME URL [OPTIONS]\n       penstock add NAME [OPTIONS] -- COMMAND [ARGUMENTS...]"
EXAMPLE = (
    "penstock add time -- uvx mcp-server-time\n"
    "  penstock add docs https://mcp.example.com/mcp --header 'Authorization=Bearer ${env:DOCS_TOKEN}'"
)
_ALMOST_URL: Final = re.compile(
    r"(?:https?:?/*)?((?:localhost|[\w-]+(?:\.[\w-]+)+)(?::\d+)?/\S*|(?:localhost|[\w.-]+):\d+)", re.IGNORECASE
)
"""A URL whose beginning is missing or misspelt: `localhost:3000/mcp`, `http//mcp.example.com/mcp`."""


def run(
    name: Annotated[str, Parameter(help="Its name: a-z, 0-9 and '-'.")],
    /,
    *target: Annotated[str, Parameter(help="A URL, or '--' and a command with its arguments.")],
    header: Annotated[
        tuple[str, ...], Parameter(help="KEY=VALUE sent with every request to a URL; may hold ${env:NAME}.")
    ] = (),
    env: Annotated[tuple[str, ...], Parameter(help="KEY=VALUE in the environment of a command.")] = (),
    cwd: Annotated[str | None, Parameter(help="Directory a command starts in.")] = None,
    protocol: Annotated[str | None, Parameter(help="Revision to speak; default: found out.")] = None,
    config: ConfigFlag = None,
) -> int:
    """Add a server to the configuration file; a running gateway takes it up at once."""
    require_name(name)
    values = _values(target, header, env, cwd)
    if protocol:
        values["protocol"] = protocol
    path, _ = change_file(config, lambda text: add_server(text, name, values), f"added '{name}'")
    return tell_gateway(path, watch=(name,))


def _values(
    target: tuple[str, ...], header: tuple[str, ...], env: tuple[str, ...], cwd: str | None
) -> dict[str, object]:
    if not target:
        raise ConfigError("expected a URL, or '--' and a command: penstock add NAME -- uvx mcp-server-time")
    if len(target) == 1 and "://" in target[0]:
        if env or cwd:
            raise ConfigError("--env and --cwd are for commands; a URL takes --header")
        return {"url": target[0]} | ({"headers": pairs(header, "--header")} if header else {})
    if "://" in target[0]:
        raise ConfigError(f"expected nothing behind the URL, got '{target[1]}'")
    almost = _ALMOST_URL.fullmatch(target[0]) if len(target) == 1 else None
    if almost and not Path(target[0]).exists():
        raise ConfigError(f"'{target[0]}' is no URL (did you mean 'http://{almost[1]}'?)")
    if header:
        raise ConfigError("--header is for URLs; a command takes --env")
    values: dict[str, object] = {"command": list(target)}
    if env:
        values["env"] = pairs(env, "--env")
    if cwd:
        values["cwd"] = cwd
    return values
