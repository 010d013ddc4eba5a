"""The state directory, and the files in it from which the verbs find a running gateway.

Knows: files, process ids. Does not know: what a gateway answers.
`runtime/<address>.json` is written when a gateway is ready and removed when it ends; one whose process is gone does not count.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from penstock.errors import GatewayNotChosen, GatewayNotFound


class Running(NamedTuple):
    """A gateway that serves, as it wrote itself down."""

    url: str
    """Where MCP clients connect: `http://127.0.0.1:8080/mcp`."""
    admin: str
    """Root of the admin port: `http://127.0.0.1:8081`."""
    pid: int
    started: str
    config: str
    """Absolute path of its configuration file."""


def state_dir(environment: Mapping[str, str]) -> Path:
    """Where state lives: `$PENSTOCK_STATE_DIR`, `$XDG_DATA_HOME/penstock`, or `~/.local/share/penstock`."""
    named = environment.get("PENSTOCK_STATE_DIR")
    if named:
        return Path(named).expanduser()
    base = environment.get("XDG_DATA_HOME") or str(
        Path(environment.get("HOME") or "~").expanduser() / ".local" / "share"
    )
    return Path(base) / "penstock"


def make_private(directory: Path) -> Path:
    """The directory, made with mode 0700 where it did not exist."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


def write_runtime(state: Path, running: Running) -> Path:
    """Write the gateway down, and return the file."""
    make_private(state)
    path = make_private(state / "runtime") / f"{_file_name(running.url)}.json"
    temporary = path.with_suffix(f".{running.pid}.new")
    temporary.write_text(json.dumps(running._asdict()), "utf-8")
    temporary.chmod(0o600)
    temporary.replace(path)
    return path


def remove_runtime(path: Path, pid: int) -> None:
    """Remove the file, if it is still that process's own."""
    running = _read(path)
    if running is None or running.pid == pid:
        path.unlink(missing_ok=True)


def runtime_files(state: Path) -> list[Path]:
    """The files of all gateways, running or not."""
    return sorted((state / "runtime").glob("*.json"))


def running_gateways(state: Path) -> list[Running]:
    """Every gateway that runs; files of those that do not are removed."""
    found = []
    for path in runtime_files(state):
        running = _read(path)
        if running is not None and is_alive(running.pid):
            found.append(running)
        else:
            path.unlink(missing_ok=True)
    return found


def choose_gateway(state: Path, config: Path, *, flag: str | None, environment: Mapping[str, str]) -> Running:
    """The gateway a verb talks to.

    `--gateway`, else `$PENSTOCK_URL`, else the running one that serves this configuration file, else the only one.

    Raises:
        GatewayNotFound: none runs, or it cannot be told which is meant.
    """
    running = running_gateways(state)
    wanted = flag or environment.get("PENSTOCK_URL")
    if wanted:
        root = _root(wanted)
        known = next((one for one in running if root in {_root(one.url), one.admin}), None)
        url = f"{root}/mcp" if wanted.rstrip("/").endswith(root.partition("://")[2]) else wanted
        if known:
            return known if url == f"{root}/mcp" else known._replace(url=url)
        return Running(url, root, 0, "", "")
    if not running:
        raise GatewayNotFound
    if len(running) == 1:
        return running[0]
    ours = [one for one in running if one.config == os.path.realpath(config)]
    if len(ours) == 1:
        return ours[0]
    urls = ", ".join(one.url for one in ours or running)
    raise GatewayNotChosen(f"several gateways run ({urls}); choose one with --gateway URL")


def gateway_of(state: Path, config: Path) -> Running | None:
    """The running gateway that serves this configuration file."""
    path = os.path.realpath(config)
    return next((one for one in running_gateways(state) if one.config == path), None)


def is_alive(pid: int) -> bool:
    """Whether a process of that id exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _read(path: Path) -> Running | None:
    try:
        tree: dict[str, Any] = json.loads(path.read_text("utf-8"))
        kinds = {name: type(value) for name, value in tree.items()}
    except (OSError, ValueError, AttributeError):
        return None
    if kinds != Running.__annotations__ or tree["pid"] <= 0:
        return None
    return Running(**tree)


def _root(url: str) -> str:
    scheme, colon, rest = (url if "://" in url else f"http://{url}").partition("://")
    return scheme + colon + rest.split("/", 1)[0]


def _file_name(url: str) -> str:
    return _root(url).split("://", 1)[1].replace(":", "_")
