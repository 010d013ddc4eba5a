"""`penstock call`: call a tool through the running gateway, in the modern era, as any client would.

Knows: words, results, exit codes. Does not know: servers behind the gateway.
"""

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Annotated, Any, Final

import msgspec
from cyclopts import Parameter

from penstock.cli.arguments import arguments_from
from penstock.cli.configuration import ConfigFlag, GatewayFlag, chosen_gateway, server_line
from penstock.cli.elicitation import answers_to
from penstock.cli.gateway_client import AdminClient, McpClient, Refused
from penstock.cli.output import OK, TOOL_ERROR, harmless, note, progress, say
from penstock.cli.runtime import Running
from penstock.config.kinds import nearest
from penstock.errors import ConfigError, GatewayNotFound
from penstock.protocol.param_headers import Invalid, param_header_rules, write_param_headers

EXAMPLE = "penstock call time_get_current_time timezone=Europe/Paris\n  penstock call demo_add a=2 b=3"
ROUNDS: Final = 20
"""How often a tool may ask back in one call."""


def rewritten(words: list[str]) -> list[str]:
    """`--json '{…}'` gives arguments, `--json` alone asks for the raw result: told apart by the brace. `-` is `--stdin`."""
    out = list[str]()
    for word in words:
        if word.startswith("--json={"):
            out += ["--arguments", word.removeprefix("--json=")]
        elif out and out[-1] == "--json" and word.lstrip().startswith("{"):
            out[-1:] = ["--arguments", word]
        else:
            out.append("--stdin" if word == "-" else word)
    return out


def run(
    tool: Annotated[str, Parameter(help="The tool: SERVER_NAME, or its bare name when only one server has it.")],
    /,
    *words: Annotated[str, Parameter(help="key=value, typed by the tool's schema, or key:=JSON.")],
    stdin: Annotated[
        bool, Parameter(help="Read the arguments as a JSON object from stdin; '-' does the same.")
    ] = False,
    arguments: Annotated[
        str | None, Parameter(name=["--arguments"], help="All arguments as a JSON object; --json '{…}' does the same.")
    ] = None,
    as_json: Annotated[bool, Parameter(name="--json", help="Print the raw result.")] = False,
    gateway: GatewayFlag = None,
    config: ConfigFlag = None,
) -> int:
    """Call a tool. Exit code: 0 ok, 1 the tool failed, 2 usage, 3 refused or protocol error, 4 no gateway."""
    asks = sys.stdin.isatty() and sys.stderr.isatty() and not stdin
    chosen = chosen_gateway(gateway, config)
    client = McpClient(chosen, elicits=asks)
    found = found_tool(asyncio.run(client.list_tools()), tool, lambda: asyncio.run(_server_away(chosen, tool)))
    schema = found.get("inputSchema")
    schema = schema if isinstance(schema, dict) else {}
    given = _given(words, arguments, schema, stdin=stdin)
    raw = _call(client, str(found["name"]), given, schema, asks)
    result = json.loads(raw)
    if as_json:
        say(raw.decode())
    else:
        for line in content_lines(result):
            say(harmless(line, lines=True) if sys.stdout.isatty() else line)
    return TOOL_ERROR if result.get("isError") is True else OK


def found_tool(tools: list[dict[str, Any]], name: str, away: Callable[[], str]) -> dict[str, Any]:
    """The tool of that name, or the only one whose name without its server is that.

    Args:
        away: the state of the server that may have it and lists nothing now; empty where there is none.

    Raises:
        ConfigError: there is none, or several servers have it.
    """
    by_name = {str(tool.get("name")): tool for tool in tools}
    if name in by_name:
        return by_name[name]
    bare = [full for full in by_name if full.partition("_")[2] == name]
    if len(bare) == 1:
        return by_name[bare[0]]
    if bare:
        raise ConfigError(f"several servers have a tool '{name}'; name one: {', '.join(bare)}")
    if state := away():
        raise ConfigError(f"there is no tool '{name}' now; {state}")
    near = nearest(name, (*by_name, *(full.partition("_")[2] for full in by_name)))
    raise ConfigError(
        f"there is no tool '{name}'; " + (f"did you mean '{near}'?" if near else "'penstock tools' lists them")
    )


