"""What every Python client does for the matrix: jobs from standard input, one JSON line for each operation.

The first line is `{"mode": …}`. Each line after it is a target, `{"name", "url", "operations": [{"op", …}]}`, answered with one
line for each operation and one that says the target is done; tests/peers/matrix.py writes them. An adapter opens a session of its
own client library and does with it what `Session` says.
"""

import json
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol
from urllib.parse import urlsplit

import anyio
import anyio.to_thread

from tests.peers.clients.ears import CHANGED_TOOLS, LOGGED, UPDATED, Ears

OPERATION_SECONDS = 10.0
NEWS_SECONDS = 1.0
"""How long a notification may take."""
MOST_TRIGGERS = 3
"""How often something is changed until the client hears of it: a stream may still be on its way when the first change is made."""
MOST_CANCELS = 3
OnProgress = Callable[[], None]


class Session(Protocol):
    """A client library's session, reduced to what the matrix needs."""

    async def describe(self) -> dict[str, Any]: ...
    async def tools(self) -> list[str]: ...
    async def call(self, tool: str, arguments: dict[str, Any], on_progress: OnProgress | None) -> str: ...
    async def prompt(self, name: str, arguments: dict[str, str]) -> str: ...
    async def read(self, uri: str) -> str: ...
    async def cancel(self, scope: anyio.CancelScope) -> None: ...
    async def logged_call(self, tool: str, arguments: dict[str, Any], level: str) -> str: ...
    def watch(self, uri: str | None) -> AbstractAsyncContextManager[None]: ...


Open = Callable[[dict[str, Any], str, Ears], AbstractAsyncContextManager[Session]]


def is_sse(url: str) -> bool:
    """Whether a URL is one of HTTP+SSE: the gateway's, and those of servers of that transport, say so in their paths."""
    return urlsplit(url).path.split("/")[1] == "sse"


class Failed(Exception):
    """An operation gave something other than what was expected."""


class Peer:
    """One client, connected to one target."""

    def __init__(self, session: Session, ears: Ears) -> None:
        self.session = session
        self.ears = ears


def _holds(text: str, expected: str) -> str:
    if expected not in text:
        raise Failed(f"expected {expected!r} in {text[:200]!r}")
    return text[:60]


async def _list(peer: Peer, job: dict[str, Any]) -> str:
    names = await peer.session.tools()
    missing = [name for name in job["expect"] if name not in names]
    if missing:
        raise Failed(f"not listed: {missing}; listed: {names[:20]}")
    return f"{len(names)} tools"


async def _call(peer: Peer, job: dict[str, Any]) -> str:
    return _holds(await peer.session.call(job["tool"], job["arguments"], None), job["expect"])


async def _prompt(peer: Peer, job: dict[str, Any]) -> str:
    return _holds(await peer.session.prompt(job["prompt"], job["arguments"]), job["expect"])


async def _resource(peer: Peer, job: dict[str, Any]) -> str:
    return _holds(await peer.session.read(job["uri"]), job["expect"])


async def _progress(peer: Peer, job: dict[str, Any]) -> str:
    reports = 0

    def note() -> None:
        nonlocal reports
        reports += 1

    await peer.session.call(job["tool"], job["arguments"], note)
    await anyio.sleep(0.01)  # some libraries hand a report on in a task of its own
    if reports < job["least"]:
        raise Failed(f"{reports} reports of progress, expected {job['least']} or more")
    return f"{reports} reports"


async def _cancel(peer: Peer, job: dict[str, Any]) -> str:
    """Cancel a wait, and ask the server when it noticed; more than once where others keep the machine busy."""
    late_ms = []
    for number in range(MOST_CANCELS):
        late_ms.append(await _cancel_once(peer.session, job, f"{job['key']} {number}"))
        if late_ms[-1] <= job["within_ms"]:
            return f"{late_ms[-1]:.0f} ms"
    raise Failed(f"the server noticed {late_ms} ms later, expected {job['within_ms']} or fewer")


async def _cancel_once(session: Session, job: dict[str, Any], key: str) -> float:
    """Milliseconds from giving up a wait that has begun to the moment the server noticed."""
    started = anyio.Event()
    async with anyio.create_task_group() as group:
        scope = anyio.CancelScope()

        async def wait() -> None:
            with scope:
                await session.call(job["tool"], {"key": key}, started.set)

        group.start_soon(wait)
        await started.wait()
        cancelled_at = time.time()
        await session.cancel(scope)
    for _ in range(40):
        noticed = await session.call(job["record"], {"key": key}, None)
        if noticed:
            return (float(noticed) - cancelled_at) * 1000
        await anyio.sleep(0.025)
    raise Failed("the server did not notice")


