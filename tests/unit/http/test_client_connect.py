"""Connecting: which address, how long, and a clear reason when it fails."""

import asyncio
import socket
import ssl
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from penstock.http.client_connect import _Opening, _why, connect, connect_unix
from penstock.http.client_connection import ClientConnection
from penstock.http.client_messages import ConnectionLost
from penstock.http.client_url import Origin
from penstock.http.limits import ClientLimits
from tests.unit.http.client_scripted import GET, Peer, connected, says, serving

JSON = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
LIMITS = ClientLimits()


class Addresses(_Opening):
    """An opening whose name has these addresses, some of which never answer."""

    def __init__(self, origin: Origin, addresses: list[str], silent: tuple[str, ...] = ()) -> None:
        super().__init__(origin, LIMITS, None)
        self.found, self.silent, self.tried = addresses, silent, list[str]()

    async def _addresses(self) -> list[str]:
        return self.found

    async def _open(self, address: str) -> ClientConnection:
        self.tried.append(address)
        if address in self.silent:
            await asyncio.Event().wait()
        return await super()._open(address)


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for localhost, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / "cert.pem", folder / "key.pem"
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return public, private


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context, and a client's that trusts it."""
    public, private = certificate(tmp_path_factory.mktemp("tls"))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(public, private)
    return server, ssl.create_default_context(cafile=str(public))


async def tls_server(context: ssl.SSLContext) -> asyncio.Server:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await Peer(reader, writer).read_request():
            await Peer(reader, writer).send(JSON)
        writer.close()

    return await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)


async def failure(origin: Origin, limits: ClientLimits = LIMITS, tls: ssl.SSLContext | None = None) -> str:
    with pytest.raises(ConnectionLost) as caught:
        await connect(origin, limits=limits, tls=tls)
    assert caught.value.unprocessed
    assert origin.host in caught.value.reason
    return caught.value.reason


def unused_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


async def test_a_name_is_looked_up_and_every_address_tried() -> None:
    async with serving(says(JSON)) as origin:
        connection = await connect(Origin("http", "localhost", origin.port), limits=LIMITS)
        assert (await connection.request(GET)).body == b"{}"
        connection.close()


async def test_an_ipv6_literal_is_an_address() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Peer(reader, writer).read_request()
        await Peer(reader, writer).send(JSON)
        writer.close()

    server = await asyncio.start_server(handle, "::1", 0)
    connection = await connect(Origin("http", "::1", server.sockets[0].getsockname()[1]), limits=LIMITS)
    assert (await connection.request(GET)).body == b"{}"
    connection.close()
    server.close()


async def test_an_address_that_never_answers_costs_one_head_start() -> None:
    async with serving(says(JSON)) as origin:
        opening = Addresses(origin, ["192.0.2.1", "127.0.0.1"], silent=("192.0.2.1",))
        connection = await opening.run()
        assert opening.tried == ["192.0.2.1", "127.0.0.1"]
        assert (await connection.request(GET)).body == b"{}"
        connection.close()


async def test_an_address_that_refuses_costs_nothing() -> None:
    async with serving(says(JSON)) as origin:
        opening = Addresses(origin, ["127.0.0.2", "127.0.0.1"])  # loopback: no head start, so only a refusal moves on
        connection = await asyncio.wait_for(opening.run(), 5)
        assert opening.tried == ["127.0.0.2", "127.0.0.1"]
        connection.close()


async def test_when_no_address_works_the_first_reason_is_told() -> None:
    opening = Addresses(Origin("http", "x", unused_port()), ["127.0.0.1", "127.0.0.2"])
    with pytest.raises(ConnectionRefusedError):
        await opening.run()
    with pytest.raises(OSError, match="no address"):
        await Addresses(Origin("http", "x", 1), []).run()


async def test_connections_that_lose_the_race_are_closed() -> None:
    class Slow(Addresses):
        async def _open(self, address: str) -> ClientConnection:
            connection = await super()._open(address)
            if address != self.found[-1]:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    losers.append(connection)
                    return connection
            return connection

    losers: list[ClientConnection] = []
    async with serving(says(JSON)) as origin:
        opening = Slow(origin, ["127.0.0.1", "0.0.0.0"])  # not all loopback: the second joins after the head start
        connection = await opening.run()
        assert connection.is_idle()
        assert [loser.is_closed() for loser in losers] == [True]
        connection.close()


async def test_what_is_no_failure_to_connect_is_raised_as_it_is() -> None:
    class Broken(Addresses):
        async def _open(self, address: str) -> ClientConnection:
            raise LookupError(address)

    with pytest.raises(LookupError):
        await Broken(Origin("http", "x", 1), ["127.0.0.1", "127.0.0.2"]).run()


