"""Revisions, eras, and what depends on a revision's date alone."""

import pytest

from penstock.protocol.versions import (
    LEGACY_VERSIONS,
    MODERN_VERSIONS,
    SUPPORTED_VERSIONS,
    Era,
    answer_to_initialize,
    era_of,
    writes_null_id,
)


def test_every_revision_is_listed_newest_first_in_its_era() -> None:
    assert sorted(SUPPORTED_VERSIONS, reverse=True) == list(SUPPORTED_VERSIONS)
    assert {era_of(version) for version in MODERN_VERSIONS} == {Era.MODERN}
    assert {era_of(version) for version in LEGACY_VERSIONS} == {Era.LEGACY}


@pytest.mark.parametrize("requested", ["1999-01-01", "2026-07-28", "", "nonsense"])
def test_a_legacy_initialize_with_an_unknown_version_is_answered_with_a_version_we_do_support(requested: str) -> None:
    assert answer_to_initialize(requested) == "2025-11-25"


@pytest.mark.parametrize("requested", LEGACY_VERSIONS)
def test_a_legacy_initialize_with_a_known_version_gets_that_version(requested: str) -> None:
    assert answer_to_initialize(requested) == requested


def test_an_unknown_later_date_is_modern() -> None:
    assert era_of("2031-01-01") is Era.MODERN


def test_the_error_for_an_unreadable_id_follows_the_schema_of_the_revision() -> None:
    assert [writes_null_id(version) for version in SUPPORTED_VERSIONS] == [False, False, True, True, True]
