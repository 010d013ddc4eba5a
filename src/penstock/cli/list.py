"""`penstock list`: the servers, their state and what they offer; from the file alone when no gateway runs."""

import asyncio
from typing import Any

from penstock.cli.configuration import (
    ConfigFlag,
    GatewayFlag,
    JsonFlag,
    chosen_gateway,
    display,
    file_settings,
    located,
    offers,
)
from penstock.cli.gateway_client import AdminClient
from penstock.cli.output import columns, harmless, note, say, say_json
from penstock.errors import GatewayNotChosen, GatewayNotFound

EXAMPLE = "penstock list"


def run(*, as_json: JsonFlag = False, gateway: GatewayFlag = None, config: ConfigFlag = None) -> int:
    """Show the servers, their state and what they offer."""
    try:
        running = chosen_gateway(gateway, config)
    except GatewayNotFound as error:
        if gateway or isinstance(error, GatewayNotChosen):
            raise
        return _from_file(config, as_json)
    answer = asyncio.run(AdminClient(running).servers(ask_failed=True))
    if as_json:
        say_json(answer)
        return 0
    rows = answer.get("servers", [])
    for line in server_lines(rows):
        say(line)
    if not rows:
        say("no servers yet; add one with 'penstock add'")
    configuration = answer.get("configuration", {})
    if not configuration.get("taken_up", True):
        since, why = configuration.get("refused_at"), configuration.get("error")
        note(harmless(f"warning: since {since} the configuration cannot be used, and the one before is served: {why}"))
    for duplicate in answer.get("duplicates", []):
        note(harmless(f"note: {duplicate if isinstance(duplicate, str) else _duplicate(duplicate)}"))
    return 0


def server_lines(rows: list[dict[str, Any]], *, indent: str = "") -> list[str]:
    """Servers as aligned lines; a server's error stands below it."""
    table = [
        (
            str(row.get("name", "")),
            str(row.get("state", "")),
            offers(row) + (" (last known)" if row.get("stale") else ""),
            str(row.get("transport", "")),
            str(row.get("target") or ""),
        )
        for row in rows
    ]
    lines = []
    for line, row in zip(columns(table, indent=indent) if table else [], rows, strict=True):
        lines.append(harmless(line))
        if row.get("error"):
            lines.append(harmless(f"{indent}    {row['error']}"))
    return lines


def _from_file(config: str | None, as_json: bool) -> int:
    path, _ = located(config)
    servers = file_settings(path).servers.values()
    rows = [
        {
            "name": server.name,
            "state": "not running" if server.enabled else "disabled",
            "transport": "http" if server.url is not None else "stdio",
            "target": server.target,
        }
        for server in servers
    ]
    if as_json:
        say_json({"generation": None, "servers": rows, "duplicates": [], "configuration": None})
        return 0
    for line in server_lines(rows):
        say(line)
    note(
        f"no gateway runs; this is what {display(path)} says"
        if rows
        else "no gateway runs, and no server was added yet"
    )
    return 0


def _duplicate(duplicate: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in duplicate.items())
