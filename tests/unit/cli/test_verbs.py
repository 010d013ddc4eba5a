"""The verbs that read and change: what they say, what they leave behind, how they end."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from penstock.cli.runtime import Running, write_runtime
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake_gateway import FakeGateway


def row(name: str, state: str = "ready", **more: Any) -> dict[str, Any]:
    return {"name": name, "state": state, "transport": "http", "target": "http://x", "tools": 2, "prompts": 1, **more}


@pytest.fixture
def reloading(gateway: FakeGateway) -> FakeGateway:
    gateway.answers["/api/v1/reload"] = (200, {"generation": 7, "changes": []})
    return gateway


def test_add_writes_the_file_and_says_that_no_gateway_runs(run: Run, place: Path) -> None:
    said = run("add", "time", "--env", "KEY=planted", "--cwd", "/w", "--", "uvx", "mcp-server-time", "-x", "--env")
    assert said.code == 0
    assert said.out == "added 'time' in ~/.config/penstock/penstock.toml\n"
    assert said.err == "no gateway runs with this file; the change counts from the next 'penstock serve'\n"
    file = place.parent / "home/.config/penstock/penstock.toml"
    assert file.read_text() == (
        '[servers.time]\ncommand = ["uvx", "mcp-server-time", "-x", "--env"]\nenv = { KEY = "planted" }\ncwd = "/w"\n'
    )
    assert file.stat().st_mode & 0o777 == 0o600


def test_add_reports_what_the_gateway_says_of_the_server(reloading: FakeGateway, run: Run, place: Path) -> None:
    reloading.answers["/api/v1/servers"] = (200, {"servers": [row("docs"), row("web")]})
    said = run("add", "docs", "https://docs.example/mcp", "--header", "A=b=c", "--protocol", "2025-06-18")
    assert (said.code, said.out) == (0, "added 'docs' in penstock.toml\ndocs: ready, 2 tools, 1 prompt\n")
    assert "took the change up (generation 7)" in said.err
    assert (
        (place / "penstock.toml")
        .read_text()
        .endswith(
            '\n[servers.docs]\nurl = "https://docs.example/mcp"\nheaders = { A = "b=c" }\nprotocol = "2025-06-18"\n'
        )
    )


def test_add_waits_while_the_server_starts(reloading: FakeGateway, run: Run) -> None:
    states = iter(["starting", "starting", "failed"])
    original = reloading.answer

    def answer(path: str) -> tuple[int, Any]:
        if path == "/api/v1/servers":
            return 200, {"servers": [row("x", next(states), tools=0, prompts=0, error="server 'x': it went away")]}
        return original(path)

    reloading.answer = answer  # type: ignore[method-assign]
    said = run("add", "x", "http://x/")
    assert said.out.endswith("x: failed: it went away\n")
    assert "penstock logs" not in said.err


def test_add_says_where_to_look_when_a_process_failed(reloading: FakeGateway, run: Run) -> None:
    failed = row("x", "failed", transport="stdio", error="it ended", detail={"stderr_lines": 2})
    reloading.answers["/api/v1/servers"] = (200, {"servers": [failed]})
    assert run("add", "x", "--", "false").err.endswith("'penstock logs x' shows what it wrote to stderr\n")
    reloading.answers["/api/v1/servers"] = (200, {"servers": [failed | {"name": "y", "detail": {"stderr_lines": 0}}]})
    assert "penstock logs" not in run("add", "y", "--", "false").err


def test_a_gateway_that_refuses_the_change_is_quoted(gateway: FakeGateway, run: Run) -> None:
    gateway.answers["/api/v1/reload"] = (422, {"error": "penstock.toml:3: no"})
    said = run("disable", "web")
    assert said.code == 3
    assert said.err == "penstock: the running gateway keeps its old configuration: penstock.toml:3: no\n"


def test_a_gateway_that_is_none_is_no_obstacle(gateway: FakeGateway, run: Run) -> None:
    said = run("disable", "web")
    assert (said.code, said.out) == (3, "disabled 'web' in penstock.toml\n")
    gateway.answers["/api/v1/reload"] = (500, [])
    said = run("enable", "web")
    assert said.code == 0
    assert "the change is not taken up yet: what answers at" in said.err


@pytest.mark.parametrize("word", ["uvx", "./server.py", "/usr/bin/server", "tools/run"])
def test_a_single_word_may_be_a_program(word: str, run: Run, place: Path) -> None:
    file = place / "penstock.toml"
    file.write_text("")
    assert run("add", "a", word).code == 0
    assert f'command = ["{word}"]' in file.read_text()


def test_a_program_that_looks_like_an_address_is_a_program_when_it_is_there(run: Run, place: Path) -> None:
    (place / "my.tools").mkdir()
    (place / "my.tools" / "run").touch()
    assert run("add", "a", "my.tools/run").code == 0


def test_switching_and_removing_edit_the_file(run: Run, place: Path) -> None:
    file = place / "penstock.toml"
    file.write_text("# mine\n[servers.a]\nurl = 'http://x'\n")
    assert run("disable", "a").out == "disabled 'a' in penstock.toml\n"
    assert run("disable", "a").out == "nothing to change in penstock.toml\n"
    assert run("enable", "a").out == "enabled 'a' in penstock.toml\n"
    assert run("enable", "a").out == "nothing to change in penstock.toml\n"
    assert run("remove", "a").out == "removed 'a' in penstock.toml\n"
    assert file.read_text() == "# mine\n"


REFUSED = [
    (("add", "A_b", "http://x"), "'A_b' cannot name a server; expected a name of at most 32"),
    (("add", "a"), "expected a URL, or '--' and a command"),
    (("add", "a", "http://x", "y"), "expected nothing behind the URL, got 'y'"),
    (("add", "a", "http://x", "--env", "A=b"), "--env and --cwd are for commands"),
    (("add", "a", "--header", "A=b", "--", "x"), "--header is for URLs"),
    (("add", "a", "--env", "oops", "--", "x"), "--env expects KEY=VALUE, got 'oops'"),
    (("add", "a", "--env", "token:planted", "--", "x"), "--env expects KEY=VALUE\n"),
    (("add", "a", "localhost:3000/mcp"), "'localhost:3000/mcp' is no URL (did you mean 'http://localhost:3000/mcp'?)"),
    (("add", "a", "http//mcp.example.com/mcp"), "'http//mcp.example.com/mcp' is no URL (did you mean 'http://mcp.ex"),
    (("add", "a", "127.0.0.1:9000"), "'127.0.0.1:9000' is no URL (did you mean 'http://127.0.0.1:9000'?)"),
    (("add", "a", "htp://x"), "penstock.toml:2: servers.a.url: 'htp://x' is not an http(s) URL"),
    (
        ("add", "a", "http://x", "--protocol", "9"),
        "penstock.toml:3: servers.a.protocol: expected one of",
    ),
    (("remove", "a"), "penstock.toml: there is no server 'a'; known servers: none"),
    (("import", "none.json"), "none.json: the file cannot be read: No such file or directory"),
    (("serve", "--server", "x"), "--server expects NAME=URL or NAME=COMMAND, got 'x'"),
    (("serve", "--server", "x=it's"), "--server x: the command cannot be read: No closing quotation"),
    (("serve", "--listen", "0.0.0.0:0"), "flag --listen: listen.data: 0.0.0.0:0 can be reached from other machines"),
    (("serve", "--config", "none.toml"), "none.toml: there is no such file"),
    (("config", "show", "--config", "none.toml"), "none.toml: there is no such file"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED)
def test_what_cannot_be_done_ends_with_2_and_changes_nothing(
    words: tuple[str, ...], message: str, run: Run, place: Path
) -> None:
    file = place / "penstock.toml"
    file.write_text("")
    said = run(*words)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(f"penstock: {message}")
    assert "planted" not in said.err
    assert file.read_text() == ""


USAGE = [
    (("list", "--jsn"), "penstock list: "),
    (("logs",), "penstock logs: "),
    (("add", "a", "npx", "-y"), "penstock add: "),
    (("config", "shw"), "penstock config: "),
    (("serve", "--log-level", "loud"), "penstock serve: "),
]


@pytest.mark.parametrize(("words", "start"), USAGE)
def test_words_nobody_knows_end_with_2_and_one_line(words: tuple[str, ...], start: str, run: Run) -> None:
    said = run(*words)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(start)
    assert said.err.count("\n") == 1
    assert said.err.endswith(f"see 'penstock {words[0]} --help'\n")


def test_list_shows_state_counts_and_errors(gateway: FakeGateway, run: Run) -> None:
    broken = row("b\x1b[31m", "failed", tools=0, prompts=0, error="server 'b': gone", stale=True)
    answer = {"generation": 1, "servers": [row("a"), broken], "duplicates": ["x://y is listed by a and b; a serves it"]}
    gateway.answers["/api/v1/servers"] = (200, answer)
    said = run("list")
    assert said.out == (
        "a       ready   2 tools, 1 prompt  http  http://x\n"
        "b\ufffd[31m  failed   (last known)      http  http://x\n    server 'b': gone\n"
    )
    assert said.err == "note: x://y is listed by a and b; a serves it\n"
    assert json.loads(run("list", "--json").out) == answer


def test_list_says_that_the_file_cannot_be_used(gateway: FakeGateway, run: Run) -> None:
    refused = {"taken_up": False, "refused_at": "2026-01-02T03:04:05+00:00", "error": "penstock.toml:3: \x1bodd"}
    gateway.answers["/api/v1/servers"] = (200, {"servers": [row("a")], "duplicates": [], "configuration": refused})
    said = run("list")
    assert (said.code, said.out.startswith("a  ready")) == (0, True)
    assert said.err == (
        "warning: since 2026-01-02T03:04:05+00:00 the configuration cannot be used, and the one before is served: "
        "penstock.toml:3: \ufffdodd\n"
    )


def test_list_asks_which_gateway_is_meant_when_several_run(run: Run, place: Path) -> None:
    for port in (80, 90):
        url = f"http://127.0.0.1:{port}"
        write_runtime(place.parent / "state", Running(f"{url}/mcp", url, os.getpid(), "now", f"/other/{port}.toml"))
    said = run("list")
    assert (said.code, said.out) == (4, "")
    assert said.err == (
        "penstock: several gateways run (http://127.0.0.1:80/mcp, http://127.0.0.1:90/mcp); choose one with --gateway URL\n"
    )


def test_list_reads_the_file_when_no_gateway_runs(run: Run, place: Path) -> None:
    assert run("list").err == "no gateway runs, and no server was added yet\n"
    (place / "penstock.toml").write_text(
        "[servers.a]\nurl = 'http://x/?key=planted'\n[servers.b]\ncommand = ['x', '${env:NONE}']\nenabled = false\n"
    )
    said = run("list")
    assert said.out == "a  not running    http   http://x/?key=***\nb  disabled       stdio  x ***\n"
    assert said.err == "no gateway runs; this is what penstock.toml says\n"
    assert [one["name"] for one in json.loads(run("list", "--json").out)["servers"]] == ["a", "b"]
    assert run("list", "--gateway", "http://127.0.0.1:1").code == 4


def test_an_empty_gateway_says_how_to_go_on(gateway: FakeGateway, run: Run) -> None:
    gateway.answers["/api/v1/servers"] = (200, {"servers": [], "duplicates": [{"uri": "x"}]})
    assert run("list") == (0, "no servers yet; add one with 'penstock add'\n", "note: uri x\n")


def test_logs_are_shown_harmlessly(gateway: FakeGateway, run: Run) -> None:
    gateway.answers["/api/v1/servers/a/log"] = (200, {"lines": ["one", "\x1b]two"], "cursor": 2})
    assert run("logs", "a", "-n", "5") == (0, "one\n\ufffd]two\n", "")
    assert gateway.asked[-1] == "/api/v1/servers/a/log?lines=5"
    assert json.loads(run("logs", "a", "--json").out)["cursor"] == 2
    gateway.answers["/api/v1/servers/a/log"] = (200, {"lines": [], "cursor": 0})
    assert run("logs", "a").err == "'a' wrote nothing to stderr\n"
    assert run("logs", "b") == (2, "", "penstock: not found\n")
    gateway.answers["/api/v1/servers/c/log"] = (200, {"lines": [], "cursor": 0, "transport": "http"})
    elsewhere = (0, "", "'c' is no process that Penstock started: what it logs is where it runs\n")
    assert run("logs", "c") == run("logs", "c", "-f") == elsewhere


def test_logs_follow_from_where_they_were(gateway: FakeGateway, run: Run) -> None:
    replies = iter(
        [(200, {"lines": ["one"], "cursor": 1}), (200, {"lines": ["two"], "cursor": 2}), (404, {"error": "gone"})]
    )

    def answer(path: str) -> tuple[int, Any]:
        gateway.asked.append(path)
        return next(replies)

    gateway.answer = answer  # type: ignore[method-assign]
    assert run("logs", "a", "-f") == (2, "one\ntwo\n", "penstock: gone\n")
    assert gateway.asked[1:] == ["/api/v1/servers/a/log?lines=1000&after=1", "/api/v1/servers/a/log?lines=1000&after=2"]


def test_tools_are_found(gateway: FakeGateway, run: Run) -> None:
    schema = {"properties": {"a": {"type": ["string", "null"]}, "b": {}, "c": {"type": "integer"}}, "required": ["c"]}
    tool = {"name": "web_x", "server": "web", "description": " Does x.\nMore.", "input_schema": schema}
    gateway.answers["/api/v1/tools"] = (200, {"tools": [tool, {"name": "web_y", "input_schema": None}]})
    assert run("tools", "two", "words").out == "web_x c=integer a=string|null? b=any?\n    Does x.\nweb_y\n"
    assert gateway.asked[-1] == "/api/v1/tools?q=two+words"
    assert json.loads(run("tools", "--json").out)["tools"][0] == tool
    gateway.answers["/api/v1/tools"] = (200, {"tools": []})
    assert run("tools", "zz").err == "no tool matches 'zz'; 'penstock tools' lists all\n"
    assert run("tools").err == "no tools; 'penstock list' shows the servers\n"


def test_explain_is_readable(gateway: FakeGateway, run: Run) -> None:
    answer = {
        "tool": "t",
        "own_name": "x",
        "eras": {"a": True, "b": []},
        "steps": [{"k": 1}, {"k": None}],
        "last": "",
        "l": ["a", "b"],
    }
    gateway.answers["/api/v1/explain"] = (200, answer)
    assert run("explain", "t").out == (
        "tool: t\nown name: x\neras:\n  a: yes\n  b: none\nsteps:\n  1.\n    k: 1\n  2.\n    k: none\nlast: none\nl: a, b\n"
    )
    assert json.loads(run("explain", "t", "--json").out) == answer


CLIENT = {
    "mcpServers": {
        "My Time": {"command": "uvx", "args": ["mcp-server-time"], "env": {"K": "${K}"}, "autoApprove": []},
        "old": {"type": "ws", "url": "wss://x"},
        "bad": {"url": "htp://x"},
        "web": {"url": "https://y"},
    }
}


def test_import_says_what_it_took_renamed_and_left(reloading: FakeGateway, run: Run, place: Path) -> None:
    reloading.answers["/api/v1/servers"] = (200, {"servers": [row("my-time")]})
    (place / "client.json").write_text(json.dumps(CLIENT))
    said = run("import", "client.json")
    assert said.code == 0
    assert said.out.splitlines() == [
        "took 'My Time', named 'my-time' here",
        "    not taken over: autoApprove",
        "left 'old': its transport 'ws' is not known",
        "left 'web': there is a server 'web' already; 'penstock remove web' first",
        "left 'bad': url: 'htp://x' is not an http(s) URL (did you mean 'http://x'?)",
        "added 1 of 4 servers in penstock.toml",
        "my-time: ready, 2 tools, 1 prompt",
    ]
    assert (
        (place / "penstock.toml")
        .read_text()
        .endswith('\n[servers.my-time]\ncommand = ["uvx", "mcp-server-time"]\nenv = { K = "${env:K}" }\n')
    )


def test_import_can_be_tried_first_and_read_by_programs(run: Run, place: Path) -> None:
    (place / "client.json").write_text(json.dumps(CLIENT))
    assert run("import", "client.json", "--dry-run").out.startswith("would take 'My Time', named 'my-time' here\n")
    assert not (place.parent / "home").exists()
    answer = json.loads(run("import", "client.json", "--json").out)
    assert [one["name"] for one in answer["taken"]] == ["my-time", "web"]
    assert [one["called"] for one in answer["left"]] == ["old", "bad"]
    (place / "client.json").write_text(json.dumps({"servers": {"old": CLIENT["mcpServers"]["old"]}}))
    assert run("import", "client.json").code == 3


@pytest.mark.parametrize(
    ("content", "message"), [(b"\xe9", "not UTF-8"), (b" " * (4 * 2**20 + 1), "larger than 4 MiB")]
)
def test_import_refuses_what_it_cannot_read(content: bytes, message: str, run: Run, place: Path) -> None:
    (place / "client.json").write_bytes(content)
    said = run("import", "client.json")
    assert said.code == 2
    assert message in said.err


def test_show_prints_every_value_with_its_origin_and_no_secret(
    run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_LIMITS_DRAIN", "9s")
    monkeypatch.setenv("TOKEN", "planted")
    (place / "penstock.toml").write_text(
        "[limits]\nidle = '${env:IDLE}'\n"
        "[servers.a]\nurl = 'http://x/?key=planted'\nheaders = { A = 'planted', B = '${env:TOKEN}' }\n"
        "[servers.b]\ncommand = ['x', '--token', 'planted']\nenv = { K = 'planted' }\n[views.v]\nservers = ['a']\n"
    )
    said = run("config", "show")
    lines = {line.split(" = ")[0]: " ".join(line.split(" = ", 1)[1].split()) for line in said.out.splitlines()[1:]}
    assert said.code == 0
    assert said.out.startswith("# penstock.toml\n")
    assert lines["limits.drain"] == '"9s" # environment PENSTOCK_LIMITS_DRAIN'
    assert lines["limits.idle"] == '"${env:IDLE}" # penstock.toml:2'
    assert lines["limits.connections"] == "20000 # default"
    assert lines["listen.tls_cert"] == "(none) # default"
    assert lines["servers.a.headers"] == '{"A" = "***", "B" = "***"} # penstock.toml:5, ${env:TOKEN}'
    assert lines["servers.a.url"] == '"http://x/?key=***" # penstock.toml:4'
    assert lines["servers.b.command"] == '["x", "--token", "***"] # penstock.toml:7'
    assert lines["views.v.servers"] == '["a"] # penstock.toml:10'
    assert "planted" not in said.out + said.err
    assert "planted" not in run("config", "show", "--json").out


def test_show_works_without_a_file(run: Run) -> None:
    assert run("config", "show").out.startswith(
        "# no file yet; 'penstock add' makes ~/.config/penstock/penstock.toml\n"
    )
    assert json.loads(run("config", "show", "--json").out)["file"] is None


def test_check_names_everything_that_is_wrong(run: Run, place: Path) -> None:
    file = place / "x.toml"
    file.write_text("[limits]\nidle = 3\nidel = '3s'\n")
    said = run("config", "check", "x.toml")
    assert (said.code, said.out) == (2, "")
    assert [line.split(": ")[1:3] for line in said.err.splitlines()] == [
        ["x.toml:2", "limits.idle"],
        ["x.toml:3", "limits.idel"],
    ]
    answer = json.loads(run("config", "check", "x.toml", "--json").out)
    assert (answer["ok"], [one["line"] for one in answer["problems"]]) == (False, [2, 3])
    file.write_text("")
    file.chmod(0o666)
    said = run("config", "check", "x.toml")
    assert (said.code, said.out) == (0, "x.toml is good\n")
    assert said.err.startswith("warning: ")
    assert run("config", "check").code == 2
    assert run("config", "show", "--config", "x.toml").code == 0


def test_a_file_that_is_wrong_stops_show(run: Run, place: Path) -> None:
    (place / "penstock.toml").write_text("[limits]\nidle = 3\n")
    assert run("config", "show").code == 2


def test_the_schema_is_printed(run: Run) -> None:
    assert json.loads(run("config", "schema").out)["title"] == "penstock.toml"
