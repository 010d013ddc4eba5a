"""Unmodified clients of other projects that start `penstock stdio` as their server, before real servers of other projects."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack

import pytest

from tests.peers.environments import gateway_environment, penstock_command
from tests.peers.gateway import Gateway
from tests.peers.matrix import Entry, run_client
from tests.peers.peer_clients import PeerClient, clients
from tests.peers.peer_servers import OPERATIONS
from tests.peers.processes import make_home
from tests.peers.running import ALL, Peers, Target, running_peers
from tests.peers.tables import folded

pytestmark = pytest.mark.peers
SERVERS = ("everything-http", "fastmcp", "sdk-stdio", "sdk-legacy", "sdk-modern")
"""One of each era and transport."""
VIEWS = {
    "attached": ("everything-http", "sdk-modern", ALL),
    "alone": ("sdk-stdio", ALL),
}
"""What is behind the gateway was tried without stdio, too: the view of all has every server, one of either era shows the rest."""


def stdio_clients() -> list[PeerClient]:
    """Those of the matrix whose adapters know stdio."""
    known = [client for client in clients() if not client.name.startswith(("FastMCP", "Inspector"))]
    return [client for client in known if client.path == "/mcp"]


def over_stdio(target: Target, environment: Mapping[str, str], *words: str) -> Target:
    """The same operations, asked of a child process instead of a URL."""
    view = () if target.name == ALL else ("--view", target.name)
    return target._replace(where={"command": [*penstock_command(), "stdio", *view, *words], "env": dict(environment)})


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peers]:
    with running_peers(tmp_path_factory.mktemp("peers"), SERVERS) as running:
        yield running


@pytest.fixture(scope="module", params=["attached", "alone"])
def entries(request: pytest.FixtureRequest, peers: Peers, tmp_path_factory: pytest.TempPathFactory) -> Sequence[Entry]:
    """Every client's every operation, through a running gateway or one of its own."""
    folder = tmp_path_factory.mktemp(request.param)
    config = peers.write_config(folder / "penstock.toml")
    config.chmod(0o600)
    environment = gateway_environment(make_home(folder), PENSTOCK_STATE_DIR=str(folder / "state"))
    found: list[Entry] = []
    with ExitStack() as stack:
        gateway = stack.enter_context(Gateway(folder, ["--config", str(config)]))
        for client in stdio_clients():
            targets = [
                over_stdio(target, environment, "--config", str(config))
                for target in peers.gateway_targets(client, gateway)
                if target.name in VIEWS[request.param]
            ]
            if request.param == "alone":
                gateway.end()
            found += run_client(client, targets, peers, folder / client.name.replace(" ", "-"))
    print(f"\n{request.param}\n{folded(found)}")
    return found


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_client_can_do_over_stdio_what_the_servers_can(operation: str, entries: Sequence[Entry]) -> None:
    failures = [entry for entry in entries if entry.operation == operation and entry.outcome == "FAIL"]
    assert not failures, "\n".join(f"{entry.client} × {entry.server}: {entry.detail}" for entry in failures)
    assert [entry for entry in entries if entry.operation == operation and entry.outcome == "ok"]


def test_no_client_has_trouble_ending_it(entries: Sequence[Entry]) -> None:
    assert not [entry for entry in entries if entry.operation == "close"]
