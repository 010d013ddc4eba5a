"""Compiles the modules that every call passes through: `python scripts/compiled.py FOLDER`.

FOLDER gets the package as it is under src/, with the compiled modules beside their sources, so that Python takes those. They are
named in pyproject.toml; what may stand there, and why, is said in docs/decisions/013, and tests/architecture sees to it.
"""

import os
import shutil
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Final

GROUP: Final = "penstock"
"""Name of the one library the modules share: `penstock__mypyc`."""


def copy_package(source: Path, folder: Path) -> list[Path]:
    """Copy the package's sources into a folder; returns those to be compiled, relative to it."""
    shutil.copytree(source / "penstock", folder / "penstock", ignore=shutil.ignore_patterns("__pycache__"))
    settings = tomllib.loads((source.parent / "pyproject.toml").read_text("utf-8"))
    return [Path("penstock", f"{module}.py") for module in settings["tool"]["penstock"]["compiled"]]


def compile_in_place(folder: Path, files: list[Path]) -> None:
    """Compile these files of a folder that holds a whole package; the process works in that folder from then on.

    A warning of the C compiler ends it: the only one there ever was spoke of a real fault.
    """
    from mypyc.build import mypycify
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    os.chdir(folder)
    os.environ["MYPYPATH"] = str(folder)
    options = ["--config-file=", "--strict", "--python-executable", sys.executable, "--cache-dir", os.devnull]
    with tempfile.TemporaryDirectory() as work:
        extensions = mypycify(
            [*options, *map(str, files)],
            group_name=GROUP,
            target_dir=work,
            opt_level="3",
            debug_level="0",
            multi_file=True,
        )
        extensions += [
            Extension(
                str(source.with_suffix("")).replace("/", "."),
                [str(source)],
                extra_compile_args=["-O3", "-Wall", "-Wextra", "-Werror"],
            )
            for source in sorted(Path("penstock").rglob("*.c"))
        ]
        command = build_ext(Distribution({"name": GROUP, "ext_modules": extensions}))
        command.inplace, command.build_temp, command.build_lib = True, work, work
        command.parallel = os.cpu_count()
        command.ensure_finalized()
        command.run()


def main(words: list[str]) -> None:
    if len(words) != 1:
        sys.exit(f"usage: compiled.py FOLDER; got {words!r}")
    folder = Path(words[0]).resolve()
    compile_in_place(folder, copy_package(Path(__file__).resolve().parent.parent / "src", folder))


if __name__ == "__main__":
    main(sys.argv[1:])
