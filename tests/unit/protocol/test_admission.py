"""The order in which a modern request is refused."""

import json
from typing import Any

import pytest

from penstock.protocol.admission import Admitted, Refusal, admit, is_modern
from penstock.protocol.envelopes import decode
from penstock.protocol.errors import http_status
from penstock.protocol.headers import encode_value
from penstock.protocol.messages import Request
from penstock.protocol.meta import CLIENT_CAPABILITIES, CLIENT_INFO, PROTOCOL_VERSION
from penstock.protocol.versions import Era

VERSION = "2026-07-28"
META: dict[str, Any] = {PROTOCOL_VERSION: VERSION, CLIENT_CAPABILITIES: {}}


def request(method: str = "tools/call", meta: dict[str, Any] | None = META, **params: Any) -> Request:
    members = params | ({} if meta is None else {"_meta": meta})
    message = decode(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": members}).encode())
    assert isinstance(message, Request)
    return message


def headers(method: str = "tools/call", name: str | None = "t", version: str = VERSION) -> dict[bytes, bytes]:
    found = {b"mcp-protocol-version": version.encode(), b"mcp-method": method.encode()}
    return found if name is None else found | {b"mcp-name": encode_value(name)}


def refusal(given: dict[bytes, bytes] | None, judged: Request) -> Refusal:
    found = admit(given, judged)
    assert isinstance(found, Refusal), found
    return found


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in META.items() if name != key}


def test_a_request_in_order_is_admitted_with_rule_meta_and_name() -> None:
    found = admit(headers(), request(name="t"))
    assert isinstance(found, Admitted)
    assert (found.name, found.rule.kind, found.meta.version) == ("t", "routed", VERSION)


def test_a_request_without_client_info_is_served() -> None:
    assert CLIENT_INFO not in META
    assert isinstance(admit(headers("tools/list", None), request("tools/list")), Admitted)


def test_stdio_has_no_headers_to_check() -> None:
    assert isinstance(admit(None, request(name="t")), Admitted)


def test_a_missing_header_wins_over_everything_else() -> None:
    bad = request("unknown", {PROTOCOL_VERSION: "1900-01-01"})
    assert refusal({b"mcp-protocol-version": b"1900-01-01"}, bad).code == -32020


def test_meta_without_protocol_version_or_capabilities_is_32602_with_400_another_thing_than_a_missing_header() -> None:
    for meta in (None, {}, without(PROTOCOL_VERSION), without(CLIENT_CAPABILITIES)):
        found = refusal(headers("server/discover", None), request("server/discover", meta))
        assert (found.code, http_status(Era.MODERN, found.code)) == (-32602, 400)
    no_header = headers("server/discover", None)
    del no_header[b"mcp-protocol-version"]
    found = refusal(no_header, request("server/discover"))
    assert (found.code, http_status(Era.MODERN, found.code)) == (-32020, 400)


def test_a_contradicting_version_is_a_mismatch_even_when_meta_lacks_capabilities() -> None:
    assert refusal(headers(version="2025-11-25"), request(meta=without(CLIENT_CAPABILITIES), name="t")).code == -32020


def test_an_unknown_version_on_which_header_and_body_agree_is_unsupported_with_both_lists() -> None:
    found = refusal(headers(version="v999.0.0"), request(meta=META | {PROTOCOL_VERSION: "v999.0.0"}, name="t"))
    assert (found.code, http_status(Era.MODERN, found.code)) == (-32022, 400)
    assert json.loads(found.data or b"") == {
        "supported": ["2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"],
        "requested": "v999.0.0",
    }


@pytest.mark.parametrize("meta", [None, {}, without(CLIENT_CAPABILITIES) | {PROTOCOL_VERSION: "2031-01-01"}])
def test_a_version_we_do_not_know_is_said_to_be_unsupported_whatever_else_is_missing(meta: Any) -> None:
    found = refusal({b"mcp-protocol-version": b"2031-01-01"}, request("tools/list", meta))
    assert (found.code, http_status(Era.MODERN, found.code)) == (-32022, 400)
    assert json.loads(found.data or b"")["requested"] == "2031-01-01"


def test_an_unknown_version_in_one_place_only_is_a_mismatch() -> None:
    assert refusal(headers(), request(meta=META | {PROTOCOL_VERSION: "v999.0.0"}, name="t")).code == -32020


def test_a_legacy_version_in_meta_is_unsupported_there() -> None:
    found = refusal(headers(version="2025-11-25"), request(meta=META | {PROTOCOL_VERSION: "2025-11-25"}, name="t"))
    assert found.code == -32022


def test_an_unknown_version_wins_over_an_unknown_method() -> None:
    meta = META | {PROTOCOL_VERSION: "2031-01-01"}
    assert refusal(headers("new/method", None, "2031-01-01"), request("new/method", meta)).code == -32022


@pytest.mark.parametrize(
    "method",
    [
        "initialize",
        "ping",
        "logging/setLevel",
        "resources/subscribe",
        "resources/unsubscribe",
        "roots/list",
        "unknown/method",
    ],
)
def test_an_unknown_or_removed_method_is_404(method: str) -> None:
    found = refusal(headers(method, None), request(method))
    assert (found.code, http_status(Era.MODERN, found.code)) == (-32601, 404)


@pytest.mark.parametrize("name", [None, 5])
def test_a_call_without_a_name_is_invalid_where_no_header_says_so_first(name: object) -> None:
    assert refusal(None, request() if name is None else request(name=name)).code == -32602
    assert refusal(headers(name=None), request()).code == -32020


def test_an_extra_name_header_on_a_method_without_a_name_is_ignored() -> None:
    assert isinstance(admit(headers("tools/list", "x"), request("tools/list")), Admitted)


@pytest.mark.parametrize(
    ("given", "judged", "expected"),
    [
        ({}, request(), True),
        ({}, request(meta=None), False),
        ({}, request(meta={"progressToken": 1}), False),
        ({b"mcp-protocol-version": b"2026-07-28"}, request(meta=None), True),
        ({b"mcp-protocol-version": b"2031-01-01"}, request(meta=None), True),
        ({b"mcp-protocol-version": b"2025-11-25"}, request(meta=None), False),
        ({b"mcp-protocol-version": b"2025-11-25"}, request(), True),
        (None, request(), True),
        (None, request(meta=None), False),
    ],
)
def test_a_request_is_modern_by_its_header_or_by_a_version_in_meta(
    given: dict[bytes, bytes] | None, judged: Request, expected: bool
) -> None:
    assert is_modern(given, judged) is expected
