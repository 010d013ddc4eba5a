"""`penstock tools`: find tools in the running gateway."""

import asyncio
from typing import Annotated, Any

from cyclopts import Parameter

from penstock.cli.configuration import ConfigFlag, GatewayFlag, JsonFlag, chosen_gateway
from penstock.cli.gateway_client import AdminClient
from penstock.cli.output import harmless, note, say, say_json

EXAMPLE = "penstock tools weather"


def run(
    *query: Annotated[str, Parameter(help="Words to look for in names and descriptions.")],
    as_json: JsonFlag = False,
    gateway: GatewayFlag = None,
    config: ConfigFlag = None,
) -> int:
    """List the tools that can be called, all or those that match."""
    words = " ".join(query)
    found = asyncio.run(AdminClient(chosen_gateway(gateway, config)).tools(words))
    if as_json:
        say_json({"tools": found})
        return 0
    for tool in found:
        say(harmless(f"{tool.get('name')}{signature(tool.get('input_schema'))}"))
        about = str(tool.get("description") or tool.get("title") or "").strip().split("\n", 1)[0]
        if about:
            say(harmless(f"    {about}"))
    if not found:
        note(
            f"no tool matches '{words}'; 'penstock tools' lists all"
            if words
            else "no tools; 'penstock list' shows the servers"
        )
    return 0


def signature(schema: Any) -> str:
    """A tool's arguments in brief: ` city=string days=integer?`."""
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict):
        return ""
    required = schema.get("required")
    needed = set(required) if isinstance(required, list) else set()
    return "".join(
        f" {name}={_type(rule)}{'' if name in needed else '?'}"
        for name, rule in sorted(properties.items(), key=lambda item: item[0] not in needed)
    )


def _type(rule: Any) -> str:
    kind = rule.get("type") if isinstance(rule, dict) else None
    if isinstance(kind, list):
        return "|".join(str(one) for one in kind)
    return str(kind or "any")
