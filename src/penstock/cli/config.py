"""`penstock config`: show, check or describe the configuration."""

import os
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple

from cyclopts import Parameter

from penstock.cli.configuration import ConfigFlag, JsonFlag, display, file_source, located
from penstock.cli.output import USAGE, columns, complain, note, say, say_json
from penstock.config.interpolation import Unresolved
from penstock.config.keys import LIMITS, LISTEN, SERVER, VIEW, Section
from penstock.config.kinds import quoted
from penstock.config.load import Flags, Loaded, first_of, judge, mode_warnings, read_source
from penstock.config.schema import config_schema
from penstock.config.settings import Secret, Settings
from penstock.errors import ConfigError

EXAMPLE = (
    "penstock config show\n  penstock config check ./penstock.toml\n  penstock config schema > penstock.schema.json"
)


class Effective(NamedTuple):
    """One value that counts."""

    key: str
    value: str
    origin: str


def show(*, as_json: JsonFlag = False, config: ConfigFlag = None) -> int:
    """Print every value that counts, bounds included, with where it comes from."""
    path, named = located(config)
    source = read_source(path, display(path)) if named else file_source(path)
    loaded, problems = judge(source, path=path, environment=os.environ, flags=Flags(), resolve=False)
    if problems:
        raise first_of(problems)
    values = list(effective_values(loaded))
    if as_json:
        say_json({"file": str(path) if path.exists() else None, "values": [value._asdict() for value in values]})
        return 0
    say(f"# {display(path)}" if path.exists() else f"# no file yet; 'penstock add' makes {display(path)}")
    for line in columns([(f"{value.key} = {value.value}", f"# {value.origin}") for value in values]):
        say(line)
    return 0


def check(
    file: Annotated[str | None, Parameter(help="The file to judge; default: the one 'serve' would read.")] = None,
    /,
    *,
    as_json: JsonFlag = False,
    config: ConfigFlag = None,
) -> int:
    """Judge a configuration file: everything that is wrong with it, with line and key."""
    path = located(file or config)[0]
    name = file or display(path)
    warnings: list[str] = []
    try:
        source = read_source(path, name)
        _, problems = judge(source, path=path, environment=os.environ, flags=Flags(), resolve=True)
        warnings = mode_warnings(path, source)
    except ConfigError as error:
        problems = [error]
    if as_json:
        rows = [{"file": one.file, "line": one.line, "key": one.key, "message": one.message} for one in problems]
        say_json({"ok": not problems, "problems": rows, "warnings": warnings})
        return USAGE if problems else 0
    for problem in problems:
        complain(problem.message)
    for warning in warnings:
        note(f"warning: {warning}")
    if not problems:
        say(f"{name} is good")
    return USAGE if problems else 0


def schema() -> int:
    """Print the JSON Schema of penstock.toml, for editors."""
    say_json(config_schema())
    return 0


COMMANDS = {"show": show, "check": check, "schema": schema}


def effective_values(loaded: Loaded) -> Iterator[Effective]:
    """Every value of every key, defaults included; secrets only by where they come from."""
    settings: Settings = loaded.settings
    yield from _section_values(loaded, LISTEN, settings.listen, ("listen",))
    yield from _section_values(loaded, LIMITS, settings.limits, ("limits",))
    for server in settings.servers.values():
        yield from _section_values(loaded, SERVER, server, ("servers", server.name))
    for view in settings.views.values():
        yield from _section_values(loaded, VIEW, view, ("views", view.name))


def _section_values(loaded: Loaded, section: Section, holder: Any, path: tuple[str, ...]) -> Iterator[Effective]:
    for key in section.keys.values():
        value, origin = getattr(holder, key.name), loaded.origin(*path, key.name)
        if (left := loaded.unresolved.get((*path, key.name))) is not None:
            yield Effective(".".join((*path, key.name)), quoted(left), origin)
            continue
        if section.named and origin == "default" and (value is None or value in ((), {})):
            continue
        shown = "(none)" if value is None else key.kind.show(value)
        sources = _sources(value)
        yield Effective(".".join((*path, key.name)), shown, f"{origin}, {', '.join(sources)}" if sources else origin)


def _sources(value: Any) -> list[str]:
    """The placeholders a value was, or will be, made from."""
    secrets = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else (value,)
    return [source for one in secrets if isinstance(one, Secret | Unresolved) for source in one.sources]
