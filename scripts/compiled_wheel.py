"""Compiles modules into a wheel, when asked: `HATCH_BUILD_HOOK_ENABLE_CUSTOM=1 .venv/bin/uv build --wheel` (decision 013)."""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompiledModules(BuildHookInterface):  # type: ignore[misc]
    """Adds what scripts/compiled.py makes."""

    def dependencies(self) -> list[str]:
        """The compiler's, and those whose types it reads."""
        return [*self.metadata.core.dependencies, "mypy==2.4.*", "setuptools>=80"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile in a folder of its own, and name the libraries to the wheel."""
        if self.target_name != "wheel" or version == "editable":
            return
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        subprocess.run([sys.executable, Path(self.root, "scripts", "compiled.py"), folder], check=True)
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        for library in folder.rglob("*.so"):
            build_data["force_include"][str(library)] = library.relative_to(folder).as_posix()

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """The wheel is written."""
        if hasattr(self, "_folder"):
            self._folder.cleanup()
