"""README.md is true: its blocks are run and print what stands there; so it is with the tools that write it."""

import re
import shutil
import tomllib
from pathlib import Path
from string import ascii_letters
from typing import Any

import pytest

from penstock.cli.main import VERBS
from penstock.config.load import Flags, Source, judge
from scripts.docs_console import Console, Failed, normalised
from scripts.docs_pages import PAGES, entries, figures, updated, with_figures
from tests.peers.environments import ROOT

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"`((?:[a-z_0-9]+/)+[a-z_0-9.-]+\.(?:py|toml|txt|mjs))`")
_FIGURE = {"median": 24.31, "least": 20.0, "most": 30.0, "rounds": 5}
REPORT: dict[str, Any] = {
    "taken": "2026-11-20T10:00:00+00:00",
    "machine": {
        "processor": "P",
        "cores": 2,
        "system": "S",
        "python": "3.11",
        "nginx": "1.28",
        "commit": "abc",
        "compiled": True,
    },
    "settings": {"rounds": 5},
    "rows": [
        {"title": "nginx: modern server, 1 KB", "cpu_us": _FIGURE, "ratio": None, "calls_per_second": _FIGURE},
        {"title": "modern client → modern server, 1 KB", "cpu_us": _FIGURE, "ratio": _FIGURE, "calls_per_second": _FIGURE},
    ],
    "budgets": [
        {"name": "memory", "unit": "MB", "ships": 70, "aim": 50, "value": 48.123, "outcome": "aim"},
        {"name": "latency", "unit": "ms", "ships": 0.3, "aim": 0.15, "value": None, "outcome": "void"},
    ],
}  # fmt: skip


def fences(page: str, kind: str) -> list[str]:
    """The blocks of that kind in a page."""
    return [block for found, block in _FENCE.findall((ROOT / page).read_text("utf-8")) if found == kind]


def test_the_readme_prints_what_its_commands_print() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert updated(text) == text, "run scripts/docs, and read what changed"


def test_an_output_that_is_not_what_is_printed_is_replaced() -> None:
    page = "```console\n$ echo one; echo two\none\n$ echo 2020-01-01T10:00:00Z\n2021-02-02T11:00:00Z\n```\n"
    assert updated(page) == page.replace("two\none\n", "two\none\ntwo\n")


def test_a_command_may_go_on_in_the_next_line() -> None:
    assert entries("$ echo \\\n  a\na\n$ true\n") == [("echo \\\n  a", "a\n"), ("true", "")]
    page = "```console\n$ echo \\\n  a\na\n```\n"
    assert updated(page) == page
    with pytest.raises(Failed, match="starts with '"):
        entries("echo a\n")


def test_a_mark_that_names_nothing_is_refused() -> None:
    for name in ("nothing", "help nothing"):
        with pytest.raises(Failed, match="nothing"):
            updated(f"<!-- begin {name} -->\n<!-- end {name} -->")


def test_times_and_process_ids_do_not_make_a_page_stale() -> None:
    first = "since 2026-11-21T11:26:02+00:00, stop it with 'kill 12', (generation 4), p50: 0.1"
    second = "since 2026-12-24T01:02:03+00:00, stop it with 'kill 345', (generation 17), p50: 0.25"
    assert normalised(first) == normalised(second)
    assert normalised("5 tools") != normalised("6 tools")


def test_a_console_leaves_nothing_behind(tmp_path: Path) -> None:
    with Console() as console:
        assert console.run("echo $HOME > ~/x; cat ~/x") == "~"
        folder = re.search(r"<Console (\S+) ", repr(console))
        assert folder is not None
        assert Path(folder[1], "home", "x").exists()
    assert not Path(folder[1]).exists()


def test_figures_come_from_a_report_and_go_where_the_mark_is() -> None:
    page = "a\n<!-- begin bench -->\nold\n<!-- end bench -->\nb\n"
    filled = with_figures(page, REPORT)
    assert filled.startswith("a\n<!-- begin bench -->\nP, 2 cores, S; Python 3.11, nginx 1.28; 2026-11-20, commit abc")
    assert "| modern client → modern server, 1 KB | 24.3 | 24.31 (20.00–30.00) | 24 |" in filled
    assert "| nginx: modern server, 1 KB | 24.3 |  | 24 |" in filled
    assert "| memory | 48.1 MB | ≤ 70 | ≤ 50 |" in filled
    assert "| latency | void | ≤ 0.3 | ≤ 0.15 |" in filled
    assert filled.endswith("<!-- end bench -->\nb\n")
    assert "old" not in filled
    assert updated(filled) == filled, "only --bench changes figures"
    assert figures(REPORT).count("\n\n") == 2


def test_every_shell_line_starts_with_something_that_exists() -> None:
    """What is not run is at least there: our scripts, and programs that readers have."""
    others = {"claude", "code", "git"}
    for page in (*PAGES, "CONTRIBUTING.md"):
        for block in fences(page, "sh"):
            for line in block.splitlines():
                program = line.split()[0]
                if program in others or not line.startswith((".venv/", *ascii_letters)):
                    continue
                assert (ROOT / program).exists() or shutil.which(program), f"{page}: {line}"


def test_every_configuration_that_is_shown_is_good() -> None:
    environment = {"DOCS_TOKEN": "x"}
    shown = [(page, block) for page in PAGES for block in fences(page, "toml")]
    assert shown
    for page, block in shown:
        tomllib.loads(block)
        assert _problems(block, environment) == [], page
    assert _problems((ROOT / "examples" / "penstock.toml").read_text("utf-8"), {}) == []


def test_every_file_that_a_document_names_is_there() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    named = [(page, name) for page in pages for name in _FILE.findall(_BLOCK.sub("", page.read_text("utf-8")))]
    missing = [
        f"{page.relative_to(ROOT)}: {name}"
        for page, name in named
        if not any((folder / name).exists() for folder in (ROOT, ROOT / "src" / "penstock"))
    ]
    assert len(named) > 50
    assert missing == []


def test_every_verb_is_described() -> None:
    text = (ROOT / "docs" / "commands.md").read_text("utf-8")
    assert [verb for verb in VERBS if f"<!-- begin help {verb} -->" not in text] == []


def _problems(text: str, environment: dict[str, str]) -> list[str]:
    folder = Path(__file__).parent
    source = Source(text, "shown", folder)
    _, problems = judge(source, path=folder / "penstock.toml", environment=environment, flags=Flags(), resolve=True)
    return [problem.message for problem in problems]
