"""Changes to servers in the configuration file, made by commands.

Knows: the text of the file and where its statements stand. Does not know: what the values mean.
Invariant: everything but the statements of the one server stays as it was, byte for byte, and the new text means exactly the old
one with that change; if it would not, nothing is written. A removed server takes along the comments between its own lines,
not those around them.
"""

import copy
import fcntl
import os
import re
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from penstock.config.kinds import nearest, quoted
from penstock.config.toml_positions import Positions, Statement
from penstock.errors import ConfigError

Change = Callable[[str], str]
NEW_FILE_MODE: Final = 0o600
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")


def add_server(text: str, name: str, values: Mapping[str, object]) -> str:
    """The text with a `[servers.NAME]` table at its end.

    Raises:
        ConfigError: there is one of that name.
    """
    tree = tomllib.loads(text)
    if name in _servers(tree):
        raise ConfigError(
            f"there is a server of that name already; 'penstock remove {name}' first", key=f"servers.{name}"
        )
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = [f"[servers.{name}]", *(f"{key} = {toml_value(value)}" for key, value in values.items())]
    before = text + ("" if not text or text.endswith("\n") else newline)
    gap = newline if before.strip() and not before.endswith(("\n\n", "\n\r\n")) else ""
    tree.setdefault("servers", {})[name] = dict(values)
    return _checked(before + gap + newline.join(lines) + newline, tree)


def remove_server(text: str, name: str) -> str:
    """The text without the statements of that server.

    Raises:
        ConfigError: there is none of that name, or it is written in a form that only a person can edit.
    """
    tree = tomllib.loads(text)
    _require(tree, name)
    for block in reversed(_blocks(text, name)):
        text = _cut(text, *block)
    del tree["servers"][name]
    return _checked(text, tree)


def set_enabled(text: str, name: str, enabled: bool) -> str:
    """The text with that server's `enabled` set; unchanged if it has that value already.

    Raises:
        ConfigError: there is none of that name, or it is written in a form that only a person can edit.
    """
    tree = tomllib.loads(text)
    server = _require(tree, name)
    if server.get("enabled", True) is enabled:
        return text
    server["enabled"] = enabled
    word, path = str(enabled).lower(), ("servers", name)
    statements = Positions(text).statements
    for statement in statements:
        if statement.kind == "pair" and statement.path == (*path, "enabled"):
            start, end = statement.value
            return _checked(text[:start] + word + text[end:], tree)
    newline = "\r\n" if "\r\n" in text else "\n"
    for statement in statements:
        if statement.kind == "table" and statement.path == path:
            line = f"enabled = {word}{newline}"
            ended = text[: statement.end].endswith("\n")
            return _checked(text[: statement.end] + ("" if ended else newline) + line + text[statement.end :], tree)
    for statement in statements:
        if statement.kind == "pair" and statement.path[:2] == path and len(statement.path) > 2:
            key = text[statement.start : statement.value[0]]
            prefix = re.match(r"\s*(?:servers\s*\.\s*)?[^.=\s]+\s*\.\s*", key)
            line = f"{prefix.group() if prefix else ''}enabled = {word}{newline}"
            return _checked(text[: statement.start] + line + text[statement.start :], tree)
    raise _by_hand(name)


def edit_file(path: Path, change: Change, *, name: str = "") -> bool:
    """Apply a change to the file in one step: whoever reads it sees the old text or the new one.

    Symlinks are followed, mode and owner kept; a missing file is made with mode 0600. Returns whether the text changed.
    `name` is what messages call the file.

    Raises:
        ConfigError: the file cannot be read or written, is not TOML, or the change was refused.
    """
    name = name or str(path)
    try:
        with _locked(target := Path(os.path.realpath(path))):
            old = target.read_bytes().decode() if target.exists() else ""
            try:
                new = change(old)
            except tomllib.TOMLDecodeError as error:
                raise ConfigError(f"not TOML, so it cannot be edited: {error}", file=name) from None
            except ConfigError as error:
                if error.file:
                    raise
                raise ConfigError(error.message, file=name) from None
            if new == old and target.exists():
                return False
            write_atomically(target, new.encode())
            return True
    except UnicodeDecodeError:
        raise ConfigError("the file is not UTF-8 text", file=name) from None
    except OSError as error:
        raise ConfigError(f"the file cannot be changed: {error.strerror}", file=name) from None


def write_atomically(target: Path, content: bytes) -> None:
    """Replace the file's content so that a crash leaves the old or the new one whole."""
    before = target.stat() if target.exists() else None
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), before.st_mode & 0o7777 if before else NEW_FILE_MODE)
            if before:
                with suppress(PermissionError):  # only root may give a file away; then ours is as good
                    os.fchown(file.fileno(), before.st_uid, before.st_gid)
            os.fsync(file.fileno())
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    directory = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def toml_value(value: object) -> str:
    """A value on one line of TOML."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return quoted(value)
        case list() | tuple():
            return "[" + ", ".join(toml_value(item) for item in value) + "]"
        case dict():
            pairs = [
                f"{key if _BARE_KEY.fullmatch(key) else quoted(key)} = {toml_value(v)}" for key, v in value.items()
            ]
            return "{ " + ", ".join(pairs) + " }" if pairs else "{}"
        case _:
            return str(value)


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """One editor at a time: the directory is locked, since the file itself is replaced."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory = os.open(target.parent, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _servers(tree: dict[str, Any]) -> dict[str, Any]:
    servers = tree.get("servers", {})
    return servers if isinstance(servers, dict) else {}


def _require(tree: dict[str, Any], name: str) -> dict[str, Any]:
    servers = _servers(tree)
    server = servers.get(name)
    if isinstance(server, dict):
        return server
    near = nearest(name, tuple(servers))
    known = f"did you mean '{near}'?" if near else f"known servers: {', '.join(servers) or 'none'}"
    raise ConfigError(f"there is no server '{name}'; {known}")


def _blocks(text: str, name: str) -> list[tuple[int, int]]:
    """Spans of the server's statements, those that follow each other directly joined with what is between them."""
    path, blocks = ("servers", name), list[tuple[int, int]]()
    previous: Statement | None = None
    for statement in Positions(text).statements:
        if statement.path[:2] == path:
            if previous is not None and previous.path[:2] == path:
                blocks[-1] = (blocks[-1][0], statement.end)
            else:
                blocks.append((statement.start, statement.end))
        previous = statement
    if not blocks:
        raise _by_hand(name)
    return blocks


def _cut(text: str, start: int, end: int) -> str:
    """Take a block out, and one of the blank lines that stood around it."""
    before, after = text[:start], text[end:]
    blank_before = not before or re.search(r"\n\r?\n\Z", before) is not None
    blank_after = re.match(r"\r?\n", after)
    if blank_before and blank_after:
        after = after[blank_after.end() :]
    elif blank_before and not after:
        before = re.sub(r"\r?\n\Z", "", before)
    return before + after


def _checked(text: str, meant: dict[str, Any]) -> str:
    """The text, if it means what was meant."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        tree = {}
    if _without_empty(tree) != _without_empty(meant):
        raise ConfigError("the change cannot be made without touching other lines; edit the file by hand")
    return text


def _without_empty(tree: dict[str, Any]) -> dict[str, Any]:
    """An empty `servers` is as good as none."""
    tree = copy.copy(tree)
    if tree.get("servers") == {}:
        del tree["servers"]
    return tree


def _by_hand(name: str) -> ConfigError:
    return ConfigError(f"'{name}' is written inside another value; edit the file by hand", key=f"servers.{name}")