async def _ask(peer: Peer, job: dict[str, Any]) -> str:
    """Call a tool that asks: the client must have been asked, and the server must have got the answer."""
    peer.ears.answer = job.get("answer", "accept")
    peer.ears.forget()
    said = _holds(await peer.session.call(job["tool"], job["arguments"], None), job["expect"])
    asked_before = job.get("unasked") or (job.get("earlier") and job["method"] in peer.ears.ever)
    if not asked_before and not peer.ears.count(job["method"], job.get("words", "")):
        raise Failed(f"the client was not asked ({job['method']}), and yet the server says {said!r}")
    return said


async def _log(peer: Peer, job: dict[str, Any]) -> str:
    """Call a tool that logs, having said that logs are wanted."""
    seconds = job.get("news_seconds", NEWS_SECONDS)
    peer.ears.forget()
    await peer.session.logged_call(job["tool"], job["arguments"], job["level"])
    try:
        await peer.ears.hear(LOGGED, job["expect"], seconds)
    except TimeoutError:
        raise Failed(f"no log line with {job['expect']!r} within {seconds} s") from None
    finally:
        if job.get("toggles"):
            await peer.session.call(job["tool"], job["arguments"], None)
    return job["expect"]


async def _news(peer: Peer, job: dict[str, Any]) -> str:
    """Watch, have something changed, and hear of it."""
    uri = job.get("uri")
    method = UPDATED if uri else CHANGED_TOOLS
    seconds = job.get("news_seconds", NEWS_SECONDS)
    async with peer.session.watch(uri):
        triggers = job.get("triggers", MOST_TRIGGERS)
        for trigger in range(1, triggers + 1):
            peer.ears.forget()
            await peer.session.call(job["tool"], job["arguments"], None)
            try:
                await peer.ears.hear(method, uri or "", seconds)
            except TimeoutError:
                continue
            finally:
                if job.get("toggles"):
                    await peer.session.call(job["tool"], job["arguments"], None)
            return "" if trigger == 1 else f"after {trigger} changes"
    raise Failed(f"{triggers} changes, and no {method} within {seconds} s of any")


async def _describe(peer: Peer, job: dict[str, Any]) -> str:
    return json.dumps(await peer.session.describe())


OPERATIONS: dict[str, Callable[[Peer, dict[str, Any]], Awaitable[str]]] = {
    "describe": _describe,
    "list": _list,
    "call": _call,
    "prompt": _prompt,
    "resource": _resource,
    "progress": _progress,
    "cancel": _cancel,
    "ask": _ask,
    "log": _log,
    "news": _news,
}


def _say(target: str, job: dict[str, Any], error: BaseException | None, detail: str, since: float) -> None:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    line = {
        "target": target,
        "op": job.get("as", job["op"]),
        "ok": error is None,
        "detail": detail if error is None else f"{type(error).__name__}: {error}"[:400],
        "ms": round((time.monotonic() - since) * 1000, 1),
    }
    print(json.dumps(line), flush=True)


async def _run_target(open_session: Open, mode: str, target: dict[str, Any]) -> None:
    since = time.monotonic()
    left = list(target["operations"])
    ears = Ears()
    try:
        async with open_session(target, mode, ears) as session:
            while left:
                job = left.pop(0)
                since = time.monotonic()
                try:
                    with anyio.fail_after(job.get("seconds", OPERATION_SECONDS)):
                        detail = await OPERATIONS[job["op"]](Peer(session, ears), job)
                except Exception as error:  # the matrix shows it
                    _say(target["name"], job, error, "", since)
                else:
                    _say(target["name"], job, None, detail, since)
    except Exception as error:  # no session: none of the operations left can be done
        for job in left:
            _say(target["name"], job, error, "", since)
        if not left:
            _say(target["name"], {"op": "close"}, error, "", since)
    print(json.dumps({"target": target["name"], "done": True}), flush=True)


def main(open_session: Open) -> None:
    """Do the jobs that come on standard input."""

    async def run() -> None:
        mode = json.loads(sys.stdin.readline())["mode"]
        while line := await anyio.to_thread.run_sync(sys.stdin.readline):
            await _run_target(open_session, mode, json.loads(line))

    anyio.run(run)
