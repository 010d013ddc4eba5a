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
A_FEW: Final = "it is tried with some servers alone, for a process for each operation costs a second"
INSPECTOR_LACKS: Final = {
    **dict.fromkeys(("progress", "cancel", "log", "tools-changed", "updated"), ONE_PROCESS_EACH),
    **dict.fromkeys(("accept", "decline", "url", "sampling", "roots"), NO_TERMINAL),
}


class PeerClient(NamedTuple):
    """A client of the matrix."""

    name: str
    command: list[str]
    mode: str = "auto"
    lacks: Mapping[str, str] = {}
    """Operations that its library does not have, each with the reason."""
    is_legacy: bool = False
    """Whether it speaks legacy revisions alone."""
    only: frozenset[str] = frozenset()
    """The servers it is tried with, where that is not all of them: a client that costs a second for each operation."""

    @property
    def era(self) -> str:
        """What it speaks to a gateway that has both eras."""
        return "legacy" if self.is_legacy or self.mode == "legacy" else "modern"


def clients() -> list[PeerClient]:
    """Every client of the matrix."""
    folder = Path(__file__).parent / "clients"

    def module(python: str, name: str) -> list[str]:
        return [python, "-m", f"tests.peers.clients.{name}"]

    modern, fastmcp = module(modern_python(), "python_modern"), module(modern_python(), "fastmcp_client")
    inspector = module(modern_python(), "inspector")
    typescript = [node(), str(folder / "typescript_2.mjs")]
    return [
        PeerClient("Python SDK 2.x", modern),
        PeerClient("Python SDK 2.x, legacy mode", modern, "legacy"),
        PeerClient("Python SDK 1.x", module(legacy_python(), "python_legacy"), is_legacy=True),
        PeerClient("FastMCP", fastmcp, lacks={"tools-changed": NO_SUBSCRIBING, "updated": NO_SUBSCRIBING}),
        PeerClient("FastMCP, legacy mode", fastmcp, "legacy", lacks={"updated": NO_SUBSCRIBING}),
        PeerClient("TypeScript SDK 1.x", [node(), str(folder / "typescript_1.mjs")], is_legacy=True),
        PeerClient("TypeScript SDK 2.x", typescript),
        PeerClient("TypeScript SDK 2.x, legacy mode", typescript, "legacy"),
        PeerClient("Inspector", inspector, "legacy", INSPECTOR_LACKS, only=frozenset({"fixture-modern"})),
        PeerClient("Inspector, modern era", inspector, "auto", INSPECTOR_LACKS, only=frozenset({"everything-stdio"})),
    ]
