"""The server that stands behind an upstream in the contract suite, once for each transport and era.

Its tools: `echo` answers its arguments as text, `progress` says three steps and answers, `wait` shows one step of progress
and then waits until it is cancelled, `refuse_call` is answered with error -32602 and data, `die` goes away unanswered.
It tells of changes of its lists, and of resources but those with `refused` in their URI.
"""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, NamedTuple

from penstock.errors import ServerError, ServerUnavailable
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Answer, Call, Caller, Failure, Raw, Result
from penstock.upstreams.in_memory import CallContext, InMemoryServer, InMemoryUpstream, Refused
from penstock.upstreams.interface import Upstream
from penstock.upstreams.streamable_http import StreamableHttpUpstream
from tests.unit.upstreams import sse_kit
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
from tests.unit.upstreams.stdio_kit import shown, stdio_server, tool_call


class Peer(NamedTuple):
    """An upstream, and what its server noticed."""

    upstream: Upstream
    era: Era
    cancellation: Callable[[], Awaitable[None]]
    """Returns when the server has learnt that `wait` was cancelled."""
    announce: Callable[[str, dict[str, Any]], Awaitable[None]]
    """Let the server say that something has changed."""
    subscribed: Callable[[], Awaitable[set[str]]]
    """The resources it tells of."""


CALLERS = {
    Era.MODERN: Caller(Era.MODERN, "2026-07-28", None, b"{}", b'{"name":"new","version":"1"}'),
    Era.LEGACY: Caller(Era.LEGACY, "2025-11-25", "session", b"{}", b'{"name":"old","version":"1"}'),
}
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"
CHANGING = ("subscriptions/listen", "resources/subscribe", "resources/unsubscribe")
OpenPeer = Callable[[], AbstractAsyncContextManager[Peer]]


