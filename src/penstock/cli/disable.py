"""`penstock disable`: keep a server in the file without using it."""

from typing import Annotated

from cyclopts import Parameter

from penstock.cli.configuration import ConfigFlag, change_file, tell_gateway
from penstock.config.edit import set_enabled

EXAMPLE = "penstock disable time"


def run(name: Annotated[str, Parameter(help="The server.")], /, *, config: ConfigFlag = None) -> int:
    """Keep a server in the configuration file, but do not use it."""
    path, changed = change_file(config, lambda text: set_enabled(text, name, False), f"disabled '{name}'")
    return tell_gateway(path) if changed else 0
