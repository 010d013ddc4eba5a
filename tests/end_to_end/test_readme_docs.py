"""The other documents are true: their blocks are run, their tables and help texts are those of this checkout."""

import pytest

from scripts.docs_pages import PAGES, updated
from tests.peers.environments import ROOT


@pytest.mark.parametrize("page", [page for page in PAGES if page != "README.md"])
def test_a_document_prints_what_its_commands_print(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    assert updated(text) == text, "run scripts/docs, and read what changed"
