"""`penstock explain`: how a call of a tool travels."""

import asyncio
from collections.abc import Iterator
from typing import Annotated, Any

from cyclopts import Parameter

from penstock.cli.configuration import ConfigFlag, GatewayFlag, JsonFlag, chosen_gateway
from penstock.cli.gateway_client import AdminClient
from penstock.cli.output import harmless, say, say_json

EXAMPLE = "penstock explain time_get_current_time"


def run(
    tool: Annotated[str, Parameter(help="The tool's name, with its server's in front.")],
    /,
    *,
    as_json: JsonFlag = False,
    gateway: GatewayFlag = None,
    config: ConfigFlag = None,
) -> int:
    """Show a tool's route, the era on each side, its server's state and last error."""
    answer = asyncio.run(AdminClient(chosen_gateway(gateway, config)).explain(tool))
    if as_json:
        say_json(answer)
        return 0
    for line in outline(answer):
        say(harmless(line))
    return 0


def outline(value: Any, indent: str = "") -> Iterator[str]:
    """JSON as indented `key: value` lines."""
    pairs = value.items() if isinstance(value, dict) else ((f"{index + 1}.", item) for index, item in enumerate(value))
    for key, item in pairs:
        name = str(key).replace("_", " ") + ("" if isinstance(value, list) else ":")
        nested = isinstance(item, dict | list) and any(isinstance(one, dict | list) for one in _members(item))
        if nested or (isinstance(item, dict) and item):
            yield f"{indent}{name}"
            yield from outline(item, indent + "  ")
        else:
            yield f"{indent}{name} {_scalar(item)}"


def _members(item: Any) -> Any:
    return item.values() if isinstance(item, dict) else item


def _scalar(item: Any) -> str:
    match item:
        case None | [] | {} | "":
            return "none"
        case bool():
            return "yes" if item else "no"
        case list():
            return ", ".join(map(str, item))
        case _:
            return str(item)
