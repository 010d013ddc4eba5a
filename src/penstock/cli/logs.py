"""`penstock logs`: what a stdio server wrote to stderr."""

import asyncio
from typing import Annotated

from cyclopts import Parameter

from penstock.cli.configuration import ConfigFlag, GatewayFlag, JsonFlag, chosen_gateway
from penstock.cli.gateway_client import AdminClient
from penstock.cli.output import harmless, note, say, say_json

EXAMPLE = "penstock logs time -f"
FOLLOW_SECONDS = 0.5


def run(
    name: Annotated[str, Parameter(help="The server.")],
    /,
    *,
    lines: Annotated[int, Parameter(name=["--lines", "-n"], help="How many of the last lines.")] = 100,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"], help="Go on as lines come.")] = False,
    as_json: JsonFlag = False,
    gateway: GatewayFlag = None,
    config: ConfigFlag = None,
) -> int:
    """Show what a stdio server wrote to stderr."""
    return asyncio.run(_show(AdminClient(chosen_gateway(gateway, config)), name, lines, follow, as_json))


async def _show(client: AdminClient, name: str, lines: int, follow: bool, as_json: bool) -> int:
    answer = await client.log(name, lines=lines)
    if as_json and not follow:
        say_json(answer)
        return 0
    if answer.get("transport", "stdio") != "stdio":
        note(f"'{name}' is no process that Penstock started: what it logs is where it runs")
        return 0
    if not answer.get("lines") and not follow:
        note(f"'{name}' wrote nothing to stderr")
    while True:
        for line in answer.get("lines", []):
            say(harmless(str(line)), flush=follow)
        if not follow:
            return 0
        await asyncio.sleep(FOLLOW_SECONDS)
        answer = await client.log(name, lines=1000, after=int(answer.get("cursor") or 0))
