"""A server made with the Python SDK 1.x: `python -m tests.peers.servers.python_1_server NAME http|stdio`.

It asks and announces in the words of that SDK's own examples, which leave it to the SDK over which stream a message goes: forms
and pages go over the call's, samples, roots and changes over the session's own (GET) stream.
"""

import sys

from mcp.server.fastmcp import Context, FastMCP
from mcp.types import SamplingMessage, TextContent
from pydantic import AnyUrl, BaseModel

from tests.peers.servers import cancellations
from tests.peers.servers.loopback import serve_until_stdin_closes

PAGE = "https://example.com/sign-in"


class Person(BaseModel):
    """What the form asks for."""

    name: str


def add_asking_tools(server: FastMCP) -> None:
    """Tools that need something from the client."""

    @server.tool()
    async def ask_name(ctx: Context) -> str:
        """Ask with a form."""
        answer = await ctx.elicit("Who are you?", Person)
        return f"accept {answer.data.name}" if answer.action == "accept" else answer.action

    @server.tool()
    async def ask_url(ctx: Context) -> str:
        """Ask to open a page."""
        return (await ctx.elicit_url("Please sign in", PAGE, "sign-in-1")).action

    @server.tool()
    async def ask_model(ctx: Context) -> str:
        """Ask the client's model."""
        question = SamplingMessage(role="user", content=TextContent(type="text", text="Say a word"))
        said = await ctx.session.create_message([question], max_tokens=20)
        return f"the model said {said.content.text}"

    @server.tool()
    async def ask_roots(ctx: Context) -> str:
        """Ask for the client's roots."""
        return " ".join(str(root.uri) for root in (await ctx.session.list_roots()).roots)


def add_announcing_tools(server: FastMCP, readme: str) -> None:
    """Tools that tell the client something; what is subscribed is not asked, as in the SDK's examples."""

    @server.tool()
    async def say_log(ctx: Context) -> str:
        """Log a line."""
        await ctx.info("a line for the log")
        return "logged"

    @server.tool()
    async def change_tools(ctx: Context) -> str:
        """Tell of changed tools."""
        await ctx.session.send_tool_list_changed()
        return "changed"

    @server.tool()
    async def touch(ctx: Context) -> str:
        """Tell of a changed resource."""
        await ctx.session.send_resource_updated(AnyUrl(readme))
        return "touched"


def make_server(name: str) -> FastMCP:
    """A server with tools, a prompt and a resource; `name` tells several of them apart."""
    server = FastMCP(name, instructions="A peer that adds, counts and waits.")

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

    @server.prompt()
    def greet(name: str) -> str:
        """Greet somebody."""
        return f"Please greet {name}."

    readme_uri = f"peers://{name}/readme"

    @server.resource(readme_uri)
    def readme() -> str:
        """What this is."""
        return f"The server {name}."

    add_asking_tools(server)
    add_announcing_tools(server, readme_uri)
    return server


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[2] not in {"http", "stdio"}:
        sys.exit("usage: python_1_server NAME http|stdio")
    peer = make_server(sys.argv[1])
    if sys.argv[2] == "stdio":
        peer.run("stdio")
    else:
        serve_until_stdin_closes(peer.streamable_http_app())
