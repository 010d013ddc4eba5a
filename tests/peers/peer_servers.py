"""The servers of the matrix: how each is run, what to ask of it, and what it cannot do, with the reason.

Knows: the tools of the servers. Does not know: how anything is run, clients, the gateway.
Invariant: a server's `does` and `lacks` hold every operation once (tests/end_to_end/test_real_peers.py).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.peers.environments import (
    everything_command,
    legacy_python,
    modern_program,
    modern_python,
    node,
    node_package,
)

OPERATIONS: Final = (
    "list",
    "call",
    "prompt",
    "resource",
    "progress",
    "cancel",
    "accept",
    "decline",
    "url",
    "sampling",
    "roots",
    "log",
    "tools-changed",
    "updated",
)
CANCEL_MS: Final = 200
LEGACY: Final = "2025-11-25"
MODERN: Final = "2026-07-28"
Job = dict[str, Any]


class PeerServer(NamedTuple):
    """A server of the matrix."""

    name: str
    does: Mapping[str, Job]
    """What is asked of it for each operation."""
    lacks: Mapping[str, str]
    """The operations it has nothing for, each with the reason."""
    command: list[str] | None = None
    """Run by the gateway over stdio."""
    listens: list[str] | None = None
    """Run by us; prints its URL, or listens on $PORT and says so."""
    path: str = "/mcp"
    """Where it listens, unless it prints its URL."""
    kind: str = ""
    """Servers of one kind hold the same; empty for one that has no like."""
    same_as: str = ""
    """The server whose process this one is, under another `protocol`."""
    protocol: str = "auto"
    speaks: str = ""
    """The only era it has; empty for both."""
    needs: Mapping[str, str] = {}
    """Operations that its library has in one era alone, and which."""
    not_for_modern: Mapping[str, str] = {}
    """Operations that clients of 2026-07-28 cannot get from it, each with the reason."""

    @property
    def process(self) -> str:
        """The name of its process."""
        return self.same_as or self.name

    def spoken_era(self, client_era: str) -> str:
        """What the gateway speaks to it: what is pinned, or what it has, or else the client's; one process has one era."""
        if self.protocol != "auto":
            return "modern" if self.protocol == MODERN else "legacy"
        return self.speaks or ("modern" if self.command else client_era)


def call(tool: str, arguments: Job, expect: str) -> Job:
    """A call whose text holds `expect`."""
    return {"op": "call", "tool": tool, "arguments": arguments, "expect": expect}


def progress(tool: str, arguments: Job, least: int) -> Job:
    """A call that reports progress so often, or more often."""
    return {"op": "progress", "tool": tool, "arguments": arguments, "least": least}


def prompt(name: str, arguments: dict[str, str], expect: str) -> Job:
    """A prompt whose text holds `expect`."""
    return {"op": "prompt", "prompt": name, "arguments": arguments, "expect": expect}


def resource(uri: str, expect: str) -> Job:
    """A resource whose text holds `expect`."""
    return {"op": "resource", "uri": uri, "expect": expect}


def ask(tool: str, arguments: Job, method: str, expect: str, **more: Any) -> Job:
    """A call in whose midst the client is asked (or, where `earlier`, before it); the server says back what it answered."""
    return {"op": "ask", "tool": tool, "arguments": arguments, "method": method, "expect": expect, **more}


def form(tool: str, arguments: Job, accepted: str, declined: str) -> dict[str, Job]:
    """A tool that asks with a form: accepted, and declined."""
    return {
        "accept": ask(tool, arguments, "elicitation/create", accepted, answer="accept", words="form"),
        "decline": ask(tool, arguments, "elicitation/create", declined, answer="decline", words="form"),
    }


def page(tool: str, arguments: Job, expect: str) -> Job:
    """A tool that asks to open a page."""
    return ask(tool, arguments, "elicitation/create", expect, answer="accept", words="url")


def log(tool: str, expect: str, *, level: str = "info", toggles: bool = False) -> Job:
    """A call that logs a line; `toggles` is a tool that logs until it is called again."""
    return {"op": "log", "tool": tool, "arguments": {}, "expect": expect, "level": level, "toggles": toggles}


def news(tool: str, uri: str = "", *, toggles: bool = False) -> Job:
    """A call after which the client is told of a change: of a resource, or else of the tools."""
    return {"op": "news", "tool": tool, "arguments": {}, "uri": uri, "toggles": toggles}


WAITS: Final = {"op": "cancel", "tool": "wait_for_cancel", "record": "cancellations", "within_ms": CANCEL_MS}


