"""Lists encoded ahead of time, page by page."""

from typing import Any

import msgspec
import pytest

from penstock.gateway.listing import PROMPTS, TOOLS, ListKind
from penstock.gateway.prepared import PAGE_ITEMS, PreparedList
from penstock.identity.seal import Sealer
from tests.unit.gateway.conftest import KEY

INFO = b'{"name":"penstock"}'
ITEMS = [b'{"name":"t%d"}' % number for number in range(PAGE_ITEMS + 1)]


def prepared(
    kind: ListKind = TOOLS, view: str = "v", items: list[bytes] | None = None, *, public: bool = False
) -> PreparedList:
    items = ITEMS if items is None else items
    return PreparedList(kind, items, view=view, public=public, server_info=INFO, sealer=Sealer([KEY]))


def decoded(raw: bytes | None) -> Any:
    assert raw is not None
    return msgspec.json.decode(raw)


def test_a_page_says_how_long_and_for_whom_it_is_fresh() -> None:
    assert decoded(prepared(items=[b'{"name":"a"}'], public=True).modern(None, 5)) == {
        "resultType": "complete",
        "tools": [{"name": "a"}],
        "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "penstock"}},
        "cacheScope": "public",
        "ttlMs": 5,
    }
    assert decoded(prepared(items=[]).modern(None, 0))["cacheScope"] == "private"


def test_a_legacy_page_has_none_of_that() -> None:
    it = prepared(items=[b'{"name":"a"}'])
    assert decoded(it.legacy(None, "2025-11-25")) == {"tools": [{"name": "a"}]}
    assert it.legacy(None, "2025-11-25") is it.legacy(None, "2025-11-25")


@pytest.mark.parametrize("other", [prepared(PROMPTS), prepared(view="w"), prepared(items=ITEMS[:5])])
def test_a_cursor_is_for_its_list_of_its_view_alone(other: PreparedList) -> None:
    cursor = decoded(prepared().modern(None, 0))["nextCursor"]
    assert decoded(prepared().modern(cursor, 0))["tools"] == [{"name": f"t{PAGE_ITEMS}"}]
    assert other.modern(cursor, 0) is None
    assert other.legacy(cursor, "2025-11-25") is None
