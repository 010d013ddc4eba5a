"""Real processes to break: a gateway, servers behind it, a client of each era, and what Linux says of a process.

Knows: the command line, `penstock.toml`, /proc. Does not know: anything inside the gateway.
"""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

from penstock.http.client import HttpClient
from penstock.protocol.event_stream import Event
from tests.peers.environments import ROOT, gateway_environment, penstock_command, plain_environment
from tests.peers.processes import make_home

Era = Literal["modern", "legacy"]
ERAS: tuple[Era, Era] = ("modern", "legacy")
REVISION = {"modern": "2026-07-28", "legacy": "2025-11-25"}
START_SECONDS = 15.0
_META = {
    "io.modelcontextprotocol/protocolVersion": REVISION["modern"],
    "io.modelcontextprotocol/clientInfo": {"name": "faults", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
_SERVERS = "tests.end_to_end.servers"
STDIO_SERVER = [sys.executable, "-S", "-m", f"{_SERVERS}.stdio_server"]


def until(holds: Callable[[], object], seconds: float, what: str) -> None:
    """Wait for something in another process, which cannot tell us."""
    give_up_at = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < give_up_at, f"within {seconds} s it did not happen that {what}"
        time.sleep(0.01)


class Process:
    """A program in a group of its own; its output goes to files, so that nobody has to read it."""

    def __init__(self, name: str, command: list[str], folder: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        folder.mkdir(parents=True, exist_ok=True)
        self._out, self._err = folder / f"{name}.out", folder / f"{name}.err"
        with self._out.open("wb") as out, self._err.open("ab") as err:
            self._popen = subprocess.Popen(
                command,
                cwd=ROOT,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def __repr__(self) -> str:
        return f"<Process {self.name} pid {self.pid} | exit {self._popen.poll()}>"

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def out(self) -> str:
        return self._out.read_text("utf-8")

    @property
    def err(self) -> str:
        return self._err.read_text("utf-8", "replace")

    def is_running(self) -> bool:
        return self._popen.poll() is None

    def signal(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def wait(self, seconds: float) -> int:
        """Its exit code."""
        return self._popen.wait(seconds)

    def end(self) -> None:
        """SIGTERM, and SIGKILL if that is not enough."""
        if self.is_running():
            self.signal(signal.SIGTERM)
            try:
                self.wait(10)
            except subprocess.TimeoutExpired:
                self.signal(signal.SIGKILL)
                self.wait(10)

    def wait_for_port(self) -> int:
        """The port in the line `ready PORT`."""
        until(lambda: self.out.startswith("ready ") or not self.is_running(), START_SECONDS, f"{self.name} was ready")
        assert self.is_running(), self.err
        return int(self.out.split()[1])


class HttpServerProcess(Process):
    """One of our scripted HTTP servers; started again on the same port by making another one with `port`."""

    def __init__(self, folder: Path, module: str = "http_server", *, port: int = 0, era: str = "both") -> None:
        arguments = [str(port), era] if module == "http_server" else []
        command = [sys.executable, "-m", f"{_SERVERS}.{module}", *arguments]
        super().__init__(module, command, folder, plain_environment(make_home(folder)))
        try:
            self.port = self.wait_for_port()
        except BaseException:
            self.end()
            raise

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"


def server_tables(servers: Mapping[str, str | list[str]], **more: str) -> str:
    """`[servers.*]` tables: a URL or a command for each; `more` goes into every one."""
    extra = "".join(f"{key} = {json.dumps(value)}\n" for key, value in more.items())
    tables = []
    for name, target in servers.items():
        if isinstance(target, str):
            tables.append(f"[servers.{name}]\nurl = {json.dumps(target)}\n{extra}")
        else:
            tables.append(f"[servers.{name}]\ncommand = {json.dumps(target)}\ncwd = {json.dumps(str(ROOT))}\n{extra}")
    return "\n".join(tables)


class Gateway(Process):
    """`penstock serve` with a configuration file and a state directory in `folder`; again there with the same `listen`."""

    def __init__(
        self, folder: Path, config: str | None = None, *, listen: str = "127.0.0.1:0", flags: tuple[str, ...] = ()
    ) -> None:
        self.folder = folder
        self.config = folder / "penstock.toml"
        folder.mkdir(parents=True, exist_ok=True)
        if config is not None:
            self.write(config)
        self.environment = gateway_environment(make_home(folder), PENSTOCK_STATE_DIR=str(folder / "state"))
        addresses = ["--listen", listen, "--admin", "127.0.0.1:0"]
        command = [*penstock_command(), "serve", "--config", str(self.config), *addresses, *flags]
        super().__init__("penstock", command, folder, self.environment)
        try:
            self.url, self.admin = self._wait_for_runtime()
        except BaseException:
            self.end()
            raise

    def write(self, config: str) -> None:
        """Replace the configuration as editors do: whole, at once."""
        new = self.config.with_suffix(".new")
        new.write_text(config, "utf-8")
        new.chmod(0o600)
        new.replace(self.config)

    def verb(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run another command against this gateway."""
        return subprocess.run(
            [*penstock_command(), *words],
            cwd=ROOT,
            env=self.environment | {"PENSTOCK_CONFIG": str(self.config)},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return self.url.removeprefix("http://").removesuffix("/mcp")

    def _wait_for_runtime(self) -> tuple[str, str]:
        found: list[dict[str, Any]] = []

        def written() -> bool:
            for path in (self.folder / "state/runtime").glob("*.json"):
                entry = json.loads(path.read_text("utf-8"))
                if entry["pid"] == self.pid:
                    found.append(entry)
            return bool(found) or not self.is_running()

        until(written, START_SECONDS, "the gateway was ready")
        assert found, self.err
        return found[0]["url"], found[0]["admin"]


# --- what Linux says of a process ---


class Facts(NamedTuple):
    """What must be the same before and after."""

    descriptors: int
    children: int
    zombies: int
    memory_mib: float


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def open_files(pid: int) -> list[str]:
    """What its descriptors are, for a failure's message; of sockets the states and ports too."""
    sockets = {}
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        local, remote = (int(field.rpartition(":")[2], 16) for field in fields[1:3])
        sockets[f"socket:[{fields[9]}]"] = f"tcp {local} to {remote}, state {fields[3]}"
    links = (str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir())
    return sorted(sockets.get(link, link) for link in links)


def children(pid: int) -> list[int]:
    """Zombies included; none of a process or thread that has ended meanwhile."""
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                found += map(int, (task / "children").read_text().split())
    return found


def is_zombie(pid: int) -> bool:
    return _state(pid) == "Z"


def is_alive(pid: int) -> bool:
    return _state(pid) not in {"Z", ""}


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def stdio_servers(pid: int) -> list[int]:
    """Those of its children that are scripted stdio servers."""
    return [child for child in children(pid) if "stdio_server" in command_line(child)]


def health(gateway: Gateway) -> dict[str, str]:
    """State of each server, from the admin port."""
    with urllib.request.urlopen(f"{gateway.admin}/health/detailed", timeout=5) as answer:
        states: dict[str, str] = json.load(answer)["servers"]
        return states


def facts(pid: int) -> Facts:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    family = children(pid)
    memory = pages * os.sysconf("SC_PAGESIZE") / 2**20
    return Facts(descriptors(pid), len(family), sum(map(is_zombie, family)), memory)


def settled(pid: int, seconds: float = 0.5) -> Facts:
    """The least of several looks: a process that is just being started, or a connection just being tried, does not count."""
    looks = []
    give_up_at = time.monotonic() + seconds
    while time.monotonic() < give_up_at:
        looks.append(facts(pid))
        time.sleep(0.05)
    return Facts(*(min(values) for values in zip(*looks, strict=True)))


# --- a client of each era ---


class Said(NamedTuple):
    """An answer to one request."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str]
    seconds: float

    @property
    def text(self) -> str:
        """Of a tool's result."""
        assert "result" in self.body, self.body
        return str(self.body["result"]["content"][0]["text"])

    @property
    def error(self) -> dict[str, Any]:
        assert "error" in self.body, self.body
        found: dict[str, Any] = self.body["error"]
        return found


class McpClient:
    """One client of one era. A legacy one opens a session with its first request, unless it is given one."""

    def __init__(self, http: HttpClient, url: str, era: Era, *, session: str | None = None) -> None:
        self.era = era
        self.url = url
        self.session = session
        self.initializations = 0
        self.capabilities: dict[str, Any] = {}
        self.http = http
        self._ids = count(1)

    def __repr__(self) -> str:
        return f"<McpClient {self.era} {self.url}>"

    async def call(self, tool: str, arguments: dict[str, Any] | None = None, *, timeout: float = 15.0) -> Said:
        return await self.request("tools/call", {"name": tool, "arguments": arguments or {}}, timeout=timeout)

    async def tools(self) -> set[str]:
        """Names of all tools."""
        said = await self.request("tools/list", {})
        return {tool["name"] for tool in said.body["result"]["tools"]}

    async def request(self, method: str, params: dict[str, Any], *, timeout: float = 15.0) -> Said:
        if self.era == "legacy" and self.session is None and method != "initialize":
            await self.initialize()
        headers, body = self.written(method, params, next(self._ids))
        return await self._post(headers, body, timeout)

    async def initialize(self) -> Said:
        params = {
            "protocolVersion": REVISION["legacy"],
            "capabilities": self.capabilities,
            "clientInfo": _META_CLIENT,
        }
        said = await self.request("initialize", params)
        self.initializations += 1
        self.session = said.headers["mcp-session-id"]
        await self._post(*self.written("notifications/initialized", {}, None), 15.0)
        return said

    def written(self, method: str, params: dict[str, Any], request_id: int | None) -> tuple[dict[str, str], bytes]:
        """Headers and body of a message; a notification has no id."""
        headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
        if method != "initialize":
            headers["mcp-protocol-version"] = REVISION[self.era]
        if self.session is not None:
            headers["mcp-session-id"] = self.session
        if self.era == "modern":
            params = params | {"_meta": _META | {"io.modelcontextprotocol/clientCapabilities": self.capabilities}}
            headers["mcp-method"] = method
            if "name" in params:
                headers["mcp-name"] = params["name"]
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
        if request_id is not None:
            message["id"] = request_id
        return headers, json.dumps(message).encode()

    async def _post(self, headers: dict[str, str], body: bytes, timeout: float) -> Said:
        events: list[bytes] = []

        def take(event: Event) -> bool:
            events.append(bytes(event.data))
            return b'"id"' in events[-1]

        started = time.monotonic()
        response = await self.http.post(self.url, headers, body, take, timeout=timeout)
        seconds = time.monotonic() - started
        found = {name.decode(): value.decode() for name, value in response.headers.items()}
        answer = response.body or (events[-1] if events else b"{}")
        return Said(response.status, json.loads(answer), found, seconds)


_META_CLIENT = _META["io.modelcontextprotocol/clientInfo"]


@contextmanager
def http_server(folder: Path, module: str = "http_server", *, era: str = "both") -> Iterator[HttpServerProcess]:
    """A scripted HTTP server for the length of a block."""
    with HttpServerProcess(folder, module, era=era) as server:
        yield server
