"""The command `penstock`: finds the verb, loads its file alone, turns errors into a sentence and an exit code.

Knows: the verbs. Does not know: what they do. `--version` and `--help` import nothing beyond this file.
"""

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES
from typing import TYPE_CHECKING, Any, Final

from penstock import __version__

if TYPE_CHECKING:
    from cyclopts import App

Verb = Callable[..., int]
VERBS: Final = {
    "serve": ("serve", "start the gateway"),
    "stdio": ("stdio", "be an MCP server on stdin and stdout"),
    "add": ("add", "add a server"),
    "remove": ("remove", "remove a server"),
    "enable": ("enable", "use a server again"),
    "disable": ("disable", "keep a server, do not use it"),
    "list": ("list", "servers, their state and what they offer"),
    "logs": ("logs", "what a stdio server wrote to stderr"),
    "import": ("import_", "take over servers from an MCP client's file"),
    "tools": ("tools", "find tools"),
    "call": ("call", "call a tool"),
    "explain": ("explain", "how a call of a tool travels"),
    "config": ("config", "show, check or describe the configuration"),
}
WINDOWS: Final = (
    "Penstock runs on Linux and macOS; on Windows install it inside WSL (https://learn.microsoft.com/windows/wsl)."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _run(words)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains while it ends
        return 141
    except KeyboardInterrupt:
        return 130
    return code


def _run(words: list[str]) -> int:
    if not words or words[0] in {"--help", "-h", "help"}:
        if len(words) > 1 and words[0] == "help":
            return _run([words[1], "--help"])
        print(overview())
        return 0 if words else 2
    if words[0] in {"--version", "-V"}:
        print(f"penstock {__version__}{' (compiled)' if _is_compiled() else ''}")
        return 0
    if sys.platform == "win32":
        print(WINDOWS, file=sys.stderr)
        return 2
    if words[0] not in VERBS:
        print(f"penstock: {_unknown(words[0])}", file=sys.stderr)
        return 2
    return run_verb(words[0], words[1:])


def _is_compiled() -> bool:
    """Whether the modules that every call passes through are compiled; told from the files, as loading one takes time."""
    lane = os.path.join(os.path.dirname(os.path.dirname(__file__)), "http")  # noqa: PTH118, PTH120 - pathlib takes time, too
    return any(os.path.exists(os.path.join(lane, f"connection{suffix}")) for suffix in EXTENSION_SUFFIXES)  # noqa: PTH110, PTH118


def overview() -> str:
    """What `penstock --help` prints."""
    lines = ["penstock: one endpoint in front of every MCP server you use", "", "usage: penstock VERB …", ""]
    lines += [f"  {verb:<8}  {about}" for verb, (_, about) in VERBS.items()]
    lines += [
        "",
        "A first try:",
        "  penstock serve --demo",
        "",
        "'penstock VERB --help' tells more; --version prints the version.",
    ]
    return "\n".join(lines)


def run_verb(verb: str, words: list[str]) -> int:
    """Parse a verb's words and run it; errors become a sentence and an exit code."""
    from penstock.errors import PenstockError

    try:
        return _parse_and_run(verb, words)
    except PenstockError as error:
        print(f"penstock: {error.message}", file=sys.stderr)
        return error.exit_code


def _parse_and_run(verb: str, words: list[str]) -> int:
    from cyclopts import CycloptsError

    module = import_module(f"penstock.cli.{VERBS[verb][0]}")
    app = _app(verb, module)
    ours = words[: words.index("--")] if "--" in words else words
    if "--help" in ours or "-h" in ours:
        app.help_print([word for word in ours if word not in {"--help", "-h"}][:1] if verb == "config" else [])
        print(
            f"\nExample:\n  {module.EXAMPLE}"
        )  # not through the help's formatter, whose line breaks would end up in what is pasted
        return 0
    words = getattr(module, "rewritten", list)(words)
    try:
        code = app(words, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        print(f"penstock {verb}: {_sentence(str(error))}; see 'penstock {verb} --help'", file=sys.stderr)
        return 2
    return int(code or 0)


def _app(verb: str, module: Any) -> "App":
    from cyclopts import App, Parameter

    options: dict[str, Any] = {
        "help_format": "plaintext",
        "help_formatter": "plain",
        "help_flags": [],
        "version_flags": [],
        "default_parameter": Parameter(negative="", show_default=False),
        "result_action": "return_value",
    }
    app = App(name=f"penstock {verb}", usage=getattr(module, "SYNOPSIS", None), **options)
    commands: dict[str, Verb] = getattr(module, "COMMANDS", {})
    for name, command in commands.items():
        app.command(command, name=name, help_flags=[], version_flags=[])
    if not commands:
        app.default(module.run)
    return app


def _sentence(message: str) -> str:
    lines = [line.strip() for line in message.strip().splitlines() if line.strip()]
    return " ".join(lines).rstrip(".")


def _unknown(word: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(word, VERBS, 1)
    meant = f"did you mean '{near[0]}'? " if near else ""
    return f"there is no command '{word}'; {meant}'penstock --help' lists them"
