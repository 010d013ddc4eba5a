"""A server of both eras that does what a gateway has to translate: asks, reports, logs, changes its lists, tells of resources.

Knows: JSON-RPC messages, who sent them. Does not know: how they travel; `desk_server.py` does. Standard library only.

Every answer holds the `text` its request came with, and every question too, so that an answer that reached another client is
seen at once. `told` says what is still held here: calls under way, questions without an answer, sessions, streams, subscriptions.
"""

import asyncio
import json
import os
from collections.abc import Callable
from typing import Any

from tests.end_to_end.servers.plain_mcp import LEGACY, MODERN, Message, is_modern, result_of, text_result

TOOLS = ("echo", "big", "slow", "progress", "logs", "ask", "change", "touch", "forget", "pid", "told")
RESOURCES = 8
MAX_SLOW_SECONDS = 60.0
_SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"
_LEVEL = "io.modelcontextprotocol/logLevel"
LEVELS = ("debug", "info", "warning", "error")
_FORM = {"type": "object", "properties": {"secret": {"type": "string"}}}
UNSUPPORTED = {"code": -32022, "message": "Unsupported version", "data": {"supported": [MODERN]}}


class Peer:
    """Whoever a message came from: a call's stream, or the one pipe there is."""

    session: "Session | None" = None

    def say(self, message: Message) -> None:
        """Send something ahead of the answer."""
        raise NotImplementedError


class Session:
    """One legacy conversation."""

    def __init__(self, say: Callable[[Message], None] | None = None) -> None:
        self.say = say
        """Beside the calls; None while no stream is open."""
        self.uris: set[str] = set()
        self.tasks: dict[str, asyncio.Task[Message]] = {}
        self.questions: dict[str, asyncio.Future[Message]] = {}
        self.level = 0
        self.end: Callable[[], None] | None = None
        """Ends its stream."""


class Listen:
    """One modern `subscriptions/listen`."""

    def __init__(self, id: Any, wanted: Message, say: Callable[[Message], None]) -> None:
        self.id, self.wanted, self.say = id, wanted, say
        self.is_over = asyncio.Event()

    def tell(self, method: str, params: Message) -> None:
        self.say({"jsonrpc": "2.0", "method": method, "params": {**params, "_meta": {_SUBSCRIPTION: self.id}}})


