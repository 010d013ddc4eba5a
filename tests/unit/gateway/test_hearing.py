"""What the catalogue does about a server that says that something has changed."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.gateway.hosting import Catalogue, HostedServer, HostSettings, News
from penstock.gateway.listing import TOOLS
from penstock.protocol.subscriptions import LIST_CHANGED, UPDATED
from penstock.upstreams.in_memory import InMemoryUpstream, Step
from tests.unit.gateway.conftest import until, weather_server
from tests.unit.gateway.test_hosting import DOWN, Care

CHANGED = LIST_CHANGED["tools"]


@pytest.fixture
async def care(tmp_path: Path, anyio_backend: Any) -> Any:
    it = Care(tmp_path)
    yield it
    await it.catalogue.close()
    await it.upstream.close()


async def held(care: Care, upstream: InMemoryUpstream | None = None) -> HostedServer:
    """The server, listed and cared for."""
    if upstream is not None:
        care.upstream = upstream
    host = care.host()
    care.hold(host)
    await care.catalogue.refresh(host)
    return host


async def advance(care: Care, seconds: float) -> None:
    """Move time on, and let what it wakes come to its end."""
    for _ in range(3):
        await asyncio.sleep(0)
    await care.clock.advance(seconds)


async def heard_out(care: Care) -> None:
    """Until everything heard has been dealt with."""

    async def tick() -> None:
        while care.catalogue._changed:
            await care.clock.advance(0.1)
            await asyncio.sleep(0.002)

    await asyncio.wait_for(tick(), 5)


async def test_many_words_are_one_listing_and_one_piece_of_news_for_each_list(care: Care) -> None:
    await held(care)
    for _ in range(1_000):
        care.upstream.announce(CHANGED)
        care.upstream.announce(LIST_CHANGED["prompts"])
    assert care.listings == 1
    await heard_out(care)
    assert care.listings == 2
    assert care.news == [("weather", News(capability="prompts")), ("weather", News(capability="tools"))]


async def test_a_server_that_does_not_stop_is_listed_once_a_second(care: Care) -> None:
    await held(care)
    began_at, before = care.clock.now(), care.listings
    care.upstream.announce(CHANGED)
    while care.clock.now() - began_at < 10:
        care.upstream.announce(CHANGED)
        await advance(care, 0.05)
        await until(lambda: not care.upstream.in_flight)
    assert care.listings - before <= 11
    await heard_out(care)


async def test_news_of_a_list_come_when_the_list_is_there(care: Care) -> None:
    host = await held(care)
    gate = asyncio.Event()
    care.upstream.every_call = Step(wait_for=gate)
    care.upstream.server.remove_tool("now")
    care.upstream.announce(CHANGED)
    await advance(care, 0.1)
    await until(lambda: host.refreshing is not None)
    await advance(care, 1)
    assert care.news == []
    gate.set()
    await until(lambda: care.news)
    assert host.listing is not None
    assert len(host.listing.items(TOOLS)) == 1


async def test_a_listing_that_began_before_the_change_is_not_enough(care: Care) -> None:
    host = await held(care)
    gate = asyncio.Event()
    care.upstream.every_call = Step(wait_for=gate)
    listing = care.catalogue.refresh(host)
    care.upstream.announce(CHANGED)
    await advance(care, 0.1)
    assert care.listings == 1
    gate.set()
    await listing
    await heard_out(care)
    assert care.listings == 3  # the first, the one under way, and one for the change
    assert len(care.news) == 1


async def test_a_change_while_the_lists_are_fetched_for_another_is_fetched_by_one_more(care: Care) -> None:
    host = await held(care)
    gate = asyncio.Event()
    care.upstream.every_call = Step(wait_for=gate)
    care.upstream.announce(CHANGED)
    await advance(care, 0.1)
    await until(lambda: host.refreshing is not None)
    care.upstream.announce(CHANGED)
    gate.set()
    await heard_out(care)
    assert care.listings == 3
    assert len(care.news) == 2


async def test_a_listing_that_fails_is_no_news(care: Care) -> None:
    host = await held(care)
    care.upstream.every_call = DOWN
    care.upstream.announce(CHANGED)
    await heard_out(care)
    assert (host.state, care.news) == ("failed", [])


async def test_a_listing_that_takes_too_long_is_no_news(care: Care) -> None:
    host = care.host(list_seconds=0.05)
    care.hold(host)
    await care.catalogue.refresh(host)
    care.upstream.every_call = Step(wait_for=asyncio.Event())
    care.upstream.announce(CHANGED)
    await heard_out(care)
    assert care.news == []


async def test_after_a_reload_the_new_server_is_the_one_that_is_listed(care: Care) -> None:
    old = await held(care)
    care.upstream.announce(CHANGED)
    await advance(care, 0)
    new = HostedServer(
        HostSettings("weather", "built-in", "weather", "g"), InMemoryUpstream("weather", weather_server())
    )
    care.catalogue.replace({"weather": new})
    await care.catalogue.refresh(new)
    assert isinstance(new.upstream, InMemoryUpstream)
    new.upstream.server.remove_tool("now")
    new.upstream.announce(CHANGED)
    before = care.listings
    await heard_out(care)
    assert new.listing is not None
    assert len(new.listing.items(TOOLS)) == 1
    assert care.listings == before  # the old one is left alone
    assert old.failure is None


@pytest.mark.parametrize("anew", [False, True], ids=["other settings", "opened anew"])
async def test_a_reload_in_the_middle_of_a_listing_does_not_lose_the_change(care: Care, anew: bool) -> None:
    host = await held(care)
    gate = asyncio.Event()
    care.upstream.every_call = Step(wait_for=gate)
    care.catalogue.refresh(host)
    care.upstream.announce(CHANGED)
    await advance(care, 0.1)
    settings = HostSettings("weather", "built-in", "weather", "f", list_seconds=5.0)
    new = care.host() if anew else host.with_settings(settings)
    care.upstream.server.remove_tool("now")
    care.catalogue.replace({"weather": new})
    gate.set()
    await heard_out(care)
    assert new.listing is not None
    assert len(new.listing.items(TOOLS)) == 1
    assert care.news


async def test_a_server_that_is_gone_by_then_is_no_news(care: Care) -> None:
    await held(care)
    care.upstream.announce(CHANGED)
    await advance(care, 0)
    care.catalogue.replace({})
    await heard_out(care)
    care.upstream.announce(CHANGED)
    assert (care.news, care.catalogue._changed) == ([], {})


async def test_an_updated_resource_is_news_at_once(care: Care) -> None:
    await held(care)
    care.upstream.announce(UPDATED, uri="weather://map")
    care.upstream.announce(UPDATED, uri=5)
    care.upstream.announce(UPDATED)
    care.upstream.announce("notifications/whatever", uri="weather://map")
    assert care.news == [("weather", News(uri="weather://map"))]


async def test_nothing_is_heard_after_the_end(care: Care) -> None:
    await held(care)
    care.upstream.announce(CHANGED)
    await advance(care, 0)
    await care.catalogue.close()
    care.upstream.announce(CHANGED)
    care.catalogue.heard("weather", CHANGED, {"x": msgspec.Raw(b"1")})
    assert (care.catalogue._changed, len(care.catalogue._tasks)) == ({}, 0)


async def test_a_server_that_tells_nothing_is_not_asked_to(care: Care) -> None:
    class Silent(InMemoryUpstream):
        async def describe(self, caller: Any = None) -> Any:
            described = await super().describe(caller)
            return msgspec.structs.replace(described, capabilities=msgspec.Raw(b'{"tools":{},"resources":{}}'))

    await held(care, Silent("weather", weather_server()))
    care.upstream.announce(CHANGED)
    assert care.catalogue._changed == {}


def test_the_pauses_are_bounds_that_clients_feel() -> None:
    assert (Catalogue.SETTLE_SECONDS, Catalogue.AGAIN_SECONDS) == (0.05, 1.0)
