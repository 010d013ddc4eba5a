"""Rules about files, functions and imports. Each takes a project and returns its offences, one sentence each.

Knows: the budgets of CONTRIBUTING.md. Does not know: which project it judges.
"""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

from tests.architecture.tree import Project, Source

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60
MAX_POSITIONAL = 8
CONCRETE_MODULES = ("penstock.upstreams.streamable_http", "penstock.upstreams.stdio")
"""Named by `assemble` alone; everybody else speaks to the interface."""
DEFERRING = ("src/penstock/assemble/", "src/penstock/storage/open.py", "src/penstock/cli/")
"""Where an import may wait for its use: what is optional, or must not slow the start of every command."""
VAGUE_NAMES = {"base", "common", "core", "helper", "helpers", "misc", "shared", "util", "utils"}
EXCEPTIONS_FILE = Path("tests/architecture/exceptions.toml")


def file_sizes(project: Project) -> list[str]:
    """Files are at most 500 lines long; an exception is exact, so that it can only shrink."""
    allowed = _exceptions(project, "file_lines")
    sizes = {source.path.as_posix(): source.line_count for source in project.sources}
    return _over_budget(sizes, allowed, MAX_FILE_LINES, "lines")


def function_sizes(project: Project) -> list[str]:
    """Functions are at most 60 lines long; an exception is exact, so that it can only shrink."""
    allowed = _exceptions(project, "function_lines")
    sizes: dict[str, int] = {}
    for source in project.sources:
        for function in source.functions:
            name = f"{source.path.as_posix()}:{function.name}"
            lines = (function.end_lineno or function.lineno) - function.lineno + 1
            sizes[name] = max(lines, sizes.get(name, 0))
    return _over_budget(sizes, allowed, MAX_FUNCTION_LINES, "lines")


def parameters(project: Project) -> list[str]:
    """Functions take at most 8 parameters that can be confused; the rest are keyword-only."""
    found = []
    for source in project.sources:
        for function in source.functions:
            names = [argument.arg for argument in function.args.posonlyargs + function.args.args]
            count = len(names) - (names[:1] in (["self"], ["cls"]))
            if count > MAX_POSITIONAL:
                found.append(
                    f"{_place(source, function)}: {function.name} takes {count} positional parameters, at most {MAX_POSITIONAL}"
                )
    return found


def compiled_modules(project: Project) -> list[str]:
    """What is compiled has no coroutines, and no classes that inherit from another library: their compiled form has faults."""
    settings = (
        tomllib.loads((project.root / "pyproject.toml").read_text())
        if (project.root / "pyproject.toml").exists()
        else {}
    )
    sources = {source.path.as_posix(): source for source in project.sources}
    found = []
    for name in settings.get("tool", {}).get("penstock", {}).get("compiled", []):
        source = sources.get(f"src/penstock/{name}.py")
        if source is None:
            found.append(
                f"pyproject.toml: tool.penstock.compiled names '{name}', and there is no src/penstock/{name}.py"
            )
            continue
        for node in ast.walk(source.tree):
            if isinstance(node, ast.AsyncFunctionDef):
                found.append(f"{source.path}:{node.lineno}: {node.name} is a coroutine")
            elif isinstance(node, ast.ClassDef):
                bases = [_origin(source, base) for base in node.bases]
                found += [
                    f"{source.path}:{node.lineno}: {node.name} inherits from {base}"
                    for base in bases
                    if "." in base and not base.startswith(("penstock.", "typing."))
                ]
    return found


def truths_of_tuples(project: Project) -> list[str]:
    """No tuple has a truth of its own: in compiled modules one is true unless it is empty, whatever its class says."""
    return [
        f"{source.path}:{node.lineno}: {node.name} is a tuple with a __bool__; give it a property instead"
        for source in project.sources
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ClassDef)
        and any(_origin(source, base).rpartition(".")[2] in {"NamedTuple", "tuple"} for base in node.bases)
        and any(isinstance(part, ast.FunctionDef) and part.name == "__bool__" for part in node.body)
    ]


