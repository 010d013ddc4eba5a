"""Unmodified clients and servers of other projects, all behind one gateway at once."""

from collections.abc import Sequence

import pytest

from tests.peers.known import KNOWN
from tests.peers.matrix import Entry, as_json, run_matrix
from tests.peers.peer_clients import clients
from tests.peers.peer_servers import OPERATIONS, PeerServer, servers
from tests.peers.running import ALL
from tests.peers.tables import PAGE, folded, page

pytestmark = pytest.mark.peers


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Entry]:
    """The whole matrix, printed and written down."""
    folder = tmp_path_factory.mktemp("peers")
    found = list(run_matrix(folder))
    (folder / "matrix.json").write_text(as_json(found), "utf-8")
    print(f"\n{folded(found)}\nas JSON: {folder / 'matrix.json'}")
    return found


@pytest.fixture(scope="module")
def all_servers(tmp_path_factory: pytest.TempPathFactory) -> list[PeerServer]:
    """The servers, none of them running."""
    return servers(tmp_path_factory.getbasetemp())


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_client_can_do_with_every_server_what_both_can(operation: str, entries: Sequence[Entry]) -> None:
    failures = [entry for entry in entries if entry.operation == operation and entry.outcome == "FAIL"]
    assert not failures, "\n".join(f"{entry.client} × {entry.server}: {entry.detail}" for entry in failures)


def test_no_client_has_trouble_ending_its_session(entries: Sequence[Entry]) -> None:
    assert not [entry for entry in entries if entry.operation == "close"]


def test_nothing_passes_that_is_known_not_to(entries: Sequence[Entry]) -> None:
    passing = [f"{entry.client} × {entry.server}: {entry.operation}" for entry in entries if entry.passes]
    assert not passing, f"take these out of tests/peers/known.py: {passing}"


def test_what_is_known_not_to_pass_is_in_the_matrix(all_servers: Sequence[PeerServer]) -> None:
    names = {server.name for server in all_servers} | {ALL}
    for known in KNOWN:
        assert set(known.servers) <= names
        assert set(known.operations) <= set(OPERATIONS)


def test_a_server_has_each_operation_or_says_why_not(all_servers: Sequence[PeerServer]) -> None:
    for server in all_servers:
        assert sorted([*server.does, *server.lacks]) == sorted(OPERATIONS), server.name


def test_the_matrix_is_whole(entries: Sequence[Entry], all_servers: Sequence[PeerServer]) -> None:
    names = [*(server.name for server in all_servers), ALL]
    wanted = {(client.name, server) for client in clients() for server in names}
    for operation in OPERATIONS:
        assert {(entry.client, entry.server) for entry in entries if entry.operation == operation} == wanted


def test_every_operation_is_tried_between_clients_and_servers_of_either_era(entries: Sequence[Entry]) -> None:
    eras = {client.name: client.era for client in clients()}
    tried = {
        (eras[entry.client], entry.server.split("-")[-1], entry.operation)
        for entry in entries
        if entry.outcome in {"ok", "known"}
    }
    for era in ("legacy", "modern"):
        for kind in ("legacy", "modern", "stdio", "sse"):
            missing = [operation for operation in OPERATIONS if (era, kind, operation) not in tried]
            assert not missing, (era, kind, missing)


def test_the_page_shows_what_came_out(entries: Sequence[Entry]) -> None:
    text = PAGE.read_text("utf-8")
    assert text == page(entries, text), "docs/peers.md is out of date: run .venv/bin/python -m tests.peers --docs"
