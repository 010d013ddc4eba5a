"""The matrix of real peers: unmodified clients × unmodified servers × operations, all behind one gateway at once.

An operation is `n/a` where the server itself, asked directly, has nothing to do it with: no prompts, no resources, no tool that
reports progress, no tool that records its cancellation. Everything else must work.
"""

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.peers.environments import (
    everything_command,
    legacy_python,
    modern_program,
    modern_python,
    node,
    node_package,
    plain_environment,
)
from tests.peers.gateway import Gateway
from tests.peers.processes import Child, ProcessFailed, make_home, run

OPERATIONS: Final = ("list", "call", "prompt", "resource", "progress", "cancel")
CANCEL_MS: Final = 200
CLIENT_SECONDS: Final = 90.0
ALL: Final = "all"
"""The view of every server at once."""


class PeerServer(NamedTuple):
    """A server of the matrix: how it is run, and what to ask of it."""

    name: str
    command: list[str] | None = None
    """Run by the gateway over stdio."""
    listens: list[str] | None = None
    """Run by us; prints its URL, or listens on $PORT and says so."""
    path: str = "/mcp"
    """Where it listens, unless it prints its URL."""
    protocol: str = "auto"
    call: tuple[str, dict[str, Any], str] = ("add", {"a": 2, "b": 40}, "42")
    progress: tuple[str, dict[str, Any], int] | None = ("count", {"steps": 4}, 3)
    prompt: tuple[str, dict[str, str], str] = ("greet", {"name": "Ada"}, "Ada")
    resource: tuple[str, str] = ("", "")


class PeerClient(NamedTuple):
    """A client of the matrix."""

    name: str
    command: list[str]
    mode: str = "auto"
    path: str = "/mcp"
    """Under which of the gateway's paths it finds the views: `/sse` for HTTP+SSE."""

    def address(self, url: str) -> str:
        """Where it finds a view of the gateway."""
        return url.replace("/mcp", self.path, 1)


def servers(repository: Path) -> list[PeerServer]:
    """Every server of the matrix."""

    def module(name: str, *words: str) -> list[str]:
        return [modern_python(), "-m", f"tests.peers.servers.{name}", *words]

    everything = {
        "call": ("get-sum", {"a": 2, "b": 40}, "42"),
        "progress": ("trigger-long-running-operation", {"duration": 0.2, "steps": 4}, 3),
        "prompt": ("args-prompt", {"city": "Oslo"}, "Oslo"),
        "resource": ("demo://resource/static/document/features.md", "MCP"),
    }
    git = ("git_log", {"repo_path": str(repository), "max_count": 1}, "A first commit")
    clock = ("convert_time", {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}, "21:00")
    return [
        PeerServer("everything-stdio", command=everything_command("stdio"), **everything),  # type: ignore[arg-type]
        PeerServer("everything-http", listens=everything_command("streamableHttp"), **everything),  # type: ignore[arg-type]
        PeerServer("everything-sse", listens=everything_command("sse"), path="/sse", **everything),  # type: ignore[arg-type]
        PeerServer("time", command=[modern_program("mcp-server-time")], call=clock, progress=None),
        PeerServer(
            "git",
            command=[modern_program("mcp-server-git"), "--repository", str(repository)],
            call=git,
            progress=None,
        ),
        PeerServer("fastmcp", listens=module("fastmcp_server"), resource=("peers://fastmcp/readme", "FastMCP")),
        PeerServer(
            "sdk-stdio",
            command=module("sdk_server", "sdk-stdio", "stdio"),
            resource=("peers://sdk-stdio/readme", "sdk-stdio"),
        ),
        PeerServer(
            "sdk-sse",
            listens=module("sdk_server", "sdk-sse", "sse"),
            path="/sse",
            call=("spoken_revision", {}, "2025-11-25"),
            resource=("peers://sdk-sse/readme", "sdk-sse"),
        ),
        PeerServer(
            "sdk-legacy",
            listens=module("sdk_server", "sdk-legacy", "http"),
            protocol="2025-11-25",
            call=("spoken_revision", {}, "2025-11-25"),
            resource=("peers://sdk-legacy/readme", "sdk-legacy"),
        ),
        PeerServer(
            "sdk-modern",
            listens=module("sdk_server", "sdk-modern", "http"),
            protocol="2026-07-28",
            call=("spoken_revision", {}, "2026-07-28"),
            resource=("peers://sdk-modern/readme", "sdk-modern"),
        ),
    ]


