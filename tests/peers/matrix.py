"""The matrix of real peers: unmodified clients × unmodified servers × operations, all behind one gateway at once.

A cell is `—` where the client or the server has nothing to do it with (both say why, as data), and `known` where the gateway is
known not to do it yet (known.py). Everything else must work.

Invariant: each client is one process, which does its operations one after the other; at a server there is one client at a time.
"""

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.peers.environments import node_package, plain_environment
from tests.peers.gateway import Gateway
from tests.peers.known import known_reason
from tests.peers.peer_clients import PeerClient, clients
from tests.peers.peer_servers import OPERATIONS
from tests.peers.processes import Child, ProcessFailed, make_home
from tests.peers.running import Peers, Target, running_peers

TARGET_SECONDS: Final = 100.0
"""How long a client may take with one server."""
AT_ONCE: Final = 3
"""How many clients work at the same time."""


class Entry(NamedTuple):
    """What came of one operation."""

    client: str
    server: str
    operation: str
    outcome: str
    """`ok`, `FAIL`, `known` or `—`."""
    detail: str
    ms: float
    reason: str = ""
    """Why it is `known` or `—`."""
    passes: bool = False
    """Whether it worked, though it is known not to."""


class _ClientProcess:
    """One client, fed target by target."""

    def __init__(self, client: PeerClient, folder: Path) -> None:
        environment = plain_environment(make_home(folder), PEERS_NODE=node_package())
        self._child = Child(client.name, client.command, environment)
        self._send({"mode": client.mode})

    def _send(self, line: dict[str, Any]) -> None:
        try:
            self._child.write_line(json.dumps(line))
        except BrokenPipeError:
            raise ProcessFailed(f"{self._child!r} ended\n{self._child.stderr_tail()}") from None

    def run(self, target: Target) -> Iterator[dict[str, Any]]:
        """What it says of each operation."""
        self._send({"name": target.name, **target.where, "operations": target.jobs})
        give_up_at = time.monotonic() + TARGET_SECONDS
        while True:
            line = self._child.read_line(max(0.1, give_up_at - time.monotonic()))
            try:
                said = json.loads(line)
            except ValueError:
                continue  # what a library prints by itself
            if said.get("done"):
                return
            yield said

    def end(self) -> None:
        """End the process."""
        self._child.end()


def run_client(client: PeerClient, targets: Sequence[Target], peers: Peers, folder: Path) -> list[Entry]:
    """Let one client do its operations on all targets, in a process of its own."""
    entries: list[Entry] = []
    process = _ClientProcess(client, folder)
    try:
        waiting = list(targets)
        while waiting:
            target = _take_free(waiting, peers)
            try:
                entries += _run_target(client, process, target)
            finally:
                peers.turns[target.process].release()
    finally:
        process.end()
    places = {target.name: place for place, target in enumerate(targets)}
    return sorted(entries, key=lambda entry: places[entry.server])


def _take_free(waiting: list[Target], peers: Peers) -> Target:
    """The first target whose server nobody is at, and its turn; wait for the first of all where there is none."""
    for target in waiting:
        if peers.turns[target.process].acquire(blocking=False):
            waiting.remove(target)
            return target
    target = waiting.pop(0)
    peers.turns[target.process].acquire()
    return target


def _run_target(client: PeerClient, process: _ClientProcess, target: Target) -> list[Entry]:
    found: dict[str, dict[str, Any]] = {}
    missing = "the client said nothing"
    try:
        for said in process.run(target) if target.jobs else ():
            found[said["op"]] = said
    except ProcessFailed as error:
        missing = str(error)
    operations = (*(["close"] if "close" in found else []), *OPERATIONS)
    return [_entry(client, target, operation, found.get(operation), missing) for operation in operations]


def _entry(client: PeerClient, target: Target, operation: str, said: dict[str, Any] | None, missing: str) -> Entry:
    """What came of one operation; `said` is what the client says of it."""
    of = (client.name, target.name, operation)
    if operation in target.left_out:
        outcome, reason = target.left_out[operation]
        return Entry(*of, outcome, "", 0.0, reason)
    if said is None:
        return Entry(*of, "FAIL", missing, 0.0)
    known = known_reason(target.name, operation, client.era) if target.through_gateway else ""
    outcome = "known" if known else "ok" if said["ok"] else "FAIL"
    return Entry(*of, outcome, said["detail"], said["ms"], known, bool(known and said["ok"]))


def run_matrix(
    folder: Path, *, direct: bool = False, only_clients: Sequence[str] = (), only_servers: Sequence[str] = ()
) -> Iterator[Entry]:
    """Every client's every operation. Fails only when a peer or the gateway cannot be started."""
    with running_peers(folder) as peers, ExitStack() as stack:
        gateway = None
        if not direct:
            config = peers.write_config(folder / "penstock.toml")
            gateway = stack.enter_context(Gateway(folder, ["--config", str(config)]))
            peers.wait_until_listed(gateway)

        def work(client: PeerClient) -> list[Entry]:
            targets = peers.gateway_targets(client, gateway) if gateway else peers.direct_targets(client)
            chosen = [target for target in targets if not only_servers or target.name in only_servers]
            return run_client(client, chosen, peers, folder / client.name.replace(" ", "-"))

        chosen = [client for client in clients() if not only_clients or client.name in only_clients]
        if direct:
            chosen = [client for client in chosen if client.path == "/mcp"]  # a server has one path
        failed = False
        with ThreadPoolExecutor(AT_ONCE) as at_work:
            for entries in at_work.map(work, chosen):
                failed = failed or any(entry.outcome == "FAIL" for entry in entries)
                yield from entries
        if failed:
            print(peers.stderr_tails(), *([gateway.stderr_tail()] if gateway else []), sep="\n")


def as_json(entries: Sequence[Entry]) -> str:
    """The matrix programs read."""
    return json.dumps([entry._asdict() for entry in entries], indent=1, ensure_ascii=False)


def outcomes(entries: Sequence[Entry]) -> Counter[str]:
    """How many cells came out how."""
    return Counter(entry.outcome for entry in entries)
