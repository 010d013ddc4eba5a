"""Two gateways never share an address."""

import os
import socket
from pathlib import Path

import pytest

from penstock.cli.address_lock import AddressLock, refuse_if_taken
from penstock.errors import ListenError


def lock(state: Path, pid: int = 7) -> AddressLock:
    return AddressLock(state, {"pid": pid, "config": "p.toml", "started": "noon"})


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", "127.0.0.1"),
        ("127.0.0.1", "localhost"),
        ("0.0.0.0", "127.0.0.1"),
        ("127.0.0.1", "0.0.0.0"),
        ("0.0.0.0", "::"),
    ],
)
def test_a_second_gateway_is_refused_and_told_who_holds_the_address(
    first: str, second: str, port: int, tmp_path: Path
) -> None:
    with lock(tmp_path) as held:
        held.take([(first, port)])
        assert str(port) in repr(held)
        other = lock(tmp_path, 8)
        with pytest.raises(ListenError) as caught:
            other.take([(second, port)])
        assert repr(other) == "<AddressLock none>"
        place = f"[{second}]:{port}" if ":" in second else f"{second}:{port}"
        assert caught.value.message == (
            f"{place} is served by another Penstock (pid 7, p.toml, since noon); stop it with 'kill 7', "
            "or choose another address with --listen and --admin"
        )
    with lock(tmp_path) as free:
        free.take([(second, port)])


def test_addresses_that_differ_do_not_disturb_each_other(port: int, tmp_path: Path) -> None:
    with lock(tmp_path) as one, lock(tmp_path) as two:
        one.take([("127.0.0.1", port)])
        two.take([("127.0.0.2", port), ("127.0.0.1", 0)])


def test_a_lock_without_a_readable_holder_is_a_lock_all_the_same(port: int, tmp_path: Path) -> None:
    with lock(tmp_path) as held:
        held.take([("127.0.0.1", port)])
        for path in (tmp_path / "locks").iterdir():
            path.write_text("[")
        with pytest.raises(ListenError, match=r"is served by another Penstock; choose another address"):
            lock(tmp_path).take([("127.0.0.1", port)])


def test_another_program_on_the_address_is_noticed(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ListenError, match=f"127.0.0.1:{port} is in use by another program; choose another address"):
            lock(tmp_path).take([("127.0.0.1", port)])


def test_an_address_that_is_not_ours_is_refused() -> None:
    with pytest.raises(ListenError, match=r"192.0.2.1:80\d* is not an address of this machine"):
        refuse_if_taken("192.0.2.1", 8099)
    with pytest.raises(ListenError, match="cannot be listened on: "):
        refuse_if_taken("no-such-host.invalid", 8099)


def test_locks_die_with_their_process(port: int, tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        lock(tmp_path).take([("127.0.0.1", port)])
        os._exit(0)
    os.waitpid(child, 0)
    with lock(tmp_path) as free:
        free.take([("127.0.0.1", port)])