def clients() -> list[PeerClient]:
    """Every client of the matrix."""
    folder = Path(__file__).parent / "clients"

    def module(python: str, name: str) -> list[str]:
        return [python, "-m", f"tests.peers.clients.{name}"]

    return [
        PeerClient("Python SDK 2.x", module(modern_python(), "python_modern")),
        PeerClient("Python SDK 2.x, legacy mode", module(modern_python(), "python_modern"), "legacy"),
        PeerClient("Python SDK 1.x", module(legacy_python(), "python_legacy")),
        PeerClient("Python SDK 2.x, HTTP+SSE", module(modern_python(), "python_modern"), path="/sse"),
        PeerClient("Python SDK 1.x, HTTP+SSE", module(legacy_python(), "python_legacy"), path="/sse"),
        PeerClient("FastMCP", module(modern_python(), "fastmcp_client")),
        PeerClient("TypeScript SDK 1.x", [node(), str(folder / "typescript_1.mjs")]),
        PeerClient("TypeScript SDK 1.x, HTTP+SSE", [node(), str(folder / "typescript_1.mjs")], path="/sse"),
        PeerClient("TypeScript SDK 2.x, HTTP+SSE", [node(), str(folder / "typescript_2.mjs")], path="/sse"),
        PeerClient("TypeScript SDK 2.x", [node(), str(folder / "typescript_2.mjs")]),
    ]


class Holds(NamedTuple):
    """What a server has, as it says itself when asked without a gateway."""

    tools: Sequence[str]
    prompts: Sequence[str]
    resources: Sequence[str]


def operations_for(server: PeerServer, holds: Holds, key: str, prefix: str = "") -> list[dict[str, Any]]:
    """The operations that the server can do; `prefix` stands before its names in the view of all."""
    tool, arguments, expected = server.call
    jobs: list[dict[str, Any]] = [
        {"op": "list", "expect": [prefix + name for name in holds.tools]},
        {"op": "call", "tool": prefix + tool, "arguments": arguments, "expect": expected},
    ]
    if holds.prompts:
        prompt, prompt_arguments, said = server.prompt
        jobs.append({"op": "prompt", "prompt": prefix + prompt, "arguments": prompt_arguments, "expect": said})
    if holds.resources:
        jobs.append({"op": "resource", "uri": server.resource[0], "expect": server.resource[1]})
    if server.progress is not None and server.progress[0] in holds.tools:
        tool, arguments, least = server.progress
        jobs.append({"op": "progress", "tool": prefix + tool, "arguments": arguments, "least": least})
    if "wait_for_cancel" in holds.tools:
        waits = {"tool": f"{prefix}wait_for_cancel", "record": f"{prefix}cancellations", "key": key}
        jobs.append({"op": "cancel", "within_ms": CANCEL_MS, **waits})
    return jobs


class Entry(NamedTuple):
    """What came of one operation."""

    client: str
    server: str
    operation: str
    outcome: str
    """`ok`, `fails` or `n/a`."""
    detail: str
    ms: float


