"""`penstock enable`: use a server again."""

from typing import Annotated

from cyclopts import Parameter

from penstock.cli.configuration import ConfigFlag, change_file, tell_gateway
from penstock.config.edit import set_enabled

EXAMPLE = "penstock enable time"


def run(name: Annotated[str, Parameter(help="The server.")], /, *, config: ConfigFlag = None) -> int:
    """Use a server again that was disabled."""
    path, changed = change_file(config, lambda text: set_enabled(text, name, True), f"enabled '{name}'")
    return tell_gateway(path, watch=(name,)) if changed else 0
