"""The data port's paths and manners, whatever the era."""

import msgspec
import pytest

from penstock.gateway.admittance import Admittance
from tests.unit.gateway.conftest import MODERN_META, Running, modern_headers, request_body

ORIGIN = {"origin": "http://localhost:3000"}
NOT_FOUND = {"error": "not found: MCP is spoken at /mcp, and at /mcp/NAME for each view; /health and /ready are there"}


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("GET", "/health", 200, {"status": "ok"}),
        ("GET", "/ready", 200, {"ready": True}),
        ("GET", "/", 404, NOT_FOUND),
        ("POST", "/mcp/nobody", 404, NOT_FOUND),
        ("POST", "/mcp//", 404, NOT_FOUND),
        ("GET", "/metrics", 404, NOT_FOUND),
        ("POST", "/register", 404, {"error": "this gateway has no sign-in"}),
        ("GET", "/.well-known/oauth-protected-resource", 404, {"error": "this gateway has no sign-in"}),
        ("GET", "/.well-known/oauth-protected-resource/mcp", 404, {"error": "this gateway has no sign-in"}),
        ("GET", "/.well-known/oauth-authorization-server", 404, {"error": "this gateway has no sign-in"}),
        ("GET", "/.well-known/openid-configuration", 404, {"error": "this gateway has no sign-in"}),
        ("GET", "/.well-known/security.txt", 404, NOT_FOUND),
        ("PUT", "/mcp", 405, {"error": "POST messages here"}),
    ],
)
async def test_paths_and_methods(
    running: Running, method: str, path: str, status: int, body: dict[str, object]
) -> None:
    response = await running.client.request(method, running.url + path)
    assert (response.status, msgspec.json.decode(response.body)) == (status, body)
    assert response.headers[b"content-type"] == b"application/json"
    assert b"weather" not in response.body
    assert (response.headers.get(b"allow") == b"GET, POST, DELETE, OPTIONS") is (status == 405)


async def test_an_endpoint_is_the_same_with_a_slash_at_its_end(running: Running) -> None:
    for path in ("/mcp", "/mcp/", "/mcp/weather", "/mcp/weather/"):
        assert (await running.modern("tools/list", path=path))["status"] == 200


async def test_while_draining_it_is_not_ready_and_serves_on(running: Running) -> None:
    running.worker.is_draining = True
    response = await running.client.get(running.url + "/ready")
    assert (response.status, msgspec.json.decode(response.body)) == (503, {"ready": False, "reason": "draining"})
    assert (await running.modern("tools/list"))["status"] == 200
    assert repr(running.worker).endswith("draining>")


@pytest.mark.parametrize("path", ["/mcp", "/health", "/nobody"])
async def test_a_foreign_origin_is_403_everywhere_and_gets_no_cors(running: Running, path: str) -> None:
    response = await running.client.get(running.url + path, {"origin": "https://evil.example"})
    assert response.status == 403
    error = msgspec.json.decode(response.body)["error"]
    assert (error["code"], error["data"]) == (403, {"reason": "forbidden"})
    assert not [name for name in response.headers if name.startswith(b"access-control")]


async def test_a_preflight_is_answered_with_what_is_allowed(running: Running) -> None:
    asked = "content-type, Mcp-Param-Region, penstock-anything, x-evil, mcp-param-\u00e9"
    headers = ORIGIN | {"access-control-request-method": "POST", "access-control-request-headers": asked}
    response = await running.client.request("OPTIONS", running.url + "/mcp", headers)
    assert (response.status, response.body) == (204, b"")
    assert response.headers[b"access-control-allow-origin"] == b"http://localhost:3000"
    assert response.headers[b"access-control-allow-methods"] == b"GET, POST, DELETE, OPTIONS"
    allowed = response.headers[b"access-control-allow-headers"].decode().split(", ")
    assert {"Content-Type", "Authorization", "MCP-Protocol-Version", "Last-Event-ID", "Mcp-Session-Id"} <= set(allowed)
    assert allowed[-2:] == ["Mcp-Param-Region", "penstock-anything"]


async def test_every_answer_to_a_browser_can_be_read_by_its_page(running: Running) -> None:
    params = {"name": "weather_forecast", "arguments": {}, "_meta": MODERN_META | {"progressToken": 1}}
    stream = await running.post(
        "/mcp", request_body("tools/call", params), modern_headers("tools/call", params) | ORIGIN
    )
    refused = await running.post("/mcp", b"nonsense", ORIGIN)
    missing = await running.client.get(running.url + "/nobody", ORIGIN)
    listed = await running.post("/mcp", request_body("tools/list"), ORIGIN)
    assert [one.status for one in (stream, refused, listed)] == [200, 400, 200]
    for response in (stream, refused, missing, listed):
        assert response.headers[b"access-control-allow-origin"] == b"http://localhost:3000"
        assert b"Mcp-Session-Id" in response.headers[b"access-control-expose-headers"]


async def test_another_admittance_takes_effect_on_open_connections(running: Running) -> None:
    headers = {"origin": "https://app.example"}
    line = await running.line()
    line.post(request_body("ping"), headers)
    assert (await line.answer())[0] == 403
    running.worker.admittance = Admittance((), ["https://app.example"])
    line.post(request_body("ping"), headers)
    assert (await line.answer())[0] == 200
    line.close()


@pytest.mark.parametrize(
    ("version", "has_id"), [("2025-03-26", True), ("2025-06-18", True), ("2025-11-25", False), ("2026-07-28", False)]
)
async def test_an_unreadable_message_is_answered_as_its_revision_words_it(
    running: Running, version: str, has_id: bool
) -> None:
    response = await running.post("/mcp", b"nonsense", {"mcp-protocol-version": version})
    answer = msgspec.json.decode(response.body)
    assert (response.status, answer["error"]["code"]) == (400, -32700)
    assert ("id" in answer) is has_id
    assert answer.get("id") is None
