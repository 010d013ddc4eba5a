"""`penstock remove`: take a server out of the configuration file."""

from typing import Annotated

from cyclopts import Parameter

from penstock.cli.configuration import ConfigFlag, change_file, tell_gateway
from penstock.config.edit import remove_server

EXAMPLE = "penstock remove time"


def run(name: Annotated[str, Parameter(help="The server.")], /, *, config: ConfigFlag = None) -> int:
    """Remove a server from the configuration file; calls that are under way still end."""
    path, _ = change_file(config, lambda text: remove_server(text, name), f"removed '{name}'")
    return tell_gateway(path)