def _origin(source: Source, base: ast.expr) -> str:
    """Where a base class comes from, with its module: `msgspec.Struct`, however it was imported."""
    if isinstance(base, ast.Subscript):
        base = base.value
    name = ast.unparse(base)
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return f"{node.module}.{alias.name}"
    return name


def import_cycles(project: Project) -> list[str]:
    """No module imports itself by way of others."""
    return [" → ".join([*cycle, cycle[0]]) for cycle in _cycles(project.imports)]


def deferred_imports(project: Project) -> list[str]:
    """Imports stand at the top, but where start-up or optional parts ask for more."""
    found = []
    for source in project.package:
        if source.path.as_posix().startswith(DEFERRING):
            continue
        for function in source.functions:
            found += [
                f"{_place(source, node)}: import inside {function.name}; move it to the top"
                for node in ast.walk(function)
                if isinstance(node, ast.Import | ast.ImportFrom)
            ]
    return found


def concrete_modules(project: Project) -> list[str]:
    """What is behind an interface is named by `assemble` alone, and by its own kind."""
    found = []
    for importer, imported in project.imports.items():
        for module in sorted(imported):
            concrete = next((name for name in CONCRETE_MODULES if _is_within(module, name)), None)
            if concrete is None or importer.startswith("penstock.assemble"):
                continue
            if not importer.startswith(concrete):  # streamable_http and its parts, such as streamable_http_modern
                found.append(f"{importer} imports {module}; only penstock.assemble names concrete modules")
    return found


def names(project: Project) -> list[str]:
    """Folders and files say what they hold."""
    found = []
    for source in project.sources:
        found += [
            f"{source.path}: '{part}' says nothing about what is in it"
            for part in source.path.with_suffix("").parts
            if part in VAGUE_NAMES
        ]
    return found


def broad_excepts(project: Project) -> list[str]:
    """Who catches everything and keeps it says why, in a comment at that place."""
    found = []
    for source in project.package:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ExceptHandler) and _is_broad(node.type) and not _raises_it_again(node):
                near = {node.lineno - 1, node.lineno, node.lineno + 1}
                if not near & source.commented_lines:
                    found.append(f"{_place(source, node)}: catches everything and does not say why")
    return found


def _place(source: Source, node: ast.stmt | ast.ExceptHandler) -> str:
    return f"{source.path}:{node.lineno}"


def _is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def _is_broad(caught: ast.expr | None) -> bool:
    if caught is None:
        return True
    if isinstance(caught, ast.Tuple):
        return any(_is_broad(item) for item in caught.elts)
    return isinstance(caught, ast.Name) and caught.id in {"Exception", "BaseException"}


def _raises_it_again(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def _exceptions(project: Project, kind: str) -> dict[str, int]:
    path = project.root / EXCEPTIONS_FILE
    if not path.exists():
        return {}
    table: dict[str, int] = tomllib.loads(path.read_text()).get(kind, {})
    return table


def _over_budget(sizes: dict[str, int], allowed: dict[str, int], budget: int, unit: str) -> list[str]:
    found = [
        f"{name}: {size} {unit}, at most {allowed.get(name, budget)}"
        for name, size in sizes.items()
        if size > allowed.get(name, budget)
    ]
    for name, exception in allowed.items():
        size = sizes.get(name, 0)
        if size <= budget:
            found.append(f"{EXCEPTIONS_FILE}: {name} needs no exception any more; take it out")
        elif size < exception:
            found.append(f"{EXCEPTIONS_FILE}: {name} has shrunk to {size} {unit}; write that instead of {exception}")
    return found


def _cycles(graph: dict[str, set[str]]) -> Iterator[list[str]]:
    """One cycle for each that a depth-first walk closes (Tarjan's colours: unseen, on the path, done)."""
    done: set[str] = set()
    for start in sorted(graph):
        path: list[str] = []
        branches = [iter([start])]
        while branches:
            module = next(branches[-1], None)
            if module is None:
                branches.pop()
                if path:
                    done.add(path.pop())
            elif module in path:
                yield path[path.index(module) :]
            elif module not in done:
                path.append(module)
                branches.append(iter(sorted(graph.get(module, ()))))
