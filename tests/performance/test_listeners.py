"""Ten thousand clients that listen and hear nothing for long: what each costs, and how soon all of them hear of a change.

Both ends are on this machine: the gateway is a process of its own, the clients are sockets of this one. What a process holds and
what sockets hold is read from /proc: where there is none, only the time is measured.
"""

import contextlib
import json
import resource
import selectors
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.end_to_end.faults_kit import Gateway
from tests.peers.environments import ROOT
from tests.unit.gateway.conftest import MODERN_META, modern_headers, request_body
from tests.unit.gateway.listening_kit import listen_body, listen_headers
from tests.unit.upstreams.stdio_kit import child_command

pytestmark = pytest.mark.alone
LISTENERS: Final = 10_000
LEFT_OVER: Final = 200
"""Descriptors each process needs beside those of the listeners."""
MAX_BYTES_EACH: Final = 24 * 1024
MAX_SECONDS: Final = 1.0
PATIENCE_SECONDS: Final = 20.0
CHANGED: Final = b"notifications/tools/list_changed"


def possible_listeners() -> int:
    """So many as the hard limit of descriptors and the ephemeral ports of one address let there be."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    ports = _read("/proc/sys/net/ipv4/ip_local_port_range") or "49152 65535"
    first, last = map(int, ports.split())
    return min(LISTENERS, hard - LEFT_OVER, last - first - LEFT_OVER)


@contextlib.contextmanager
def descriptors(count: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], count), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def resident_bytes(pid: int) -> int:
    said = [line.split()[1] for line in _read(f"/proc/{pid}/status").splitlines() if line.startswith("VmRSS:")]
    return int(said[0]) * 1024 if said else 0


def socket_bytes() -> int:
    """What waits in the buffers of all TCP sockets of this machine, both ends of ours included."""
    said = [line.split()[-1] for line in _read("/proc/net/sockstat").splitlines() if line.startswith("TCP:")]
    return int(said[0]) * resource.getpagesize() if said else 0


def _read(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""


class Crowd:
    """Clients that listen: raw sockets, one selector."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._selector = selectors.DefaultSelector()
        self._received: dict[socket.socket, bytearray] = {}
        body = listen_body({"toolsListChanged": True})
        head = "".join(f"{name}: {value}\r\n" for name, value in listen_headers().items())
        self._request = (
            f"POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n{head}\r\n".encode() + body
        )

    def grow(self, count: int) -> None:
        """So many more, all acknowledged."""
        for _ in range(0, count, 500):
            for _ in range(min(500, count)):
                sock = socket.create_connection(self._address, timeout=PATIENCE_SECONDS)
                sock.sendall(self._request)
                sock.setblocking(False)
                self._received[sock] = bytearray()
                self._selector.register(sock, selectors.EVENT_READ)
            self.hear(b"notifications/subscriptions/acknowledged")

    def hear(self, word: bytes) -> float:
        """Until each one has heard that since the last time; seconds until the last one had."""
        began_at, silent = time.perf_counter(), {sock for sock, heard in self._received.items() if word not in heard}
        while silent and time.perf_counter() - began_at < PATIENCE_SECONDS:
            for key, _ in self._selector.select(1.0):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                raw = sock.recv(1 << 16)
                assert raw, "the gateway ended a stream"
                self._received[sock] += raw
                if word in self._received[sock]:
                    silent.discard(sock)
        assert not silent, f"{len(silent)} listeners did not hear {word.decode()}"
        return time.perf_counter() - began_at

    def forget(self) -> None:
        """What was heard so far."""
        for heard in self._received.values():
            heard.clear()

    def close(self) -> None:
        self._selector.close()
        for sock in self._received:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # leaves no port in TIME_WAIT
            sock.close()


@contextlib.contextmanager
def announced(gateway: Gateway) -> Iterator[None]:
    """Let the server say that its tools have changed, and have one more then; the answer is waited for at the end."""
    host, _, port = gateway.address.partition(":")
    params = {"name": "child_announce", "arguments": {"method": CHANGED.decode()}}
    body = json.dumps(request_body("tools/call", params | {"_meta": MODERN_META})).encode()
    headers = modern_headers("tools/call", params) | {"host": "localhost", "content-length": str(len(body))}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    with socket.create_connection((host, int(port)), timeout=PATIENCE_SECONDS) as line:
        line.sendall(f"POST /mcp HTTP/1.1\r\n{head}\r\n".encode() + body)
        yield
        assert b'"done"' in line.recv(1 << 16)


@pytest.mark.timeout(60)
def test_ten_thousand_idle_listeners_cost_little_and_hear_soon(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    count = possible_listeners()
    command = json.dumps(list(child_command("modern", "--lists")))
    config = f"[servers.child]\ncommand = {command}\ncwd = {json.dumps(str(ROOT))}\n"
    with descriptors(count + LEFT_OVER), Gateway(tmp_path, config) as gateway:
        host, _, port = gateway.address.partition(":")
        crowd = Crowd((host, int(port)))
        try:
            crowd.grow(100)  # what the first ones cost is paid once
            with announced(gateway):
                crowd.hear(CHANGED)
            before = resident_bytes(gateway.pid), socket_bytes()
            began_at = time.perf_counter()
            crowd.grow(count - 100)
            grown = time.perf_counter() - began_at
            after = resident_bytes(gateway.pid), socket_bytes()
            crowd.forget()
            with announced(gateway):
                seconds = crowd.hear(CHANGED)
            told = resident_bytes(gateway.pid)
        finally:
            crowd.close()
    process, kernel = ((now - then) / (count - 100) for now, then in zip(after, before, strict=True))
    with capsys.disabled():
        sys.stdout.write(
            f"\n{count} listeners: {process:,.0f} bytes of the gateway each, {kernel:,.0f} in buffers of the kernel; "
            f"{(told - before[0]) / count:,.0f} after they were told; all told {seconds:.2f} s after the announcement; "
            f"acknowledged at {count / grown:,.0f} a second\n"
        )
    assert count >= min(LISTENERS, 1_000), "so few descriptors or ports prove nothing"
    assert process + max(kernel, 0) <= MAX_BYTES_EACH
    assert seconds <= MAX_SECONDS
