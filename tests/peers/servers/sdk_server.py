"""A server made with the Python SDK 2.x: `python -m tests.peers.servers.sdk_server NAME http|stdio|sse`."""

import sys

from mcp.server.mcpserver import Context, MCPServer

from tests.peers.servers import cancellations
from tests.peers.servers.loopback import serve_until_stdin_closes


def make_server(name: str) -> MCPServer:
    """A server with tools, a prompt and a resource; `name` tells several of them apart."""
    server = MCPServer(name, instructions="A peer that adds, counts and waits.")

    @server.tool()
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    @server.tool()
    async def count(steps: int, ctx: Context) -> str:
        """Report each step."""
        for step in range(1, steps + 1):
            await ctx.report_progress(step, steps, f"step {step}")
        return f"counted to {steps}"

    @server.tool()
    async def wait_for_cancel(key: str, ctx: Context) -> str:
        """Wait until cancelled."""
        return await cancellations.wait_for_cancel(key, lambda word: ctx.report_progress(0, 1, word))

    @server.tool(name="cancellations")
    def cancellations_of(key: str) -> str:
        """When the wait of that key was cancelled."""
        return cancellations.cancelled_at(key)

    @server.tool()
    def spoken_revision(ctx: Context) -> str:
        """The revision in which this call came."""
        return ctx.request_context.protocol_version

    @server.prompt()
    def greet(name: str) -> str:
        """Greet somebody."""
        return f"Please greet {name}."

    @server.resource(f"peers://{name}/readme")
    def readme() -> str:
        """What this is."""
        return f"The server {name}."

    return server


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[2] not in {"http", "stdio", "sse"}:
        sys.exit("usage: sdk_server NAME http|stdio|sse")
    peer = make_server(sys.argv[1])
    if sys.argv[2] == "stdio":
        peer.run("stdio")
    elif sys.argv[2] == "sse":
        serve_until_stdin_closes(peer.sse_app(), "/sse")
    else:
        serve_until_stdin_closes(peer.streamable_http_app())
