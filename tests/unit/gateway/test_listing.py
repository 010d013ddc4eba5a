"""Everything a server offers, fetched; and the last of it on disk."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.errors import ServerMisbehaved, ServerUnavailable
from penstock.gateway.known_lists import KnownLists
from penstock.gateway.listing import (
    MAX_ITEMS,
    PROMPTS,
    TEMPLATES,
    TOOLS,
    Item,
    Listing,
    capabilities_of,
    fetch_listing,
    input_schema_of,
)
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Answer, Call, Failure, Raw, Result
from penstock.upstreams.in_memory import InMemoryServer, InMemoryUpstream
from penstock.upstreams.interface import Description
from tests.unit.gateway.conftest import weather_server


class Scripted(InMemoryUpstream):
    """Lists tools as it is told: an answer for each page, by cursor."""

    def __init__(self, pages: dict[str, Any], capabilities: bytes = b'{"tools":{}}') -> None:
        super().__init__("odd", InMemoryServer("odd"))
        self.pages, self.said = pages, capabilities
        self.asked: list[str] = []

    async def call(self, call: Call) -> Answer:
        cursor = msgspec.json.decode(call.params["cursor"]) if "cursor" in call.params else ""
        self.asked.append(cursor)
        page = self.pages[cursor]
        if isinstance(page, Exception):
            raise page
        if isinstance(page, Failure | Result):
            return page
        return Result(page if isinstance(page, bytes) else msgspec.json.encode(page), Era.MODERN)

    async def describe(self, caller: Any = None) -> Description:
        return Description((Era.MODERN,), ("2026-07-28",), Raw(b"{}"), Raw(self.said))


async def listed(upstream: InMemoryUpstream) -> Listing:
    return await fetch_listing(upstream, wall=5.0, started_at=1.0)


def tool(name: str) -> dict[str, Any]:
    return {"name": name, "inputSchema": {"type": "object"}}


async def test_all_lists_of_all_pages_are_fetched() -> None:
    server = weather_server()
    server.page_size, server.ttl_ms, server.cache_scope = 1, 5_000, "public"
    upstream = InMemoryUpstream("weather", server)
    found = await listed(upstream)
    assert [item.key for item in found.items(TOOLS)] == ["forecast", "now"]
    assert [item.key for item in found.items(TEMPLATES)] == ["weather://city/{name}"]
    assert (found.listed_at, found.fresh_seconds) == (5.0, 5.0)
    assert found.lists[TOOLS.method].public


async def test_a_list_whose_capability_is_missing_is_not_asked_for() -> None:
    upstream = Scripted({"": {"tools": []}}, b"{}")
    found = await listed(upstream)
    assert (found.lists, upstream.asked, found.fresh_seconds) == ({}, [], 0.0)
    assert found.items(TOOLS) == ()
    assert (await listed(Scripted({}, b"[]"))).lists == {}


async def test_a_method_the_server_does_not_know_after_all_is_no_list() -> None:
    found = await listed(Scripted({"": Failure(-32601, "Method not found", None, Era.MODERN)}))
    assert found.lists == {}


@pytest.mark.parametrize(
    ("page", "message"),
    [
        (Failure(-32603, "broken", None, Era.MODERN), "tools/list failed: broken"),
        (b"[]", "expected an object with a list 'tools'"),
        ({"prompts": []}, "expected an object with a list 'tools'"),
        ({"tools": 5}, "expected an object with a list 'tools'"),
        ({"tools": [], "nextCursor": 5}, "expected an object with a list 'tools'"),
    ],
)
async def test_half_a_truth_is_none(page: Any, message: str) -> None:
    with pytest.raises(ServerMisbehaved, match=message.replace("(", r"\(")):
        await listed(Scripted({"": page}))
    with pytest.raises(ServerUnavailable):
        await listed(Scripted({"": ServerUnavailable("odd")}))


async def test_items_without_a_usable_name_are_left_out() -> None:
    found = await listed(Scripted({"": {"tools": [5, {}, {"name": 5}, tool("good"), None]}}))
    assert [item.key for item in found.items(TOOLS)] == ["good"]


async def test_a_list_that_never_ends_is_cut() -> None:
    again = {"tools": [tool("a")], "nextCursor": "x"}
    upstream = Scripted({"": again, "x": again})
    assert len((await listed(upstream)).items(TOOLS)) == 2
    assert upstream.asked == ["", "x"]
    endless = Scripted({str(page or ""): {"tools": [tool("a")], "nextCursor": str(page + 1)} for page in range(200)})
    assert len((await listed(endless)).items(TOOLS)) == 100
    large = Scripted({"": {"tools": [tool("a")] * (MAX_ITEMS + 5), "nextCursor": "x"}})
    assert len((await listed(large)).items(TOOLS)) == MAX_ITEMS


async def test_freshness_is_that_of_the_page_that_ages_first_and_a_legacy_server_promises_none() -> None:
    first = {"tools": [], "ttlMs": 7_000, "nextCursor": "x", "cacheScope": "public"}
    found = await listed(Scripted({"": first, "x": {"tools": [], "ttlMs": -5}}))
    assert (found.lists[TOOLS.method].ttl_ms, found.lists[TOOLS.method].public) == (0, False)
    legacy = Result(msgspec.json.encode({"tools": [], "ttlMs": 7_000}), Era.LEGACY)
    assert (await listed(Scripted({"": legacy}))).lists[TOOLS.method].ttl_ms == 0


def test_a_tools_schema_is_read_and_absent_is_empty() -> None:
    assert input_schema_of(Item("a", Raw(b'{"name":"a","inputSchema":{"x":1}}'))) == Raw(b'{"x":1}')
    assert input_schema_of(Item("a", Raw(b'{"name":"a"}'))) == Raw(b"{}")
    assert capabilities_of(Description((), (), Raw(b"{}"), Raw(b"no json"))) == {}


def test_a_listing_is_found_again_for_the_same_target_alone(tmp_path: Path) -> None:
    found = asyncio.run(listed(InMemoryUpstream("weather", weather_server())))
    known = KnownLists(tmp_path / "lists")
    assert known.load("weather", "f") is None
    known.save("weather", "f", found)
    assert known.load("weather", "f") == found
    assert known.load("weather", "other") is None
    assert (tmp_path / "lists").stat().st_mode & 0o777 == 0o700
    assert [path.name for path in (tmp_path / "lists").iterdir()] == ["weather.json"]
    known.forget("weather")
    known.forget("weather")
    assert known.load("weather", "f") is None
    assert str(tmp_path) in repr(known)
    assert found.items(PROMPTS)


def test_a_file_that_cannot_be_used_is_reported_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    folder = tmp_path / "lists"
    known = KnownLists(folder)
    known.save("weather", "f", asyncio.run(listed(InMemoryUpstream("weather", weather_server()))))
    (folder / "weather.json").write_text("{}")
    assert known.load("weather", "f") is None
    assert "last known lists of server 'weather' cannot be read" in caplog.text
    (folder / "large.json").touch()
    with (folder / "large.json").open("r+b") as file:
        file.truncate(64 * 1024 * 1024 + 1)
    assert known.load("large", "f") is None
    (tmp_path / "file").touch()
    KnownLists(tmp_path / "file").save(
        "weather", "f", asyncio.run(listed(InMemoryUpstream("weather", weather_server())))
    )
    assert "cannot be kept" in caplog.text


async def test_penstock_asks_under_its_own_name() -> None:
    upstream = InMemoryUpstream("weather", weather_server())
    await listed(upstream)
    assert b'"name":"penstock"' in upstream.calls[0].caller.client_info
