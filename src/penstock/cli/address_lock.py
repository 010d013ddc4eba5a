"""One gateway per listening address.

Knows: lock files in the state directory, sockets. Does not know: HTTP.
Invariant: two gateways never share an address. Workers listen with SO_REUSEPORT, so without this a second gateway would silently
take half the traffic.
"""

import errno
import fcntl
import json
import os
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from penstock.cli.runtime import make_private
from penstock.errors import ListenError

_EVERY: Final = frozenset(("0.0.0.0", "::"))
_LOOPBACK: Final = ("127.0.0.1", "::1")


class AddressLock:
    """Locks on addresses, held until `release` or the end of the process. Port 0 needs none."""

    def __init__(self, state: Path, holder: dict[str, Any]) -> None:
        """`holder` is what the next comer is told: pid, config, started."""
        self._directory: Final = state / "locks"
        self._holder = holder
        self._held = ExitStack()
        self._names: list[str] = []

    def __repr__(self) -> str:
        return f"<AddressLock {' '.join(self._names) or 'none'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def take(self, addresses: Sequence[tuple[str, int]]) -> None:
        """Lock every address.

        Raises:
            ListenError: another gateway, or another program, has one of them; nothing is held then.
        """
        make_private(self._directory.parent)
        make_private(self._directory)
        try:
            for host, port in addresses:
                if port:
                    self._take_one(host, port)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        self._held.close()
        self._names.clear()

    def _take_one(self, host: str, port: int) -> None:
        if host in _EVERY:
            self._lock(f"port_{port}", fcntl.LOCK_EX, host, port)
        else:
            self._lock(f"port_{port}", fcntl.LOCK_SH, host, port)
            for one in _LOOPBACK if host.lower() == "localhost" else (host,):
                self._lock(f"{one.replace(':', '-')}_{port}", fcntl.LOCK_EX, host, port)
        refuse_if_taken(host, port)

    def _lock(self, name: str, mode: int, host: str, port: int) -> None:
        file = os.open(self._directory / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise ListenError(self._taken(name, host, port)) from None
        self._held.callback(os.close, file)
        self._names.append(name)
        if mode == fcntl.LOCK_EX:
            os.ftruncate(file, 0)
            os.pwrite(file, json.dumps(self._holder).encode(), 0)

    def _taken(self, name: str, host: str, port: int) -> str:
        paths = [self._directory / f"{name}.lock", *sorted(self._directory.glob(f"*_{port}.lock"))]
        holder = next((read for read in map(_holder, paths) if read), {})
        pid = holder.get("pid")
        who = f" (pid {pid}, {holder.get('config', '')}, since {holder.get('started', '')})" if pid else ""
        stop = f"stop it with 'kill {pid}', or " if pid else ""
        return f"{_text(host, port)} is served by another Penstock{who}; {stop}choose another address with --listen and --admin"


def refuse_if_taken(host: str, port: int) -> None:
    """Find out by binding, without SO_REUSEPORT, whether any program listens there.

    Raises:
        ListenError: one does, or the address is not this machine's, or the port needs privileges.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ListenError(f"{_text(host, port)} cannot be listened on: {error.strerror}") from None
    for family, kind, protocol, _, address in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(address)
        except OSError as error:
            if error.errno in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL} and len(found) > 1:
                continue  # no IPv6 on this machine: the other family will do
            raise ListenError(_bind_problem(error, host, port)) from None


def _bind_problem(error: OSError, host: str, port: int) -> str:
    place = _text(host, port)
    if error.errno == errno.EADDRINUSE:
        return f"{place} is in use by another program; choose another address with --listen or --admin"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{place} is not an address of this machine; choose another with --listen or --admin"
    if error.errno == errno.EACCES:
        return f"{place} needs privileges; choose a port from 1024 up with --listen or --admin"
    return f"{place} cannot be listened on: {os.strerror(error.errno or 0)}"


def _holder(path: Path) -> dict[str, Any]:
    try:
        holder = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _text(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
