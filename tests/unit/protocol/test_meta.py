"""`_meta`: what must be there, what is taken out, and what is written."""

import json
from typing import Any

import pytest
from msgspec import Raw

from penstock.protocol.messages import Fault
from penstock.protocol.meta import (
    CLIENT_CAPABILITIES,
    CLIENT_INFO,
    LOG_LEVEL,
    LOG_LEVELS,
    PROTOCOL_VERSION,
    RequestMeta,
    decode_legacy_meta,
    decode_meta,
    encode_modern_meta,
    said_version,
)

FULL: dict[str, Any] = {
    PROTOCOL_VERSION: "2026-07-28",
    CLIENT_INFO: {"name": "c", "version": "1"},
    CLIENT_CAPABILITIES: {"roots": {}},
}


def raw(members: object) -> bytes:
    return json.dumps(members, separators=(",", ":")).encode()


def read(members: object) -> RequestMeta:
    found = decode_meta(raw(members))
    assert isinstance(found, RequestMeta), found
    return found


def test_the_per_request_fields_are_taken_out_and_the_rest_is_kept() -> None:
    found = read(FULL | {"progressToken": 7, LOG_LEVEL: "info", "traceparent": "00-1-2-01", "com.example/x": [1]})
    assert (found.version, found.client_info, found.capabilities) == (
        "2026-07-28",
        b'{"name":"c","version":"1"}',
        b'{"roots":{}}',
    )
    assert (found.log_level, found.progress_token) == ("info", b"7")
    assert {key: bytes(value) for key, value in found.rest.items()} == {
        "progressToken": b"7",
        LOG_LEVEL: b'"info"',
        "traceparent": b'"00-1-2-01"',
        "com.example/x": b"[1]",
    }


def test_client_info_may_be_missing() -> None:
    found = read({PROTOCOL_VERSION: "2026-07-28", CLIENT_CAPABILITIES: {}})
    assert (found.client_info, found.log_level, found.progress_token, found.rest) == (b"", None, None, {})


@pytest.mark.parametrize("token", ["abc", "7", 7, 0, -1, ""])
def test_a_progress_token_keeps_string_or_integer(token: str | int) -> None:
    assert read(FULL | {"progressToken": token}).progress_token == raw(token)


@pytest.mark.parametrize("level", LOG_LEVELS)
def test_each_log_level_is_known(level: str) -> None:
    assert read(FULL | {LOG_LEVEL: level}).log_level == level


@pytest.mark.parametrize("missing", [PROTOCOL_VERSION, CLIENT_CAPABILITIES])
def test_meta_without_version_or_capabilities_is_invalid_params(missing: str) -> None:
    found = decode_meta(raw({key: value for key, value in FULL.items() if key != missing}))
    assert isinstance(found, Fault)
    assert found.code == -32602
    assert missing in found.message


@pytest.mark.parametrize(
    "changes",
    [
        {PROTOCOL_VERSION: 20260728},
        {PROTOCOL_VERSION: None},
        {CLIENT_CAPABILITIES: []},
        {CLIENT_CAPABILITIES: None},
        {CLIENT_INFO: "me"},
        {CLIENT_INFO: None},
        {"progressToken": None},
        {"progressToken": 1.5},
        {"progressToken": True},
        {LOG_LEVEL: "loud"},
        {LOG_LEVEL: 3},
    ],
)
def test_a_field_of_the_wrong_kind_is_invalid_params(changes: dict[str, Any]) -> None:
    found = decode_meta(raw(FULL | changes))
    assert isinstance(found, Fault)
    assert found.code == -32602
    assert next(iter(changes)) in found.message


@pytest.mark.parametrize("value", [None, b"[]", b"null", b'"x"'])
def test_meta_that_is_no_object_is_invalid_params(value: bytes | None) -> None:
    found = decode_meta(value)
    assert isinstance(found, Fault)
    assert found.code == -32602


def test_legacy_meta_is_optional_and_says_nothing_of_the_client() -> None:
    assert decode_legacy_meta(None) == RequestMeta("", b"", b"{}", None, None, {})
    found = decode_legacy_meta(raw(FULL | {LOG_LEVEL: "nonsense", "progressToken": "t", "x": 1}))
    assert isinstance(found, RequestMeta)
    assert (found.version, found.client_info, found.capabilities, found.log_level) == ("", b"", b"{}", None)
    assert (found.progress_token, set(found.rest)) == (b'"t"', {"progressToken", "x"})


@pytest.mark.parametrize("value", [b"[]", b'{"progressToken":[]}'])
def test_wrong_legacy_meta_is_invalid_params(value: bytes) -> None:
    found = decode_legacy_meta(value)
    assert isinstance(found, Fault)
    assert found.code == -32602


@pytest.mark.parametrize(
    ("value", "version"),
    [
        (None, None),
        (b"[]", None),
        (b"{}", None),
        (raw({PROTOCOL_VERSION: 1}), None),
        (raw({PROTOCOL_VERSION: "v9"}), "v9"),
    ],
)
def test_a_version_in_meta_shows_the_era_even_when_the_rest_is_bad(value: bytes | None, version: str | None) -> None:
    assert said_version(value) == version


def test_written_meta_reads_back() -> None:
    written = encode_modern_meta("2026-07-28", b'{"name":"p","version":"1"}', b"{}", {"progressToken": Raw(b'"t"')})
    assert json.loads(written) == {
        PROTOCOL_VERSION: "2026-07-28",
        CLIENT_INFO: {"name": "p", "version": "1"},
        CLIENT_CAPABILITIES: {},
        "progressToken": "t",
    }


@pytest.mark.parametrize(
    "rest", [None, {}, {PROTOCOL_VERSION: Raw(b'"x"'), CLIENT_INFO: Raw(b"1"), CLIENT_CAPABILITIES: Raw(b"2")}]
)
def test_no_key_is_written_twice_and_unknown_client_info_is_left_out(rest: dict[str, Raw] | None) -> None:
    written = encode_modern_meta("2026-07-28", b"", b'{"a":{}}', rest)
    assert written == b'{"%b":"2026-07-28","%b":{"a":{}}}' % (PROTOCOL_VERSION.encode(), CLIENT_CAPABILITIES.encode())
