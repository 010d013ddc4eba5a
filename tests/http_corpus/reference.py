"""The reference parser h11 as a server, alone and behind nginx.

Knows: h11's events. Does not know: anything h11 leaves to others; it takes and refuses just what h11 does.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from shutil import which
from typing import Final, cast

import h11

from tests.http_corpus.servers import MAX_BODY_BYTES, PROBE_FIELD, Ledger, Server, listening_socket

RELAY_PORT, RELAY_TARGET, RELAY_METHOD = b"x-relay-port", b"x-relay-target", b"x-relay-method"
_NGINX: Final = """
daemon off; master_process off; worker_processes 1; error_log {folder}/error.log crit; pid {folder}/pid;
events {{ worker_connections 1024; }}
http {{
    access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; client_max_body_size {max_body};
    keepalive_timeout 60; server_tokens off;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{upstream}; proxy_http_version 1.1; proxy_set_header Connection close;
            proxy_set_header X-Relay-Port $remote_port; proxy_set_header X-Relay-Target $request_uri;
            proxy_set_header X-Relay-Method $request_method; proxy_read_timeout 10s;
        }}
    }}
}}
"""


class ReferenceConnection(asyncio.Protocol):
    """One client's connection, driven by h11 alone."""

    def __init__(self, ledger: Ledger, *, is_relayed: bool) -> None:
        self._ledger = ledger
        self._is_relayed = is_relayed
        self._http = h11.Connection(h11.SERVER)
        self._request: h11.Request | None = None
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._http.receive_data(data)
        self._go_on()

    def eof_received(self) -> bool:
        self._http.receive_data(b"")
        self._go_on()
        return False

    def _go_on(self) -> None:
        try:
            while not self._transport.is_closing() and self._step():
                pass
        except h11.RemoteProtocolError as error:
            if self._http.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
                self._send(error.error_status_hint, [("content-length", "0"), ("connection", "close")], b"")
            self._transport.close()

    def _step(self) -> bool:
        """Handle one event; False when there is none for now."""
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        event = self._http.next_event()
        if isinstance(event, h11.Request):
            self._request, self._body = event, b""
            if self._http.they_are_waiting_for_100_continue:
                self._transport.write(self._http.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
        elif isinstance(event, h11.Data):
            self._body += event.data
        elif isinstance(event, h11.EndOfMessage):
            self._answer()
        else:
            if isinstance(event, h11.ConnectionClosed) or self._http.our_state is h11.MUST_CLOSE:
                self._transport.close()
            return False
        return True

    def _answer(self) -> None:
        request = self._request
        assert request is not None
        if request.method == b"CONNECT":  # h11 would leave HTTP for the tunnel
            self._send(405, [("content-length", "0"), ("connection", "close")], b"")
            self._transport.close()
            return
        port = self._transport.get_extra_info("peername")[1]
        method, target = request.method, request.target
        if self._is_relayed:
            relayed = dict(request.headers)
            port, method, target = int(relayed[RELAY_PORT]), relayed[RELAY_METHOD], relayed[RELAY_TARGET]
            if target[:1] == b"?":  # so nginx's variable has `http://a?c`
                target = b"/" + target
        probes = [value.decode("latin-1") for name, value in request.headers if name == PROBE_FIELD.encode()]
        line = self._ledger.note(port, method.decode("latin-1"), target.decode("latin-1"), probes, self._body)
        self._send(200, [("content-length", str(len(self._body))), ("x-seen", line)], self._body)
        if self._http.our_state is h11.MUST_CLOSE:
            self._transport.close()

    def _send(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        parts = [self._http.send(h11.Response(status_code=status, headers=headers)) or b""]
        if self._request is None or self._request.method != b"HEAD":
            parts.append(self._http.send(h11.Data(data=body)) or b"")
        parts.append(self._http.send(h11.EndOfMessage()) or b"")
        self._transport.write(b"".join(parts))


@asynccontextmanager
async def h11_server(*, is_relayed: bool = False) -> AsyncIterator[Server]:
    """h11 and nothing else."""
    ledger = Ledger()
    sock = listening_socket()
    port: int = sock.getsockname()[1]
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: ReferenceConnection(ledger, is_relayed=is_relayed), sock=sock)
    try:
        yield Server("h11", port, ledger)
    finally:
        listener.close()


@asynccontextmanager
async def nginx_server() -> AsyncIterator[Server]:
    """nginx as Debian ships and configures it, relaying to h11 what it took for a request."""
    program = which("nginx") or which("nginx", path="/usr/sbin")
    if program is None:
        raise RuntimeError("nginx is not installed: scripts/prepare system installs it")
    with listening_socket() as sock:  # closed again: nginx binds by itself
        port: int = sock.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="penstock-corpus-") as folder:
        async with h11_server(is_relayed=True) as upstream:
            text = _NGINX.format(folder=folder, port=port, upstream=upstream.port, max_body=MAX_BODY_BYTES)
            config = Path(folder, "nginx.conf")
            await asyncio.to_thread(config.write_text, text)
            process = await asyncio.create_subprocess_exec(
                program, "-p", folder, "-c", config, "-e", f"{folder}/error.log"
            )
            try:
                await _until_listening(port)
                yield Server("nginx", port, upstream.ledger)
            finally:
                if process.returncode is None:
                    process.terminate()
                await process.wait()


async def nginx_version() -> str:
    """Such as `1.22.1`."""
    program = which("nginx") or which("nginx", path="/usr/sbin") or "nginx"
    process = await asyncio.create_subprocess_exec(program, "-v", stderr=asyncio.subprocess.PIPE)
    _, text = await process.communicate()
    return text.decode().strip().rpartition("/")[2]


async def _until_listening(port: int) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return
