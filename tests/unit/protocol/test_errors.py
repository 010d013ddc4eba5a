"""Codes, statuses, and the two wordings of "resource not found"."""

import json

import pytest

from penstock.protocol.errors import (
    http_status,
    missing_capability_data,
    reason_data,
    refusal_status,
    translate_error,
    unsupported_version_data,
)
from penstock.protocol.versions import Era


@pytest.mark.parametrize(
    ("code", "status"),
    [(-32601, 404), (-32700, 400), (-32600, 400), (-32602, 400), (429, 429), (503, 503), (504, 504), (-32603, 200)],
)
def test_a_modern_refusal_has_the_matching_status(code: int, status: int) -> None:
    assert http_status(Era.MODERN, code) == status


@pytest.mark.parametrize("code", [-32020, -32021, -32022])
def test_the_modern_codes_travel_with_400(code: int) -> None:
    assert http_status(Era.MODERN, code) == 400
    assert http_status(Era.MODERN, code, relayed=True) == 400


@pytest.mark.parametrize("code", [-32601, -32602, -32020, 403, 429, 503, -32700])
def test_a_legacy_client_gets_200_with_the_error_for_an_unknown_method_and_any_refused_call(code: int) -> None:
    assert http_status(Era.LEGACY, code) == 200


@pytest.mark.parametrize(("code", "status"), [(-32602, 200), (503, 200), (-32000, 200), (-32601, 404)])
def test_a_servers_own_error_is_a_200_unless_the_protocol_names_its_status(code: int, status: int) -> None:
    assert http_status(Era.MODERN, code, relayed=True) == status


@pytest.mark.parametrize(
    ("code", "status"), [(-32700, 400), (-32600, 400), (413, 413), (404, 404), (7, 400), (700, 400)]
)
def test_a_refusal_of_the_transport_keeps_its_status_in_both_eras(code: int, status: int) -> None:
    assert refusal_status(code) == status


def test_resource_not_found_is_mapped_on_resources_read_alone() -> None:
    assert translate_error(-32002, "resources/read", Era.LEGACY, Era.MODERN) == -32602
    assert translate_error(-32602, "resources/read", Era.MODERN, Era.LEGACY) == -32002
    assert translate_error(-32602, "tools/call", Era.MODERN, Era.LEGACY) == -32602
    assert translate_error(-32002, "tools/call", Era.LEGACY, Era.MODERN) == -32603


def test_url_elicitation_required_never_reaches_a_modern_client() -> None:
    assert translate_error(-32042, "tools/call", Era.LEGACY, Era.MODERN) == -32603


@pytest.mark.parametrize(("code", "legacy"), [(-32020, -32603), (-32021, -32600), (-32022, -32603), (-32601, -32601)])
def test_codes_that_exist_only_in_the_modern_era_are_worded_anew_for_a_legacy_client(code: int, legacy: int) -> None:
    assert translate_error(code, "tools/call", Era.MODERN, Era.LEGACY) == legacy


@pytest.mark.parametrize("era", list(Era))
@pytest.mark.parametrize("code", [-32002, -32602, -32042, -32020])
def test_nothing_changes_within_an_era(era: Era, code: int) -> None:
    assert translate_error(code, "resources/read", era, era) == code


def test_other_codes_pass_from_legacy_to_modern() -> None:
    assert translate_error(-32000, "tools/call", Era.LEGACY, Era.MODERN) == -32000


def test_the_data_of_refusals_has_the_members_the_schema_names() -> None:
    assert json.loads(unsupported_version_data("1900-01-01", ("2026-07-28",))) == {
        "supported": ["2026-07-28"],
        "requested": "1900-01-01",
    }
    assert json.loads(missing_capability_data(b'{"sampling":{}}')) == {"requiredCapabilities": {"sampling": {}}}
    assert json.loads(reason_data("rate_limited", retry_after=1.5)) == {"reason": "rate_limited", "retry_after": 1.5}
