import datetime as dt
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from penstock.http.tls import client_context, server_context
from tests.unit.http.server_lane import hold, post, serving


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A self-signed certificate for localhost, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(certificate.public_bytes(pem))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(private)
    return str(folder / "cert.pem"), str(folder / "key.pem")


async def test_requests_and_streams_travel_over_tls(files: tuple[str, str]) -> None:
    server, client_side = server_context(*files), client_context(files[0])
    async with serving(handle=hold, tls=server) as lane:
        client = await lane.connect(tls=client_side)
        assert client.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        client.send(post(b"x"))
        exchange = await lane.exchange()
        assert not exchange.give_away(lambda *_: True)  # what makes the bytes ours stays here
        exchange.respond(200, b"over tls")
        assert (await client.answer()).body == b"over tls"
        client.send(post(b"large"))
        (await lane.exchange()).respond(200, (b"[", memoryview(b"x" * 100_000), b"]"))
        assert (await client.answer()).body == b"[%b]" % (b"x" * 100_000)
        client.send(post(b"y"))
        exchange = await lane.exchange()
        stream = exchange.open_stream()
        stream.send(b"data: 1\n\n")
        await client.until(b"1\n\n\r\n")
        client.close()
        await lane.until(lambda: exchange.is_disconnected)


async def test_a_refused_request_is_told_so_over_tls(files: tuple[str, str]) -> None:
    async with serving(tls=server_context(*files)) as lane:
        client = await lane.connect(tls=client_context(files[0]))
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        assert (await client.answer()).status == 400
        await lane.clock.advance(4)
        assert await client.rest() == b""


async def test_a_client_of_tls_1_1_is_turned_away(files: tuple[str, str]) -> None:
    old = client_context(files[0])
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
        old.minimum_version = ssl.TLSVersion.TLSv1_1
    with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    async with serving(tls=server_context(*files)) as lane:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await lane.connect(tls=old)


def test_a_client_trusts_only_the_file_it_was_given(files: tuple[str, str]) -> None:
    context = client_context(files[0], *files)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.cert_store_stats()["x509"] == 1
    assert client_context().cert_store_stats() != {}


def test_files_that_cannot_be_used_say_so(files: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        server_context(str(tmp_path / "none.pem"), files[1])
