"""The clients of the matrix: how each is run, and what it cannot do, with the reason.

Knows: the names of operations and servers. Does not know: how anything is run.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from tests.peers.environments import legacy_python, modern_python, node

NO_SUBSCRIBING: Final = "FastMCP's client has no call to subscribe with"
ONE_PROCESS_EACH: Final = "the command line does one thing and ends"
NO_TERMINAL: Final = "with no terminal it cancels whatever it is asked"
A_FEW: Final = "it is tried with some servers alone, to save time"
OF_EVERY_KIND: Final = frozenset({"everything-sse", "sdk-stdio", "sdk-sse", "fixture-legacy", "fixture-modern", "all"})
OF_MOST_KINDS: Final = OF_EVERY_KIND | {"everything-http", "fastmcp", "sdk-legacy", "sdk-modern", "typescript-1"}
INSPECTOR_LACKS: Final = {
    **dict.fromkeys(("progress", "cancel", "log", "tools-changed", "updated"), ONE_PROCESS_EACH),
    **dict.fromkeys(("accept", "decline", "url", "sampling", "roots"), NO_TERMINAL),
}


class PeerClient(NamedTuple):
    """A client of the matrix."""

    name: str
    command: list[str]
    mode: str = "auto"
    path: str = "/mcp"
    """Under which of the gateway's paths it finds the views: `/sse` for HTTP+SSE."""
    lacks: Mapping[str, str] = {}
    """Operations that its library does not have, each with the reason."""
    is_legacy: bool = False
    """Whether it speaks legacy revisions alone."""
    only: frozenset[str] = frozenset()
    """The servers it is tried with, where that is not all of them."""

    @property
    def era(self) -> str:
        """What it speaks to a gateway that has both eras."""
        return "legacy" if self.is_legacy or self.mode == "legacy" or self.path == "/sse" else "modern"

    def address(self, url: str) -> str:
        """Where it finds a view of the gateway."""
        return url.replace("/mcp", self.path, 1)


def clients() -> list[PeerClient]:
    """Every client of the matrix."""
    folder = Path(__file__).parent / "clients"

    def module(python: str, name: str) -> list[str]:
        return [python, "-m", f"tests.peers.clients.{name}"]

    def over_sse(name: str, command: list[str]) -> PeerClient:
        return PeerClient(f"{name}, HTTP+SSE", command, path="/sse", only=OF_EVERY_KIND)

    modern, fastmcp = module(modern_python(), "python_modern"), module(modern_python(), "fastmcp_client")
    inspector = module(modern_python(), "inspector")
    older = module(legacy_python(), "python_legacy")
    typescript, typescript_1 = ([node(), str(folder / f"typescript_{number}.mjs")] for number in (2, 1))
    return [
        PeerClient("Python SDK 2.x", modern),
        PeerClient("Python SDK 2.x, legacy mode", modern, "legacy"),
        PeerClient("Python SDK 1.x", older, is_legacy=True),
        PeerClient("FastMCP", fastmcp, lacks={"tools-changed": NO_SUBSCRIBING, "updated": NO_SUBSCRIBING}),
        PeerClient("FastMCP, legacy mode", fastmcp, "legacy", lacks={"updated": NO_SUBSCRIBING}, only=OF_MOST_KINDS),
        PeerClient("TypeScript SDK 1.x", typescript_1, is_legacy=True),
        PeerClient("TypeScript SDK 2.x", typescript),
        PeerClient("TypeScript SDK 2.x, legacy mode", typescript, "legacy", only=OF_MOST_KINDS),
        over_sse("Python SDK 2.x", modern),
        over_sse("Python SDK 1.x", older),
        over_sse("TypeScript SDK 2.x", typescript),
        over_sse("TypeScript SDK 1.x", typescript_1),
        PeerClient("Inspector", inspector, "legacy", lacks=INSPECTOR_LACKS, only=frozenset({"fixture-modern"})),
        PeerClient("Inspector, modern era", inspector, lacks=INSPECTOR_LACKS, only=frozenset({"everything-stdio"})),
    ]
