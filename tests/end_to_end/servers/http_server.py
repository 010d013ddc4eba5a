"""A well-behaved streamable HTTP server of both eras on Penstock's own lane: legacy sessions, a slow tool, a drain on SIGTERM.

usage: http_server.py PORT [ERA]     prints `ready PORT`; ERA `legacy` knows the handshake alone
"""

import asyncio
import json
import os
import signal
import sys

import uvloop

from penstock.clock import SystemClock
from penstock.http.limits import ServerLimits
from penstock.http.server import Exchange, HttpServer
from tests.end_to_end.servers.plain_mcp import (
    Message,
    answer_without_tools,
    call_of,
    is_modern,
    plain_tool,
    text_result,
)

TOOLS = ["echo", "pid", "session", "slow"]
DRAIN_SECONDS = 5.0


class Server:
    def __init__(self, is_legacy: bool) -> None:
        self._is_legacy = is_legacy
        self._sessions: dict[bytes, int] = {}
        """Calls made in each."""

    def __call__(self, exchange: Exchange) -> None:
        request = exchange.request
        if request.method != b"POST":
            if request.method == b"DELETE":
                self._sessions.pop(request.headers.get(b"mcp-session-id", b""), None)
            exchange.respond(200 if request.method == b"DELETE" else 405)
            return
        message = json.loads(request.body)
        session = request.headers.get(b"mcp-session-id")
        if self._is_legacy and is_modern(message):
            error = {"code": -32000, "message": "Bad Request: no session, and this is no initialize"}
            exchange.respond(400, json.dumps({"jsonrpc": "2.0", "id": None, "error": error}).encode())
        elif message.get("method") == "initialize":
            session = os.urandom(8).hex().encode()
            self._sessions[session] = 0
            self._answer(exchange, message, b"mcp-session-id: %b\r\n" % session)
        elif not is_modern(message) and session not in self._sessions:
            exchange.respond(404)
        elif message.get("method") == "tools/call":
            self._call(exchange, message, session)
        else:
            self._answer(exchange, message)

    def _answer(self, exchange: Exchange, message: Message, headers: bytes = b"") -> None:
        answer = answer_without_tools(message, TOOLS)
        if answer is None:
            exchange.respond(202)
        else:
            exchange.respond(200, json.dumps(answer).encode(), headers=headers)

    def _call(self, exchange: Exchange, message: Message, session: bytes | None) -> None:
        if session is not None:
            self._sessions[session] += 1
        name, arguments = call_of(message)
        if name == "slow":
            exchange.spawn(self._slow(exchange, message, arguments))
            return
        answer = plain_tool(message)
        if answer is None:
            said = {"session": session.decode() if session else None, "calls": self._sessions.get(session or b"")}
            answer = text_result(message, json.dumps(said))
        exchange.respond(200, json.dumps(answer).encode())

    async def _slow(self, exchange: Exchange, message: Message, arguments: Message) -> None:
        await asyncio.sleep(float(arguments["seconds"]))
        exchange.respond(200, json.dumps(text_result(message, arguments.get("text", "slept"))).encode())


async def main(port: int, is_legacy: bool) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = await HttpServer.start(
        Server(is_legacy),
        host="127.0.0.1",
        port=port,
        limits=ServerLimits(),
        tls=None,
        reuse_port=False,
        clock=SystemClock(),
    )
    print("ready", server.addresses[0][1], flush=True)
    await stop.wait()
    await server.drain(DRAIN_SECONDS)
    server.close()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2:] == ["legacy"]))
