"""The headers that mirror the body."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.protocol.envelopes import decode
from penstock.protocol.headers import (
    check_request_headers,
    decode_value,
    encode_value,
    request_name,
    standard_headers,
)
from penstock.protocol.messages import Request
from penstock.protocol.methods import lookup
from penstock.protocol.versions import Era

VERSION = "2026-07-28"


def call(name: object = "get_weather", method: str = "tools/call", field: str = "name") -> Request:
    params = {} if name is None else {field: name}
    message = decode(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode())
    assert isinstance(message, Request)
    return message


def headers(
    method: str = "tools/call", name: bytes | None = b"get_weather", version: str = VERSION
) -> dict[bytes, bytes]:
    found = {b"mcp-protocol-version": version.encode(), b"mcp-method": method.encode()}
    return found if name is None else found | {b"mcp-name": name}


def problem(given_headers: dict[bytes, bytes], request: Request, version: str | None = VERSION) -> str:
    rule = lookup(Era.MODERN, request.method)
    found = check_request_headers(given_headers, request, rule, version)
    return "" if found is None else found.message


# --- values ---


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("us-west1", b"us-west1"),
        ("", b""),
        ("a b\tc", b"a b\tc"),
        ("Hello, 世界", b"=?base64?SGVsbG8sIOS4lueVjA==?="),
        (" padded ", b"=?base64?IHBhZGRlZCA=?="),
        ("line1\nline2", b"=?base64?bGluZTEKbGluZTI=?="),
        ("=?base64?literal?=", b"=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
        ("\t", b"=?base64?CQ==?="),
        ("\x7f", b"=?base64?fw==?="),
        ("=?base64?=", b"=?base64?PT9iYXNlNjQ/PQ==?="),
    ],
)
def test_values_are_encoded_as_the_specification_shows(text: str, value: bytes) -> None:
    assert encode_value(text) == value
    assert decode_value(value) == text


@given(st.text())
def test_any_text_survives_a_header(text: str) -> None:
    value = encode_value(text)
    assert decode_value(value) == text
    assert value == value.strip()
    assert all(32 <= byte <= 126 or byte == 9 for byte in value)


@pytest.mark.parametrize(
    "value",
    [
        b"=?base64?SGVsbG8?=",  # padding is missing
        b"=?base64?SGVs!!!bG8=?=",  # not of the alphabet
        b"=?base64?SGVsbG9=?=",  # stray bits
        b"=?base64?SGVs bG8=?=",
        b"=?base64?/w==?=",  # not UTF-8
        b"=?base64?SGVsbG8==?=",
        b"caf\xc3\xa9",
        b"a\x00b",
        b"a\nb",
        b"a\x7fb",
    ],
)
def test_invalid_characters_and_base64_that_is_not_canonical_stand_for_nothing(value: bytes) -> None:
    assert decode_value(value) is None


@pytest.mark.parametrize(
    "value", [b"SGVsbG8=", b"=?base64?SGVsbG8=", b"SGVsbG8=?=", b"=?BASE64?SGVsbG8=?=", b"=?base64?="]
)
def test_a_value_without_both_marks_exactly_is_literal(value: bytes) -> None:
    assert decode_value(value) == value.decode()


# --- standard headers ---


def test_headers_that_say_what_the_body_says_pass() -> None:
    assert problem(headers(), call()) == ""
    assert problem(headers("resources/read", b"file:///a"), call("file:///a", "resources/read", "uri")) == ""
    assert problem(headers("tasks/get", b"t1"), call("t1", "tasks/get", "taskId")) == ""
    assert problem(headers("tools/list", None), call(None, "tools/list")) == ""


@pytest.mark.parametrize("missing", [b"mcp-protocol-version", b"mcp-method", b"mcp-name"])
def test_a_missing_standard_header_is_named(missing: bytes) -> None:
    found = headers()
    del found[missing]
    assert missing.decode() in problem(found, call()).lower()


@pytest.mark.parametrize(
    "wrong",
    [
        headers(version="2025-11-25"),
        headers(method="tools/list"),
        headers(method="TOOLS/CALL"),
        headers(name=b"other"),
        headers(name=b"GET_WEATHER"),
        headers(name=b""),
        headers(name=b"get_weather\xff"),
        headers(name=b"=?base64?Z2V0X3dlYXRoZXI?="),
    ],
)
def test_a_header_that_contradicts_the_body_is_a_mismatch(wrong: dict[bytes, bytes]) -> None:
    assert problem(wrong, call()).startswith("Header mismatch")


def test_an_encoded_name_is_compared_decoded() -> None:
    assert problem(headers(name=encode_value("wetter für morgen")), call("wetter für morgen")) == ""
    assert problem(headers(name=b"=?base64?Z2V0X3dlYXRoZXI=?="), call()) == ""
    assert problem(headers(name=encode_value("=?base64?Zg==?=")), call("=?base64?Zg==?=")) == ""
    assert problem(headers(name=b"=?base64?Zg==?="), call("=?base64?Zg==?=")) != ""


@pytest.mark.parametrize("name", [None, 5, ["get_weather"]])
def test_a_name_header_without_a_name_in_the_body_is_a_mismatch(name: object) -> None:
    assert problem(headers(), call(name)) != ""


def test_the_version_is_not_compared_when_the_body_names_none() -> None:
    assert problem(headers(), call(), version=None) == ""


def test_an_unknown_method_needs_no_name() -> None:
    assert problem(headers("unknown/method", None), call(None, "unknown/method")) == ""


def test_a_mismatch_shows_the_value_bounded_and_on_one_line() -> None:
    message = problem(headers(method="x\r\n" * 200), call())
    assert "\n" not in message
    assert len(message) < 700


def test_the_name_of_a_request_is_read_by_its_rule() -> None:
    assert request_name(call(), lookup(Era.MODERN, "tools/call")) == "get_weather"
    assert request_name(call(5), lookup(Era.MODERN, "tools/call")) is None
    assert request_name(call(None), lookup(Era.MODERN, "tools/call")) is None
    assert request_name(call(), lookup(Era.MODERN, "tools/list")) is None
    assert request_name(call(), None) is None


@given(st.text(min_size=1))
def test_headers_we_write_pass_our_own_check(name: str) -> None:
    lines = standard_headers(VERSION, "tools/call", name)
    assert lines.endswith(b"\r\n")
    written = dict(line.split(b": ", 1) for line in lines.split(b"\r\n")[:-1])
    assert problem(written, call(name)) == ""


def test_a_method_without_a_name_has_no_name_header() -> None:
    assert (
        standard_headers(VERSION, "tools/list", None)
        == b"mcp-protocol-version: 2026-07-28\r\nmcp-method: tools/list\r\n"
    )