def run_client(client: PeerClient, targets: list[dict[str, Any]], folder: Path) -> list[Entry]:
    """Let one client do its operations on all targets, in a process of its own."""
    environment = plain_environment(make_home(folder), PEERS_NODE=node_package())
    job = json.dumps({"mode": client.mode, "targets": targets})
    code, out, err = run(client.command, environment, seconds=CLIENT_SECONDS, stdin=job)
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for line in out.splitlines():
        try:
            said = json.loads(line)
            found[said["target"], said["op"]] = said
        except (ValueError, KeyError, TypeError):
            err += f"\n(not a result: {line[:200]})"
    missing = f"the client said nothing; exit code {code}\n{err[-2000:]}"
    entries = [
        Entry(client.name, name, "close", "fails", said["detail"], said["ms"])
        for (name, operation), said in found.items()
        if operation == "close"
    ]
    for target in targets:
        done = {job["op"] for job in target["operations"]}
        for operation in OPERATIONS:
            said = found.get((target["name"], operation), {"ok": False, "detail": missing, "ms": 0.0})
            outcome = "n/a" if operation not in done else "ok" if said["ok"] else "fails"
            detail = "" if outcome == "n/a" else said["detail"]
            entries.append(Entry(client.name, target["name"], operation, outcome, detail, said["ms"]))
    return entries


class Peers:
    """The servers of the matrix, running, and what each says it holds."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.servers = servers(_make_repository(folder))
        self._children: list[Child] = []
        self.urls: dict[str, str] = {}
        with ThreadPoolExecutor(4) as starting:
            started = starting.map(self._start, [server for server in self.servers if server.listens])
            for name, child, url in started:
                self._children.append(stack.enter_context(child))
                self.urls[name] = url
        self.holds = self._ask_directly()

    def _start(self, server: PeerServer) -> tuple[str, Child, str]:
        home = make_home(self.folder / server.name)
        port = _free_port()
        prints_url = not server.name.startswith("everything")
        environment = plain_environment(home, PORT=str(port))
        child = Child(server.name, server.listens or [], environment, ends_with_input=prints_url)
        try:
            if not prints_url:
                _wait_for_port(port, child)
                return server.name, child, f"http://127.0.0.1:{port}{server.path}"
            return server.name, child, child.read_line(30)
        except ProcessFailed:
            child.end()
            raise

    def _ask_directly(self) -> dict[str, Holds]:
        """What each server holds, from its own mouth, by the Python SDK's client."""
        targets = [
            {"name": server.name, "operations": [{"op": "describe"}]}
            | ({"command": server.command} if server.command else {"url": self.urls[server.name]})
            for server in self.servers
        ]
        command = [modern_python(), "-m", "tests.peers.clients.python_modern"]
        environment = plain_environment(make_home(self.folder / "asking"))
        _, out, err = run(command, environment, seconds=60, stdin=json.dumps({"targets": targets}))
        said = {line["target"]: line for line in map(json.loads, out.splitlines())}
        failed = [
            f"{s.name}: {said.get(s.name, {}).get('detail')}"
            for s in self.servers
            if not said.get(s.name, {}).get("ok")
        ]
        if failed:
            raise ProcessFailed(
                f"asked directly, these do not say what they hold: {failed}\n{err}\n{self.stderr_tails()}"
            )
        details = {name: json.loads(line["detail"]) for name, line in said.items()}
        return {name: Holds(it["tools"], it["prompts"], it["resources"]) for name, it in details.items()}

    def stderr_tails(self) -> str:
        """The end of every server's stderr."""
        return "\n".join(child.stderr_tail(1500) for child in self._children)

    def write_config(self, path: Path) -> Path:
        """A penstock.toml with every server in it."""
        lines: list[str] = []
        for server in self.servers:
            lines.append(f"[servers.{server.name}]")
            if server.command:
                lines += [f"command = {json.dumps(server.command)}", f"cwd = {json.dumps(str(Path.cwd()))}"]
            else:
                lines.append(f"url = {json.dumps(self.urls[server.name])}")
            if server.protocol != "auto":
                lines.append(f"protocol = {json.dumps(server.protocol)}")
            lines.append("")
        path.write_text("\n".join(lines), "utf-8")
        return path

    def direct_targets(self, client: PeerClient) -> list[dict[str, Any]]:
        """What a client is to do with the servers that listen, with no gateway between, so that nothing pins a revision."""
        any_call = PeerServer("").call
        listening = [server for server in self.servers if server.listens]
        unpinned = [one._replace(call=any_call) if one.call[0] == "spoken_revision" else one for one in listening]
        return [
            {
                "name": server.name,
                "url": self.urls[server.name],
                "operations": operations_for(server, self.holds[server.name], client.name),
            }
            for server in unpinned
        ]

    def gateway_targets(self, client: PeerClient, gateway: Gateway) -> list[dict[str, Any]]:
        """What a client is to do with each server's view, and with the view of all."""
        targets = [
            {
                "name": server.name,
                "url": client.address(gateway.view(server.name)),
                "operations": operations_for(server, self.holds[server.name], client.name),
            }
            for server in self.servers
        ]
        one = next(server for server in self.servers if server.name == "fastmcp")
        jobs = operations_for(one, self.holds[one.name], f"{client.name} in all", f"{one.name}_")
        jobs[0]["expect"] = [f"{name}_{tool}" for name, holds in self.holds.items() for tool in holds.tools]
        return [*targets, {"name": ALL, "url": client.address(gateway.view()), "operations": jobs}]


