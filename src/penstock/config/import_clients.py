"""Servers from the configuration files of MCP clients: Claude Desktop and Code, Cursor, VS Code, Windsurf, Zed, Gemini.

Knows: their shapes and placeholders. Does not know: our file, the network.
Nothing is dropped silently: every entry is taken or left with a reason, and every change or unused setting has a note.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from penstock.config.kinds import shown
from penstock.errors import ConfigError
from penstock.protocol.names import is_server_name, server_name_from

CONTAINERS: Final = ("mcpServers", "servers", "context_servers")
_URL_KEYS: Final = ("httpUrl", "serverUrl", "url")
_USED: Final = frozenset(
    ("command", "args", "env", "headers", "cwd", "disabled", "enabled", "type", "transport", *_URL_KEYS)
)
_HTTP_TYPES: Final = frozenset(("http", "sse", "streamable-http", "streamablehttp", "streamable_http"))
_VARIABLE: Final = re.compile(r"\$\{([^}]*)\}")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_COMMENT_OR_STRING: Final = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)
_COMMA_OR_STRING: Final = re.compile(r'"(?:\\.|[^"\\])*"|,(?=\s*[}\]])')


class Taken(NamedTuple):
    """An entry that can be added: `values` in the form our file holds them."""

    name: str
    called: str
    """Its name in the client's file."""
    values: dict[str, object]
    notes: tuple[str, ...]


class Left(NamedTuple):
    """An entry that cannot be taken, and why."""

    called: str
    reason: str


class Import(NamedTuple):
    """What a client's file holds."""

    taken: tuple[Taken, ...]
    left: tuple[Left, ...]


class _Unusable(Exception):
    """The entry cannot be taken."""


def read_client_config(
    text: str, *, file: str, directory: str, home: str, existing: frozenset[str] = frozenset()
) -> Import:
    """The servers of a client's JSON file (comments and trailing commas allowed).

    `directory` stands in for `${workspaceFolder}`, `home` for `${userHome}`. Names in `existing` are left.

    Raises:
        ConfigError: it is not JSON, or holds no servers in any shape known.
    """
    entries = list(_entries(_parsed(text, file)))
    if not entries:
        raise ConfigError(f"expected servers under one of {', '.join(CONTAINERS)}, found none", file=file)
    taken, left, names = list[Taken](), list[Left](), set(existing)
    for called, entry in entries:
        try:
            server = _taken(called, entry, {"workspaceFolder": directory, "userHome": home, "pathSeparator": "/"})
        except _Unusable as error:
            left.append(Left(called, str(error)))
            continue
        if server.name in existing:
            left.append(
                Left(called, f"there is a server '{server.name}' already; 'penstock remove {server.name}' first")
            )
            continue
        server = server._replace(name=_free_name(server.name, names))
        names.add(server.name)
        taken.append(server)
    return Import(tuple(taken), tuple(left))


def without_comments(text: str) -> str:
    """JSON with comments and trailing commas as plain JSON, each line where it was."""

    def blank(match: re.Match[str]) -> str:
        found = match.group()
        return found if found[0] == '"' else re.sub(r"[^\n]", " ", found)

    return _COMMA_OR_STRING.sub(blank, _COMMENT_OR_STRING.sub(blank, text.removeprefix("\ufeff")))


def _parsed(text: str, file: str) -> dict[str, Any]:
    try:
        tree = json.loads(without_comments(text))
    except json.JSONDecodeError as error:
        raise ConfigError(f"not JSON: {error.msg} in column {error.colno}", file=file, line=error.lineno) from None
    except RecursionError:
        raise ConfigError("values are nested too deeply", file=file) from None
    if not isinstance(tree, dict):
        raise ConfigError(f"expected a JSON object, got {shown(tree)}", file=file)
    return tree


