from typing import Any

import pytest

from penstock.upstreams.in_memory_schema import first_fault

SCHEMA = {
    "type": "object",
    "properties": {
        "text": {"type": "string", "minLength": 1, "maxLength": 3},
        "count": {"type": "integer", "minimum": 0, "maximum": 9},
        "kind": {"enum": ["a", "b"]},
        "flag": {"type": "boolean"},
        "any": {},
    },
    "required": ["text"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ({"text": "abc", "count": 9, "kind": "a", "flag": True, "any": None}, ""),
        ({"text": "a", "count": 2.0}, ""),
        ([], "arguments: expected object, got array"),
        ({}, "arguments: 'text' is missing"),
        ({"text": "a", "more": 1}, "arguments: 'more' is not known (known: 'text', 'count', 'kind', 'flag', 'any')"),
        ({"text": ""}, "'text': length must be at least 1, is 0"),
        ({"text": "abcd"}, "'text': length must be at most 3, is 4"),
        ({"text": "a", "count": True}, "'count': expected integer, got boolean"),
        ({"text": "a", "count": 1.5}, "'count': expected integer, got number"),
        ({"text": "a", "count": 10}, "'count' must be at most 9, is 10"),
        ({"text": "a", "kind": "c"}, "'kind': expected one of 'a', 'b', got 'c'"),
        ({"text": None}, "'text': expected string, got null"),
    ],
)
def test_the_first_fault_is_told_in_words(value: Any, fault: str) -> None:
    assert first_fault(value, SCHEMA) == fault


def test_a_schema_without_words_takes_anything_and_an_empty_one_nothing() -> None:
    assert first_fault({"x": 1}, {}) == ""
    assert first_fault({"x": 1}, {"additionalProperties": False}) == "arguments: 'x' is not known (known: none)"
