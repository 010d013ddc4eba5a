"""A server made with the Python SDK 2.x: `python -m tests.peers.servers.sdk_server NAME http|stdio|sse`.

It asks with the SDK's own means: resolvers, which become `input_required` for clients of 2026-07-28 and requests on the call's
stream for older ones.
"""

import sys
from typing import Annotated

from mcp.server.elicitation import ElicitationResult
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.resolve import Elicit, ListRoots, Resolve, Sample
from mcp_types import (
    CreateMessageResult,
    ElicitRequest,
    ElicitRequestURLParams,
    InputRequiredResult,
    ListRootsResult,
    SamplingMessage,
    TextContent,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import BaseModel

from tests.peers.servers import cancellations
from tests.peers.servers.loopback import serve_until_stdin_closes

PAGE = "https://example.com/sign-in"


class Person(BaseModel):
    """What the form asks for."""

    name: str


def who() -> Elicit[Person]:
    """A form."""
    return Elicit("Who are you?", Person)


def model() -> Sample:
    """A question to the client's model."""
    said = SamplingMessage(role="user", content=TextContent(type="text", text="Say a word"))
    return Sample([said], max_tokens=20)


def roots() -> ListRoots:
    """The client's roots."""
    return ListRoots()


def add_asking_tools(server: MCPServer) -> None:
    """Tools that need something from the client."""

    @server.tool()
    def ask_name(person: Annotated[ElicitationResult[Person], Resolve(who)]) -> str:
        """Ask with a form."""
        return f"{person.action} {person.data.name}" if person.action == "accept" else person.action

    @server.tool()
    async def ask_url(ctx: Context) -> str | InputRequiredResult:
        """Ask to open a page."""
        if ctx.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            return (await ctx.elicit_url("Please sign in", PAGE, "sign-in-1")).action
        if ctx.input_responses:
            return str(ctx.input_responses["page"].action)
        params = ElicitRequestURLParams(mode="url", message="Please sign in", url=PAGE)
        return InputRequiredResult(input_requests={"page": ElicitRequest(params=params)})

    @server.tool()
    def ask_model(said: Annotated[CreateMessageResult, Resolve(model)]) -> str:
        """Ask the client's model."""
        return f"the model said {said.content.text}"

    @server.tool()
    def ask_roots(found: Annotated[ListRootsResult, Resolve(roots)]) -> str:
        """Ask for the client's roots."""
        return " ".join(str(root.uri) for root in found.roots)


def add_announcing_tools(server: MCPServer, readme: str) -> None:
    """Tools that tell the client something."""

    @server.tool()
    async def say_log(ctx: Context) -> str:
        """Log a line."""
        await ctx.info("a line for the log")
        return "logged"

    @server.tool()
    async def change_tools(ctx: Context) -> str:
        """Tell of changed tools, as each era does."""
        await ctx.notify_tools_changed()
        if ctx.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            await ctx.session.send_tool_list_changed()
        return "changed"

    @server.tool()
    async def touch(ctx: Context) -> str:
        """Tell of a changed resource."""
        await ctx.notify_resource_updated(readme)
        return "touched"


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

    readme_uri = f"peers://{name}/readme"

    @server.resource(readme_uri)
    def readme() -> str:
        """What this is."""
        return f"The server {name}."

    add_asking_tools(server)
    add_announcing_tools(server, readme_uri)
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
