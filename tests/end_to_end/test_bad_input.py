"""Bad input of clients, row by row, over raw sockets against a real `penstock serve --demo`.

Each row names what is sent, what comes back (status and JSON-RPC code) and whether the connection can be used afterwards.
"""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

SERVE = "import sys; from penstock.cli.main import main; sys.exit(main(['serve', *sys.argv[1:]]))"
CONFIG = """\
[limits]
header_deadline = "1s"
body_bytes = "64KiB"

[servers.picky]
command = [{python}, "-c", {program}]
"""
PICKY = """
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    if "id" not in asked:
        continue
    answer = {"resultType": "complete"}
    if asked["method"] == "server/discover":
        answer |= {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
    elif asked["method"] == "tools/list":
        answer |= {"tools": [{"name": "ask", "inputSchema": {"type": "object"}}], "ttlMs": 0, "cacheScope": "private"}
    else:
        data = {"requiredCapabilities": {"elicitation": {}}}
        error = {"code": -32021, "message": "Missing required client capability", "data": data}
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "error": error}), flush=True)
        continue
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": answer}), flush=True)
"""
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
ECHO = {"name": "demo_echo", "arguments": {"text": "hello"}}
USUAL = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
MODERN = {"mcp-protocol-version": "2026-07-28"}
LEGACY = {"mcp-protocol-version": "2025-11-25"}
BATCHES = {"mcp-protocol-version": "2025-03-26"}
DEEP = b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":' + b"[" * 70 + b"]" * 70 + b"}}"


class Answered(NamedTuple):
    """One response as it came."""

    status: int
    headers: dict[str, str]
    body: Any

    @property
    def code(self) -> int | None:
        """Of the JSON-RPC error; None when there is none."""
        error = self.body.get("error") if isinstance(self.body, dict) else None
        return error["code"] if isinstance(error, dict) else None


class Row(NamedTuple):
    """A kind of bad input."""

    name: str
    sent: bytes
    status: int
    code: int | None
    stays: bool = True
    """Whether the connection can be used afterwards."""
    data: dict[str, Any] | None = None
    """What must stand in the error's `data`."""


class Line:
    """A connection of a client that sends what it likes."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._file = self._socket.makefile("rb")

    def send(self, raw: bytes) -> None:
        self._socket.sendall(raw)

    def answer(self) -> Answered:
        """Read one response; a stream's answer is its last event."""
        start = self._file.readline()
        assert start.startswith(b"HTTP/1.1 "), start
        headers = {}
        while line := self._file.readline().strip():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        if "chunked" in headers.get("transfer-encoding", ""):
            body = self._events()
        else:
            raw = self._file.read(int(headers.get("content-length", "0")))
            body = json.loads(raw) if raw else None
        return Answered(int(start[9:12]), headers, body)

    def _events(self) -> Any:
        raw = b""
        while size := int(self._file.readline(), 16):
            raw += self._file.read(size)
            self._file.readline()
        self._file.readline()
        return json.loads(re.findall(rb"data: (.*)", raw)[-1])

    def is_at_end(self) -> bool:
        return self._file.read(1) == b""

    def close(self) -> None:
        self._file.close()
        self._socket.close()