def own(readme: str, says: str) -> dict[str, Job]:
    """What the servers of tests/peers/servers do alike."""
    return {
        "list": {"op": "list"},
        "call": call("add", {"a": 2, "b": 40}, "42"),
        "prompt": prompt("greet", {"name": "Ada"}, "Ada"),
        "resource": resource(readme, says),
        "progress": progress("count", {"steps": 4}, 3),
        "cancel": WAITS,
        **form("ask_name", {}, "accept Ada", "decline"),
        "url": page("ask_url", {}, "accept"),
        "sampling": ask("ask_model", {}, "sampling/createMessage", "the model said peregrine"),
        "roots": ask("ask_roots", {}, "roots/list", "file:///peers/root"),
        "log": log("say_log", "a line for the log"),
        "tools-changed": news("change_tools"),
        "updated": news("touch", readme),
    }


EVERYTHING: Final[dict[str, Job]] = {
    "list": {"op": "list"},
    "call": call("get-sum", {"a": 2, "b": 40}, "42"),
    "prompt": prompt("args-prompt", {"city": "Oslo"}, "Oslo"),
    "resource": resource("demo://resource/static/document/features.md", "MCP"),
    "progress": progress("trigger-long-running-operation", {"duration": 0.2, "steps": 4}, 3),
    **form("trigger-elicitation-request", {}, "Name: Ada", "User declined"),
    "url": page("trigger-url-elicitation", {"url": "https://example.com/"}, "User completed"),
    "sampling": ask("trigger-sampling-request", {"prompt": "Say a word"}, "sampling/createMessage", "peregrine"),
    "roots": ask("get-roots-list", {}, "roots/list", "file:///peers/root", earlier=True),
    "log": log("toggle-simulated-logging", "essage", level="debug", toggles=True),
    "updated": news("toggle-subscriber-updates", "demo://resource/static/document/features.md", toggles=True),
}
EVERYTHING_LACKS: Final = {
    "cancel": "none of its tools says whether it was cancelled",
    "tools-changed": "nothing makes it change its tools",
}
FIXTURE: Final[dict[str, Job]] = {
    "list": {"op": "list"},
    "call": call("test_simple_text", {}, "simple text"),
    "prompt": prompt("test_prompt_with_arguments", {"arg1": "Ada", "arg2": "x"}, "Ada"),
    "resource": resource("test://static-text", "static text"),
    "progress": progress("test_tool_with_progress", {}, 3),
    **form("test_elicitation", {"message": "Who are you?"}, "'accept', 'content': {'username': 'Ada'", "'decline'"),
    "sampling": ask("test_sampling", {"prompt": "Say a word"}, "sampling/createMessage", "peregrine"),
    "roots": ask("test_input_required_result_list_roots", {}, "roots/list", "file:///peers/root"),
    "log": log("test_tool_with_logging", "Tool execution started"),
    "tools-changed": news("test_trigger_tool_change"),
    "updated": news("test_trigger_resource_update", "test://watched-resource"),
}
FIXTURE_LACKS: Final = {
    "cancel": "none of its tools says whether it was cancelled",
    "url": "none of its tools asks to open a page",
}
CACHED: Final = "a session says the roots of whom it asked first; over stdio, and for modern clients, several share one"
LATE_LOG: Final = {
    "log": "it logs beside the call, where the line comes after the call's answer, and so after a modern client's stream"
}
TOOLS_ALONE: Final = "it has tools that answer, and nothing else"
TOOLS_ALONE_LACKS: Final = dict.fromkeys(OPERATIONS[2:], TOOLS_ALONE)
NO_SUBSCRIBING: Final = {"updated": "its library has no way to watch a resource, in neither era"}


def _without(does: dict[str, Job], lacks: Mapping[str, str]) -> dict[str, Job]:
    return {name: job for name, job in does.items() if name not in lacks}


def servers(repository: Path) -> list[PeerServer]:
    """Every server of the matrix."""
    return [*_reference_servers(repository), *_own_servers(), *_fixtures()]


def _module(python: str, name: str, *words: str) -> list[str]:
    return [python, "-m", f"tests.peers.servers.{name}", *words]


