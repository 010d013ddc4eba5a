"""A FastMCP server over streamable HTTP: `python -m tests.peers.servers.fastmcp_server`.

It asks as its library wants it: clients of 2026-07-28 with `input_required`, older ones with requests in the midst of the call.
"""

from fastmcp import Context, FastMCP
from mcp_types import (
    CreateMessageRequest,
    CreateMessageRequestParams,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitRequestURLParams,
    InputRequiredResult,
    ListRootsRequest,
    SamplingMessage,
    TextContent,
    ToolListChangedNotification,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import BaseModel

from tests.peers.servers import cancellations
from tests.peers.servers.loopback import serve_until_stdin_closes

PAGE = "https://example.com/sign-in"
QUESTION = [SamplingMessage(role="user", content=TextContent(type="text", text="Say a word"))]

server = FastMCP("fastmcp-peer", instructions="A peer that adds, counts and waits.")


class Person(BaseModel):
    """What the form asks for."""

    name: str


def is_modern(ctx: Context) -> bool:
    """Whether the client speaks 2026-07-28."""
    return ctx.session.protocol_version in MODERN_PROTOCOL_VERSIONS


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


@server.tool
async def ask_name(ctx: Context) -> str | InputRequiredResult:
    """Ask with a form."""
    if not is_modern(ctx):
        answer = await ctx.elicit("Who are you?", Person)
        return f"accept {answer.data.name}" if answer.action == "accept" else answer.action
    if ctx.input_responses:
        said = ctx.input_responses["it"]
        return f"accept {said.content['name']}" if said.action == "accept" else str(said.action)
    params = ElicitRequestFormParams(message="Who are you?", requested_schema=Person.model_json_schema())
    return InputRequiredResult(input_requests={"it": ElicitRequest(params=params)})


@server.tool
async def ask_url(ctx: Context) -> str | InputRequiredResult:
    """Ask to open a page."""
    if not is_modern(ctx):
        answer = await ctx.session.elicit_url("Please sign in", PAGE, "sign-in-1", related_request_id=ctx.request_id)
        return answer.action
    if ctx.input_responses:
        return str(ctx.input_responses["it"].action)
    params = ElicitRequestURLParams(message="Please sign in", url=PAGE)
    return InputRequiredResult(input_requests={"it": ElicitRequest(params=params)})


@server.tool
async def ask_model(ctx: Context) -> str | InputRequiredResult:
    """Ask the client's model."""
    if not is_modern(ctx):
        said = await ctx.session.create_message(QUESTION, max_tokens=20, related_request_id=ctx.request_id)
        return f"the model said {said.content.text}"
    if ctx.input_responses:
        return f"the model said {ctx.input_responses['it'].content.text}"
    params = CreateMessageRequestParams(messages=QUESTION, max_tokens=20)
    return InputRequiredResult(input_requests={"it": CreateMessageRequest(params=params)})


@server.tool
async def ask_roots(ctx: Context) -> str | InputRequiredResult:
    """Ask for the client's roots."""
    if not is_modern(ctx):
        return " ".join(str(root.uri) for root in (await ctx.session.list_roots()).roots)
    if ctx.input_responses:
        return " ".join(str(root.uri) for root in ctx.input_responses["it"].roots)
    return InputRequiredResult(input_requests={"it": ListRootsRequest()})


@server.tool
async def say_log(ctx: Context) -> str:
    """Log a line."""
    await ctx.info("a line for the log")
    return "logged"


@server.tool
async def change_tools(ctx: Context) -> str:
    """Tell of changed tools."""
    await ctx.send_notification(ToolListChangedNotification())
    return "changed"


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