def post(body: Any = b"", headers: dict[str, str] | None = None, *, path: str = "/mcp", more: bytes = b"") -> bytes:
    """A well-framed POST; `more` is added to its header as it is."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = {"host": "localhost", **USUAL, "content-length": str(len(raw)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
    return f"POST {path} HTTP/1.1\r\n{head}".encode("latin-1") + more + b"\r\n" + raw


def request(method: str, params: dict[str, Any] | None = None, **members: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}} | members


def modern(
    method: str = "tools/call",
    params: dict[str, Any] | None = None,
    *,
    meta: dict[str, Any] = META,
    without: str = "",
    **headers: str,
) -> bytes:
    """A modern request, well-formed but for what is said."""
    params = ECHO if params is None else params
    sent = {**MODERN, "mcp-method": method}
    if "name" in params:
        sent["mcp-name"] = str(params["name"])
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    sent.pop(without, None)
    return post(request(method, params | {"_meta": meta}), sent)


def legacy(method: str = "tools/call", params: dict[str, Any] | None = None, **headers: str) -> bytes:
    """A legacy request without a session."""
    sent = LEGACY | {name.replace("_", "-"): value for name, value in headers.items()}
    return post(request(method, ECHO if params is None else params), sent)


def lacking(names: str) -> dict[str, Any]:
    return {key: value for key, value in META.items() if not key.endswith(names)}


NEXT = "2030-01-01"
NEW = META | {"io.modelcontextprotocol/protocolVersion": NEXT}
SUPPORTED = ["2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"]

ENVELOPES = [
    Row(f"{era}: {name}", post(body, headers), 400, code)
    for era, headers in (("modern", MODERN), ("legacy", LEGACY))
    for name, body, code in (
        ("not JSON", b"nonsense", -32700),
        ("cut off", b'{"jsonrpc":"2.0","id":1', -32700),
        ("not UTF-8", b'{"jsonrpc":"2.0","id":1,"method":"\xff"}', -32700),
        ("empty", b"", -32700),
        ("not an object", b"5", -32600),
        ("no version of JSON-RPC", b'{"id":1,"method":"ping"}', -32600),
        ("another version of JSON-RPC", b'{"jsonrpc":"1.0","id":1,"method":"ping"}', -32600),
        ("params no object", b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}', -32600),
        ("method no string", b'{"jsonrpc":"2.0","id":1,"method":5}', -32600),
        ("batch", b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', -32600),
        ("id null", b'{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600),
        ("id a float", b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', -32600),
        ("id huge", b'{"jsonrpc":"2.0","id":9007199254740993,"method":"ping"}', -32600),
        ("id an object", b'{"jsonrpc":"2.0","id":{},"method":"ping"}', -32600),
        ("too deep", DEEP, 413),
    )
]
MODERN_ROWS = [
    Row("modern: no Mcp-Method", modern(without="mcp-method"), 400, -32020),
    Row("modern: no Mcp-Name", modern(without="mcp-name"), 400, -32020),
    Row("modern: no MCP-Protocol-Version", modern(without="mcp-protocol-version"), 400, -32020),
    Row("modern: Mcp-Method differs", modern(mcp_method="tools/list"), 400, -32020),
    Row("modern: Mcp-Name differs", modern(mcp_name="demo_add"), 400, -32020),
    Row("modern: Mcp-Name not decodable", modern(mcp_name="=?base64?!!?="), 400, -32020),
    Row("modern: version differs", modern(mcp_protocol_version=NEXT), 400, -32020),
    Row("modern: clientInfo malformed", modern(meta=META | {"io.modelcontextprotocol/clientInfo": 5}), 400, -32602),
    Row("modern: no clientCapabilities", modern(meta=lacking("clientCapabilities")), 400, -32602),
    Row("modern: no protocolVersion", modern(meta=lacking("protocolVersion")), 400, -32602),
    Row("modern: no _meta", post(request("tools/list"), MODERN | {"mcp-method": "tools/list"}), 400, -32602),
    Row(
        "modern: unknown version",
        modern(meta=NEW, mcp_protocol_version=NEXT),
        400,
        -32022,
        data={"supported": SUPPORTED, "requested": NEXT},
    ),
    Row("modern: unknown method", modern("tools/explode", {}), 404, -32601),
    Row("modern: a legacy method", modern("initialize", {}), 404, -32601),
    Row(
        "modern: missing capability",
        modern(params={"name": "picky_ask", "arguments": {}}),
        400,
        -32021,
        data={"requiredCapabilities": {"elicitation": {}}},
    ),
    Row("modern: a response", post({"jsonrpc": "2.0", "id": 1, "result": {}}, MODERN), 400, -32600),
    Row("modern: unknown tool", modern(params={"name": "demo_nothing", "arguments": {}}), 200, -32602),
    Row("modern: cursor made up", modern("tools/list", {"cursor": "made up"}), 200, -32602),
]
LEGACY_ROWS = [
    Row("legacy: unknown method", legacy("tools/explode", {}), 200, -32601),
    Row("legacy: unknown tool", legacy(params={"name": "nobody"}), 200, -32602),
    Row("legacy: no name", legacy(params={}), 200, -32602),
    Row("legacy: cursor made up", legacy("tools/list", {"cursor": "made up"}), 200, -32602),
    Row("legacy: missing capability", legacy(params={"name": "picky_ask", "arguments": {}}), 200, -32600),
    Row("legacy: malformed initialize", legacy("initialize", {}), 200, -32602),
    Row("legacy: bad version header", legacy(mcp_protocol_version="2025-01-01"), 400, -32600),
    Row("legacy: lost session", legacy(mcp_session_id="made-up"), 404, -32600),
    Row(
        "legacy: lost session of a notification",
        post({"jsonrpc": "2.0", "method": "x"}, LEGACY | {"mcp-session-id": "x"}),
        404,
        -32600,
    ),
    Row("legacy: empty batch", post(b"[]", BATCHES), 400, -32600),
    Row("legacy: batch too large", post([request("ping")] * 101, BATCHES), 400, -32600),
]
DOORS = [
    Row("origin not allowed", modern(origin="https://evil.example"), 403, 403),
    Row("host not allowed", modern(host="evil.example"), 403, 403),
    Row("unknown view", post(request("ping"), LEGACY, path="/mcp/nobody"), 404, None),
    Row("method of HTTP not allowed", b"PUT /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n", 405, None),
]
LANE = [
    Row("body over the limit", post(b"x" * 65_537, LEGACY), 413, 413, stays=False),
    Row("body over the limit, announced", post(b"", LEGACY | {"content-length": "65537"}), 413, 413, stays=False),
    Row(
        "header flood: fields",
        post(b"{}", more=b"".join(b"x-%d: y\r\n" % n for n in range(150))),
        431,
        431,
        stays=False,
    ),
    Row("header flood: bytes", post(b"{}", more=b"x: " + b"y" * 20_000 + b"\r\n"), 431, 431, stays=False),
    Row("target too long", post(b"{}", path="/" + "x" * 9_000), 414, 414, stays=False),
    Row("slow sender of a header", b"POST /mcp HTTP/1.1\r\nhost: local", 408, 408, stays=False),
    Row("slow sender of a body", post(b"{", {"content-length": "5000"}), 408, 408, stays=False),
    Row("TE with CL", post(b"0\r\n\r\n", {"transfer-encoding": "chunked"}), 400, 400, stays=False),
    Row("repeated CL", post(b"{}", more=b"content-length: 2\r\n"), 400, 400, stays=False),
    Row("CL with a list", post(b"{}", {"content-length": "2, 2"}), 400, 400, stays=False),
    Row("obs-fold", post(b"{}", more=b"x-a: b\r\n c\r\n"), 400, 400, stays=False),
    Row("bare LF", b"POST /mcp HTTP/1.1\nhost: localhost\ncontent-length: 0\n\n", 400, 400, stays=False),
    Row("absolute-form to another host", post(b"{}", path="http://evil.example/mcp"), 400, 400, stays=False),
    Row("Mcp_Name twin", post(b"{}", {**MODERN, "mcp-name": "a"}, more=b"mcp_name: b\r\n"), 400, 400, stays=False),
    Row("Mcp-Name twice", post(b"{}", {**MODERN, "mcp-name": "a"}, more=b"Mcp-Name: b\r\n"), 400, 400, stays=False),
    Row("control character in a value", post(b"{}", more=b"x-a: b\x01c\r\n"), 400, 400, stays=False),
    Row("NUL in a value", post(b"{}", more=b"x-a: b\x00c\r\n"), 400, 400, stays=False),
    Row("no Host", post(b"{}", {"host": ""}), 400, 400, stays=False),
    Row("two Hosts", post(b"{}", more=b"host: localhost\r\n"), 400, 400, stays=False),
]
TABLE = [*ENVELOPES, *MODERN_ROWS, *LEGACY_ROWS, *DOORS, *LANE]


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Of a gateway process that serves the demo and one server that asks for a capability."""
    home = tmp_path_factory.mktemp("home")
    config = home / "penstock.toml"
    config.write_text(CONFIG.format(python=json.dumps(sys.executable), program=json.dumps(PICKY)))
    config.chmod(0o600)
    words = ["--demo", "--config", str(config), "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    environment |= {"HOME": str(home), "PENSTOCK_STATE_DIR": str(home / "state")}
    with (Path(home) / "log").open("w+") as log:
        command = [sys.executable, "-c", SERVE, *words]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment) as gateway:
            assert gateway.stdout is not None
            try:
                for line in gateway.stdout:
                    if line.startswith("Penstock listens on "):
                        found = int(line.rstrip().removesuffix("/mcp").rpartition(":")[2])
                    if line.startswith("Admin: "):
                        break
                yield found
            finally:
                gateway.terminate()
                gateway.communicate(timeout=30)
        log.seek(0)
        assert "Traceback" not in log.read()
    assert gateway.returncode == 0


