"""Writes the generated parts of the documents: outputs of commands, tables of keys, help, figures.

    scripts/docs            writes them
    scripts/docs --check    prints what is not current and ends with 1
    scripts/docs --bench results/bench-….json    also puts these figures into README.md

Knows: Markdown with `console` blocks (each `$ ` line is run, what follows it is its output), commands that are run before those
and not shown (`<!-- run COMMAND -->`), marked parts (`<!-- begin NAME -->` … `<!-- end NAME -->`). Does not know: how one is run.
What differs only in times, numbers of processes and the like counts as current, and stays as it is written.
"""

import argparse
import contextlib
import difflib
import io
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from penstock.cli.main import VERBS
from penstock.cli.main import main as run_command
from penstock.config.keys import SECTIONS
from scripts.docs_console import ROOT, Console, Failed, normalised

PAGES: Final = (
    "README.md", "docs/commands.md", "docs/configuration.md", "docs/eras.md", "docs/operations.md", "docs/security.md",
)  # fmt: skip
_BEFORE: Final = re.compile(r"^<!-- run (.+) -->$", re.MULTILINE)
_CONSOLE: Final = re.compile(r"(?<=^```console\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)
_MARKED: Final = re.compile(
    r"(?P<begin><!-- begin (?P<name>[a-z -]+?) -->\n)(?P<body>.*?)(?P<end><!-- end (?P=name) -->)", re.DOTALL
)


def updated(text: str) -> str:
    """The page with its generated parts as they are now.

    Raises:
        Failed: a command could not be run, or a mark names nothing that is generated.
    """
    text = _MARKED.sub(lambda match: match["begin"] + _generated(match["name"], match["body"]) + match["end"], text)
    with Console() as console:
        for command in _BEFORE.findall(text):
            console.run(command)
        return _CONSOLE.sub(lambda match: _block(match[0], console), text)


def _block(block: str, console: Console) -> str:
    """A console block, run again."""
    out = []
    for command, written in entries(block):
        said = console.run(command.replace("\\\n", " "))
        said = said + "\n" if said else ""
        out.append(f"$ {command}\n{written if normalised(said) == normalised(written) else said}")
    return "".join(out)


def entries(block: str) -> list[tuple[str, str]]:
    """(command, output) pairs; a command goes on in the next line after a backslash."""
    found: list[tuple[str, str]] = []
    lines = block.splitlines()
    while lines:
        line = lines.pop(0)
        if not line.startswith("$ "):
            raise Failed(f"a console block starts with '$ ', got '{line}'")
        command = line[2:]
        while command.endswith("\\") and lines:
            command += "\n" + lines.pop(0)
        output = ""
        while lines and not lines[0].startswith("$ "):
            output += lines.pop(0) + "\n"
        found.append((command, output))
    return found


def _generated(name: str, before: str) -> str:
    kind, _, what = name.partition(" ")
    if kind == "keys":
        return keys_table(what)
    if kind == "help":
        return _fence(_help(what))
    if kind == "bench":
        return before  # only `--bench` changes it: a figure needs a machine at rest
    raise Failed(f"nothing is generated under the name '{name}'")


def keys_table(section_name: str) -> str:
    """One section's keys as a table."""
    section = SECTIONS[section_name]
    defaults = section.defaults()
    rows = []
    for key in section.keys.values():
        default = defaults[key.name]
        is_empty = default is None or default in ((), {})
        shown = "" if is_empty else f"`{key.kind.show(default)}`"
        rows.append(f"| `{key.name}` | {shown} | {_cell(key.about)} | {_cell(key.kind.expected)} |")
    return "\n".join(["| key | default | what | expected |", "|---|---|---|---|", *rows]) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _fence(text: str) -> str:
    return f"```text\n{text}\n```\n"


def _help(verb: str) -> str:
    words = verb.split()
    if words[0] not in VERBS:
        raise Failed(f"there is no verb '{verb}'")
    before, said = os.environ.get("COLUMNS"), io.StringIO()
    os.environ["COLUMNS"] = "120"
    try:
        with contextlib.redirect_stdout(said):
            run_command([*words, "--help"])
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
    return "\n".join(line.rstrip() for line in said.getvalue().strip().splitlines())


def figures(report: dict[str, Any]) -> str:
    """The measured figures of one report of `scripts/bench` as Markdown."""
    machine = report["machine"]
    facts = f"{machine['processor']}, {machine['cores']} cores, {machine['system']}"
    facts += f"; Python {machine['python']}, nginx {machine['nginx']}"
    lines = [
        f"{facts}; {report['taken'][:10]}, commit {machine['commit']}; medians of {report['settings']['rounds']} rounds.",
        "",
        "| CPU time per call | µs | × nginx (least–most) | calls/s |",
        "|---|--:|--:|--:|",
    ]
    for row in report["rows"]:
        ratio = row["ratio"]
        times = f"{ratio['median']:.2f} ({ratio['least']:.2f}–{ratio['most']:.2f})" if ratio else ""
        lines.append(
            f"| {row['title']} | {row['cpu_us']['median']:.1f} | {times} | {row['calls_per_second']['median']:,.0f} |"
        )
    lines += ["", "| budget | measured | ships at | aim |", "|---|--:|--:|--:|"]
    for one in report["budgets"]:
        value = "void" if one["value"] is None else f"{one['value']:.3g} {one['unit']}"
        lines.append(f"| {one['name']} | {value} | ≤ {one['ships']:g} | ≤ {one['aim']:g} |")
    return "\n".join(lines) + "\n"


def with_figures(text: str, report: dict[str, Any]) -> str:
    """The page with its `bench` part replaced."""

    def replaced(match: re.Match[str]) -> str:
        return match["begin"] + figures(report) + match["end"] if match["name"] == "bench" else match[0]

    return _MARKED.sub(replaced, text)


def main(words: Sequence[str]) -> int:
    """Write or check; returns the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/docs", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="print what is not current, change nothing")
    parser.add_argument("--bench", type=Path, metavar="FILE", help="figures for README.md, as scripts/bench wrote them")
    parser.add_argument("pages", nargs="*", default=PAGES, help="default all")
    chosen = parser.parse_args(words)
    change: Callable[[str], str] = updated
    if chosen.bench is not None:
        report = json.loads(chosen.bench.read_text("utf-8"))
        chosen.pages, change = ("README.md",), lambda text: with_figures(text, report)
    stale = False
    for page in chosen.pages:
        path = ROOT / page
        old = path.read_text("utf-8")
        try:
            new = change(old)
        except Failed as error:
            print(f"docs: {page}: {error}", file=sys.stderr)
            return 1
        if new == old:
            continue
        stale = True
        if chosen.check:
            print(
                "".join(difflib.unified_diff(old.splitlines(True), new.splitlines(True), page, f"{page} as it is now"))
            )
        else:
            path.write_text(new, "utf-8")
            print(f"wrote {page}")
    return 1 if stale and chosen.check else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
