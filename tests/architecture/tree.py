"""A project's files as the rules see them: Python sources parsed once, texts, and who imports whom.

Knows: the file system and syntax. Does not know: any rule.
"""

import ast
import io
import subprocess
import tokenize
from functools import cached_property
from pathlib import Path

PYTHON_FOLDERS = ("src", "tests", "benchmarks", "examples", "scripts")
FOREIGN_FOLDERS = {"__pycache__", "node_modules"}


class Source:
    """One Python file."""

    def __init__(self, root: Path, path: Path) -> None:
        self.path = path.relative_to(root)
        self.text = path.read_text()
        self.tree = ast.parse(self.text, str(path))

    def __repr__(self) -> str:
        return f"<Source {self.path} {self.line_count} lines>"

    @property
    def line_count(self) -> int:
        return self.text.count("\n")

    @cached_property
    def module(self) -> str:
        """Its name for `import`, as seen from the folder above its package: `penstock.http.server`."""
        parts = self.path.with_suffix("").parts
        if parts[0] == "src":
            parts = parts[1:]
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @cached_property
    def commented_lines(self) -> set[int]:
        """Numbers of the lines that hold a comment."""
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        return {token.start[0] for token in tokens if token.type == tokenize.COMMENT}

    @cached_property
    def functions(self) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
        return [node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


class Project:
    """A checkout. `files` are those git tracks or would track; a folder without git offers all it holds."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __repr__(self) -> str:
        return f"<Project {self.root} [{len(self.files)} files | {len(self.sources)} Python]>"

    @cached_property
    def files(self) -> list[Path]:
        """Paths relative to the root, sorted."""
        if not (self.root / ".git").exists():
            return sorted(path.relative_to(self.root) for path in self.root.rglob("*") if path.is_file())
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=self.root,
            check=True,
            capture_output=True,
            text=True,
        )
        names = {Path(name) for name in listed.stdout.split("\0") if name}
        return sorted(name for name in names if (self.root / name).is_file())

    @cached_property
    def sources(self) -> list[Source]:
        return [
            Source(self.root, self.root / path)
            for path in self.files
            if path.suffix == ".py" and path.parts[0] in PYTHON_FOLDERS and not FOREIGN_FOLDERS.intersection(path.parts)
        ]

    @cached_property
    def package(self) -> list[Source]:
        """What ships."""
        return [source for source in self.sources if source.path.parts[0] == "src"]

    @cached_property
    def tests(self) -> list[Source]:
        return [source for source in self.sources if source.path.parts[0] == "tests"]

    @cached_property
    def imports(self) -> dict[str, set[str]]:
        """Which modules of the package each of them imports, wherever in the file it does."""
        known = {source.module for source in self.package}
        return {source.module: _imported(source, known) - {source.module} for source in self.package}

    def text(self, path: Path) -> str:
        """A tracked file's text; of a binary one, what can be read."""
        return (self.root / path).read_text(errors="replace")


def _imported(source: Source, known: set[str]) -> set[str]:
    """Modules among `known` that `source` imports. `from package import name` counts for the submodule if there is one."""
    found: set[str] = set()
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                found.add(submodule if submodule in known else node.module)
    return found & known
