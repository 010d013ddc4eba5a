"""Questions of a tool, put to a person."""

from collections.abc import Iterator
from typing import Any

import pytest

from penstock.cli.elicitation import answers_to
from penstock.cli.gateway_client import Refused


def asked(schema: Any, *lines: str, **params: Any) -> tuple[dict[str, Any], list[str]]:
    told: list[str] = []
    answers: Iterator[str] = iter(lines)

    def ask(prompt: str) -> str:
        told.append(prompt)
        line = next(answers, None)
        if line is None:
            raise EOFError
        return line

    request = {"method": "elicitation/create", "params": {"message": "Who?\x1b", "requestedSchema": schema, **params}}
    return answers_to({"q": request}, ask=ask, tell=told.append)["q"], told


FORM = {
    "properties": {
        "name": {"type": "string", "title": "Your name", "description": "first"},
        "age": {"type": "integer", "default": 7},
        "size": {"enum": ["s", "m"]},
        "note": {"type": "string"},
    },
    "required": ["name", "size"],
}


def test_a_form_is_asked_field_by_field() -> None:
    answer, told = asked(FORM, "", "Ann", "x", "", "l", "m", "")
    assert answer == {"action": "accept", "content": {"name": "Ann", "age": 7, "size": "m"}}
    assert told == [
        "The tool asks: Who?\ufffd",
        "(Ctrl-D declines)",
        "Your name - first (string): ",
        "a value is needed",
        "Your name - first (string): ",
        "age (integer) [7]: ",
        "argument 'age' expects a whole number, got 'x'",
        "age (integer) [7]: ",
        "size (s|m): ",
        "expected one of s, m",
        "size (s|m): ",
        "note (string) [none]: ",
    ]


def test_titled_choices_are_shown() -> None:
    schema = {"properties": {"a": {"oneOf": [{"const": "x", "title": "X"}, {"const": "y"}]}}, "required": ["a"]}
    answer, told = asked(schema, "y")
    assert answer["content"] == {"a": "y"}
    assert told[-1] == "a (x|y): "


@pytest.mark.parametrize(("lines", "action"), [(("y",), "accept"), (("",), "decline"), ((), "decline")])
def test_a_question_without_fields_is_confirmed(lines: tuple[str, ...], action: str) -> None:
    assert asked({}, *lines)[0]["action"] == action


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"method": "sampling/createMessage", "params": {}}, "the tool asks for 'sampling/createMessage'"),
        (3, "the tool asks for 'something unknown'"),
        (
            {"method": "elicitation/create", "params": {"mode": "url", "message": "m"}},
            "the tool asks you to visit an address",
        ),
    ],
)
def test_what_cannot_be_answered_is_refused(request_: Any, message: str) -> None:
    with pytest.raises(Refused, match=message):
        answers_to({"q": request_}, ask=lambda _: "", tell=lambda _: None)
