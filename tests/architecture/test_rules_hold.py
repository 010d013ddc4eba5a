"""The project keeps its own rules."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

from tests.architecture import habit_rules, structure_rules
from tests.architecture.tree import Project

ROOT = Path(__file__).resolve().parents[2]
RULES = [
    structure_rules.file_sizes,
    structure_rules.function_sizes,
    structure_rules.parameters,
    structure_rules.compiled_modules,
    structure_rules.truths_of_tuples,
    structure_rules.import_cycles,
    structure_rules.deferred_imports,
    structure_rules.concrete_modules,
    structure_rules.names,
    structure_rules.broad_excepts,
    habit_rules.mocks,
    habit_rules.tests_left_out,
    habit_rules.unit_tests_mirror_the_rooms,
    habit_rules.root_entries,
    habit_rules.links,
    habit_rules.foreign_words,
    habit_rules.scripts,
]


@pytest.fixture(scope="module")
def project() -> Project:
    return Project(ROOT)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_project_keeps_its_rule(rule: Callable[[Project], list[str]], project: Project) -> None:
    offences = rule(project)
    if offences:
        pytest.fail(f"{rule.__doc__}\n" + "\n".join(f"  {offence}" for offence in offences), pytrace=False)


@pytest.fixture
def loggers_as_they_were() -> Iterator[None]:
    """The linter configures logging as a program may, and silences every logger that there was: other tests need theirs."""
    loggers = [logger for logger in logging.root.manager.loggerDict.values() if isinstance(logger, logging.Logger)]
    before = [(logger, logger.disabled) for logger in loggers]
    yield
    for logger, was_disabled in before:
        logger.disabled = was_disabled


@pytest.mark.usefixtures("loggers_as_they_were")
def test_rooms_import_downwards_only(capsys: pytest.CaptureFixture[str]) -> None:
    status = lint_imports(config_filename=str(ROOT / "pyproject.toml"), cache_dir=str(ROOT / ".cache/import_linter"))
    if status != EXIT_STATUS_SUCCESS:
        pytest.fail(capsys.readouterr().out, pytrace=False)
