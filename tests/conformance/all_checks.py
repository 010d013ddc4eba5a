"""Every check there is: imports their modules, so that they register themselves."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.conformance.checking import CHECKS, Check

FOLDER: Final = Path(__file__).with_name("checks")


def all_checks() -> Mapping[str, Check]:
    """By the row they hold."""
    for path in sorted(FOLDER.glob("*.py")):
        importlib.import_module(f"tests.conformance.checks.{path.stem}")
    return CHECKS
