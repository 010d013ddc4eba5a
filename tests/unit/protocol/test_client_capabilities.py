"""What clients say they can be asked, and what may be asked of them; the traps of the specification's revisions."""

import itertools
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from penstock.protocol.client_capabilities import (
    EVERYTHING,
    MAX_EXTRAS,
    NOTHING,
    Askable,
    declared,
    missing,
    read_askable,
)
from penstock.protocol.methods import TASKS_EXTENSION
from penstock.protocol.versions import LATEST_LEGACY, LATEST_MODERN, LEGACY_VERSIONS

REVISIONS = (LATEST_MODERN, *LEGACY_VERSIONS)


def params(**members: Any) -> dict[str, Raw]:
    return {key: Raw(msgspec.json.encode(value)) for key, value in members.items()}


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        (b"{}", NOTHING),
        (b"", NOTHING),
        (b'{"extensions":{},"experimental":{}}', NOTHING),
        (b'{"elicitation":{}}', Askable(forms=True)),
        (b' { "elicitation" : { } } ', Askable(forms=True)),
        (b'{"elicitation":{"form":{}}}', Askable(forms=True)),
        (b'{"elicitation":{"form":{"applyDefaults":true}}}', Askable(forms=True)),
        (b'{"elicitation":{"url":{}}}', Askable(urls=True)),
        (b'{"elicitation":{"form":{},"url":{}}}', Askable(forms=True, urls=True)),
        (b'{"elicitation":{"voice":{}}}', Askable(forms=True)),
        (b'{"sampling":{}}', Askable(sampling=True)),
        (b'{"sampling":{"tools":{}}}', Askable(sampling=True, sampling_tools=True)),
        (b'{"sampling":{"context":{}}}', Askable(sampling=True, sampling_context=True)),
        (b'{"roots":{"listChanged":true}}', Askable(roots=True, roots_changes=True)),
        (b'{"elicitation":{"form":{},"url":{}},"sampling":{"tools":{},"context":{}},"roots":{}}', EVERYTHING),
    ],
)
def test_what_a_client_of_the_newest_revisions_declares(capabilities: bytes, expected: Askable) -> None:
    for revision in (LATEST_MODERN, "2025-11-25"):
        assert read_askable(capabilities, revision) == expected


@pytest.mark.parametrize(
    "capabilities",
    [
        b"not json",
        b"[1,2]",
        b'"elicitation"',
        b'{"elicitation":null,"sampling":null,"roots":null}',
        b'{"elicitation":true,"sampling":1,"roots":[]}',
        b'{"elicitation":"form","sampling":"yes","roots":false}',
        b'{"elicitation":{}',
    ],
)
def test_what_cannot_be_read_was_not_declared(capabilities: bytes) -> None:
    assert read_askable(capabilities, LATEST_MODERN) == NOTHING


def test_a_member_that_is_null_is_as_good_as_none() -> None:
    read = read_askable(
        b'{"elicitation":{"form":null,"url":{}},"sampling":{"tools":null,"context":null}}', LATEST_MODERN
    )
    assert read == Askable(urls=True, sampling=True)
    assert read_askable(b'{"elicitation":{"form":null,"url":null}}', LATEST_MODERN) == Askable(forms=True)


def test_a_client_can_be_asked_no_more_than_its_revision_has() -> None:
    everything = b'{"elicitation":{"form":{},"url":{}},"sampling":{"tools":{},"context":{}},"roots":{}}'
    assert read_askable(everything, "2025-06-18") == Askable(forms=True, sampling=True, roots=True)
    for revision in ("2025-03-26", "2024-11-05"):
        assert read_askable(everything, revision) == Askable(sampling=True, roots=True)
    only_urls = read_askable(b'{"elicitation":{"url":{}}}', "2025-06-18")
    assert only_urls == Askable(forms=True), "2025-06-18 has no modes: whatever stands there means forms"


@pytest.mark.parametrize(
    ("askable", "revision", "expected"),
    [
        (NOTHING, LATEST_MODERN, {}),
        (EVERYTHING, LATEST_MODERN, {"elicitation": {"form", "url"}, "sampling": {"tools", "context"}, "roots": set()}),
        (EVERYTHING, "2025-11-25", {"elicitation": {"form", "url"}, "sampling": {"tools", "context"}, "roots": set()}),
        (EVERYTHING, "2025-06-18", {"elicitation": set(), "sampling": set(), "roots": set()}),
        (EVERYTHING, "2025-03-26", {"sampling": set(), "roots": set()}),
        (EVERYTHING, "2024-11-05", {"sampling": set(), "roots": set()}),
        (Askable(forms=True), "2025-11-25", {"elicitation": set()}),
        (Askable(urls=True), "2025-11-25", {"elicitation": {"url"}}),
        (Askable(urls=True), "2025-06-18", {}),
        (Askable(sampling=True), "2025-11-25", {"sampling": set()}),
        (Askable(sampling=True, sampling_tools=True), LATEST_MODERN, {"sampling": {"tools"}}),
        (Askable(sampling=True, sampling_context=True), LATEST_MODERN, {"sampling": {"context"}}),
    ],
)
def test_what_is_declared_for_a_client_in_each_revision(
    askable: Askable, revision: str, expected: dict[str, set[str]]
) -> None:
    said = msgspec.json.decode(declared(askable, revision))
    assert {name: set(members) for name, members in said.items()} == expected


def with_flags(*flags: Any, **more: Any) -> Askable:
    return Askable(*flags, **more)


