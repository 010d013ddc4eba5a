"""`penstock import`: take over servers from an MCP client's configuration file."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from penstock.cli.configuration import (
    ConfigFlag,
    JsonFlag,
    change_file,
    check,
    file_settings,
    located,
    tell_gateway,
)
from penstock.cli.output import REFUSED, harmless, say, say_json
from penstock.config.edit import add_server
from penstock.config.import_clients import Import, Left, Taken, read_client_config
from penstock.config.load import FILE_BYTES, Source
from penstock.errors import ConfigError

EXAMPLE = "penstock import ~/.cursor/mcp.json"
EDITOR_FOLDERS = frozenset((".vscode", ".cursor", ".windsurf", ".zed", ".gemini"))


def run(
    file: Annotated[str, Parameter(help="JSON file of Claude, Cursor, VS Code, Windsurf, Zed or Gemini.")],
    /,
    *,
    dry_run: Annotated[bool, Parameter(help="Say what would be taken, change nothing.")] = False,
    as_json: JsonFlag = False,
    config: ConfigFlag = None,
) -> int:
    """Take over the servers of an MCP client; says what it took, renamed and left, and why."""
    source = Path(file).expanduser()
    text = _text(source, file)
    target, _ = located(config)
    folder = source.absolute().parent
    found = read_client_config(
        text,
        file=file,
        directory=str(folder.parent if folder.name in EDITOR_FOLDERS else folder),
        home=str(Path.home()),
        existing=frozenset(file_settings(target).servers),
    )
    found = _usable(found, target)
    _report(found, as_json=as_json, would=dry_run)
    if dry_run or not found.taken:
        return 0 if found.taken or not found.left else REFUSED
    done = f"added {len(found.taken)} of {len(found.taken) + len(found.left)} servers"
    path, _ = change_file(config, lambda old: _added(old, found.taken), done, quiet=as_json)
    return tell_gateway(
        path, quiet=as_json, watch=tuple(one.name for one in found.taken if one.values.get("enabled") is not False)
    )


def _text(path: Path, name: str) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"the file cannot be read: {error.strerror}", file=name) from None
    if len(content) > FILE_BYTES:
        raise ConfigError(f"the file is larger than {FILE_BYTES // 2**20} MiB", file=name)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError("the file is not UTF-8 text", file=name) from None


def _usable(found: Import, target: Path) -> Import:
    """What our own loader takes as well; the rest is left with the loader's reason."""
    taken, left = list[Taken](), list(found.left)
    for one in found.taken:
        try:
            check(Source(add_server("", one.name, one.values), "", target.absolute().parent), target)
        except ConfigError as error:
            left.append(Left(one.called, error.message.rpartition(f"servers.{one.name}.")[2]))
        else:
            taken.append(one)
    return Import(tuple(taken), tuple(left))


def _added(text: str, taken: tuple[Taken, ...]) -> str:
    for one in taken:
        text = add_server(text, one.name, one.values)
    return text


def _report(found: Import, *, as_json: bool, would: bool) -> None:
    if as_json:
        say_json({"taken": [_row(one) for one in found.taken], "left": [one._asdict() for one in found.left]})
        return
    for one in found.taken:
        renamed = f", named '{one.name}' here" if one.name != one.called else ""
        say(harmless(f"{'would take' if would else 'took'} '{one.called}'{renamed}"))
        for remark in one.notes:
            say(harmless(f"    {remark}"))
    for unusable in found.left:
        say(harmless(f"left '{unusable.called}': {unusable.reason}"))


def _row(one: Taken) -> dict[str, Any]:
    return {"name": one.name, "called": one.called, "renamed": one.name != one.called, "notes": list(one.notes)}
