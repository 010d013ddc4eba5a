"""Serve an ASGI application on a free port of the loopback until standard input closes.

The first line on standard output is the URL of the MCP endpoint.
"""

import socket
import sys
import threading
from typing import Any

import uvicorn


def serve_until_stdin_closes(app: Any, path: str = "/mcp") -> None:
    """Print the URL, serve, return when whoever started us is gone."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=1, lifespan="on")
    )

    def wait_for_the_end() -> None:
        sys.stdin.buffer.read()
        server.should_exit = True

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    print(f"http://127.0.0.1:{listener.getsockname()[1]}{path}", flush=True)
    server.run(sockets=[listener])