def _reference_servers(repository: Path) -> list[PeerServer]:
    git = call("git_log", {"repo_path": str(repository), "max_count": 1}, "A first commit")
    clock = call("convert_time", {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}, "21:00")
    git_command = [modern_program("mcp-server-git"), "--repository", str(repository)]
    listing: Job = {"op": "list"}
    return [
        PeerServer(
            "everything-stdio",
            {**EVERYTHING, "roots": {**EVERYTHING["roots"], "unasked": CACHED}},
            EVERYTHING_LACKS,
            command=everything_command("stdio"),
            kind="everything",
            speaks="legacy",
        ),
        PeerServer(
            "everything-http",
            {**EVERYTHING, "roots": {**EVERYTHING["roots"], "unasked_if_modern": CACHED}},
            EVERYTHING_LACKS,
            listens=everything_command("streamableHttp"),
            kind="everything",
            speaks="legacy",
            not_for_modern=LATE_LOG,
        ),
        PeerServer(
            "everything-sse",
            {**EVERYTHING, "roots": {**EVERYTHING["roots"], "unasked_if_modern": CACHED}},
            EVERYTHING_LACKS,
            listens=everything_command("sse"),
            kind="everything",
            path="/sse",
            speaks="legacy",
        ),
        PeerServer(
            "time",
            {"list": listing, "call": clock},
            TOOLS_ALONE_LACKS,
            command=[modern_program("mcp-server-time")],
        ),
        PeerServer("git", {"list": listing, "call": git}, TOOLS_ALONE_LACKS, command=git_command),
    ]


def _own_servers() -> list[PeerServer]:
    modern, older = modern_python(), legacy_python()
    typescript = [node(), str(Path(__file__).parent / "servers" / "typescript_1_server.mjs")]

    def of(name: str, lacks: Mapping[str, str], **more: Any) -> PeerServer:
        readme, says = ("fastmcp", "FastMCP") if name.startswith("fastmcp") else (name, name)
        return PeerServer(name, _without(own(f"peers://{readme}/readme", says), lacks), lacks, **more)

    def fastmcp(name: str, **more: Any) -> PeerServer:
        return of(name, NO_SUBSCRIBING, kind="fastmcp", needs={"tools-changed": "legacy"}, **more)

    def sdk(name: str, transport: str, **more: Any) -> PeerServer:
        how = "command" if transport == "stdio" else "listens"
        command = _module(modern, "sdk_server", name, transport)
        server = of(name, {}, kind="sdk", needs={"updated": "modern"}, **{how: command}, **more)
        if transport == "stdio":
            return server
        revision = LEGACY if server.protocol == "auto" else server.protocol
        return server._replace(does={**server.does, "call": call("spoken_revision", {}, revision)})

    def python(name: str, transport: str) -> PeerServer:
        how = "command" if transport == "stdio" else "listens"
        command = _module(older, "python_1_server", name, transport)
        return of(name, NO_SUBSCRIBING, kind="python-1", speaks="legacy", **{how: command})

    return [
        fastmcp("fastmcp", listens=_module(modern, "fastmcp_server")),
        fastmcp("fastmcp-legacy", same_as="fastmcp", protocol=LEGACY),
        fastmcp("fastmcp-modern", same_as="fastmcp", protocol=MODERN),
        sdk("sdk-stdio", "stdio"),
        sdk("sdk-sse", "sse", speaks="legacy"),
        sdk("sdk-legacy", "http", protocol=LEGACY),
        sdk("sdk-modern", "http", protocol=MODERN),
        python("python-1-stdio", "stdio"),
        python("python-1", "http"),
        of(
            "typescript-1-stdio",
            {},
            command=[*typescript, "typescript-1-stdio", "stdio"],
            kind="typescript-1",
            speaks="legacy",
        ),
        of(
            "typescript-1",
            {},
            listens=[*typescript, "typescript-1", "http"],
            kind="typescript-1",
            speaks="legacy",
            not_for_modern=LATE_LOG,
        ),
    ]


def _fixtures() -> list[PeerServer]:
    def of(name: str, **more: Any) -> PeerServer:
        speaks = next((era for era in ("legacy", "modern") if name.startswith(f"fixture-{era}")), "")
        return PeerServer(name, FIXTURE, FIXTURE_LACKS, kind="fixture", speaks=speaks, **more)

    def command(kind: str, transport: str) -> list[str]:
        return _module(modern_python(), "conformance_server", kind, transport)

    return [
        of("fixture-legacy", listens=command("legacy", "http")),
        of("fixture-legacy-stdio", command=command("legacy", "stdio")),
        of("fixture-modern", listens=command("modern", "http")),
        of("fixture-modern-stdio", command=command("modern", "stdio")),
        of("fixture-dual", listens=command("dual", "http")),
        of("fixture-dual-legacy", same_as="fixture-dual", protocol=LEGACY),
        of("fixture-dual-modern", same_as="fixture-dual", protocol=MODERN),
        of("fixture-dual-stdio", command=command("dual", "stdio")),
    ]


def environment() -> dict[str, str]:
    """What servers over stdio need to know."""
    return {"PEERS_NODE": node_package()}
