"""`x-mcp-header`: which annotations are valid, what is written, what is refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.protocol.param_headers import (
    Invalid,
    ParamHeader,
    check_param_headers,
    param_header_rules,
    write_param_headers,
)


def schema(**properties: Any) -> bytes:
    return json.dumps({"type": "object", "properties": properties}).encode()


def annotated(name: Any, kind: Any = "string", **more: Any) -> dict[str, Any]:
    return {"type": kind, "x-mcp-header": name, **more}


def rules(**properties: Any) -> tuple[ParamHeader, ...]:
    found = param_header_rules(schema(**properties))
    assert not isinstance(found, Invalid), found
    return found


def raw(arguments: Any) -> bytes:
    return json.dumps(arguments).encode()


# --- annotations ---


def test_a_schema_without_annotations_has_no_rules() -> None:
    assert rules(a={"type": "string"}) == ()
    assert param_header_rules(b"true") == ()
    assert param_header_rules(b'["x-mcp-header"]') == ()


def test_each_annotated_argument_becomes_a_rule_also_inside_objects() -> None:
    assert rules(
        region=annotated("Region"),
        inner={"type": "object", "properties": {"n": annotated("N", "integer")}},
        plain={"type": "string"},
    ) == (
        ParamHeader(("inner", "n"), b"mcp-param-n", "integer"),
        ParamHeader(("region",), b"mcp-param-region", "string"),
    )


def test_an_annotation_is_found_however_its_key_is_spelled() -> None:
    escaped = schema(region=annotated("Region")).replace(b"x-mcp-header", b"x-mcp-\\u0068eader")
    assert param_header_rules(escaped) == (ParamHeader(("region",), b"mcp-param-region", "string"),)


@pytest.mark.parametrize(
    "name", ["", "My Region", "Region:Primary", "Région", "a\r\nb", "a\x00", None, 5, ["x"], {"x": 1}]
)
def test_a_name_that_is_no_token_makes_the_tool_invalid(name: object) -> None:
    assert isinstance(param_header_rules(schema(a=annotated(name))), Invalid)


@pytest.mark.parametrize("kind", ["number", "object", "array", "null", None, ["string", "null"], "text"])
def test_only_strings_integers_and_booleans_can_be_mirrored(kind: object) -> None:
    assert isinstance(param_header_rules(schema(a=annotated("A", kind))), Invalid)


@pytest.mark.parametrize("other", ["Region", "region", "REGION"])
def test_names_are_unique_whatever_their_case(other: str) -> None:
    assert isinstance(param_header_rules(schema(a=annotated("Region"), b=annotated(other))), Invalid)


@pytest.mark.parametrize(
    "whole",
    [
        {"x-mcp-header": "Root", "type": "string"},
        {"properties": {"a": {"items": annotated("A")}}},
        {"properties": {"a": {"items": [annotated("A")]}}},
        {"properties": {"a": {"prefixItems": [annotated("A")]}}},
        {"properties": {"a": {"items": {"properties": {"b": annotated("A")}}}}},
        {"properties": {"a": {"additionalProperties": annotated("A")}}},
        {"anyOf": [{"properties": {"a": annotated("A")}}]},
        {"oneOf": [annotated("A")]},
        {"allOf": [annotated("A")]},
        {"not": annotated("A")},
        {"if": annotated("A")},
        {"then": annotated("A")},
        {"else": annotated("A")},
        {"$defs": {"x": annotated("A")}, "properties": {"a": {"$ref": "#/$defs/x"}}},
        {"patternProperties": {"^a": annotated("A")}},
        {"dependentSchemas": {"a": {"properties": {"b": annotated("A")}}}},
    ],
)
def test_an_annotation_off_the_chain_of_properties_makes_the_tool_invalid(whole: dict[str, Any]) -> None:
    assert isinstance(param_header_rules(raw(whole)), Invalid)


def test_a_property_or_a_default_that_looks_like_an_annotation_is_none() -> None:
    assert rules(**{"x-mcp-header": {"type": "string"}}) == ()
    assert rules(a={"type": "object", "default": {"x-mcp-header": "A"}, "examples": [{"x-mcp-header": "B"}]}) == ()
    assert (
        param_header_rules(b'{"properties":{"a":true,"b":{"anyOf":5,"$defs":5,"properties":5}},"title":"x-mcp-header"}')
        == ()
    )


# --- writing ---

REGION = rules(region=annotated("Region"))
ALL = rules(s=annotated("S"), i=annotated("I", "integer"), b=annotated("B", "boolean"))


@pytest.mark.parametrize(
    ("arguments", "written"),
    [
        ({"s": "us", "i": 42, "b": True}, {"s": b"us", "i": b"42", "b": b"true"}),
        ({"s": "é", "i": -7, "b": False}, {"s": b"=?base64?w6k=?=", "i": b"-7", "b": b"false"}),
        ({"s": None, "i": None}, {}),
        ({"s": {"a": 1}, "i": [1]}, {}),
        ({"s": 5, "i": 100.0}, {"s": b"5", "i": b"100"}),
        ({"i": 1.5}, {"i": b"1.5"}),
        ({"i": True}, {"i": b"true"}),
        ({"i": 2**60}, {"i": str(2**60).encode()}),
        ({}, {}),
        ([], {}),
    ],
)
def test_values_are_written_as_their_text(arguments: Any, written: dict[str, bytes]) -> None:
    assert dict(write_param_headers(ALL, raw(arguments))) == {
        b"mcp-param-" + key.encode(): value for key, value in written.items()
    }


def test_numbers_with_exponents_are_written_plainly_while_that_is_exact() -> None:
    assert write_param_headers(ALL, b'{"i":1e2}') == ((b"mcp-param-i", b"100"),)
    assert write_param_headers(ALL, b'{"i":1e300}') == ((b"mcp-param-i", b"1e300"),)
    assert write_param_headers(ALL, b'{"i":1e999}') == ((b"mcp-param-i", b"1e999"),)


def test_a_call_without_arguments_has_no_headers() -> None:
    assert write_param_headers(ALL, None) == ()


def test_a_nested_argument_is_read_along_its_path() -> None:
    nested = rules(a={"type": "object", "properties": {"b": annotated("B")}})
    assert write_param_headers(nested, raw({"a": {"b": "x"}})) == ((b"mcp-param-b", b"x"),)
    absent: dict[str, Any]
    for absent in ({"a": {}}, {"a": 5}, {"a": None}, {}):
        assert write_param_headers(nested, raw(absent)) == ()


# --- checking ---


def accepted(value: bytes | None, arguments: Any, given_rules: tuple[ParamHeader, ...] = REGION) -> bool:
    headers = {} if value is None else {given_rules[0].header: value}
    return check_param_headers(given_rules, headers, raw(arguments)) is None


@pytest.mark.parametrize(
    ("value", "arguments"),
    [
        (b"us", {"region": "us"}),
        (b"=?base64?SGVsbG8=?=", {"region": "Hello"}),
        (b"SGVsbG8=", {"region": "SGVsbG8="}),
        (b"=?base64?SGVsbG8=", {"region": "=?base64?SGVsbG8="}),
        (None, {}),
        (None, {"region": None}),
        (None, {"region": {}}),
    ],
)
def test_a_header_that_says_what_the_argument_says_is_accepted(value: bytes | None, arguments: Any) -> None:
    assert accepted(value, arguments)


@pytest.mark.parametrize(
    ("value", "arguments"),
    [
        (b"eu", {"region": "us"}),
        (b"US", {"region": "us"}),
        (None, {"region": "us"}),
        (b"us", {}),
        (b"us", {"region": None}),
        (b"us", {"region": ["us"]}),
        (b"=?base64?SGVsbG8?=", {"region": "Hello"}),
        (b"=?base64?SGVs!!!bG8=?=", {"region": "Hello"}),
        (b"\xff", {"region": "\xff"}),
        (b"42.0", {"region": "42"}),
    ],
)
def test_param_headers_are_checked_against_the_arguments_both_ways(value: bytes | None, arguments: Any) -> None:
    assert not accepted(value, arguments)


@pytest.mark.parametrize(
    ("value", "argument", "expected"),
    [
        (b"42.0", 42, True),
        (b"42", 42.0, True),
        (b"042", 42, True),
        (b"42.1", 42, False),
        (b"43", 42, False),
        (b"4.2e1", 42, False),
        (b"1" * 5000, 1, False),
        (b"-7.00", -7, True),
        (b"1.5", 1.5, True),
    ],
)
def test_integers_are_compared_as_numbers(value: bytes, argument: float, expected: bool) -> None:
    assert accepted(value, {"n": argument}, rules(n=annotated("N", "integer"))) is expected


def test_headers_of_no_rule_are_not_looked_at() -> None:
    assert check_param_headers(REGION, {b"mcp-param-other": b"\xff"}, b"{}") is None


SCALARS = st.text() | st.integers() | st.booleans() | st.none() | st.floats(allow_nan=False, allow_infinity=False)


@given(st.fixed_dictionaries({}, optional={"s": SCALARS, "i": SCALARS, "b": SCALARS}))
def test_headers_we_write_pass_our_own_check(arguments: dict[str, Any]) -> None:
    text = raw(arguments)
    assert check_param_headers(ALL, dict(write_param_headers(ALL, text)), text) is None
