"""Words become values of the types a tool's schema names."""

from typing import Any

import pytest

from penstock.cli.arguments import arguments_from, example_words, types_of
from penstock.errors import ConfigError

SCHEMA: dict[str, Any] = {
    "properties": {
        "s": {"type": "string"},
        "i": {"type": "integer"},
        "n": {"type": "number"},
        "b": {"type": "boolean"},
        "l": {"type": "array", "items": {"type": "integer"}},
        "o": {"type": "object"},
        "optional": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "either": {"type": ["integer", "string"]},
        "level": {"enum": [1, "high"]},
        "one": {"const": 1.5},
        "ref": {"$ref": "#/$defs/count"},
        "lost": {"$ref": "#/$defs/none"},
        "loop": {"$ref": "#/properties/loop"},
        "free": {},
    },
    "$defs": {"count": {"type": "integer"}},
}
TYPED = [
    ("s=3", "3"),
    ("s=", ""),
    ("s=a=b", "a=b"),
    ("i=-3", -3),
    ("n=2.5", 2.5),
    ("n=2", 2),
    ("b=True", True),
    ("l=[1,2]", [1, 2]),
    ("l=1", [1]),
    ('o={"a":1}', {"a": 1}),
    ("optional=3", 3),
    ("optional=null", None),
    ("either=3", 3),
    ("either=x", "x"),
    ("level=1", 1),
    ("level=high", "high"),
    ("one=1.5", 1.5),
    ("ref=4", 4),
    ("lost=x", "x"),
    ("loop=x", "x"),
    ("free=3", "3"),
    ("unknown=3", "3"),
    ("s:=3", 3),
]


@pytest.mark.parametrize(("word", "value"), TYPED)
def test_values_are_typed_by_the_schema(word: str, value: Any) -> None:
    (read,) = arguments_from((word,), SCHEMA).values()
    assert read == value
    assert type(read) is type(value)


WRONG = [
    ("i=x", "argument 'i' expects a whole number, got 'x'"),
    ("i=1.5", "argument 'i' expects a whole number, got '1.5'"),
    ("n=true", "argument 'n' expects a number, got 'true'"),
    ("b=1", "argument 'b' expects a boolean, got '1'"),
    ("o=[]", "argument 'o' expects a JSON object, got '[]'"),
    ("l=[", "argument 'l' expects a list (JSON, or the key repeated), got '['"),
    ("l=x", "argument 'item' expects a whole number, got 'x'"),
    ("optional=x", "argument 'optional' expects a null or a whole number, got 'x'"),
    ("=x", "expected key=value or key:=JSON, got '=x'"),
    (":=x", "expected key=value or key:=JSON, got ':=x'"),
]


@pytest.mark.parametrize(("word", "message"), WRONG)
def test_values_of_another_type_are_refused(word: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        arguments_from((word,), SCHEMA)
    assert caught.value.message == message


def test_additional_properties_may_have_a_type() -> None:
    assert arguments_from(("x=3",), {"additionalProperties": {"type": "integer"}}) == {"x": 3}


EXAMPLES: list[tuple[Any, list[str] | None]] = [
    ({"properties": {"text": {"type": "string"}}, "required": ["text"]}, ["text=hello"]),
    ({"properties": {k: {"type": "number"} for k in "ab"}, "required": ["a", "b"]}, ["a=2", "b=3"]),
    ({"properties": {"a": {"type": "integer", "minimum": 10}}, "required": ["a"]}, ["a=10"]),
    ({"properties": {"a": {"type": "boolean"}}, "required": ["a"]}, ["a=true"]),
    ({"properties": {"a": {"enum": ["x"]}}, "required": ["a"]}, ["a=x"]),
    ({"properties": {"a": {"type": "string", "examples": ["e"]}}, "required": ["a"]}, ["a=e"]),
    ({"properties": {"a": {"type": "object"}}, "required": ["a"]}, None),
    ({"properties": {"a": {"type": "object"}}}, []),
    (None, []),
]


@pytest.mark.parametrize(("schema", "words"), EXAMPLES)
def test_examples_fill_what_is_required(schema: Any, words: list[str] | None) -> None:
    assert example_words(schema) == words


def test_nesting_without_end_is_cut() -> None:
    endless: dict[str, Any] = {"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}]}}}
    assert types_of(endless["$defs"]["a"], endless) == set()
