"""Unmodified clients and servers of other projects, all behind one gateway at once."""

from collections.abc import Sequence

import pytest

from tests.peers.matrix import ALL, OPERATIONS, Entry, as_json, clients, run_matrix, servers, table

pytestmark = pytest.mark.peers


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Entry]:
    """The whole matrix, printed and written down."""
    folder = tmp_path_factory.mktemp("peers")
    found = list(run_matrix(folder))
    (folder / "matrix.json").write_text(as_json(found), "utf-8")
    print(f"\n{table(found)}\nas JSON: {folder / 'matrix.json'}")
    return found


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_client_can_do_with_every_server_what_the_server_can(operation: str, entries: Sequence[Entry]) -> None:
    failures = [entry for entry in entries if entry.operation == operation and entry.outcome == "fails"]
    assert not failures, "\n".join(f"{entry.client} × {entry.server}: {entry.detail}" for entry in failures)


def test_no_client_has_trouble_ending_its_session(entries: Sequence[Entry]) -> None:
    assert not [entry for entry in entries if entry.operation == "close"]


def test_the_matrix_is_whole(entries: Sequence[Entry], tmp_path_factory: pytest.TempPathFactory) -> None:
    names = [server.name for server in servers(tmp_path_factory.getbasetemp())]
    wanted = {(client.name, server) for client in clients() for server in (*names, ALL)}
    for operation in OPERATIONS:
        assert {(entry.client, entry.server) for entry in entries if entry.operation == operation} == wanted


def test_every_operation_is_shown_by_servers_of_every_transport_and_by_pinned_ones(entries: Sequence[Entry]) -> None:
    shown = {(entry.server, entry.operation) for entry in entries if entry.outcome == "ok"}
    for server in ("sdk-stdio", "sdk-sse", "fastmcp", "sdk-legacy", "sdk-modern", ALL):
        assert {operation for name, operation in shown if name == server} == set(OPERATIONS)
