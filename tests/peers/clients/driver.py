"""What every Python client does for the matrix: a job from standard input, one JSON line for each operation.

A job is `{"mode": …, "targets": [{"name", "url", "operations": [{"op", …}]}]}`; tests/peers/matrix.py writes them.
An adapter opens a session of its own client library and does five things with it.
"""

import json
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol
from urllib.parse import urlsplit

import anyio

OPERATION_SECONDS = 10.0
OnProgress = Callable[[], None]


class Session(Protocol):
    """A client library's session, reduced to what the matrix needs."""

    async def describe(self) -> dict[str, Any]: ...
    async def tools(self) -> list[str]: ...
    async def call(self, tool: str, arguments: dict[str, Any], on_progress: OnProgress | None) -> str: ...
    async def prompt(self, name: str, arguments: dict[str, str]) -> str: ...
    async def read(self, uri: str) -> str: ...
    async def cancel(self, scope: anyio.CancelScope) -> None: ...


Open = Callable[[dict[str, Any], str], AbstractAsyncContextManager[Session]]


def is_sse(url: str) -> bool:
    """Whether a URL is one of HTTP+SSE: the gateway's, and those of servers of that transport, say so in their paths."""
    return urlsplit(url).path.split("/")[1] == "sse"


class Failed(Exception):
    """An operation gave something other than what was expected."""


def _holds(text: str, expected: str) -> str:
    if expected not in text:
        raise Failed(f"expected {expected!r} in {text[:200]!r}")
    return text[:60]


async def _list(session: Session, job: dict[str, Any]) -> str:
    names = await session.tools()
    missing = [name for name in job["expect"] if name not in names]
    if missing:
        raise Failed(f"not listed: {missing}; listed: {names[:20]}")
    return f"{len(names)} tools"


async def _call(session: Session, job: dict[str, Any]) -> str:
    return _holds(await session.call(job["tool"], job["arguments"], None), job["expect"])


async def _prompt(session: Session, job: dict[str, Any]) -> str:
    return _holds(await session.prompt(job["prompt"], job["arguments"]), job["expect"])


async def _resource(session: Session, job: dict[str, Any]) -> str:
    return _holds(await session.read(job["uri"]), job["expect"])


async def _progress(session: Session, job: dict[str, Any]) -> str:
    reports = 0

    def note() -> None:
        nonlocal reports
        reports += 1

    await session.call(job["tool"], job["arguments"], note)
    await anyio.sleep(0.01)  # some libraries hand a report on in a task of its own
    if reports < job["least"]:
        raise Failed(f"{reports} reports of progress, expected {job['least']} or more")
    return f"{reports} reports"


async def _cancel(session: Session, job: dict[str, Any]) -> str:
    """Cancel a wait that has begun, and ask the server when it noticed."""
    started = anyio.Event()
    async with anyio.create_task_group() as group:
        scope = anyio.CancelScope()

        async def wait() -> None:
            with scope:
                await session.call(job["tool"], {"key": job["key"]}, started.set)

        group.start_soon(wait)
        await started.wait()
        cancelled_at = time.time()
        await session.cancel(scope)
    for _ in range(40):
        noticed = await session.call(job["record"], {"key": job["key"]}, None)
        if noticed:
            late_ms = (float(noticed) - cancelled_at) * 1000
            if late_ms > job["within_ms"]:
                raise Failed(f"the server noticed {late_ms:.0f} ms later, expected {job['within_ms']} or fewer")
            return f"{late_ms:.0f} ms"
        await anyio.sleep(0.025)
    raise Failed("the server did not notice")


async def _describe(session: Session, job: dict[str, Any]) -> str:
    return json.dumps(await session.describe())


OPERATIONS: dict[str, Callable[[Session, dict[str, Any]], Awaitable[str]]] = {
    "describe": _describe,
    "list": _list,
    "call": _call,
    "prompt": _prompt,
    "resource": _resource,
    "progress": _progress,
    "cancel": _cancel,
}


def _say(target: str, operation: str, error: BaseException | None, detail: str, since: float) -> None:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    line = {
        "target": target,
        "op": operation,
        "ok": error is None,
        "detail": detail if error is None else f"{type(error).__name__}: {error}"[:400],
        "ms": round((time.monotonic() - since) * 1000, 1),
    }
    print(json.dumps(line), flush=True)


async def _run_target(open_session: Open, mode: str, target: dict[str, Any]) -> None:
    since = time.monotonic()
    left = list(target["operations"])
    try:
        with anyio.fail_after(OPERATION_SECONDS * 3):
            async with open_session(target, mode) as session:
                while left:
                    job = left.pop(0)
                    since = time.monotonic()
                    try:
                        with anyio.fail_after(OPERATION_SECONDS):
                            detail = await OPERATIONS[job["op"]](session, job)
                    except Exception as error:  # the matrix shows it
                        _say(target["name"], job["op"], error, "", since)
                    else:
                        _say(target["name"], job["op"], None, detail, since)
    except Exception as error:  # no session: none of the operations left can be done
        for job in left:
            _say(target["name"], job["op"], error, "", since)
        if not left:
            _say(target["name"], "close", error, "", since)


def main(open_session: Open) -> None:
    """Do the job that stands on standard input."""
    job = json.loads(sys.stdin.read())

    async def run() -> None:
        for target in job["targets"]:
            await _run_target(open_session, job.get("mode", "auto"), target)

    anyio.run(run)