def test_extensions_are_passed_on_as_they_are_but_for_tasks() -> None:
    ui = {"mimeTypes": ["text/html;profile=mcp-app"]}
    said = {
        "extensions": {"io.modelcontextprotocol/ui": ui, TASKS_EXTENSION: {}},
        "experimental": {"x": {"a": [1]}},
        "odd": {},
    }
    askable = read_askable(msgspec.json.encode(said), LATEST_LEGACY)
    assert not askable.has_any
    told = {"extensions": {"io.modelcontextprotocol/ui": ui}, "experimental": {"x": {"a": [1]}}}
    for revision in (LATEST_LEGACY, LATEST_MODERN):
        assert msgspec.json.decode(declared(askable, revision)) == told
    reordered = b'{"experimental":{"x":{"a":[1]}},"extensions":%b}' % msgspec.json.encode(told["extensions"])
    assert read_askable(reordered, LATEST_LEGACY) == askable
    nothings: list[Any] = [
        {"extensions": {TASKS_EXTENSION: {}}},
        {"extensions": 5},
        {"experimental": {"x": "y" * MAX_EXTRAS}},
    ]
    for nothing in nothings:
        assert read_askable(msgspec.json.encode(nothing), LATEST_LEGACY).extras == ""


def test_changes_of_roots_are_declared_to_servers_that_can_hear_of_them() -> None:
    askable = read_askable(b'{"roots":{"listChanged":true}}', LATEST_LEGACY)
    assert msgspec.json.decode(declared(askable, LATEST_LEGACY)) == {"roots": {"listChanged": True}}
    assert msgspec.json.decode(declared(askable, LATEST_MODERN)) == {"roots": {}}
    assert not read_askable(b'{"roots":{"listChanged":false}}', LATEST_LEGACY).roots_changes


def test_nothing_is_ever_declared_that_the_client_did_not() -> None:
    """Whatever is told to a server is read by it as no more than the client said."""
    for flags in itertools.product((False, True), repeat=6):
        askable = with_flags(*flags)
        for revision in REVISIONS:
            understood = read_askable(declared(askable, revision), revision)
            assert all(ours or not theirs for ours, theirs in zip(askable, understood, strict=True)), (
                askable,
                revision,
            )


def test_whether_there_is_anything_to_ask() -> None:
    assert not NOTHING.has_any
    assert not Askable(sampling_tools=True, sampling_context=True).has_any, "details of what was not declared"
    for one in ("forms", "urls", "sampling", "roots"):
        assert with_flags(**{one: True}).has_any


FORM: dict[str, Any] = {"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}}
URL = {"mode": "url", "message": "Go", "url": "https://x.example"}
TALK: dict[str, Any] = {"messages": [], "maxTokens": 1}


@pytest.mark.parametrize(
    ("method", "asked", "needed", "askable"),
    [
        ("elicitation/create", FORM, {"elicitation": {"form": {}}}, Askable(forms=True)),
        ("elicitation/create", FORM | {"mode": "form"}, {"elicitation": {"form": {}}}, Askable(forms=True)),
        ("elicitation/create", URL, {"elicitation": {"url": {}}}, Askable(urls=True)),
        ("sampling/createMessage", TALK, {"sampling": {}}, Askable(sampling=True)),
        ("roots/list", {}, {"roots": {}}, Askable(roots=True)),
    ],
    ids=["form", "form by name", "url", "sampling", "roots"],
)
def test_each_request_needs_its_capability_and_no_other(
    method: str, asked: dict[str, Any], needed: dict[str, Any], askable: Askable
) -> None:
    assert missing(askable, method, params(**asked)) is None
    others = with_flags(*(not had for had in askable[:6]))
    for lacking in (NOTHING, others):
        lacks = missing(lacking, method, params(**asked))
        assert lacks is not None
        assert msgspec.json.decode(lacks) == needed


@pytest.mark.parametrize("more", [{"tools": [{"name": "x", "inputSchema": {}}]}, {"toolChoice": {"mode": "auto"}}])
def test_sampling_with_tools_needs_more_than_sampling(more: dict[str, Any]) -> None:
    asked = params(**TALK, **more)
    assert missing(Askable(sampling=True, sampling_tools=True), "sampling/createMessage", asked) is None
    assert missing(Askable(sampling=True), "sampling/createMessage", asked) == b'{"sampling":{"tools":{}}}'
    assert missing(NOTHING, "sampling/createMessage", asked) == b'{"sampling":{}}'


def test_context_is_no_reason_to_refuse_as_servers_only_should_leave_it_out() -> None:
    asked = params(**TALK, includeContext="thisServer")
    assert missing(Askable(sampling=True), "sampling/createMessage", asked) is None


def test_a_mode_is_what_it_says_however_it_is_spelled() -> None:
    spelled = params(**FORM) | {"mode": Raw(b'"\\u0075rl"')}
    assert missing(Askable(forms=True), "elicitation/create", spelled) == b'{"elicitation":{"url":{}}}'
    assert missing(Askable(urls=True), "elicitation/create", spelled) is None


@pytest.mark.parametrize("mode", [b'"voice"', b"5", b"null", b'{"url":1}'])
def test_a_mode_no_client_can_have_declared_is_refused(mode: bytes) -> None:
    assert missing(EVERYTHING, "elicitation/create", params(**FORM) | {"mode": Raw(mode)}) == b"{}"


@pytest.mark.parametrize("method", ["ping", "tasks/get", "tools/call", "elicitation/createx", ""])
def test_methods_no_client_can_be_asked_are_refused(method: str) -> None:
    assert missing(EVERYTHING, method, {}) == b"{}"
