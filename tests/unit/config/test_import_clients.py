"""Files of MCP clients: every entry is taken or left with a reason."""

import json

import pytest

from penstock.config.import_clients import Import, read_client_config, without_comments
from penstock.errors import ConfigError


def read(tree: object, *, existing: frozenset[str] = frozenset()) -> Import:
    text = tree if isinstance(tree, str) else json.dumps(tree)
    return read_client_config(text, file="mcp.json", directory="/project", home="/home/me", existing=existing)


def one(entry: object) -> tuple[dict[str, object], tuple[str, ...]]:
    found = read({"mcpServers": {"a": entry}})
    assert found.left == ()
    return found.taken[0].values, found.taken[0].notes


def reason(entry: object) -> str:
    found = read({"mcpServers": {"a": entry}})
    assert found.taken == ()
    return found.left[0].reason


STDIO = {"command": "npx", "args": ["-y", "x"]}
SHAPES = [
    {"mcpServers": {"a": STDIO}},
    {"servers": {"a": {"type": "stdio", **STDIO}}},
    {"mcp": {"servers": {"a": STDIO}}},
    {"context_servers": {"a": {"command": {"path": "npx", "args": ["-y", "x"]}}}},
    {"context_servers": {"a": STDIO}},
    {"projects": {"/p": {"mcpServers": {"a": STDIO}}, "/q": 3}},
]


@pytest.mark.parametrize("tree", SHAPES)
def test_every_client_s_shape_is_understood(tree: dict[str, object]) -> None:
    (taken,) = read(tree).taken
    assert (taken.name, taken.values, taken.notes) == ("a", {"command": ["npx", "-y", "x"]}, ())


@pytest.mark.parametrize("key", ["url", "serverUrl", "httpUrl"])
@pytest.mark.parametrize("kind", [{}, {"type": "http"}, {"transport": "streamable-http"}, {"type": "streamableHttp"}])
def test_urls_are_found_under_every_name(key: str, kind: dict[str, str]) -> None:
    assert one({key: "https://x/mcp", "headers": {"A": "b"}, **kind})[0] == {
        "url": "https://x/mcp",
        "headers": {"A": "b"},
    }


def test_env_and_cwd_come_along() -> None:
    values, _ = one({**STDIO, "env": {"A": "b", "N": 3, "Z": None}, "cwd": "/w"})
    assert (values["env"], values["cwd"]) == ({"A": "b", "N": "3"}, "/w")


def test_arguments_that_are_no_texts_become_texts() -> None:
    assert one({"command": "x", "args": [1, True]})[0] == {"command": ["x", "1", "true"]}


@pytest.mark.parametrize("switch", [{"disabled": True}, {"enabled": False}])
def test_a_disabled_server_stays_disabled(switch: dict[str, bool]) -> None:
    assert one({**STDIO, **switch}) == (
        {"command": ["npx", "-y", "x"], "enabled": False},
        ("it is disabled there, and here",),
    )


PLACEHOLDERS = [
    ("${TOKEN}", "${env:TOKEN}", ()),
    ("${env:TOKEN}", "${env:TOKEN}", ()),
    ("Bearer ${A} ${B}", "Bearer ${env:A} ${env:B}", ()),
    (
        "${TOKEN:-planted}",
        "${env:TOKEN}",
        ("TOKEN must be set in the environment; its default there was not taken over",),
    ),
    (
        "${input:api-key}",
        "${env:API_KEY}",
        ("API_KEY must be set in the environment; the client asked for it (${input:api-key})",),
    ),
    ("${input:1}", "${env:_1}", ("_1 must be set in the environment; the client asked for it (${input:1})",)),
    ("${workspaceFolder}/x", "/project/x", ("${workspaceFolder} was replaced by /project",)),
    ("${userHome}", "/home/me", ("${userHome} was replaced by /home/me",)),
]


@pytest.mark.parametrize(("theirs", "ours", "notes"), PLACEHOLDERS)
def test_placeholders_are_put_in_our_words(theirs: str, ours: str, notes: tuple[str, ...]) -> None:
    assert one({"command": "x", "args": [theirs], "env": {"K": theirs}}) == (
        {"command": ["x", ours], "env": {"K": ours}},
        notes,
    )


def test_a_server_of_the_transport_of_2024_is_taken_by_its_url() -> None:
    assert one({"type": "sse", "url": "https://x/sse"}) == ({"url": "https://x/sse"}, ())


REASONS = [
    ({"type": "ws", "url": "wss://x"}, "its transport 'ws' is not known"),
    ({"args": []}, "it has neither a command nor a URL"),
    ({"url": 3}, "its URL is 3"),
    ({"command": 3}, "its command is no text with a list of arguments"),
    ({"command": "x", "args": "y"}, "its command is no text with a list of arguments"),
    ({"command": "x", "env": ["A=b"]}, "its env are no object of texts"),
    ({"command": "x", "env": {"A": {}}}, "its env are no object of texts"),
    ({"url": "https://x", "headers": 3}, "its headers are no object of texts"),
    ({"command": "x", "args": ["${command:pick}"]}, "${command:pick} has no counterpart here"),
    ("npx", "expected an object, got 'npx'"),
]


@pytest.mark.parametrize(("entry", "why"), REASONS)
def test_what_cannot_be_taken_is_left_with_its_reason(entry: object, why: str) -> None:
    assert reason(entry).startswith(why)


def test_names_become_ours_and_never_collide() -> None:
    found = read(
        {"mcpServers": {"My Server": STDIO, "my_server": STDIO, "my-server": STDIO, "ok": STDIO}},
        existing=frozenset({"ok"}),
    )
    assert [(taken.called, taken.name) for taken in found.taken] == [
        ("My Server", "my-server"),
        ("my_server", "my-server-2"),
        ("my-server", "my-server-3"),
    ]
    assert found.left[0] == ("ok", "there is a server 'ok' already; 'penstock remove ok' first")


def test_a_long_name_is_cut_for_its_number() -> None:
    found = read({"mcpServers": {"a" * 32: STDIO, "A" * 32: STDIO}})
    assert [taken.name for taken in found.taken] == ["a" * 32, "a" * 30 + "-2"]


def test_settings_that_are_not_taken_over_are_named() -> None:
    assert one({**STDIO, "autoApprove": [], "timeout": 5})[1] == ("not taken over: autoApprove, timeout",)


def test_the_windows_shell_is_left_out() -> None:
    values, notes = one({"command": "cmd", "args": ["/c", "npx", "x"]})
    assert (values, notes) == ({"command": ["npx", "x"]}, ("'cmd /c' was left out, it is for Windows",))


def test_comments_and_trailing_commas_are_allowed() -> None:
    text = '\ufeff{ // one\n "servers": { /* two\n */ "a": {"command": "x // y", "args": ["/*", ",]",],},},\n}'
    assert read(text).taken[0].values == {"command": ["x // y", "/*", ",]"]}
    assert without_comments(text).count("\n") == text.count("\n")


NOTHING = [
    ("{", "mcp.json:1: not JSON: "),
    ('{\n"a": x}', "mcp.json:2: not JSON: Expecting value in column 6"),
    ("[]", "mcp.json: expected a JSON object, got an empty list"),
    ("{}", "mcp.json: expected servers under one of mcpServers, servers, context_servers, found none"),
    ('{"a":' * 100_000, "mcp.json: values are nested too deeply"),
]


@pytest.mark.parametrize(("text", "message"), NOTHING)
def test_a_file_without_servers_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert caught.value.message.startswith(message)
