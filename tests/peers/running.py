"""The servers of the matrix, running, and what a client is to do with each.

Knows: how servers are started, and the gateway's configuration file. Does not know: clients' libraries, tables.
"""

import json
import os
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.peers.environments import modern_python, plain_environment
from tests.peers.gateway import Gateway
from tests.peers.known import PROBE_NEWS_SECONDS, PROBE_SECONDS, PROBES, known_reason
from tests.peers.peer_clients import A_FEW, PeerClient
from tests.peers.peer_servers import PeerServer, call, environment, servers
from tests.peers.processes import Child, ProcessFailed, make_home, run

ALL: Final = "all"
"""The view of every server at once; what is asked there is asked of `ONE_OF_ALL`."""
ONE_OF_ALL: Final = "fastmcp"


LISTED_SECONDS: Final = 60.0
OTHER: Final = {"legacy": "modern", "modern": ""}
"""The era that a client of that era does not have; modern ones have both."""


HURRY: Final = {"seconds": PROBE_SECONDS, "news_seconds": PROBE_NEWS_SECONDS, "triggers": 1}
"""How a client tries what is known not to work."""
NEWS_OF_ALL: Final = "every server's changes are changes of this view, so it would prove nothing"


class Holds(NamedTuple):
    """What a server has, as it says itself when asked without a gateway."""

    tools: Sequence[str]
    prompts: Sequence[str]
    resources: Sequence[str]


class Target(NamedTuple):
    """Where a client goes, and what it does there."""

    name: str
    process: str
    where: Mapping[str, Any]
    """Its `url`, or the `command` (and `env`) of a process to speak to."""
    jobs: list[dict[str, Any]]
    through_gateway: bool
    left_out: Mapping[str, tuple[str, str]]
    """Operations that are not tried: the outcome that stands for it, and the reason."""