class Desk:
    """What the server knows, in whichever era it is asked."""

    def __init__(self, name: str, kind: str) -> None:
        self.name, self.kind = name, kind
        self.sessions: set[Session] = set()
        self.listens: dict[str, Listen] = {}
        self.counts = {"calls": 0, "cancelled": 0, "ended_sessions": 0, "under_way": 0}
        self.forget: Callable[[], None] = lambda: None
        """Drops all sessions without a word; of HTTP."""
        self._numbers = 0
        self._has_extra = False
        self._calls: dict[str, Callable[[Peer, Message, Message], Any]] = {
            "big": self._big,
            "slow": self._slow,
            "progress": self._progress,
            "logs": self._logs,
            "ask": self._ask,
            "change": self._change,
            "touch": self._touch,
            "forget": self._forget,
        }

    # what is said

    def refusal(self, message: Message) -> Message | None:
        """The error for a message of an era this server has not; None when it may be answered."""
        modern = is_modern(message)
        if (self.kind == "legacy" and modern) or (message.get("method") == "server/discover" and self.kind == "legacy"):
            return {"jsonrpc": "2.0", "id": message.get("id"), "error": {"code": -32600, "message": "initialize first"}}
        if self.kind == "modern" and not modern and "id" in message and "method" in message:
            return {"jsonrpc": "2.0", "id": message["id"], "error": UNSUPPORTED}
        return None

    async def answer(self, peer: Peer, message: Message) -> Message:
        """The answer to a request."""
        method, params = message["method"], message.get("params", {})
        if method == "tools/call":
            return await self._call(peer, message, params)
        if method == "resources/read":
            result = {"contents": [{"uri": params["uri"], "mimeType": "text/plain", "text": params["uri"]}]}
            return result_of(message, result | ({"ttlMs": 0, "cacheScope": "private"} if is_modern(message) else {}))
        return self._told_at_once(peer, message, method, params)

    def _told_at_once(self, peer: Peer, message: Message, method: str, params: Message) -> Message:
        session = peer.session
        if method in {"server/discover", "initialize"}:
            return result_of(message, self._described(method))
        if method.endswith("/list"):
            return result_of(message, self._listed(method) | (_CACHE if is_modern(message) else {}))
        if method in {"resources/subscribe", "resources/unsubscribe"} and session is not None:
            (session.uris.add if method == "resources/subscribe" else session.uris.discard)(params["uri"])
            return result_of(message, {})
        if method == "logging/setLevel" and session is not None:
            session.level = LEVELS.index(params["level"]) if params["level"] in LEVELS else 0
            return result_of(message, {})
        if method == "ping":
            return result_of(message, {})
        return {"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "no such method"}}

    def _described(self, method: str) -> Message:
        info = {"name": self.name, "version": "1"}
        capabilities: Message = {
            "tools": {"listChanged": True},
            "resources": {"listChanged": True, "subscribe": True},
            "logging": {},
        }
        if method == "initialize":
            return {"protocolVersion": LEGACY, "capabilities": capabilities, "serverInfo": info}
        versions = [MODERN] if self.kind == "modern" else [MODERN, LEGACY]
        meta = {"io.modelcontextprotocol/serverInfo": info}
        return {"supportedVersions": versions, "capabilities": capabilities, "_meta": meta, **_CACHE}

    def _listed(self, method: str) -> Message:
        if method == "tools/list":
            names = [*TOOLS, *(["extra"] if self._has_extra else [])]
            return {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in names]}
        if method == "resources/list":
            uris = (self.uri(number) for number in range(RESOURCES))
            return {"resources": [{"uri": uri, "name": uri, "mimeType": "text/plain"} for uri in uris]}
        return {"prompts": []} if method == "prompts/list" else {"resourceTemplates": []}

    def uri(self, number: int) -> str:
        return f"desk://{self.name}/{number}"

    # who listens

    async def listen(self, message: Message, say: Callable[[Message], None]) -> Message:
        """Until it is cancelled, or the server ends it."""
        wanted = message["params"]["notifications"]
        one = self.listens[str(message["id"])] = Listen(message["id"], wanted, say)
        try:
            one.tell("notifications/subscriptions/acknowledged", {"notifications": wanted})
            await one.is_over.wait()
        finally:
            self.listens.pop(str(message["id"]), None)
        return result_of(message, {"_meta": {_SUBSCRIPTION: message["id"]}})

    def tell(self, method: str, flag: str = "", uri: str = "", part: str = "") -> None:
        """Everybody who wants to hear it; `part` names what of the resource has changed."""
        params = {"uri": uri + part} if uri else {}
        for one in list(self.listens.values()):
            if one.wanted.get(flag) or uri in one.wanted.get("resourceSubscriptions", ()):
                one.tell(method, params)
        for session in list(self.sessions):
            if session.say is not None and (not uri or uri in session.uris):
                session.say({"jsonrpc": "2.0", "method": method, "params": params})

    # tools

    async def _call(self, peer: Peer, message: Message, params: Message) -> Message:
        name, arguments = params["name"], params.get("arguments", {})
        self.counts["calls"] += 1
        self.counts["under_way"] += 1
        try:
            work = self._calls.get(name)
            if name == "told":
                return text_result(message, json.dumps(self.told()))
            if name == "pid":
                return text_result(message, str(os.getpid()))
            if work is None:
                return text_result(message, str(arguments.get("text", "")))
            answer: Message = await work(peer, message, arguments)
            return answer
        except asyncio.CancelledError:
            self.counts["cancelled"] += 1
            raise
        finally:
            self.counts["under_way"] -= 1

    def told(self) -> Message:
        sessions = list(self.sessions)
        return {
            **self.counts,
            "sessions": len(sessions),
            "streams": sum(session.say is not None for session in sessions),
            "questions": sum(len(session.questions) for session in sessions),
            "listens": len(self.listens),
            "subscribed": sorted({uri for session in sessions for uri in session.uris} | self._modern_uris()),
        }

    def _modern_uris(self) -> set[str]:
        return {uri for one in self.listens.values() for uri in one.wanted.get("resourceSubscriptions", ())}

    async def _big(self, _peer: Peer, message: Message, arguments: Message) -> Message:
        return text_result(message, str(arguments["text"]) + "x" * min(int(arguments["bytes"]), 1 << 22))

    async def _slow(self, _peer: Peer, message: Message, arguments: Message) -> Message:
        await asyncio.sleep(min(float(arguments["seconds"]), MAX_SLOW_SECONDS))
        return text_result(message, str(arguments["text"]))

    async def _progress(self, peer: Peer, message: Message, arguments: Message) -> Message:
        token = message["params"].get("_meta", {}).get("progressToken")
        steps = min(int(arguments["steps"]), 1000)
        for step in range(steps if token is not None else 0):
            params = {"progressToken": token, "progress": step + 1, "total": steps, "message": arguments["text"]}
            peer.say({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
            await asyncio.sleep(0)
        return text_result(message, str(arguments["text"]))

    async def _logs(self, peer: Peer, message: Message, arguments: Message) -> Message:
        if is_modern(message):
            level = message["params"]["_meta"].get(_LEVEL)
            least = LEVELS.index(level) if level in LEVELS else len(LEVELS)
        else:
            least = peer.session.level if peer.session is not None else 0
        for rank, name in enumerate(LEVELS):
            if rank >= least:
                params = {"level": name, "data": arguments["text"]}
                peer.say({"jsonrpc": "2.0", "method": "notifications/message", "params": params})
        return text_result(message, str(arguments["text"]))

    async def _change(self, _peer: Peer, message: Message, arguments: Message) -> Message:
        for _ in range(min(int(arguments.get("times", 1)), 1000)):
            self._has_extra = not self._has_extra
            self.tell("notifications/tools/list_changed", "toolsListChanged")
            await asyncio.sleep(0)
        return text_result(message, str(arguments["text"]))

    async def _forget(self, _peer: Peer, message: Message, arguments: Message) -> Message:
        asyncio.get_running_loop().call_later(0.05, self.forget)
        return text_result(message, str(arguments["text"]))

    async def _touch(self, _peer: Peer, message: Message, arguments: Message) -> Message:
        """With `padding`, each time another part of the resource, so that no two are told as one; nor of two rounds."""
        padding = min(int(arguments.get("padding", 0)), 10_000)
        for number in range(min(int(arguments.get("times", 1)), 1000)):
            part = f"/{arguments.get('round', 0)}.{number}{'x' * padding}" if padding else ""
            self.tell("notifications/resources/updated", uri=str(arguments["uri"]), part=part)
            await asyncio.sleep(0)
        return text_result(message, str(arguments["text"]))

    async def _ask(self, peer: Peer, message: Message, arguments: Message) -> Message:
        """Asks for `kinds` at once and says what came, behind the text."""
        asks = {kind: _question(kind, str(arguments["text"])) for kind in arguments["kinds"]}
        if is_modern(message):
            params = message["params"]
            if "inputResponses" not in params:
                state = json.dumps([self.name, arguments["text"]])
                asked = {"resultType": "input_required", "inputRequests": asks, "requestState": state}
                return {"jsonrpc": "2.0", "id": message["id"], "result": asked}
            if json.loads(params["requestState"]) != [self.name, arguments["text"]]:
                raise AssertionError(f"the state of another call: {params['requestState']}")
            replies = params["inputResponses"]
        else:
            replies = dict(zip(asks, await self._ask_session(peer, list(asks.values())), strict=True))
        return text_result(message, json.dumps({"text": arguments["text"], "replies": replies}))

    async def _ask_session(self, peer: Peer, asks: list[Message]) -> list[Message]:
        session = peer.session
        assert session is not None, "whoever is asked has a session"
        futures = {}
        for ask in asks:
            self._numbers += 1
            number = f"q{self._numbers}"
            futures[number] = session.questions[number] = asyncio.get_running_loop().create_future()
            peer.say({"jsonrpc": "2.0", "id": number, **ask})
        try:
            return [await future for future in futures.values()]
        except asyncio.CancelledError:
            for number, future in futures.items():
                if not future.done():
                    params = {"requestId": number}
                    peer.say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})
            raise
        finally:
            for number in futures:
                session.questions.pop(number, None)

    @staticmethod
    def replied(session: Session, message: Message) -> None:
        """A client's answer to a question."""
        future = session.questions.get(str(message.get("id")))
        if future is not None and not future.done():
            future.set_result(message.get("result", {"error": message.get("error")}))

    @staticmethod
    def cancel(session: Session, message: Message) -> None:
        """The client does not want an answer any more."""
        task = session.tasks.get(json.dumps(message["params"]["requestId"]))
        if task is not None:
            task.cancel()


_CACHE: Message = {"ttlMs": 60_000, "cacheScope": "public"}


def _question(kind: str, text: str) -> Message:
    if kind == "form":
        params: Message = {"mode": "form", "message": text, "requestedSchema": _FORM}
        return {"method": "elicitation/create", "params": params}
    if kind == "sampling":
        said = {"role": "user", "content": {"type": "text", "text": text}}
        return {"method": "sampling/createMessage", "params": {"messages": [said], "maxTokens": 10}}
    return {"method": "roots/list", "params": {}}
