"""A gateway for the verbs to talk to: answers what a test puts in, remembers what it was asked."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeGateway:
    """Admin and data port in one, on a port of its own, in threads of its own."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {}
        """Path of a GET, or of a POST → status and JSON body."""
        self.results: list[Any] = []
        """What `tools/call` is answered with, one after the other: a result, or {'error': …}."""
        self.tools: list[dict[str, Any]] = []
        self.notifications: list[dict[str, Any]] = []
        """Sent on the stream before each result; without any the answer is plain JSON."""
        self.asked: list[str] = []
        self.calls: list[tuple[dict[str, str], dict[str, Any]]] = []
        """Headers and body of each `tools/call`."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, path: str) -> tuple[int, Any]:
        self.asked.append(path)
        return self.answers.get(path.partition("?")[0], (404, {"error": "not found"}))

    def mcp(self, headers: dict[str, str], body: dict[str, Any]) -> tuple[str, bytes]:
        if body["method"] == "tools/list":
            result: Any = {"tools": self.tools, "resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
        else:
            self.calls.append((headers, body))
            result = self.results.pop(0)
        key = "error" if "error" in result else "result"
        reply = {"jsonrpc": "2.0", "id": body["id"], key: result.get("error", result)}
        if not self.notifications or body["method"] == "tools/list":
            return "application/json", json.dumps(reply).encode()
        events = [*({"jsonrpc": "2.0", **one} for one in self.notifications), reply]
        return "text/event-stream", b"".join(b"data: %s\n\n" % json.dumps(event).encode() for event in events)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                status, answer = gateway.answer(self.path)
                self._send(status, "application/json", json.dumps(answer).encode())

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                if self.path.startswith("/mcp"):
                    self._send(200, *gateway.mcp({k.lower(): v for k, v in self.headers.items()}, body))
                else:
                    self.do_GET()

            def log_message(self, format: str, *args: Any) -> None:
                pass

            def _send(self, status: int, kind: str, content: bytes) -> None:
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        return Handler