def _entries(tree: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    nested = tree.get("mcp")
    for holder in (tree, nested if isinstance(nested, dict) else {}):
        for container in CONTAINERS:
            servers = holder.get(container)
            if isinstance(servers, dict):
                yield from servers.items()
    projects = tree.get("projects")
    for project in projects.values() if isinstance(projects, dict) else ():
        servers = project.get("mcpServers") if isinstance(project, dict) else None
        if isinstance(servers, dict):
            yield from servers.items()


def _taken(called: str, entry: Any, folders: dict[str, str]) -> Taken:
    if not isinstance(entry, dict):
        raise _Unusable(f"expected an object, got {shown(entry)}")
    notes = list[str]()
    if isinstance(entry.get("command"), dict):  # Zed: the program is an object of its own
        program = dict(entry["command"])
        entry = entry | program | {"command": program.get("path", "")}
        entry.pop("path", None)
    url = next((entry[key] for key in _URL_KEYS if entry.get(key)), None)
    _check_type(entry, url)
    values = _http_values(entry, url) if url is not None else _stdio_values(entry, notes)
    values = {key: _translated(value, folders, notes) for key, value in values.items()}
    if entry.get("disabled") is True or entry.get("enabled") is False:
        values["enabled"] = False
        notes.append("it is disabled there, and here")
    unused = sorted(key for key in entry if key not in _USED)
    if unused:
        notes.append(f"not taken over: {', '.join(unused)}")
    name = called if is_server_name(called) else server_name_from(called)
    return Taken(name, called, values, tuple(dict.fromkeys(notes)))


def _check_type(entry: dict[str, Any], url: object) -> None:
    hint = entry.get("type") or entry.get("transport")
    kind = hint.lower() if isinstance(hint, str) else ""
    if kind and kind != "stdio" and kind not in _HTTP_TYPES:
        raise _Unusable(f"its transport {shown(hint)} is not known")
    if url is None and not entry.get("command"):
        raise _Unusable("it has neither a command nor a URL")
    if url is not None and not isinstance(url, str):
        raise _Unusable(f"its URL is {shown(url)}")


def _http_values(entry: dict[str, Any], url: object) -> dict[str, object]:
    values: dict[str, object] = {"url": url}
    if entry.get("headers"):
        values["headers"] = _texts(entry["headers"], "headers")
    return values


def _stdio_values(entry: dict[str, Any], notes: list[str]) -> dict[str, object]:
    program, arguments = entry["command"], entry.get("args") or []
    if not isinstance(program, str) or not isinstance(arguments, list):
        raise _Unusable("its command is no text with a list of arguments")
    command = [program, *(argument if isinstance(argument, str) else json.dumps(argument) for argument in arguments)]
    if program.lower() in {"cmd", "cmd.exe"} and len(command) > 2 and command[1].lower() == "/c":
        command = command[2:]
        notes.append("'cmd /c' was left out, it is for Windows")
    values: dict[str, object] = {"command": command}
    if entry.get("env"):
        values["env"] = _texts(entry["env"], "env")
    if isinstance(entry.get("cwd"), str):
        values["cwd"] = entry["cwd"]
    return values


def _texts(table: object, what: str) -> dict[str, str]:
    if not isinstance(table, dict) or any(isinstance(value, dict | list) for value in table.values()):
        raise _Unusable(f"its {what} are no object of texts")
    return {
        str(key): value if isinstance(value, str) else json.dumps(value)
        for key, value in table.items()
        if value is not None
    }


def _translated(value: Any, folders: dict[str, str], notes: list[str]) -> Any:
    """The value with the client's placeholders in our words."""
    if isinstance(value, list):
        return [_translated(item, folders, notes) for item in value]
    if isinstance(value, dict):
        return {key: _translated(item, folders, notes) for key, item in value.items()}
    return _VARIABLE.sub(lambda match: _placeholder(match.group(1), folders, notes), value)


def _placeholder(inner: str, folders: dict[str, str], notes: list[str]) -> str:
    kind, colon, rest = inner.partition(":")
    if inner in folders:
        notes.append(f"${{{inner}}} was replaced by {folders[inner]}")
        return folders[inner]
    if kind == "input" and rest:
        variable = re.sub(r"[^A-Za-z0-9]+", "_", rest).strip("_").upper() or "INPUT"
        variable = variable if _NAME.fullmatch(variable) else f"_{variable}"
        notes.append(f"{variable} must be set in the environment; the client asked for it (${{input:{rest}}})")
        return f"${{env:{variable}}}"
    if kind == "env" and _NAME.fullmatch(rest):
        return f"${{env:{rest}}}"
    if _NAME.fullmatch(inner):
        return f"${{env:{inner}}}"
    if colon and rest.startswith("-") and _NAME.fullmatch(kind):
        notes.append(f"{kind} must be set in the environment; its default there was not taken over")
        return f"${{env:{kind}}}"
    raise _Unusable(f"${{{inner}}} has no counterpart here")


def _free_name(name: str, taken: set[str]) -> str:
    number, free = 2, name
    while free in taken:
        free = f"{name[: 31 - len(str(number))]}-{number}"
        number += 1
    return free
