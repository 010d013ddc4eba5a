"""The server that stands behind an upstream in the contract suite, once for each transport and era.

Its tools: `echo` answers its arguments as text, `progress` says three steps and answers, `wait` shows one step of progress
and then waits until it is cancelled, `refuse_call` is answered with error -32602 and data, `die` goes away unanswered.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, NamedTuple

from penstock.errors import ServerError, ServerUnavailable
from penstock.protocol.versions import Era
from penstock.upstreams.in_memory import CallContext, InMemoryServer, InMemoryUpstream, Refused
from penstock.upstreams.interface import Answer, Call, Caller, Failure, Raw, Result, Upstream
from penstock.upstreams.streamable_http import StreamableHttpUpstream
from tests.unit.upstreams.scripted_http import (
    Asked,
    Line,
    chunk,
    discovered,
    error,
    http,
    initialized,
    result,
    rpc,
    serving,
    stream,
)
from tests.unit.upstreams.stdio_kit import stdio_server, tool_call


class Peer(NamedTuple):
    """An upstream, and what its server noticed."""

    upstream: Upstream
    era: Era
    cancellation: Callable[[], Awaitable[None]]
    """Returns when the server has learnt that `wait` was cancelled."""


CALLERS = {
    Era.MODERN: Caller(Era.MODERN, "2026-07-28", None, b"{}", b'{"name":"new","version":"1"}'),
    Era.LEGACY: Caller(Era.LEGACY, "2025-11-25", "session", b"{}", b'{"name":"old","version":"1"}'),
}
OpenPeer = Callable[[], AbstractAsyncContextManager[Peer]]


def _text(words: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": words}]}


def over_http(era: Era) -> OpenPeer:
    """A server over streamable HTTP that has one era."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Peer]:
        cancelled = asyncio.Event()

        async def tool(asked: Asked, line: Line) -> bytes | None:
            name, token = asked.body["params"]["name"], asked.body["params"].get("_meta", {}).get("progressToken")
            steps = [
                rpc(method="notifications/progress", params={"progressToken": token, "progress": step})
                for step in (1, 2, 3)
            ]
            if name == "echo":
                return result(asked, **_text(json.dumps(asked.body["params"]["arguments"])))
            if name == "progress":
                return stream(*steps, rpc(id=asked.id, result=_text("done")))
            if name == "refuse_call":
                return error(asked, 200, -32602, "no such thing", data={"why": "because"})
            if name == "die":
                line.close()
                return None
            await line.write(stream(steps[0], end=False))
            if era is Era.MODERN:
                await line.until_closed()
            await (cancelled.wait() if era is Era.LEGACY else _set(cancelled))
            return chunk(b"data: " + rpc(id=asked.id, result={}) + b"\n\n") + b"0\r\n\r\n"

        async def script(asked: Asked, line: Line) -> bytes | None:
            if asked.rpc == "tools/call":
                return await tool(asked, line)
            if asked.rpc == "server/discover" and era is Era.MODERN:
                return discovered(asked)
            if asked.rpc == "initialize" and era is Era.LEGACY:
                return initialized(asked, tools={})
            if asked.rpc == "notifications/cancelled":
                cancelled.set()
            return http(202) if asked.rpc.startswith("notifications/") or asked.method == "DELETE" else http(400)

        async with serving(script) as (_, upstream):
            yield Peer(upstream, era, _waiter(cancelled))

    return opened


class Starting:
    """An upstream whose calls are sent at once, as the gateway does where nothing has to be waited for (`QuickUpstream`)."""

    def __init__(self, upstream: StreamableHttpUpstream) -> None:
        self._upstream = upstream
        self.name = upstream.name
        self.describe = upstream.describe
        self._has_sessions = True
        self.state, self.recent_log, self.close = upstream.state, upstream.recent_log, upstream.close
        self.binds, self.hear, self.roots_changed = upstream.binds, upstream.hear, upstream.roots_changed
        self.subscribe, self.unsubscribe = upstream.subscribe, upstream.unsubscribe

    async def call(self, call: Call) -> Answer:
        """Send it at once; as a task only when no connection is free, or its session has been ended."""
        ended: asyncio.Future[Answer | ServerError | None] = asyncio.get_running_loop().create_future()
        call.on_end = ended.set_result  # a second outcome is an InvalidStateError
        flight = self._upstream.start(call)
        if flight is None:
            assert self.state()["connections"]["idle"] == 0 or not self._has_sessions
            return await self._upstream.call(call)
        try:
            outcome = await asyncio.shield(ended)
        except asyncio.CancelledError:
            flight.cancel()
            assert ended.done()
            assert ended.result() is None
            raise
        if isinstance(outcome, Result | Failure):
            return outcome
        assert outcome is not None
        raise outcome

    async def close_session(self, session: str) -> None:
        """The next call has to open one."""
        self._has_sessions = False
        await self._upstream.close_session(session)

    async def until_at_rest(self) -> None:
        """Every connection has come back to the pool."""
        async with asyncio.timeout(5):
            while self.state()["connections"]["busy"]:  # noqa: ASYNC110 - connections tell nobody but their pool
                await asyncio.sleep(0.002)


def sent_at_once(era: Era) -> OpenPeer:
    """A server over streamable HTTP whose era, sessions and connection are at hand."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Peer]:
        async with over_http(era)() as peer:
            assert isinstance(peer.upstream, StreamableHttpUpstream)
            for caller in CALLERS.values():
                params = {"name": Raw(b'"echo"'), "arguments": Raw(b"{}")}
                await peer.upstream.call(Call("tools/call", params, caller=caller, name="echo"))
            starting = Starting(peer.upstream)
            yield peer._replace(upstream=starting)
            await starting.until_at_rest()

    return opened


def in_memory(era: Era) -> OpenPeer:
    """Functions in this process."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Peer]:
        cancelled = asyncio.Event()
        server = InMemoryServer("peer", era=era)
        schema = {"type": "object"}

        async def echo(arguments: dict[str, Any], _: CallContext) -> Any:
            return json.dumps(arguments)

        async def progress(_: dict[str, Any], context: CallContext) -> Any:
            for step in (1, 2, 3):
                context.progress(step)
            return "done"

        async def wait(_: dict[str, Any], context: CallContext) -> Any:
            context.progress(1)
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        async def refuse_call(_: dict[str, Any], __: CallContext) -> Any:
            raise Refused(-32602, "no such thing", {"why": "because"})

        async def die(_: dict[str, Any], __: CallContext) -> Any:
            raise ServerUnavailable("peer", "it went away before it answered")

        for handler in (echo, progress, wait, refuse_call, die):
            server.tool(handler.__name__, input_schema=schema)(handler)
        upstream = InMemoryUpstream("peer", server)
        try:
            yield Peer(upstream, era, _waiter(cancelled))
        finally:
            await upstream.close()

    return opened


def over_stdio(era: Era) -> OpenPeer:
    """A child process."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Peer]:
        async with stdio_server(era.value) as upstream:

            async def learnt() -> None:
                """Its pipe keeps order: whatever it is asked next finds the notification taken in."""
                answer = await upstream.call(tool_call("show"))
                assert isinstance(answer, Result)
                assert json.loads(json.loads(answer.raw)["content"][0]["text"])["cancelled"]

            yield Peer(upstream, era, learnt)

    return opened


async def _set(event: asyncio.Event) -> None:
    event.set()


def _waiter(event: asyncio.Event) -> Callable[[], Awaitable[None]]:
    async def wait() -> None:
        async with asyncio.timeout(5):
            await event.wait()

    return wait