async def test_nothing_listening_is_told_with_the_address() -> None:
    assert "nothing listens there" in await failure(Origin("http", "127.0.0.1", unused_port()))


async def test_an_unknown_name_is_told_by_name() -> None:
    assert "the name cannot be resolved" in await failure(Origin("http", "no-such-host.invalid", 80))


async def test_a_server_that_does_not_answer_is_given_up_at_the_deadline() -> None:
    async def mute(peer: Peer) -> None:
        await peer.closed_by_client()

    async with serving(mute) as origin:
        origin = origin._replace(scheme="https")
        context = ssl.create_default_context()
        reason = await failure(origin, ClientLimits(connect_seconds=0.05), context)
        assert reason.endswith("no connection within 0.05 s")
        with pytest.raises(ConnectionLost, match=r"within 0\.01 s"):
            await connect(origin, limits=LIMITS, tls=context, deadline_seconds=0.01)


async def test_tls_is_spoken_with_the_given_trust(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server = await tls_server(contexts[0])
    origin = Origin("https", "127.0.0.1", server.sockets[0].getsockname()[1])
    connection = await connect(origin, limits=LIMITS, tls=contexts[1])
    for _ in range(2):
        assert (await connection.request(GET)).body == b"{}"
    gone = asyncio.Event()
    connection.on_closed = lambda _: gone.set()
    connection.close()
    await asyncio.wait_for(gone.wait(), 5)
    assert "certificate is not trusted" in await failure(origin, tls=ssl.create_default_context())
    server.close()


async def test_a_server_without_tls_is_told() -> None:
    async def plain(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await peer.closed_by_client()

    async with serving(plain) as origin:
        assert "TLS failed" in await failure(origin._replace(scheme="https"), tls=ssl.create_default_context())


async def test_https_without_a_context_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="TLS context"):
        await connect(Origin("https", "x", 443), limits=LIMITS)


async def test_http_ignores_a_context() -> None:
    async with connected(says(JSON)) as plain:
        connection = await connect(plain.origin, limits=LIMITS, tls=ssl.create_default_context())
        assert (await connection.request(GET)).body == b"{}"
        connection.close()


def test_every_error_has_a_reason_for_people() -> None:
    assert _why(OSError(113, "No route to host"), 5) == "No route to host"
    assert _why(OSError("odd"), 5) == "odd"
    assert _why(OSError(), 5) == "OSError"
    assert _why(ssl.SSLError("odd"), 5).startswith("TLS failed")
    assert _why(TimeoutError(110, "Connection timed out"), 5) == "Connection timed out"


async def test_address_families_take_turns() -> None:
    class Loop:
        async def getaddrinfo(self, *_: object, **__: object) -> list[tuple[object, ...]]:
            names = ["2001:db8::1", "2001:db8::2", "192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.1"]
            return [(0, 0, 0, "", (name, 80)) for name in names]

    opening = _Opening(Origin("http", "x.example", 80), LIMITS, None)
    opening._loop = Loop()  # type: ignore[assignment]
    assert await opening._addresses() == ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "192.0.2.3"]


# --- Unix sockets ---


async def test_nobody_at_a_path_is_said_without_the_path(tmp_path: Path) -> None:
    with pytest.raises(
        ConnectionLost, match=r"^cannot connect to http://worker-3: No such file or directory$"
    ) as caught:
        await connect_unix(tmp_path / "3.sock", limits=LIMITS)
    assert caught.value.unprocessed


async def test_a_full_queue_is_waited_for() -> None:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener, ExitStack() as stack:
        path = Path(folder) / "0.sock"
        listener.bind(str(path))
        listener.listen(0)
        fill_queue(path, stack)
        waiting = asyncio.create_task(connect_unix(path, limits=LIMITS))
        await asyncio.sleep(0)
        stack.enter_context(listener.accept()[0])
        (await waiting).close()


async def test_a_queue_that_stays_full_is_an_error_in_time() -> None:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener, ExitStack() as stack:
        path = Path(folder) / "0.sock"
        listener.bind(str(path))
        listener.listen(0)
        fill_queue(path, stack)
        with pytest.raises(ConnectionLost, match=r"no connection within 0\.05 s"):
            await connect_unix(path, limits=ClientLimits(connect_seconds=0.05))


def fill_queue(path: Path, stack: ExitStack) -> None:
    """Connect until nobody is let in any more."""
    while True:
        sock = stack.enter_context(socket.socket(socket.AF_UNIX))
        sock.setblocking(False)
        try:
            sock.connect(str(path))
        except BlockingIOError:
            return
