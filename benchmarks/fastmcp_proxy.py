"""FastMCP's proxy in front of one server, run by the Python it is installed in: `python fastmcp_proxy.py URL`.

As fast as its own settings make it: no access log, no banner, warnings only. It prints `listening PORT`.
"""

import asyncio
import socket
import sys

from fastmcp.server import create_proxy


async def serve(url: str) -> None:
    """Serve on a free port until SIGTERM."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        proxy = create_proxy(url, name="proxy")
        print(f"listening {listener.getsockname()[1]}", flush=True)
        settings = {"access_log": False, "log_level": "error"}
        await proxy.run_http_async(show_banner=False, path="/mcp", uvicorn_config=settings, sockets=[listener])


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