def _text(words: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": words}]}


class Streams:
    """What a server over HTTP says beside its calls."""

    def __init__(self, era: Era) -> None:
        self._era = era
        self._open: dict[Line, Any] = {}
        """Streams, each with the filter of its listen, or with the name of its session."""
        self._subscribed: dict[str, set[str]] = {}
        """By the names of legacy sessions."""

    async def script(self, asked: Asked, line: Line) -> bytes | None:
        """The answer, if this is about changes."""
        params = asked.body.get("params", {})
        if asked.rpc == "subscriptions/listen" and self._era is Era.MODERN:
            wanted = dict(params["notifications"])
            wanted["resourceSubscriptions"] = [
                uri for uri in wanted.get("resourceSubscriptions", []) if "refused" not in uri
            ]
            said = {"notifications": wanted, "_meta": {SUBSCRIPTION: asked.id}}
            await self._stream(line, wanted, rpc(method="notifications/subscriptions/acknowledged", params=said))
            return None
        session = asked.headers["mcp-session-id"]
        if asked.method == "GET":
            await self._stream(line, session)
            return None
        if "refused" in params["uri"]:
            return error(asked, 200, -32002, "no such resource")
        subscribed = self._subscribed.setdefault(session, set())
        (subscribed.add if asked.rpc == "resources/subscribe" else subscribed.discard)(params["uri"])
        return result(asked)

    async def _stream(self, line: Line, wanted: Any, *messages: bytes) -> None:
        await line.write(stream(*messages, end=False))
        self._open[line] = wanted
        try:
            await line.until_closed()
        finally:
            del self._open[line]

    async def announce(self, method: str, params: dict[str, Any]) -> None:
        async with asyncio.timeout(5):
            while not self._open:  # noqa: ASYNC110 - a stream that is being opened
                await asyncio.sleep(0.002)
        for line, wanted in self._open.items():
            uris = self._subscribed.get(wanted, ()) if self._era is Era.LEGACY else wanted["resourceSubscriptions"]
            if params.get("uri") in [None, *uris]:
                await line.write(chunk(b"data: " + rpc(method=method, params=params) + b"\n\n"))

    async def subscribed(self) -> set[str]:
        if self._era is Era.LEGACY:
            return set().union(*self._subscribed.values())
        return {uri for wanted in self._open.values() for uri in wanted["resourceSubscriptions"]}


def over_http(era: Era) -> OpenPeer:
    """A server over streamable HTTP that has one era."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Peer]:
        cancelled, streams, sessions = asyncio.Event(), Streams(era), itertools.count(1)

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
            if asked.rpc in CHANGING or (asked.method == "GET" and era is Era.LEGACY):
                return await streams.script(asked, line)
            if asked.rpc == "initialize" and era is Era.LEGACY:
                return initialized(asked, f"session-{next(sessions)}", tools={})
            if asked.rpc == "notifications/cancelled":
                cancelled.set()
            return http(202) if asked.rpc.startswith("notifications/") or asked.method == "DELETE" else http(400)

        async with serving(script) as (_, upstream):
            yield Peer(upstream, era, _waiter(cancelled), streams.announce, streams.subscribed)

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
        server.resource_template("a://{name}", name="a")(echo)
        upstream = InMemoryUpstream("peer", server)

        async def announce(method: str, params: dict[str, Any]) -> None:
            upstream.announce(method, **params)

        async def subscribed() -> set[str]:
            return upstream.subscribed

        try:
            yield Peer(upstream, era, _waiter(cancelled), announce, subscribed)
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

            async def announce(method: str, params: dict[str, Any]) -> None:
                await upstream.call(tool_call("announce", {"method": method, "params": params}))

            async def subscribed() -> set[str]:
                found = await shown(upstream)
                listened = {uri for wanted in found["listens"] for uri in wanted.get("resourceSubscriptions", [])}
                return listened | set(found["subscribed"])

            yield Peer(upstream, era, learnt, announce, subscribed)

    return opened


def over_sse(era: Era) -> OpenPeer:
    """A server over HTTP+SSE, which has the legacy era alone."""
    assert era is Era.LEGACY

    @asynccontextmanager
    async def opened() -> AsyncIterator[Peer]:
        cancelled, subscribed = asyncio.Event(), dict[sse_kit.Stream, set[str]]()

        async def on_message(asked: Asked, stream: sse_kit.Stream) -> None:
            if asked.rpc == "notifications/cancelled":
                cancelled.set()
            if asked.rpc in CHANGING:
                await _change(asked, stream, subscribed.setdefault(stream, set()))
            if asked.rpc != "tools/call":
                return
            name, token = asked.body["params"]["name"], asked.body["params"].get("_meta", {}).get("progressToken")
            for step in {"progress": (1, 2, 3), "wait": (1,)}.get(name, ()):
                await stream.say(method="notifications/progress", params={"progressToken": token, "progress": step})
            if name == "refuse_call":
                error = {"code": -32602, "message": "no such thing", "data": {"why": "because"}}
                await stream.say(id=asked.id, error=error)
            elif name == "die":
                stream.line.close()
            elif name != "wait":
                text = json.dumps(asked.body["params"]["arguments"]) if name == "echo" else "done"
                await stream.say(id=asked.id, result=_text(text))

        server = sse_kit.SseScript(on_message)

        async def announce(method: str, params: dict[str, Any]) -> None:
            for each in server.streams:
                if not each.ended.is_set() and params.get("uri") in [None, *subscribed.get(each, ())]:
                    await each.say(method=method, params=params)

        async def now_subscribed() -> set[str]:
            return set().union(*subscribed.values())

        async with serving(server, path="/sse") as (_, upstream):
            yield Peer(upstream, era, _waiter(cancelled), announce, now_subscribed)

    return opened


async def _change(asked: Asked, stream: sse_kit.Stream, subscribed: set[str]) -> None:
    uri = asked.body["params"]["uri"]
    if "refused" in uri:
        await stream.say(id=asked.id, error={"code": -32002, "message": "no such resource"})
        return
    (subscribed.add if asked.rpc == "resources/subscribe" else subscribed.discard)(uri)
    await stream.say(id=asked.id, result={})


async def _set(event: asyncio.Event) -> None:
    event.set()


def _waiter(event: asyncio.Event) -> Callable[[], Awaitable[None]]:
    async def wait() -> None:
        async with asyncio.timeout(5):
            await event.wait()

    return wait
