"""From file, environment and flags to `Settings`, strictly.

Knows: TOML, precedence (flags beat `PENSTOCK_*` beats the file beats defaults), where each value came from. Does not know:
the gateway.
Invariant: a value that is not used exactly as written is refused, with file, line, key, what was expected and what came.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from penstock.config.interpolation import Interpolator, MissingValue, Unresolved, unresolved
from penstock.config.keys import LIMITS, LISTEN, NAME_EXPECTED, NAME_PATTERN, SECTIONS, SERVER, VIEW, Section
from penstock.config.kinds import BadValue, nearest, shown
from penstock.config.rules import broken_rules
from penstock.config.settings import LimitsSettings, ListenSettings, ServerConfig, Settings, ViewConfig
from penstock.config.text_kinds import Url
from penstock.config.toml_positions import Positions
from penstock.errors import ConfigError

_QUOTED: Final = r"'([^']*)'"
_KEY_TUPLE: Final = re.compile(rf"\((?:{_QUOTED},? ?)+\)")
"""How tomllib writes the path of a key in a message."""

FILE_BYTES: Final = 4 * 1024 * 1024
SHORT_VARIABLES: Final = {"PENSTOCK_LISTEN": ("listen", "data"), "PENSTOCK_ADMIN": ("listen", "admin")}
"""Short names of the two variables most often set; every other key is PENSTOCK_<TABLE>_<KEY>."""
_INSTEAD: Final = {
    "args": "append them to 'command'",
    "type": "leave it out, 'url' or 'command' says it",
    "transport": "leave it out, 'url' or 'command' says it",
    "serverUrl": "write 'url'",
    "httpUrl": "write 'url'",
    "disabled": "write 'enabled = false'",
    "mcpServers": "'penstock import FILE' reads such entries",
}


class Place(NamedTuple):
    """Where a value stands: its keys from the root, and what brought it."""

    path: tuple[str, ...]
    source: str
    """`file`, or what messages call it: `environment PENSTOCK_LISTEN`, `flag --listen`."""


class Flags(NamedTuple):
    """What the command line says, in the form the file would hold it."""

    values: Mapping[tuple[str, str], tuple[str, object]] = MappingProxyType({})
    """(table, key) → (the flag's name, value)."""
    servers: Mapping[str, dict[str, object]] = MappingProxyType({})
    """Servers of `--server`; each takes the place of one of the same name."""


class Loaded:
    """Settings, and the story of each value."""

    def __init__(
        self,
        settings: Settings,
        source: "Source",
        places: dict[tuple[str, ...], Place],
        unresolved: dict[tuple[str, ...], str],
    ) -> None:
        self.settings: Final = settings
        self.unresolved: Final = unresolved
        """Values left out of the settings because their placeholders were left alone, as written."""
        self._source = source
        self._places = places

    def __repr__(self) -> str:
        return f"<Loaded {self._source.name or 'no file'} | servers {len(self.settings.servers)}>"

    @property
    def text(self) -> str:
        """The file's."""
        return self._source.text

    def origin(self, *path: str) -> str:
        """Where the value of that key comes from: `default`, `penstock.toml:12`, `flag --listen`, …"""
        place = self._places.get(path)
        if place is None:
            return "default"
        return place.source if place.source != "file" else f"{self._source.name}:{self._source.positions.line(path)}"


class Source:
    """The text of a configuration file and what TOML makes of it."""

    def __init__(self, text: str, name: str, directory: Path) -> None:
        """
        Raises:
            ConfigError: it is not TOML.
        """
        self.name: Final = name
        self.directory: Final = directory
        self.text: Final = text
        try:
            self.tree: Final[dict[str, Any]] = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise _syntax_error(str(error), text, name) from None
        except RecursionError:
            raise ConfigError("values are nested too deeply", file=name, line=1) from None

    def __repr__(self) -> str:
        return f"<Source {self.name}>"

    @cached_property
    def positions(self) -> Positions:
        return Positions(self.text)


def find_file(flag: str | None, environment: Mapping[str, str], directory: Path) -> tuple[Path, bool]:
    """The configuration file, and whether somebody named it (then it must exist).

    `--config`, else `$PENSTOCK_CONFIG`, else `./penstock.toml` if there is one, else `~/.config/penstock/penstock.toml`.
    """
    named = flag or environment.get("PENSTOCK_CONFIG")
    if named:
        return directory / Path(named).expanduser(), True
    here = directory / "penstock.toml"
    if here.exists():
        return here, False
    base = environment.get("XDG_CONFIG_HOME") or str(Path(environment.get("HOME") or "~").expanduser() / ".config")
    return Path(base) / "penstock" / "penstock.toml", False


def read_source(path: Path, name: str = "") -> Source:
    """The file's text and tree.

    Raises:
        ConfigError: it cannot be read or is not TOML.
    """
    name = name or str(path)
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError("there is no such file; 'penstock add' makes one", file=name) from None
    except OSError as error:
        raise ConfigError(f"the file cannot be read: {error.strerror}", file=name) from None
    if len(content) > FILE_BYTES:
        raise ConfigError(f"the file is larger than {FILE_BYTES // 2**20} MiB", file=name)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError("the file is not UTF-8 text", file=name, line=line) from None
    return Source(text, name, path.absolute().parent)


def load(
    path: Path | None,
    *,
    name: str = "",
    environment: Mapping[str, str],
    flags: Flags | None = None,
    resolve: bool = True,
    must_exist: bool = True,
) -> Loaded:
    """Settings from all sources. `name` is what messages call the file.

    A file that need not exist counts as empty; the settings name it all the same, for it may come.

    Without `resolve`, placeholders are checked for their form and left alone.

    Raises:
        ConfigError: something cannot be used; the first one by line, and how many more there are.
    """
    directory = path.absolute().parent if path else Path.cwd()
    missing = path is None or not (must_exist or path.exists())
    source = Source("", "", directory) if path is None or missing else read_source(path, name)
    loaded, problems = judge(source, path=path, environment=environment, flags=flags or Flags(), resolve=resolve)
    if problems:
        raise first_of(problems)
    return loaded


def first_of(problems: Sequence[ConfigError]) -> ConfigError:
    """The first of what is wrong, for who can tell one thing only."""
    first, *others = problems
    if others:
        first.args = (f"{first.message} (and {len(others)} more: 'penstock config check' lists them all)",)
    return first


def judge(
    source: Source, *, path: Path | None, environment: Mapping[str, str], flags: Flags, resolve: bool
) -> tuple[Loaded, list[ConfigError]]:
    """Settings as far as they can be read, and everything that is wrong, ordered by line."""
    reading = _Reading(source, environment, resolve)
    reading.overlay_environment(environment)
    reading.overlay_flags(flags)
    settings = reading.settings(str(path.absolute()) if path else None)
    if not reading.problems:
        for where, message in broken_rules(settings):
            reading.report(where, message)
    reading.problems.sort(key=lambda error: error.line)
    return Loaded(settings, source, reading.places, reading.unresolved), reading.problems


class _Reading:
    """One pass over the merged values, collecting what is wrong."""

    def __init__(self, source: Source, environment: Mapping[str, str], resolve: bool) -> None:
        self.problems: list[ConfigError] = []
        self.places: dict[tuple[str, ...], Place] = {}
        self.unresolved: dict[tuple[str, ...], str] = {}
        self._source = source
        self._resolve = resolve
        self._interpolator = Interpolator(environment, source.directory)
        self._tree: dict[str, dict[str, Any]] = {name: self._table(name) for name in SECTIONS}
        for key in source.tree:
            if key not in SECTIONS:
                self._unknown((key,), "the file", tuple(SECTIONS))
        self._mark_places()

    def report(self, path: tuple[str, ...], message: str) -> None:
        source = next(
            (self.places[path[:n]].source for n in range(len(path), 0, -1) if path[:n] in self.places), "file"
        )
        key = ".".join(path)
        if source != "file":
            self.problems.append(ConfigError(message, key=f"{source}: {key}"))
            return
        line = self._source.positions.line(path) if self._source.name else 0
        self.problems.append(ConfigError(message, file=self._source.name, line=line, key=key))

    def overlay_environment(self, environment: Mapping[str, str]) -> None:
        known = {f"PENSTOCK_{s.name}_{key}".upper(): (s.name, key) for s in (LISTEN, LIMITS) for key in s.keys}
        for variable, text in environment.items():
            target = SHORT_VARIABLES.get(variable) or known.get(variable)
            if target:
                self._overlay(
                    target, SECTIONS[target[0]].keys[target[1]].kind.from_text(text), f"environment {variable}"
                )
            elif variable.startswith(("PENSTOCK_LISTEN_", "PENSTOCK_LIMITS_")):
                near = nearest(variable, tuple(known))
                meant = f"; did you mean {near}?" if near else "; 'penstock config show' lists the keys"
                self.problems.append(ConfigError(f"unknown setting{meant}", key=f"environment {variable}"))

    def overlay_flags(self, flags: Flags) -> None:
        for target, (flag, value) in flags.values.items():
            self._overlay(target, value, f"flag {flag}")
        for name, table in flags.servers.items():
            self._tree["servers"][name] = table
            self.places[("servers", name)] = Place(("servers", name), "flag --server")
            for key in table:
                self.places[("servers", name, key)] = Place(("servers", name, key), "flag --server")

    def settings(self, file: str | None) -> Settings:
        return Settings(
            listen=ListenSettings(**self._values(LISTEN, self._tree["listen"], ("listen",))),
            limits=LimitsSettings(**self._values(LIMITS, self._tree["limits"], ("limits",))),
            servers={name: ServerConfig(name=name, **values) for name, values in self._named_tables(SERVER)},
            views={name: ViewConfig(name=name, **values) for name, values in self._named_tables(VIEW)},
            file=file,
        )

    def _table(self, name: str) -> dict[str, Any]:
        table = self._source.tree.get(name, {})
        if isinstance(table, dict):
            return dict(table)
        self.report((name,), f"expected a table, got {shown(table)}")
        return {}

    def _mark_places(self) -> None:
        for section in SECTIONS.values():
            for key, value in self._tree[section.name].items():
                path = (section.name, key)
                self.places[path] = Place(path, "file")
                if section.named and isinstance(value, dict):
                    self.places |= {(*path, inner): Place((*path, inner), "file") for inner in value}

    def _overlay(self, path: tuple[str, str], value: object, source: str) -> None:
        self._tree[path[0]][path[1]] = value
        self.places[path] = Place(path, source)

    def _named_tables(self, section: Section) -> list[tuple[str, dict[str, Any]]]:
        tables = []
        for name, table in self._tree[section.name].items():
            path = (section.name, name)
            if not re.fullmatch(NAME_PATTERN, name):
                self.report(path, f"expected {NAME_EXPECTED}, got {shown(name)}")
            elif not isinstance(table, dict):
                near = nearest(section.name, (name,)) or ("" if name not in section.keys else name)
                hint = f"; '{near}' belongs into [{section.name}.NAME]" if near else ""
                self.report(path, f"expected a table, got {shown(table)}{hint}")
            else:
                tables.append((name, self._values(section, table, path)))
        return tables

    def _values(self, section: Section, table: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
        resolve = self._resolve and table.get("enabled") is not False
        values = {}
        for name, value in table.items():
            key = section.keys.get(name)
            if key is None:
                self._unknown((*path, name), f"[{'.'.join(path)}]", tuple(section.keys))
                continue
            try:
                read = key.kind.read(self._filled(value, resolve, ()), self._source.directory)
            except BadValue as error:
                self.report((*path, name, *error.path), str(error))
                continue
            if isinstance(read, Unresolved) and not isinstance(key.kind, Url):
                self.unresolved[*path, name] = read.reveal()
            else:
                values[name] = read
        return values

    def _filled(self, value: Any, resolve: bool, path: tuple[str, ...]) -> Any:
        if isinstance(value, dict):
            return {key: self._filled(item, resolve, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self._filled(item, resolve, (*path, str(index))) for index, item in enumerate(value)]
        if not isinstance(value, str):
            return value
        try:
            return self._interpolator.fill(value) if resolve else unresolved(value)
        except MissingValue as error:
            raise BadValue(str(error), *path) from None

    def _unknown(self, path: tuple[str, ...], where: str, known: tuple[str, ...]) -> None:
        instead, near = _INSTEAD.get(path[-1]), nearest(path[-1], known)
        meant = instead or (f"did you mean '{near}'?" if near else f"{where} takes {', '.join(known)}")
        self.report(path, f"unknown key; {meant}")


def _syntax_error(message: str, text: str, name: str) -> ConfigError:
    message = _KEY_TUPLE.sub(lambda found: f"'{'.'.join(re.findall(_QUOTED, found[0]))}'", message)
    place = re.search(r" \(at line (\d+), column (\d+)\)$", message)
    if place is None:
        line = text.rstrip("\n").count("\n") + 1
        return ConfigError(
            f"not TOML: {message.removesuffix(' (at end of document)')} at the end", file=name, line=line
        )
    return ConfigError(
        f"not TOML: {message[: place.start()]} in column {place.group(2)}", file=name, line=int(place.group(1))
    )


def mode_warnings(path: Path, source: Source) -> list[str]:
    """What is wrong with the file's permissions, in sentences."""
    mode = path.stat().st_mode & 0o777
    warnings = []
    if mode & 0o022:
        warnings.append(
            f"{path} can be written by other users (mode {mode:04o}) and names commands; run: chmod go-w {path}"
        )
    if mode & 0o044 and _holds_secrets(source.tree):
        warnings.append(
            f"{path} can be read by other users (mode {mode:04o}) and holds values of headers or env; run: chmod 600 {path}"
        )
    return warnings


def _holds_secrets(tree: dict[str, Any]) -> bool:
    servers = tree.get("servers")
    for server in servers.values() if isinstance(servers, dict) else ():
        for table in ("headers", "env"):
            values = server.get(table) if isinstance(server, dict) else None
            if isinstance(values, dict) and any(isinstance(text, str) and "${" not in text for text in values.values()):
                return True
    return False
