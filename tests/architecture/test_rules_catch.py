"""Each rule, broken once in a small project made for it, names the offender; kept, it is silent."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.architecture import habit_rules, structure_rules
from tests.architecture.tree import Project

Rule = Callable[[Project], list[str]]
LONG_FUNCTION = "def long():\n" + "    pass\n" * 60
COMPILED = '[tool.penstock]\ncompiled = ["a"]\n'
NINE = ", ".join("abcdefghi")
PATCHED = (
    "from penstock import clock\ndef test_a(monkeypatch):\n    monkeypatch.setattr(clock.SystemClock, 'now', None)\n"
)
HOST = habit_rules.REGISTRY_HOSTS[0]

BROKEN: list[tuple[Rule, dict[str, str], str]] = [
    (structure_rules.file_sizes, {"src/penstock/a.py": "x = 1\n" * 501}, "src/penstock/a.py: 501 lines, at most 500"),
    (
        structure_rules.file_sizes,
        {
            "src/penstock/a.py": "x = 1\n" * 540,
            "tests/architecture/exceptions.toml": '[file_lines]\n"src/penstock/a.py" = 530\n',
        },
        "540 lines, at most 530",
    ),
    (
        structure_rules.file_sizes,
        {
            "src/penstock/a.py": "x = 1\n" * 520,
            "tests/architecture/exceptions.toml": '[file_lines]\n"src/penstock/a.py" = 530\n',
        },
        "has shrunk to 520 lines",
    ),
    (
        structure_rules.file_sizes,
        {
            "src/penstock/a.py": "x = 1\n",
            "tests/architecture/exceptions.toml": '[file_lines]\n"src/penstock/a.py" = 530\n',
        },
        "needs no exception any more",
    ),
    (structure_rules.function_sizes, {"src/penstock/a.py": LONG_FUNCTION}, "src/penstock/a.py:long: 61 lines"),
    (structure_rules.parameters, {"src/penstock/a.py": f"def f({NINE}): ...\n"}, "f takes 9 positional parameters"),
    (
        structure_rules.compiled_modules,
        {"pyproject.toml": COMPILED, "src/penstock/a.py": "async def f(): ...\n"},
        "src/penstock/a.py:1: f is a coroutine",
    ),
    (
        structure_rules.compiled_modules,
        {"pyproject.toml": COMPILED, "src/penstock/a.py": "import msgspec\nclass A(msgspec.Struct): ...\n"},
        "src/penstock/a.py:2: A inherits from msgspec.Struct",
    ),
    (
        structure_rules.compiled_modules,
        {"pyproject.toml": COMPILED, "src/penstock/a.py": "from asyncio import Future as F\nclass A(F[int]): ...\n"},
        "src/penstock/a.py:2: A inherits from asyncio.Future",
    ),
    (
        structure_rules.compiled_modules,
        {"pyproject.toml": COMPILED, "src/penstock/b.py": ""},
        "names 'a', and there is no src/penstock/a.py",
    ),
    (
        structure_rules.truths_of_tuples,
        {
            "src/penstock/a.py": "from typing import NamedTuple as N\nclass A(N):\n"
            "    def __bool__(self) -> bool: return False\n"
        },
        "src/penstock/a.py:2: A is a tuple with a __bool__",
    ),
    (
        structure_rules.import_cycles,
        {
            "src/penstock/a.py": "import penstock.b\n",
            "src/penstock/b.py": "from penstock import c\n",
            "src/penstock/c.py": "from penstock.a import x\n",
        },
        "penstock.a → penstock.b → penstock.c → penstock.a",
    ),
    (
        structure_rules.deferred_imports,
        {"src/penstock/a.py": "def f():\n    import json\n"},
        "src/penstock/a.py:2: import inside f",
    ),
    (
        structure_rules.concrete_modules,
        {
            "src/penstock/gateway/a.py": "from penstock.upstreams.stdio import Child\n",
            "src/penstock/upstreams/stdio.py": "",
        },
        "penstock.gateway.a imports penstock.upstreams.stdio",
    ),
    (structure_rules.names, {"src/penstock/utils.py": ""}, "'utils' says nothing"),
    (structure_rules.names, {"tests/unit/helpers/a.py": ""}, "'helpers' says nothing"),
    (
        structure_rules.broad_excepts,
        {"src/penstock/a.py": "try:\n    x = 1\n\nexcept Exception:\n    x = 2\n"},
        "src/penstock/a.py:4",
    ),
    (
        structure_rules.broad_excepts,
        {"src/penstock/a.py": "try:\n    x = 1\n\nexcept:\n    x = 2\n"},
        "catches everything",
    ),
    (
        structure_rules.broad_excepts,
        {"src/penstock/a.py": "try:\n    x = 1\n\nexcept (OSError, BaseException):\n    x = 2\n"},
        "catches everything",
    ),
    (
        habit_rules.mocks,
        {"tests/test_a.py": "from unittest.mock import MagicMock\n"},
        "tests/test_a.py:1: imports mock",
    ),
    (habit_rules.mocks, {"tests/test_a.py": "from unittest import mock\n"}, "imports mock"),
    (habit_rules.mocks, {"tests/test_a.py": "def test_a(mocker): ...\n"}, "test_a asks for mocker"),
    (
        habit_rules.mocks,
        {"tests/test_a.py": PATCHED},
        "tests/test_a.py:3: patches our own code",
    ),
    (
        habit_rules.mocks,
        {"tests/test_a.py": "def test_a(monkeypatch):\n    monkeypatch.setattr('penstock.clock.now', None)\n"},
        "patches our own code",
    ),
    (
        habit_rules.tests_left_out,
        {"tests/test_a.py": "import pytest\n@pytest.mark.skipif(True)\ndef test_a(): ...\n"},
        "mark.skipif",
    ),
    (
        habit_rules.tests_left_out,
        {"tests/test_a.py": "import pytest\ndef test_a():\n    pytest.skip('later')\n"},
        "pytest.skip",
    ),
    (
        habit_rules.unit_tests_mirror_the_rooms,
        {"src/penstock/http/a.py": "", "tests/unit/htpp/test_a.py": ""},
        "tests/unit/htpp",
    ),
    (habit_rules.root_entries, {f"file{number}": "" for number in range(15)}, "15 entries in the root, at most 14"),
    (
        habit_rules.links,
        {"docs/a.md": "See [there](../nowhere.md#part).\n"},
        "docs/a.md: link to ../nowhere.md leads nowhere",
    ),
    (habit_rules.links, {"README.md": "![picture](docs/picture.svg)\n"}, "docs/picture.svg leads nowhere"),
    (habit_rules.foreign_words, {"requirements/a.txt": f"--index-url https://{HOST}/simple\n"}, HOST),
    (habit_rules.scripts, {"scripts/run": "#!/usr/bin/env bash\ntrue\n"}, "scripts/run: not executable"),
    (habit_rules.scripts, {"scripts/run": "#!/usr/bin/env bash\nif true; then\n"}, "syntax error"),
]

RERAISED = "try:\n    x = 1\n\nexcept BaseException:\n    x = 2\n\n    raise\n"

KEPT: list[tuple[Rule, dict[str, str]]] = [
    (structure_rules.file_sizes, {"src/penstock/a.py": "x = 1\n" * 500}),
    (
        structure_rules.file_sizes,
        {
            "src/penstock/a.py": "x = 1\n" * 530,
            "tests/architecture/exceptions.toml": '[file_lines]\n"src/penstock/a.py" = 530\n',
        },
    ),
    (structure_rules.function_sizes, {"src/penstock/a.py": LONG_FUNCTION.replace("    pass\n", "", 1)}),
    (
        structure_rules.parameters,
        {"src/penstock/a.py": "class A:\n    def f(self, a, b, c, d, e, f, g, h, *, i): ...\n"},
    ),
    (
        structure_rules.truths_of_tuples,
        {"src/penstock/a.py": "class A:\n    def __bool__(self) -> bool: return False\n"},
    ),
    (
        structure_rules.import_cycles,
        {"src/penstock/a.py": "import penstock.b\nimport penstock.c\n", "src/penstock/b.py": "import penstock.c\n"},
    ),
    (structure_rules.deferred_imports, {"src/penstock/cli/serve.py": "def f():\n    import json\n"}),
    (
        structure_rules.concrete_modules,
        {
            "src/penstock/assemble/process.py": "from penstock.upstreams.stdio import Child\n",
            "src/penstock/upstreams/stdio.py": "",
        },
    ),
    (
        structure_rules.broad_excepts,
        {"src/penstock/a.py": "try:\n    x = 1\nexcept Exception:  # a hook may raise anything\n    x = 2\n"},
    ),
    (
        habit_rules.mocks,
        {"tests/test_a.py": "import sys\ndef test_a(monkeypatch):\n    monkeypatch.setattr(sys, 'stdin', None)\n"},
    ),
    (
        habit_rules.tests_left_out,
        {"tests/test_a.py": "def skip(items): ...\ndef test_a(reader):\n    reader.skip(3)\n    skip([])\n"},
    ),
    (habit_rules.unit_tests_mirror_the_rooms, {"src/penstock/http/a.py": "", "tests/unit/http/test_a.py": ""}),
    (
        habit_rules.links,
        {
            "docs/a.md": "[up](../README.md#top) [web](https://example.com) [here](#part)\n```\n[x](no.md)\n```\n",
            "README.md": "",
        },
    ),
]


def _build(root: Path, files: dict[str, str]) -> Project:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Project(root)


@pytest.mark.parametrize(("rule", "files", "offence"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_rule_names_the_offender(rule: Rule, files: dict[str, str], offence: str, tmp_path: Path) -> None:
    assert offence in "\n".join(rule(_build(tmp_path, files)))


@pytest.mark.parametrize(("rule", "files"), KEPT, ids=lambda value: getattr(value, "__name__", ""))
def test_a_rule_that_is_kept_is_silent(rule: Rule, files: dict[str, str], tmp_path: Path) -> None:
    assert rule(_build(tmp_path, files)) == []


def test_no_file_may_name_the_folder_of_the_checkout(tmp_path: Path) -> None:
    project = _build(tmp_path, {"docs/a.md": f"cd {tmp_path}\n"})
    assert habit_rules.foreign_words(project) == [f"docs/a.md: holds '{tmp_path}'"]