@contextmanager
def running_peers(folder: Path) -> Iterator[Peers]:
    """Start the servers that listen; end them afterwards."""
    with ExitStack() as stack:
        yield Peers(folder, stack)


def run_matrix(folder: Path, *, direct: bool = False) -> Iterator[Entry]:
    """Every client's every operation. Fails only when a peer or the gateway cannot be started."""
    with running_peers(folder) as peers, ExitStack() as stack:
        gateway = None
        if not direct:
            config = peers.write_config(folder / "penstock.toml")
            gateway = stack.enter_context(Gateway(folder, ["--config", str(config)]))
        failed = False
        for client in clients():
            targets = peers.gateway_targets(client, gateway) if gateway else peers.direct_targets(client)
            for entry in run_client(client, targets, folder / client.name.replace(" ", "-")):
                failed = failed or entry.outcome == "fails"
                yield entry
        if failed:
            print(peers.stderr_tails(), *([gateway.stderr_tail()] if gateway else []), sep="\n")


def table(entries: Sequence[Entry]) -> str:
    """The matrix people read: one row for each client and server."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for entry in entries:
        shown = f"ok {entry.detail}" if entry.operation == "cancel" and entry.outcome == "ok" else entry.outcome
        rows.setdefault((entry.client, entry.server), {})[entry.operation] = shown
    lines = [f"| client | server | {' | '.join(OPERATIONS)} |", "|---" * (len(OPERATIONS) + 2) + "|"]
    for (client, server), cells in rows.items():
        lines.append(f"| {client} | {server} | {' | '.join(cells.get(name, '') for name in OPERATIONS)} |")
    return "\n".join(lines)


def as_json(entries: Sequence[Entry]) -> str:
    """The matrix programs read."""
    return json.dumps([entry._asdict() for entry in entries], indent=1)


def _free_port() -> int:
    """A port that was free a moment ago, for a server that cannot choose one by itself."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _wait_for_port(port: int, child: Child) -> None:
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if not child.is_running():
                break
            time.sleep(0.05)  # nothing but its port says that it is ready
        else:
            return
    raise ProcessFailed(f"{child.name} does not listen on port {port}\n{child.stderr_tail()}")


def _make_repository(folder: Path) -> Path:
    """A repository with one commit."""
    repository = folder / "repository"
    repository.mkdir(parents=True)
    identity: Mapping[str, str] = {
        **{f"GIT_{who}_NAME": "Test" for who in ("AUTHOR", "COMMITTER")},
        **{f"GIT_{who}_EMAIL": "test@example.com" for who in ("AUTHOR", "COMMITTER")},
        "GIT_CONFIG_GLOBAL": os.devnull,
        "PATH": os.environ.get("PATH", os.defpath),
    }
    (repository / "README.md").write_text("A repository.\n", "utf-8")
    for words in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "A first commit"]):
        subprocess.run(["git", *words], cwd=repository, env=identity, check=True, capture_output=True)
    return repository