async def _server_away(gateway: Running, tool: str) -> str:
    """See `found_tool`."""
    try:
        rows = (await AdminClient(gateway).servers()).get("servers", [])
    except (Refused, GatewayNotFound):
        return ""  # it was only to say more
    away = (row for row in rows if row.get("state") != "ready" and tool.startswith(f"{row.get('name')}_"))
    return next(map(server_line, away), "")


def content_lines(result: dict[str, Any]) -> list[str]:
    """A result as people read it: texts as they are, everything else described."""
    content = result.get("content")
    lines = [_described(item) for item in content if isinstance(item, dict)] if isinstance(content, list) else []
    if not lines and "structuredContent" in result:
        lines = [json.dumps(result["structuredContent"], indent=2, ensure_ascii=False)]
    return lines


def _given(words: tuple[str, ...], text: str | None, schema: dict[str, Any], *, stdin: bool) -> dict[str, Any]:
    if stdin:
        if text is not None:
            raise ConfigError("expected arguments from stdin or from --json, got both")
        text = sys.stdin.read()
    whole: Any = {}
    if text is not None:
        try:
            whole = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"the arguments are not JSON: {error}") from None
        if not isinstance(whole, dict):
            raise ConfigError("expected the arguments as a JSON object")
    return {**whole, **arguments_from(words, schema)}


def _call(client: McpClient, name: str, given: dict[str, Any], schema: dict[str, Any], asks: bool) -> bytes:
    rules = param_header_rules(msgspec.json.encode(schema))
    if isinstance(rules, Invalid):
        rules = ()
    headers = b"".join(b"%b: %b\r\n" % pair for pair in write_param_headers(rules, msgspec.json.encode(given)))
    params: dict[str, Any] = {"name": name, "arguments": given}
    for _ in range(ROUNDS):
        raw = asyncio.run(client.request("tools/call", params, name=name, headers=headers, told=_tell_progress))
        result = json.loads(raw)
        if result.get("resultType", "complete") != "input_required":
            return raw
        requests = result.get("inputRequests") or {}
        params = {"name": name, "arguments": given}
        if requests:
            params["inputResponses"] = answers_to(requests, ask=_ask if asks else None, tell=note)
        if "requestState" in result:
            params["requestState"] = result["requestState"]
    raise Refused(f"the tool asked back more than {ROUNDS} times")


def _ask(prompt: str) -> str:
    sys.stderr.write(prompt)
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\n")


def _tell_progress(method: str, params: dict[str, Any]) -> None:
    if method != "notifications/progress":
        return
    done, total, message = params.get("progress"), params.get("total"), params.get("message")
    share = f"{done:g}/{total:g}" if isinstance(done, int | float) and isinstance(total, int | float) else str(done)
    progress(harmless(f"{share} {message or ''}".rstrip()), done=True)


def _described(item: dict[str, Any]) -> str:
    match item.get("type"):
        case "text":
            return str(item.get("text", ""))
        case "image" | "audio" as kind:
            return f"[{kind} {item.get('mimeType', '')}, {_size(item.get('data'))}]"
        case "resource_link":
            return f"[link {item.get('uri', '')} {item.get('title') or item.get('name') or ''}]".replace(" ]", "]")
        case "resource":
            resource = item.get("resource")
            resource = resource if isinstance(resource, dict) else {}
            if isinstance(resource.get("text"), str):
                return str(resource["text"])
            return f"[resource {resource.get('uri', '')} {resource.get('mimeType', '')}, {_size(resource.get('blob'))}]"
        case kind:
            return f"[{kind}]"


def _size(base64: object) -> str:
    size = len(base64) * 3 // 4 if isinstance(base64, str) else 0
    return f"{size} bytes" if size < 10_240 else f"{size / 1024:.0f} KiB"
