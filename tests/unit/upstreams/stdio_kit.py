"""What the tests of stdio servers share: a scripted child, calls, and questions to the operating system."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from penstock.protocol.versions import Era
from penstock.upstreams.calls import Answer, Call, Caller, Failure, Result
from penstock.upstreams.child_guard import ChildGuard
from penstock.upstreams.stdio import StdioSettings, StdioUpstream

Raw = msgspec.Raw
CHILD = str(Path(__file__).resolve().parents[2] / "fixtures" / "stdio_child.py")
MODERN_CALLER = Caller(
    Era.MODERN, "2026-07-28", None, capabilities=b'{"elicitation":{}}', client_info=b'{"name":"tester","version":"1"}'
)
LEGACY_CALLER = Caller(Era.LEGACY, "2025-11-25", None)
PATIENCE_SECONDS = 10.0


def child_command(*arguments: str) -> tuple[str, ...]:
    """argv of the scripted child."""
    return (sys.executable, "-I", "-S", CHILD, *arguments)


@asynccontextmanager
async def stdio_server(
    *arguments: str, command: tuple[str, ...] | None = None, **more: Any
) -> AsyncIterator[StdioUpstream]:
    """The scripted child as an upstream named `child`, ended with the block; `more` are settings, `clock` aside."""
    guard = ChildGuard()
    clock = more.pop("clock", None)
    settings = StdioSettings(command=command or child_command(*arguments), **more)
    upstream = StdioUpstream("child", settings, guard=guard, clock=clock, random_number=lambda: 1.0)
    try:
        yield upstream
    finally:
        await upstream.close()
        await guard.close()


def tool_call(
    tool: str,
    arguments: dict[str, Any] | None = None,
    *,
    caller: Caller = MODERN_CALLER,
    meta: dict[str, Any] | None = None,
    notify: Callable[[str, dict[str, Raw]], None] | None = None,
) -> Call:
    params = {"name": Raw(msgspec.json.encode(tool)), "arguments": Raw(msgspec.json.encode(arguments or {}))}
    raw_meta = None if meta is None else {key: Raw(msgspec.json.encode(value)) for key, value in meta.items()}
    return Call("tools/call", params, caller=caller, name=tool, meta=raw_meta, notify=notify)


def text_of(answer: Answer) -> str:
    """The text of a tool's result."""
    assert isinstance(answer, Result), answer
    return str(json.loads(answer.raw)["content"][0]["text"])


def failure_of(answer: Answer) -> Failure:
    assert isinstance(answer, Failure), answer
    return answer


async def ask(upstream: StdioUpstream, tool: str, arguments: dict[str, Any] | None = None, **more: Any) -> str:
    """Call a tool and return the text of its result."""
    return text_of(await upstream.call(tool_call(tool, arguments, **more)))


async def shown(upstream: StdioUpstream, **more: Any) -> dict[str, Any]:
    """What the child knows of itself and of this call."""
    found: dict[str, Any] = json.loads(await ask(upstream, "show", **more))
    return found


class Waiting:
    """A call of the child's tool `wait` that is known to have reached the child."""

    def __init__(self, upstream: StdioUpstream, **more: Any) -> None:
        self._arrived = asyncio.Event()
        self.call = tool_call("wait", meta={"progressToken": "arrived"}, notify=self._notify, **more)
        self.task = asyncio.create_task(upstream.call(self.call))

    def _notify(self, method: str, params: dict[str, Raw]) -> None:
        self._arrived.set()

    async def arrived(self) -> "Waiting":
        arrived = asyncio.ensure_future(self._arrived.wait())
        await asyncio.wait((arrived, self.task), timeout=PATIENCE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        assert arrived.done(), self.task
        return self


class Notices:
    """Collects notifications as plain values."""

    def __init__(self) -> None:
        self.items: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, method: str, params: dict[str, Raw]) -> None:
        self.items.append((method, {key: json.loads(bytes(value)) for key, value in params.items()}))


def is_running(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return not Path("/proc").exists()
    return stat.rpartition(")")[2].split()[0] != "Z"


def children_of(pid: int) -> list[int]:
    """Its children, zombies included."""
    tasks = Path(f"/proc/{pid}/task")
    if tasks.exists():
        found: list[int] = []
        for task in tasks.iterdir():
            with contextlib.suppress(FileNotFoundError):  # a thread that has ended meanwhile
                found += map(int, (task / "children").read_text().split())
        return found
    table = subprocess.run(("ps", "-A", "-o", "pid=,ppid="), capture_output=True, text=True, check=True).stdout
    pairs = [line.split() for line in table.splitlines()]
    return [int(child) for child, parent in pairs if parent == str(pid)]


def descriptors() -> int:
    """Open descriptors of this process."""
    return len(list(Path("/dev/fd").iterdir()))


async def until(condition: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
    """Wait for something outside this process, which cannot tell us."""
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + seconds
    while not condition():
        assert loop.time() < give_up_at, "it did not happen in time"
        await asyncio.sleep(0.005)
