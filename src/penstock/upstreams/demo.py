"""The server of `penstock serve --demo`: a few harmless tools, so that the first call needs nothing else.

Knows: the clock it is given, the time zones of this machine. Does not know: networks, processes; nothing here changes
anything.
"""

import asyncio
import difflib
from datetime import UTC, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from penstock import __version__
from penstock.clock import Clock, SystemClock
from penstock.upstreams.in_memory import CallContext, InMemoryServer, InMemoryUpstream, ToolFailed
from penstock.upstreams.in_memory_server import JsonObject

_HARMLESS: Final = {"readOnlyHint": True, "destructiveHint": False, "idempotentHint": True, "openWorldHint": False}
_HOUR_MS: Final = 3_600_000
_LANGUAGES: Final = ("Arabic", "Chinese", "English", "French", "German", "Hindi", "Japanese", "Portuguese", "Spanish")
_ABOUT: Final = """\
This is Penstock's demo server. It runs inside the gateway, needs no network, and changes nothing.

Try: echo, add, current_time, count_down (reports progress), text_statistics;
the prompt haiku; the resources demo://about and demo://greeting/{name}.

Add a server of your own with 'penstock add NAME URL' or 'penstock add NAME -- COMMAND…'.
"""


def demo_upstream(name: str = "demo", clock: Clock | None = None) -> InMemoryUpstream:
    """The demo server, ready to be served under that name."""
    clock = clock or SystemClock()
    return InMemoryUpstream(name, demo_server(clock), clock=clock)


def demo_server(clock: Clock) -> InMemoryServer:
    """The demo server itself; `clock` says what time it is and how long `count_down` takes."""
    server = InMemoryServer(
        "penstock-demo",
        version=__version__,
        instructions="A few harmless tools to try the gateway with. Nothing here reads or changes anything of yours.",
        ttl_ms=_HOUR_MS,
        cache_scope="public",
    )
    _add_text_tools(server)
    _add_time_tools(server, clock)
    _add_prompt(server)
    _add_resources(server)
    return server


def _add_text_tools(server: InMemoryServer) -> None:
    @server.tool(
        "echo",
        title="Echo",
        description="Return the text it is given, unchanged. Use it to check that a call gets through.",
        input_schema=_object({"text": {"type": "string", "description": "What to return.", "maxLength": 100_000}}),
        annotations=_HARMLESS,
    )
    async def echo(arguments: JsonObject, _: CallContext) -> str:
        return str(arguments["text"])

    @server.tool(
        "add",
        title="Add two numbers",
        description="Return the sum of two numbers.",
        input_schema=_object(
            {
                "a": {"type": "number", "description": "First number."},
                "b": {"type": "number", "description": "Second number."},
            }
        ),
        outputSchema=_object({"sum": {"type": "number", "description": "a + b."}}),
        annotations=_HARMLESS,
    )
    async def add(arguments: JsonObject, _: CallContext) -> JsonObject:
        return {"sum": arguments["a"] + arguments["b"]}

    @server.tool(
        "text_statistics",
        title="Count characters, words and lines",
        description="Return how many characters, words and lines a text has.",
        input_schema=_object({"text": {"type": "string", "description": "What to count.", "maxLength": 100_000}}),
        outputSchema=_object({name: {"type": "integer"} for name in ("characters", "words", "lines")}),
        annotations=_HARMLESS,
    )
    async def text_statistics(arguments: JsonObject, _: CallContext) -> JsonObject:
        text = str(arguments["text"])
        return {"characters": len(text), "words": len(text.split()), "lines": len(text.splitlines())}


def _add_time_tools(server: InMemoryServer, clock: Clock) -> None:
    @server.tool(
        "current_time",
        title="Current time",
        description="Return the current date and time in a time zone, UTC if none is named.",
        input_schema=_object(
            {"timezone": {"type": "string", "description": "IANA name, such as Europe/Paris.", "default": "UTC"}},
            required=[],
        ),
        outputSchema=_object(
            {
                "time": {"type": "string", "description": "ISO 8601, with the offset from UTC."},
                "timezone": {"type": "string"},
                "weekday": {"type": "string"},
            }
        ),
        annotations=_HARMLESS | {"idempotentHint": False},
    )
    async def current_time(arguments: JsonObject, _: CallContext) -> JsonObject:
        name = str(arguments.get("timezone", "UTC"))
        zone = await asyncio.to_thread(_time_zone, name)  # reads a file
        now = datetime.fromtimestamp(clock.wall(), UTC).astimezone(zone)
        return {"time": now.isoformat(timespec="seconds"), "timezone": name, "weekday": now.strftime("%A")}

    @server.tool(
        "count_down",
        title="Count down",
        description="Count down to zero and report progress at each step. Use it to see progress, or to cancel a call.",
        input_schema=_object(
            {
                "start": {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": 100,
                    "default": 5,
                    "description": "Where to begin.",
                },
                "interval_ms": {
                    "type": "integer",
                    "minimum": 0,
                    "maximum": 10_000,
                    "default": 200,
                    "description": "Pause between two steps, in milliseconds.",
                },
            },
            required=[],
        ),
        annotations=_HARMLESS,
    )
    async def count_down(arguments: JsonObject, context: CallContext) -> str:
        start = int(arguments.get("start", 5))
        for step in range(1, start + 1):
            await clock.sleep(arguments.get("interval_ms", 200) / 1000)
            context.progress(step, start, f"{start - step} to go")
            context.log("info", {"left": start - step}, "count_down")
        return f"Counted down from {start}. Lift-off!"


def _add_prompt(server: InMemoryServer) -> None:
    @server.prompt(
        "haiku",
        title="Write a haiku",
        description="Ask for a haiku about a topic.",
        arguments=[
            {"name": "topic", "description": "What it is about.", "required": True},
            {"name": "language", "description": "Which language to write in; English if none is named."},
        ],
    )
    async def haiku(arguments: JsonObject, _: CallContext) -> str:
        return f"Write a haiku about {arguments['topic']} in {arguments.get('language', 'English')}."

    @server.completion
    async def complete(ref: JsonObject, argument: JsonObject) -> list[str]:
        if ref.get("name") != "haiku" or argument.get("name") != "language":
            return []
        begun = str(argument.get("value", "")).lower()
        return [language for language in _LANGUAGES if language.lower().startswith(begun)]


def _add_resources(server: InMemoryServer) -> None:
    @server.resource("demo://about", name="about", title="About this server", description="What can be tried here.")
    async def about(_: JsonObject, __: CallContext) -> str:
        return _ABOUT

    @server.resource_template(
        "demo://greeting/{name}", name="greeting", title="A greeting", description="A greeting for whoever is named."
    )
    async def greeting(variables: JsonObject, _: CallContext) -> str:
        return f"Hello, {variables['name']}!"


def _object(properties: dict[str, Any], required: list[str] | None = None) -> JsonObject:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties) if required is None else required,
        "additionalProperties": False,
    }


def _time_zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        near = difflib.get_close_matches(name, available_timezones(), 1)
        hint = f"did you mean '{near[0]}'?" if near else "use an IANA name, such as Europe/Paris"
        raise ToolFailed(f"there is no time zone '{name}'; {hint}") from None
