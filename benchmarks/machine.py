"""What machine, and which programs, the figures are of."""

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import nginx, wrk
from penstock.gateway import worker


def facts() -> dict[str, Any]:
    """JSON-ready."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1_000_000,
        "load_before": list(os.getloadavg()),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in ("penstock", "uvloop", "httptools", "msgspec")},
        "nginx": _first_match(r"nginx/(\S+)", [nginx.installed(), "-v"]),
        "wrk": _first_match(r"wrk (?:debian/)?(\S+)", [wrk.installed(), "-v"]),
        "commit": commit(),
        "compiled": not str(worker.__file__).endswith(".py"),
    }


def commit() -> str | None:
    """The commit that was measured, with `+` when files differ from it; None outside a checkout."""
    root = Path(__file__).parent.parent
    found = _first_match(r"([0-9a-f]{12,40})", ["git", "-C", str(root), "rev-parse", "HEAD"])
    if found is None:
        return None
    changed = _output(["git", "-C", str(root), "status", "--porcelain", "--untracked-files=no"])
    return found[:12] + ("+" if changed.strip() else "")


def why_not() -> str | None:
    """Why nothing can be measured here; None when it can."""
    if sys.platform != "linux":
        return "the benchmarks read CPU time and memory from /proc, so they need Linux (a container or a virtual machine will do)"
    return None


def _processor() -> str:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text("utf-8"), re.MULTILINE)
    return found[1] if found else platform.machine()


def _first_match(pattern: str, command: list[str]) -> str | None:
    found = re.search(pattern, _output(command))
    return found[1] if found else None


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return ""
    return done.stdout + done.stderr
