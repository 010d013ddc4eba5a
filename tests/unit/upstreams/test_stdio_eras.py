import json
from typing import Any

import pytest

from penstock.protocol.messages import Reply, RpcError
from penstock.protocol.versions import Era
from penstock.upstreams.stdio_eras import (
    Agreement,
    Modern,
    NotModern,
    SpeaksOnly,
    judge_discover,
    judge_initialize,
)

ASKED = "2026-07-28"


def result(value: Any) -> Reply:
    return Reply(b"1", json.dumps(value).encode())


def error(code: int, data: Any = None) -> Reply:
    return Reply(b"1", None, RpcError(code, "no", None if data is None else json.dumps(data).encode()))


def test_a_discover_result_makes_a_server_modern() -> None:
    verdict = judge_discover(result({"supportedVersions": [ASKED], "capabilities": {"tools": {}}, "ttlMs": 5}), ASKED)
    assert isinstance(verdict, Modern)
    assert (verdict.agreement.era, verdict.agreement.version) == (Era.MODERN, ASKED)
    assert verdict.agreement.description.ttl_ms == 5
    assert bytes(verdict.agreement.description.server_info) == b"{}"


@pytest.mark.parametrize("value", [{}, {"supportedVersions": "x"}, {"tools": []}])
def test_another_result_makes_it_legacy(value: Any) -> None:
    assert isinstance(judge_discover(result(value), ASKED), NotModern)


@pytest.mark.parametrize("code", [-32601, -32602, -32600, -32000, -32002, -32700, 0, 1, 404, -32023])
def test_any_unrecognised_error_makes_it_legacy(code: int) -> None:
    assert isinstance(judge_discover(error(code, {"supported": [ASKED]}), ASKED), NotModern)


@pytest.mark.parametrize("code", [-32020, -32021])
def test_other_modern_errors_make_it_modern(code: int) -> None:
    verdict = judge_discover(error(code), ASKED)
    assert isinstance(verdict, Modern)
    assert bytes(verdict.agreement.description.capabilities) == b"{}"


def test_a_refused_version_names_the_ones_to_use() -> None:
    verdict = judge_discover(error(-32022, {"supported": ["2027-01-01", "2025-06-18", "2025-11-25"]}), ASKED)
    assert isinstance(verdict, SpeaksOnly)
    assert verdict.common(Era.LEGACY) == "2025-11-25"
    assert verdict.common(Era.MODERN) is None


@pytest.mark.parametrize("data", [None, {}, {"supported": 1}])
def test_a_refused_version_without_a_list_says_nothing(data: Any) -> None:
    assert isinstance(judge_discover(error(-32022, data), ASKED), NotModern)


def test_a_description_without_a_common_revision_is_as_a_refusal() -> None:
    assert judge_discover(result({"supportedVersions": ["2027-01-01"]}), ASKED) == SpeaksOnly(("2027-01-01",))


def test_an_initialize_result_is_an_agreement() -> None:
    said: dict[str, Any] = {"protocolVersion": "2025-03-26", "capabilities": []}
    said |= {"serverInfo": {"name": "x"}, "instructions": None}
    agreement = judge_initialize(result(said))
    assert isinstance(agreement, Agreement)
    assert (agreement.era, agreement.version) == (Era.LEGACY, "2025-03-26")
    assert bytes(agreement.description.capabilities) == b"{}"
    assert agreement.description.instructions == ""


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (error(-32601), "refused initialize with error -32601"),
        (result({}), "answered initialize with something else"),
        (result({"protocolVersion": "2026-07-28"}), "answered initialize with revision '2026-07-28'"),
    ],
)
def test_what_is_no_agreement_is_told_in_words(reply: Reply, words: str) -> None:
    verdict = judge_initialize(reply)
    assert isinstance(verdict, str)
    assert verdict.startswith(words)
