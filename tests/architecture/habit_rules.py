"""Rules about tests, texts and scripts. Each takes a project and returns its offences, one sentence each.

Knows: what tests may not do, and which words may stand in no file. Does not know: which project it judges.
"""

import ast
import os
import re
import subprocess
from pathlib import Path

from tests.architecture.tree import Project, Source

MAX_ROOT_ENTRIES = 14
REGISTRY_HOSTS = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("files", "pythonhosted", "org"),
        ("registry", "npmjs", "org"),
        ("registry", "yarnpkg", "com"),
        ("static", "crates", "io"),
        ("index", "crates", "io"),
    )
)
"""Written in parts, so that this file does not offend against its own rule. Locks name versions and hashes, never hosts."""
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)|!\[[^\]]*\]\(([^)\s]+)\)")
_CODE_BLOCK = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_NOT_RUN = {"skip", "skipif", "skipIf", "skipUnless", "xfail", "importorskip"}


def mocks(project: Project) -> list[str]:
    """Our code is tested as it is: fakes ship in the package and pass the same contract as the real thing."""
    found = []
    for source in project.tests:
        ours = _names_of_ours(source)
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Import | ast.ImportFrom) and _imports_mock(node):
                found.append(f"{source.path}:{node.lineno}: imports mock; write or use a fake")
            elif isinstance(node, ast.Call) and _patches(node, ours):
                found.append(f"{source.path}:{node.lineno}: patches our own code; pass what it needs as an argument")
        found += [
            f"{source.path}:{function.lineno}: {function.name} asks for mocker; write or use a fake"
            for function in source.functions
            if any(argument.arg == "mocker" for argument in function.args.args)
        ]
    return found


def tests_left_out(project: Project) -> list[str]:
    """Every test runs; one that cannot pass is mended or taken out."""
    return [
        f"{source.path}:{node.lineno}: {ast.unparse(node)} leaves a test out"
        for source in project.tests
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Attribute) and node.attr in _NOT_RUN and _root_name(node) in {"pytest", "unittest"}
    ]


def unit_tests_mirror_the_rooms(project: Project) -> list[str]:
    """tests/unit has the folders of src/penstock."""
    rooms = {
        source.path.relative_to("src/penstock").parent
        for source in project.package
        if source.path.is_relative_to("src/penstock")
    }
    folders = {
        source.path.relative_to("tests/unit").parent
        for source in project.tests
        if source.path.is_relative_to("tests/unit")
    }
    return [f"tests/unit/{folder}: no such room in src/penstock" for folder in sorted(folders - rooms)]


def root_entries(project: Project) -> list[str]:
    """The front door stays small."""
    entries = sorted({path.parts[0] for path in project.files})
    if len(entries) <= MAX_ROOT_ENTRIES:
        return []
    return [f"{len(entries)} entries in the root, at most {MAX_ROOT_ENTRIES}: {', '.join(entries)}"]


def links(project: Project) -> list[str]:
    """Relative links in Markdown lead to a file."""
    found = []
    for path in project.files:
        if path.suffix != ".md":
            continue
        for match in _LINK.finditer(_CODE_BLOCK.sub("", project.text(path))):
            target = (match[1] or match[2]).split("#")[0]
            if (
                target
                and "://" not in target
                and not target.startswith("mailto:")
                and not _leads_somewhere(project, path, target)
            ):
                found.append(f"{path}: link to {target} leads nowhere")
    return found


def foreign_words(project: Project) -> list[str]:
    """No file names a package registry's host or the folder this checkout happens to lie in."""
    words = [*REGISTRY_HOSTS]
    if len(project.root.parts) > 2:  # a checkout in /app would make a word of every '/app'
        words.append(str(project.root))
    found = []
    for path in project.files:
        text = project.text(path)
        found += [f"{path}: holds '{word}'" for word in words if word in text]
    return found


def scripts(project: Project) -> list[str]:
    """Scripts can be started, and Bash understands them."""
    found = []
    for path in project.files:
        if path.parts[0] not in {"scripts", ".ci"} or not project.text(path).startswith("#!"):
            continue
        if not os.access(project.root / path, os.X_OK):
            found.append(f"{path}: not executable")
        if "bash" in project.text(path).split("\n", 1)[0]:
            checked = subprocess.run(
                ["bash", "-n", str(project.root / path)], capture_output=True, text=True, check=False
            )
            if checked.returncode:
                found.append(f"{path}: {checked.stderr.strip()}")
    return found


def _names_of_ours(source: Source) -> set[str]:
    """Names that a file's imports bind to something of Penstock."""
    found: set[str] = set()
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            found |= {(alias.asname or "penstock") for alias in node.names if alias.name.split(".")[0] == "penstock"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "penstock":
            found |= {alias.asname or alias.name for alias in node.names}
    return found


def _imports_mock(node: ast.Import | ast.ImportFrom) -> bool:
    modules = [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        modules = [node.module or "", *(f"{node.module}.{name}" for name in modules)]
    return any(module in {"mock", "pytest_mock", "unittest.mock"} for module in modules)


def _patches(call: ast.Call, ours: set[str]) -> bool:
    """`monkeypatch.setattr` of something of ours. Other people's (`sys.stdin`) may be replaced for a test."""
    if not (isinstance(call.func, ast.Attribute) and call.func.attr == "setattr" and call.args):
        return False
    target = call.args[0]
    if isinstance(target, ast.Constant):
        return str(target.value).split(".")[0] == "penstock"
    return _root_name(target) in ours


def _root_name(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute | ast.Call | ast.Subscript):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def _leads_somewhere(project: Project, page: Path, target: str) -> bool:
    start = project.root if target.startswith("/") else project.root / page.parent
    return (start / target.lstrip("/")).exists()
