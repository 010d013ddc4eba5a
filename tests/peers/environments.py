"""Where the environments of other projects' clients and servers are, and how to run something in them.

Knows: the folders that `scripts/prepare peers` makes, and nothing else of the machine.
"""

import os
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
PEERS: Final = ROOT / ".cache" / "peers"
NODE_CODE: Final = ROOT / ".cache" / "node-code"
"""Where node keeps what it has compiled: it starts some hundred times in a run of all tests."""


class PeersMissing(Exception):
    """Other projects' clients and servers are not installed."""


def _existing(path: Path) -> str:
    if not path.exists():
        raise PeersMissing(f"{path} does not exist: run `scripts/prepare peers` first")
    return str(path)


def modern_python() -> str:
    """Python with MCP SDK 2.x, FastMCP, mcp-server-time and mcp-server-git."""
    return _existing(PEERS / "modern" / "bin" / "python")


def legacy_python() -> str:
    """Python with the last MCP SDK that knows legacy revisions alone."""
    return _existing(PEERS / "legacy" / "bin" / "python")


def modern_program(name: str) -> str:
    """A console script of the modern environment."""
    return _existing(PEERS / "modern" / "bin" / name)


def node() -> str:
    """Node, from our own environment."""
    return _existing(ROOT / ".venv" / "bin" / "node")


def node_package(*parts: str) -> str:
    """A file of an installed package."""
    return _existing(PEERS.joinpath("node", "node_modules", *parts))


def conformance_command() -> list[str]:
    """The official conformance suite."""
    return [node(), node_package("@modelcontextprotocol", "conformance", "dist", "index.js")]


def everything_command(transport: str) -> list[str]:
    """The reference server with every feature; `transport` is stdio or streamableHttp (which listens on $PORT)."""
    return [node(), node_package("@modelcontextprotocol", "server-everything", "dist", "index.js"), transport]


def penstock_command() -> list[str]:
    """The gateway under test."""
    return [_existing(ROOT / ".venv" / "bin" / "penstock")]


def gateway_environment(home: Path, **extra: str) -> dict[str, str]:
    """The same for the gateway, which may be the one with compiled modules (scripts/test)."""
    compiled = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    return plain_environment(home, **compiled, **extra)


def plain_environment(home: Path, **extra: str) -> dict[str, str]:
    """What a child process sees: no proxy, no configuration and no credentials of the person who runs the tests."""
    path = f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in {"LANG", "LC_ALL", "TMPDIR"} or name.startswith("COVERAGE_")
    }
    ours = {"PYTHONUNBUFFERED": "1", "NO_COLOR": "1", "CI": "1", "NODE_COMPILE_CACHE": str(NODE_CODE)}
    return {**kept, "PATH": path, "HOME": str(home), **ours, **extra}
