"""The reference: nginx with one worker and a pool of kept connections to each server.

Knows: nginx's configuration. Does not know: what is proxied.
"""

import os
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from benchmarks.processes import Failed, Process

START_SECONDS: Final = 5.0

_CONFIGURATION: Final = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 2048; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{upstreams}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_buffer_size 16k;
        proxy_buffers 16 16k;
        proxy_busy_buffers_size 128k;
        proxy_max_temp_file_size 0;
{locations}
    }}
}}
"""


def installed() -> str:
    """The program.

    Raises:
        Failed: it is missing; the message holds the line that installs it.
    """
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise Failed("nginx is missing; install it: sudo apt-get install nginx-light (macOS: brew install nginx)")
    return found


def configuration(folder: Path, port: int, servers: Mapping[str, int]) -> str:
    """`/NAME` on `port` goes to the server of that name."""
    upstreams = "\n".join(
        f"    upstream {name} {{ server 127.0.0.1:{at}; keepalive 64; keepalive_requests 1000000000; }}"
        for name, at in servers.items()
    )
    locations = "\n".join(f"        location /{name} {{ proxy_pass http://{name}/mcp; }}" for name in servers)
    return _CONFIGURATION.format(folder=folder, port=port, upstreams=upstreams, locations=locations)


def start(folder: Path, servers: Mapping[str, int]) -> tuple[Process, int]:
    """A running nginx and its port, which was free a moment ago: nginx cannot choose one itself.

    Raises:
        Failed: it does not answer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    failure = Failed("nginx was not started")
    for _ in range(3):
        port = free_port()
        file = folder / "nginx.conf"
        file.write_text(configuration(folder, port, servers), "utf-8")
        process = Process("nginx", [installed(), "-p", folder, "-e", "stderr", "-c", file], folder / "nginx.log")
        try:
            process.wait_for_port(port, START_SECONDS)
        except Failed as error:
            process.stop()
            failure = error
        else:
            return process, port
    raise failure


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
