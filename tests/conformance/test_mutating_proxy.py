"""The proxy changes what a mutation names, counts that it did, and nothing else."""

import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conformance.mutating_proxy import MutatingProxy
from tests.conformance.mutations import Mutation
from tests.conformance.wire import Reply, send

PROGRESS: dict[str, Any] = {"method": "notifications/progress", "params": {"progressToken": 1, "progress": 0.5}}
MORE: dict[str, Any] = {"method": "notifications/progress", "params": {"progressToken": 1, "progress": 1}}
ANSWER: dict[str, Any] = {
    "id": 1,
    "result": {"tools": [{"name": "a"}, {"name": "b"}], "_meta": {"io.modelcontextprotocol/x": 1}},
}


class Server(http.server.BaseHTTPRequestHandler):
    """Answers with JSON; with a stream where the path says so. Says back what it was asked under `asked`."""

    protocol_version = "HTTP/1.1"
    asked: Any = None
    timeout = 5

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        type(self).asked = (dict(self.headers), json.loads(body) if body else None)
        is_stream = self.path == "/stream"
        events = b"".join(
            b"id: %d\r\ndata: %s\r\n\r\n" % pair for pair in enumerate(map(_bytes, (PROGRESS, MORE, ANSWER)))
        )
        said = b"%x\r\n%s\r\n0\r\n\r\n" % (len(events), events) if is_stream else _bytes(ANSWER)
        self.send_response(200)
        self.send_header("content-type", "text/event-stream" if is_stream else "application/json")
        self.send_header(*(("transfer-encoding", "chunked") if is_stream else ("content-length", str(len(said)))))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def _bytes(message: Any) -> bytes:
    return json.dumps(message).encode()


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def proxy() -> Iterator[MutatingProxy]:
    with MutatingProxy() as running:
        yield running


def ask(proxy: MutatingProxy, url: str, **mutation: Any) -> tuple[Reply, Mutation | None]:
    change = Mutation(mutation) if mutation else None
    port = proxy.open(url, change)
    reply = send(port.url, "POST", {"x-one": "1"}, b'{"id": 1, "method": "tools/list", "params": {}}').read()
    proxy.close(port)
    return reply, change


@pytest.mark.parametrize("path", ["/json", "/stream"])
def test_without_a_mutation_all_arrives_as_it_was_sent(path: str, proxy: MutatingProxy, target: str) -> None:
    reply, _ = ask(proxy, target + path)
    assert reply.seen == ([PROGRESS, MORE, ANSWER] if path == "/stream" else [ANSWER])
    assert Server.asked[1] == {"id": 1, "method": "tools/list", "params": {}}
    assert Server.asked[0]["x-one"] == "1"


@pytest.mark.parametrize(
    ("mutation", "expected"),
    [
        ({"set": "id", "value": 9}, {**ANSWER, "id": 9}),
        ({"set": "id", "append": ""}, {**ANSWER, "id": "1"}),
        ({"drop": "result.tools.*.name"}, {**ANSWER, "result": {**ANSWER["result"], "tools": [{}, {}]}}),
        ({"drop": "result.tools.0"}, {**ANSWER, "result": {**ANSWER["result"], "tools": [{"name": "b"}]}}),
        ({"drop": "result._meta.@x"}, {**ANSWER, "result": {**ANSWER["result"], "_meta": {}}}),
    ],
)
def test_members_are_set_and_dropped(
    mutation: dict[str, Any], expected: Any, proxy: MutatingProxy, target: str
) -> None:
    for path in ("/json", "/stream"):
        reply, change = ask(proxy, target + path, to="client", message="response", **mutation)
        assert reply.seen[-1] == expected
        assert change is not None
        assert change.applied == 1


@pytest.mark.parametrize(
    ("mutation", "expected"),
    [
        ({"message": "response", "twice": True}, [PROGRESS, MORE, ANSWER, ANSWER]),
        ({"message": "notification", "omit": True}, [ANSWER]),
        ({"swap": True}, [MORE, PROGRESS, ANSWER]),
        ({"message": "notifications/progress", "late": True}, [MORE, ANSWER, PROGRESS]),
        ({"extra": {"id": 5}}, [{"id": 5}, PROGRESS, MORE, ANSWER]),
        ({"message": "response", "behind": {"id": 5}}, [PROGRESS, MORE, ANSWER, {"id": 5}]),
    ],
)
def test_events_change_places(mutation: dict[str, Any], expected: Any, proxy: MutatingProxy, target: str) -> None:
    reply, change = ask(proxy, f"{target}/stream", to="client", **mutation)
    assert reply.seen == expected
    assert change is not None
    assert change.applied >= 1


def test_status_headers_and_events_fields_change(proxy: MutatingProxy, target: str) -> None:
    assert ask(proxy, f"{target}/json", to="client", status=418)[0].status == 418
    assert ask(proxy, f"{target}/json", to="client", header="x-two", value="2")[0].headers["x-two"] == "2"
    reply, _ = ask(proxy, f"{target}/stream", to="client", field="id", value="same")
    assert [dict(event.fields)["id"] for event in reply.events] == ["same"] * 3
    assert ask(proxy, f"{target}/json", to="client", extra={"id": 5})[0].seen == [{"id": 5}, ANSWER]


def test_what_is_asked_changes_too_and_is_noted_so(proxy: MutatingProxy, target: str) -> None:
    ask(proxy, f"{target}/json", to="server", of="tools/list", set="params.cursor", value="c")
    assert Server.asked[1]["params"] == {"cursor": "c"}
    ask(proxy, f"{target}/json", to="server", header="x-one")
    assert "x-one" not in Server.asked[0]


@pytest.mark.parametrize("path", ["json", "stream"])
def test_who_asked_under_another_id_gets_its_answer(path: str, proxy: MutatingProxy, target: str) -> None:
    reply, _ = ask(proxy, f"{target}/{path}", to="server", set="id", value=900)
    assert Server.asked[1]["id"] == 900
    assert reply.seen[-1] == ANSWER


def test_a_mutation_of_something_else_changes_nothing(proxy: MutatingProxy, target: str) -> None:
    for mutation in ({"of": "tools/call", "drop": "id"}, {"drop": "error.code"}, {"message": "request", "omit": True}):
        reply, change = ask(proxy, f"{target}/json", to="client", **mutation)
        assert reply.seen == [ANSWER]
        assert change is not None
        assert change.applied == 0


def test_a_mutation_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(ValueError, match="no key colour"):
        Mutation({"to": "client", "colour": "red"})
    with pytest.raises(ValueError, match="to = 'client' or 'server'"):
        Mutation({"drop": "id"})