class Peers:
    """The servers of the matrix, running, and what each says it holds."""

    def __init__(self, folder: Path, stack: ExitStack, only: Collection[str] = ()) -> None:
        """`only`: the names of some servers."""
        self.folder = folder
        self.servers = [one for one in servers(_make_repository(folder)) if not only or one.name in only]
        self._children: list[Child] = []
        self.urls: dict[str, str] = {}
        self.turns = {server.process: threading.Lock() for server in self.servers}
        """One client at a time is at a server, so that nobody hears of changes that another one made."""
        with ThreadPoolExecutor(4) as starting:
            started = starting.map(self._start, [server for server in self.servers if server.listens])
            for name, child, url in started:
                self._children.append(stack.enter_context(child))
                self.urls[name] = url
        asking = ThreadPoolExecutor(1)
        stack.callback(asking.shutdown)
        self._holds = asking.submit(self._ask_directly)
        """Asked while the gateway starts."""

    @property
    def holds(self) -> dict[str, Holds]:
        """What each server holds, as one of its kind says itself.

        Raises:
            ProcessFailed: it does not say.
        """
        return self._holds.result()

    def _start(self, server: PeerServer) -> tuple[str, Child, str]:
        home = make_home(self.folder / server.name)
        port = _free_port()
        prints_url = not server.name.startswith("everything")
        child = Child(
            server.name,
            server.listens or [],
            plain_environment(home, PORT=str(port), **environment()),
            ends_with_input=prints_url,
        )
        try:
            if not prints_url:
                _wait_for_port(port, child)
                return server.name, child, f"http://127.0.0.1:{port}{server.path}"
            return server.name, child, child.read_line(30)
        except ProcessFailed:
            child.end()
            raise

    def _ask_directly(self) -> dict[str, Holds]:
        asked = {server.kind or server.name: server for server in self.servers if not server.same_as}
        asked |= {server.kind or server.name: server for server in self.servers if server.listens}
        chosen = list(asked.values())
        with ThreadPoolExecutor(2) as asking:
            halves = asking.map(self._describe, [half for half in (chosen[::2], chosen[1::2]) if half])
            details = {name: detail for half in halves for name, detail in half.items()}
        holds = {name: Holds(it["tools"], it["prompts"], it["resources"]) for name, it in details.items()}
        return {server.name: holds[asked[server.kind or server.name].name] for server in self.servers}

    def _describe(self, asked: Sequence[PeerServer]) -> dict[str, Any]:
        targets = [
            {"name": server.name, "operations": [{"op": "describe"}]}
            | (
                {"command": server.command, "env": environment()}
                if server.command
                else {"url": self.urls[server.process]}
            )
            for server in asked
        ]
        command = [modern_python(), "-m", "tests.peers.clients.python_modern"]
        home = make_home(self.folder / f"asking-{asked[0].name}")
        lines = "\n".join(map(json.dumps, [{"mode": "auto"}, *targets]))
        _, out, err = run(command, plain_environment(home), seconds=60, stdin=f"{lines}\n")
        said = {line["target"]: line for line in map(json.loads, out.splitlines()) if "op" in line}
        failed = [
            f"{s.name}: {said.get(s.name, {}).get('detail')}" for s in asked if not said.get(s.name, {}).get("ok")
        ]
        if failed:
            raise ProcessFailed(
                f"asked directly, these do not say what they hold: {failed}\n{err}\n{self.stderr_tails()}"
            )
        return {name: json.loads(line["detail"]) for name, line in said.items()}

    def stderr_tails(self) -> str:
        """The end of every server's stderr."""
        return "\n".join(child.stderr_tail(1500) for child in self._children)

    def write_config(self, path: Path) -> Path:
        """A penstock.toml with every server in it."""
        lines: list[str] = []
        for server in self.servers:
            lines.append(f"[servers.{server.name}]")
            if server.command:
                variables = ", ".join(f"{name} = {json.dumps(value)}" for name, value in environment().items())
                lines += [f"command = {json.dumps(server.command)}", f"cwd = {json.dumps(str(Path.cwd()))}"]
                lines.append(f"env = {{ {variables} }}")
            else:
                lines.append(f"url = {json.dumps(self.urls[server.process])}")
            if server.protocol != "auto":
                lines.append(f"protocol = {json.dumps(server.protocol)}")
            lines.append("")
        path.write_text("\n".join(lines), "utf-8")
        return path

    def wait_until_listed(self, gateway: Gateway) -> None:
        """Until the gateway has every server's tools: those over stdio start with it.

        Raises:
            ProcessFailed: it has not got them in time.
        """
        give_up_at = time.monotonic() + LISTED_SECONDS
        for server in self.servers:
            while not _lists_tools(gateway.view(server.name)):
                if time.monotonic() > give_up_at:
                    raise ProcessFailed(f"{server.name} has no tools after {LISTED_SECONDS} s\n{gateway.stderr_tail()}")
                time.sleep(0.1)  # nothing tells that it is ready

    def direct_targets(self, client: PeerClient) -> list[Target]:
        """What a client is to do with the servers that listen, with no gateway between, so that nothing pins a revision."""
        any_call = call("add", {"a": 2, "b": 40}, "42")
        targets = []
        for server in self.servers:
            if server.listens and server.speaks != OTHER[client.era]:
                pinned = server.does["call"]["tool"] == "spoken_revision"
                does = {**server.does, "call": any_call} if pinned else server.does
                plain = server._replace(does=does)
                targets.append(self._target(client, plain, self.urls[server.name], through_gateway=False))
        return targets

    def gateway_targets(self, client: PeerClient, gateway: Gateway) -> list[Target]:
        """What a client is to do with each server's view, and with the view of all."""
        targets = [self._target(client, server, client.address(gateway.view(server.name))) for server in self.servers]
        one = next(server for server in self.servers if server.name == ONE_OF_ALL)
        of_all = self._target(client, one, client.address(gateway.view()), f"{one.name}_")
        return [*targets, of_all]

    def _target(
        self,
        client: PeerClient,
        server: PeerServer,
        url: str,
        prefix: str = "",
        *,
        through_gateway: bool = True,
    ) -> Target:
        """`prefix` stands before the server's names in the view of all."""
        name = ALL if prefix else server.name
        jobs, left_out = [], {}
        for operation, reason in server.lacks.items():
            left_out[operation] = ("—", reason)
        for operation, job in server.does.items():
            known = known_reason(name, operation, client.era) if through_gateway else ""
            era = server.spoken_era(client.era) if through_gateway else client.era
            needed = server.needs.get(operation, era)
            if prefix and job["op"] == "news":
                left_out[operation] = ("—", NEWS_OF_ALL)
            elif client.only and name not in client.only:
                left_out[operation] = ("—", A_FEW)
            elif operation in client.lacks:
                left_out[operation] = ("—", client.lacks[operation])
            elif needed != era:
                left_out[operation] = ("—", f"its library has this in the {needed} era alone")
            elif client.era == "modern" and operation in server.not_for_modern and through_gateway:
                left_out[operation] = ("—", server.not_for_modern[operation])
            elif known and client.name not in PROBES:
                left_out[operation] = ("known", known)
            else:
                hurry = HURRY if known else {}
                named = {"as": operation, "key": f"{client.name} {name}"}
                if client.era == "modern" and "unasked_if_modern" in job:
                    named["unasked"] = job["unasked_if_modern"]
                jobs.append({**self._job(server, job, prefix), **hurry, **named})
        return Target(name, server.process, {"url": url}, jobs, through_gateway, left_out)

    def _job(self, server: PeerServer, job: dict[str, Any], prefix: str) -> dict[str, Any]:
        if job["op"] == "list":
            if not prefix:
                return {**job, "expect": list(self.holds[server.name].tools)}
            return {**job, "expect": [f"{name}_{tool}" for name, holds in self.holds.items() for tool in holds.tools]}
        names: dict[str, Any] = {key: prefix + job[key] for key in ("tool", "prompt", "record") if key in job}
        return {**job, **names}


def _lists_tools(url: str) -> bool:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).encode()
    headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=30) as answer:
        return b'"inputSchema"' in answer.read()


@contextmanager
def running_peers(folder: Path, only: Collection[str] = ()) -> Iterator[Peers]:
    """Start the servers that listen, or `only` some; end them afterwards."""
    with ExitStack() as stack:
        yield Peers(folder, stack, only)


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
