"""Other projects' proxies in front of the same raw servers, as fast as their own settings make them.

Knows: how each is installed and started. Does not know: how rows are measured.
A peer that is not there, or does not answer a row rightly, is left out with a note that says why; it fails nothing.
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

from benchmarks import cpu, nginx
from benchmarks.cpu import Note
from benchmarks.messages import Era
from benchmarks.processes import Failed, Process
from benchmarks.rows import Row
from benchmarks.stage import Place, Stage

FASTMCP: Final = "FastMCP proxy"
RUST: Final = "Rust mcp-proxy"
RUST_VERSION: Final = "0.6.0"
BUILD_SECONDS: Final = 2400
START_SECONDS: Final = 30.0

_RUST_CONFIGURATION: Final = """\
[proxy]
name = "proxy"
separator = "_"

[proxy.listen]
host = "127.0.0.1"
port = {port}

[[backends]]
name = "raw"
transport = "http"
url = "http://127.0.0.1:{server}/mcp"

[observability]
log_level = "off"
"""


def start(stage: Stage, cache: Path, note: Note) -> tuple[list[Row], list[str]]:
    """Start every peer that is there; returns the rows they answer, and notes on what was left out."""
    rows: list[Row] = []
    left_out: list[str] = []
    starters: dict[str, Callable[[Era], Place]] = {
        FASTMCP: lambda era: _fastmcp(stage, cache, era),
        RUST: lambda era: _rust(stage, cache, era, note),
    }
    for name, starter in starters.items():
        for era in _ERAS[name]:
            row = Row(f"{name.lower().replace(' ', '-')}-{era}-{era}-1k", name, era, era, "small", era == "legacy")
            try:
                stage.add(name, era, starter(era))
                cpu.prepare(stage, row)
            except (Failed, OSError, subprocess.SubprocessError) as error:
                left_out.append(f"Left out: {row.title}: {str(error).splitlines()[0]}")
                note(left_out[-1])
            else:
                rows.append(row)
    return rows, left_out


_ERAS: Final[dict[str, tuple[Era, ...]]] = {FASTMCP: ("modern", "legacy"), RUST: ("legacy",)}
"""Of the servers they can talk to: the Rust proxy's handshake is a legacy one."""


def _fastmcp(stage: Stage, cache: Path, era: Era) -> Place:
    python = cache / "modern" / "bin" / "python"
    if not python.exists():
        raise Failed("not installed; scripts/prepare peers installs it")
    script = Path(__file__).with_name("fastmcp_proxy.py")
    url = f"http://127.0.0.1:{stage.raw_ports[era]}/mcp"
    process = stage.keep(Process(f"{FASTMCP} {era}", [python, script, url], stage.folder / f"fastmcp-{era}.log"))
    return Place(process, int(process.wait_for_line("listening ", START_SECONDS)), "/mcp")


def _rust(stage: Stage, cache: Path, era: Era, note: Note) -> Place:
    program = _build(cache, note)
    port = nginx.free_port()
    file = stage.folder / f"mcp-proxy-{era}.toml"
    file.write_text(_RUST_CONFIGURATION.format(port=port, server=stage.raw_ports[era]), "utf-8")
    process = stage.keep(Process(f"{RUST} {era}", [program, "--config", file], stage.folder / f"mcp-proxy-{era}.log"))
    process.wait_for_port(port, START_SECONDS)
    return Place(process, port, "/", "raw_")


def _build(cache: Path, note: Note) -> Path:
    program = cache / "rust" / "bin" / "mcp-proxy"
    if program.exists():
        return program
    cargo = shutil.which("cargo", path=f"{os.environ.get('PATH', '')}:{Path.home()}/.cargo/bin")
    if cargo is None:
        raise Failed("cargo is not on this machine; https://rustup.rs installs it")
    note(f"building {RUST} {RUST_VERSION} with cargo; this takes minutes, once")
    cache.mkdir(parents=True, exist_ok=True)
    build = cache / "rust-build"
    log = cache / "rust.log"
    with log.open("wb") as out:
        done = subprocess.run(
            [cargo, "install", "mcp-proxy", "--version", RUST_VERSION, "--locked", "--root", str(cache / "rust")],
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            timeout=BUILD_SECONDS,
            env=os.environ | {"CARGO_TARGET_DIR": str(build)},
            check=False,
        )
    if done.returncode:
        raise Failed(f"cargo could not build it: {log.read_text('utf-8', 'replace')[-500:].strip()}")
    shutil.rmtree(build, ignore_errors=True)
    return program