@pytest.fixture
def line(port: int) -> Iterator[Line]:
    one = Line(port)
    yield one
    one.close()


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_bad_input_gets_what_the_table_says(line: Line, port: int, row: Row) -> None:
    line.send(row.sent)
    answered = line.answer()
    assert (answered.status, answered.code) == (row.status, row.code), answered
    if row.data is not None:
        assert answered.body["error"]["data"] == row.data
    if row.stays:
        assert_served(line)
    else:
        assert answered.headers["connection"] == "close"
        assert line.is_at_end()
    other = Line(port)
    assert_served(other)
    other.close()


def assert_served(line: Line) -> None:
    """Both eras are answered on this connection."""
    line.send(modern())
    assert line.answer().body["result"]["content"][0]["text"] == "hello"
    line.send(legacy())
    assert line.answer().body["result"]["content"][0]["text"] == "hello"


def test_batches_are_served_where_the_revision_has_them(line: Line) -> None:
    line.send(post([request("ping"), request("tools/call", ECHO, id=2)], BATCHES))
    answered = line.answer()
    assert [member["id"] for member in answered.body] == [1, 2]


def test_bad_input_in_a_pipeline_is_answered_in_its_turn(line: Line) -> None:
    line.send(modern() + post(b"nonsense", LEGACY) + legacy("tools/explode", {}) + modern())
    answers = [line.answer() for _ in range(4)]
    assert [(one.status, one.code) for one in answers] == [(200, None), (400, -32700), (200, -32601), (200, None)]


def test_a_dead_session_is_404_for_every_request_of_its_client(line: Line) -> None:
    info = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    line.send(legacy("initialize", info))
    session = line.answer().headers["mcp-session-id"]
    line.send(legacy(mcp_session_id=session))
    assert line.answer().status == 200
    tampered = session[:-3] + ("AAA" if not session.endswith("AAA") else "BBB")
    line.send(legacy(mcp_session_id=tampered))
    assert line.answer().status == 404
    line.send(f"DELETE /mcp HTTP/1.1\r\nhost: localhost\r\nmcp-session-id: {session}\r\n\r\n".encode())
    assert line.answer().status == 204
    for method in ("tools/call", "ping", "tools/list"):
        line.send(legacy(method, {} if method != "tools/call" else ECHO, mcp_session_id=session))
        assert (answered := line.answer()).status == 404
        assert answered.code == -32600
