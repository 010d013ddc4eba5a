"""A FastMCP server over streamable HTTP: `python -m tests.peers.servers.fastmcp_server`."""

from fastmcp import Context, FastMCP

from tests.peers.servers import cancellations
from tests.peers.servers.loopback import serve_until_stdin_closes

server = FastMCP("fastmcp-peer", instructions="A peer that adds, counts and waits.")


@server.tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool
async def count(steps: int, ctx: Context) -> str:
    """Report each step."""
    for step in range(1, steps + 1):
        await ctx.report_progress(step, steps, f"step {step}")
    return f"counted to {steps}"


@server.tool
async def wait_for_cancel(key: str, ctx: Context) -> str:
    """Wait until cancelled."""
    return await cancellations.wait_for_cancel(key, lambda word: ctx.report_progress(0, 1, word))


@server.tool(name="cancellations")
def cancellations_of(key: str) -> str:
    """When the wait of that key was cancelled."""
    return cancellations.cancelled_at(key)


@server.prompt
def greet(name: str) -> str:
    """Greet somebody."""
    return f"Please greet {name}."


@server.resource("peers://fastmcp/readme")
def readme() -> str:
    """What this is."""
    return "A FastMCP server."


if __name__ == "__main__":
    serve_until_stdin_closes(server.http_app(path="/mcp"))
