"""Servers of both eras, one gateway before them, and proxies on both sides, started once for all checks.

Knows: fixtures, the gateway's command line, the proxy. Does not know: rows, checks.
Servers whose traffic is looked at stand behind a proxy of their own (a lane), which one check has at a time.
"""

import os
import queue
import shlex
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Self

from tests.conformance.behaviour_table import Cell
from tests.conformance.dialogue import Dialogue
from tests.conformance.mutating_proxy import MutatingProxy, Port
from tests.conformance.mutations import Mutation
from tests.conformance.scene import Scene
from tests.conformance.wire import SECONDS
from tests.peers.environments import modern_python, plain_environment
from tests.peers.gateway import Gateway
from tests.peers.processes import Child, make_home

LANES: Final = 3
"""For each era. More checks of the server's side do not run at a time."""
MUTATED_SECONDS: Final = 1.5
"""How long a run that must fail waits for what does not come."""
START_SECONDS: Final = 20.0
DRAIN: Final = "0.2s"
"""Checks leave calls behind that wait for their client; nobody comes back for them when the gateway stops."""


class Stage:
    """Everything that checks run on. Use as a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._servers: dict[str, str] = {}
        self._asks_once = threading.Lock()
        self._has_asked: set[str] = set()
        self._lanes: dict[str, queue.Queue[tuple[str, Port]]] = {}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._proxy = stack.enter_context(MutatingProxy())
            config = self._folder / "penstock.toml"
            config.write_text(f'[limits]\ndrain = "{DRAIN}"\n', "utf-8")
            flags = ["--config", str(config)]
            for kind in ("modern", "legacy"):
                flags += ["--server", f"{kind}-stdio={shlex.join([*_command(kind), 'stdio'])}"]
                for name in (kind, f"{kind}-changes"):
                    flags += ["--server", f"{name}={self._start(stack, kind, name)}"]
                self._lanes[kind] = queue.Queue()
                for number in range(LANES):
                    port = self._proxy.open(self._servers[kind])
                    self._lanes[kind].put((f"{kind}-lane-{number}", port))
                    flags += ["--server", f"{kind}-lane-{number}={port.url}"]
            self._gateway = stack.enter_context(Gateway(self._folder, flags))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self, stack: ExitStack, kind: str, name: str) -> str:
        """Start a server; where it is."""
        child = stack.enter_context(
            Child(f"the server {name}", _command(kind), plain_environment(make_home(self._folder / name)))
        )
        stack.callback(os.killpg, child.pid, signal.SIGKILL)  # it would wait for its hundreds of sessions
        self._servers[name] = child.read_line(START_SECONDS)
        return self._servers[name]

    def gateway_log(self) -> str:
        """The end of what the gateway wrote to stderr."""
        return self._gateway.stderr_tail(20_000)

    @contextmanager
    def direct(self, cell: Cell, *, changes: bool) -> Iterator[Scene]:
        """A client before the server itself; `changes` where it changes things."""
        with Scene(self._servers[_name(cell, changes)], cell.client, SECONDS) as scene:
            yield scene

    @contextmanager
    def through(self, cell: Cell, mutation: Mutation | None, *, back: bool, changes: bool) -> Iterator[Scene]:
        """A client before the gateway; `back` where what the server is sent is looked at."""
        seconds = SECONDS if mutation is None else MUTATED_SECONDS
        with ExitStack() as stack:
            name, lane = stack.enter_context(self._lane(cell, mutation)) if back else (_name(cell, changes), None)
            on_answers = mutation if mutation is not None and mutation.to == "client" else None
            front = self._proxy.open(self._gateway.view(name), on_answers)
            stack.callback(self._proxy.close, front)
            if cell.transport == "stdio":
                self._let_it_ask(cell)
            yield stack.enter_context(Scene(front.url, cell.client, seconds, lane))

    def _let_it_ask(self, cell: Cell) -> None:
        """Have the child ask once, while nothing else is under way: later it is given one call at a time (decision 015)."""
        with self._asks_once:
            if cell.server not in self._has_asked:
                self._has_asked.add(cell.server)
                with Scene(self._gateway.view(_name(cell, False)), "modern", START_SECONDS) as alone:
                    Dialogue(alone, "test_input_required_result_elicitation").carry_on().reply.read()

    @contextmanager
    def _lane(self, cell: Cell, mutation: Mutation | None) -> Iterator[tuple[str, Port]]:
        lanes = self._lanes[cell.server]
        name, port = lanes.get(timeout=60)
        try:
            port.mutation = mutation if mutation is not None and mutation.to == "server" else None
            yield name, port
        finally:
            port.mutation = None
            port.held = None
            lanes.put((name, port))


def _command(kind: str) -> list[str]:
    return [modern_python(), "-m", "tests.peers.servers.conformance_server", kind]


def _name(cell: Cell, changes: bool) -> str:
    """What the gateway calls a cell's server. A child has few sessions, so that its changes disturb nobody."""
    if cell.transport != "http":
        return f"{cell.server}-{cell.transport}"
    return f"{cell.server}-changes" if changes else cell.server
