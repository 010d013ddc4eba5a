"""The care for listings: known ones at once, failing servers again and again, one at a time."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from penstock.clock import FakeClock
from penstock.errors import NeedsAuthorization, ServerUnavailable
from penstock.gateway.hosting import Catalogue, HostedServer, HostSettings, News
from penstock.gateway.known_lists import KnownLists
from penstock.gateway.listing import TOOLS, Listing
from penstock.policies.deadline import DeadlineSettings
from penstock.upstreams.in_memory import InMemoryUpstream, Step
from tests.unit.cycles import nothing_left
from tests.unit.gateway.conftest import until, weather_server

DOWN = Step(error=ServerUnavailable("weather", "it is down"))


class Care:
    """A catalogue with a clock of its own."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.known = KnownLists(folder)
        self.changes = 0
        self.news: list[tuple[str, News]] = []
        self.catalogue = Catalogue(
            self.clock,
            self.known,
            on_change=self._changed,
            on_news=lambda host, news: self.news.append((host.name, news)),
        )
        self.upstream = InMemoryUpstream("weather", weather_server())

    def _changed(self) -> None:
        self.changes += 1

    def host(self, known: Any = None, **settings: Any) -> HostedServer:
        return HostedServer(HostSettings("weather", "built-in", "weather", "f", **settings), self.upstream, known)

    def hold(self, host: HostedServer) -> None:
        self.catalogue.replace({"weather": host})

    async def load(self) -> Listing | None:
        """What is kept on disk."""
        return await asyncio.to_thread(self.known.load, "weather", "f")

    @property
    def listings(self) -> int:
        return sum(call.method == "tools/list" for call in self.upstream.calls)


@pytest.fixture
async def care(tmp_path: Path) -> AsyncIterator[Care]:
    it = Care(tmp_path)
    it.catalogue.start()
    yield it
    await it.catalogue.close()
    await it.upstream.close()


async def test_a_new_server_is_listed_at_once_and_its_list_kept_on_disk(care: Care) -> None:
    host = care.host()
    assert host.state == "starting"
    care.hold(host)
    await care.catalogue.refresh(host)
    assert (host.state, host.is_stale, care.changes) == ("ready", False, 1)
    assert host.listing is not None
    assert await care.load() == host.listing
    assert repr(host) == "<HostedServer weather ready [0 in flight]>"
    assert repr(care.catalogue) == "<Catalogue 1 servers | 0 never listed | 0 refreshing>"


async def test_after_a_restart_the_known_list_stands_at_once_and_is_confirmed_behind(care: Care) -> None:
    first = care.host()
    await care.catalogue.refresh(first)
    gate = asyncio.Event()
    care.upstream.every_call = Step(wait_for=gate)
    again = care.host(await care.load())
    care.hold(again)
    assert again.listing is not None
    assert len(again.listing.items(TOOLS)) == 2
    assert (again.state, again.is_stale) == ("starting", True)
    assert not again.is_pending(care.clock.now())  # nobody waits for it
    await asyncio.wait_for(care.catalogue.wait_for_first([again]), 1)
    gate.set()
    await care.catalogue.refresh(again)
    assert (again.state, again.is_stale) == ("ready", False)


async def test_a_known_list_stays_while_its_server_is_down(care: Care) -> None:
    await care.catalogue.refresh(care.host())
    care.upstream.every_call = DOWN
    host = care.host(await care.load())
    care.hold(host)
    await care.catalogue.refresh(host)
    assert (host.state, host.is_stale) == ("failed", True)
    assert host.listing is not None


async def test_a_listing_is_fetched_once_however_many_ask(care: Care) -> None:
    gate = asyncio.Event()
    care.upstream.every_call = Step(wait_for=gate)
    host = care.host()
    care.hold(host)
    tasks = {care.catalogue.refresh(host) for _ in range(5)}
    assert len(tasks) == 1
    gate.set()
    await tasks.pop()
    assert care.listings == 1
    care.catalogue.refresh_if_aged([host])
    assert host.refreshing is None  # too young


async def test_failing_leaves_no_cycles(care: Care) -> None:
    with nothing_left():
        for _ in range(2):
            care.upstream.every_call = Step(error=ServerUnavailable("weather", "it is down"))
            host = care.host()
            await care.catalogue.refresh(host)
            assert host.state == "failed"
        care.upstream.every_call = Step()
        care.upstream.calls.clear()
        del host


async def test_a_failing_server_is_asked_again_ever_more_slowly_and_recovers(
    care: Care, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "penstock.gateway.hosting")
    care.upstream.every_call = DOWN
    host = care.host()
    care.hold(host)
    await care.catalogue.refresh(host)
    assert (host.state, host.attempts_failed) == ("failed", 1)
    moments: list[float] = []
    for _ in range(120):
        await care.clock.advance(0.5)
        if host.refreshing is not None:
            await host.refreshing
        if len(moments) < host.attempts_failed - 1:
            moments.append(care.clock.now() - 1_000)
    assert moments == [1.0, 3.0, 8.0, 18.0, 48.0]
    assert care.changes == 1  # it is the same failure all the time
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    care.upstream.every_call = Step()
    await care.clock.advance(60)
    await care.clock.advance(0.5)
    await until(lambda: host.state == "ready")
    assert (host.failure, host.attempts_failed) == (None, 0)
    assert caplog.records[-1].message == "server 'weather' is ready: 2 tools"


async def test_whoever_looks_does_not_wait_for_long(care: Care) -> None:
    host = care.host()
    care.hold(host)
    care.upstream.every_call = DOWN
    await care.catalogue.refresh(host)
    asked = len(care.upstream.calls)
    await care.catalogue.look_again()
    assert len(care.upstream.calls) == asked, "it was asked just now"
    host.checked_at -= Catalogue.RETRY_SECONDS[0]
    care.upstream.every_call = Step(wait_for=asyncio.Event())
    async with asyncio.timeout(5):
        await care.catalogue.look_again()
    assert (host.state, host.refreshing is not None) == ("failed", True)


async def test_a_server_that_wants_a_credential_says_so(care: Care) -> None:
    care.upstream.every_call = Step(error=NeedsAuthorization("weather"))
    host = care.host()
    await care.catalogue.refresh(host)
    assert host.state == "needs authorization"


async def test_a_listing_that_takes_too_long_fails_and_the_next_has_less_time(care: Care) -> None:
    host = care.host(list_seconds=0.02)
    await care.catalogue.refresh(host)
    care.upstream.every_call = Step(wait_for=asyncio.Event())
    await care.catalogue.refresh(host)
    assert host.failure is not None
    assert host.failure.message.startswith("server 'weather': expected its lists within 0.02 s")
    assert host.listing is not None


async def test_a_list_request_refreshes_what_has_aged_behind_it(care: Care) -> None:
    care.upstream.server.ttl_ms = 20_000
    host = care.host()
    care.hold(host)
    await care.catalogue.refresh(host)
    for seconds, expected in ((19.0, 1), (2.0, 2), (19.0, 2), (2.0, 3)):
        await care.clock.advance(seconds)
        care.catalogue.refresh_if_aged([host])
        if host.refreshing is not None:
            await host.refreshing
        assert care.listings == expected
    assert care.changes == 1  # nothing of it was new
    care.upstream.server.remove_tool("now")
    await care.clock.advance(21)
    care.catalogue.refresh_if_aged([host])
    assert host.refreshing is not None
    await host.refreshing
    assert care.changes == 2
    known = await care.load()
    assert known is not None
    assert len(known.items(TOOLS)) == 1


async def test_a_list_request_leaves_alone_what_has_never_been_listed_or_fails(care: Care) -> None:
    care.upstream.every_call = DOWN
    host = care.host()
    care.catalogue.refresh_if_aged([host])
    assert host.refreshing is None
    await care.catalogue.refresh(host)
    await care.clock.advance(0.1)
    care.catalogue.refresh_if_aged([host])
    assert host.refreshing is None


async def test_waiting_for_a_first_listing_is_bounded_once_for_all(care: Care) -> None:
    care.upstream.every_call = Step(wait_for=asyncio.Event())
    host = care.host(list_seconds=0.02)
    care.hold(host)
    assert host.is_pending(care.clock.now())
    await asyncio.wait_for(care.catalogue.wait_for_first([host]), 1)
    await care.clock.advance(0.02)
    assert not host.is_pending(care.clock.now())
    stranger = care.host()
    await asyncio.wait_for(care.catalogue.wait_for_first([host, stranger]), 1)  # one that is held by nobody


async def test_letting_go_of_a_server_ends_its_listing(care: Care) -> None:
    care.upstream.every_call = Step(wait_for=asyncio.Event())
    host = care.host()
    care.hold(host)
    task = host.refreshing
    assert task is not None
    care.hold(host)  # it is still the same one
    await asyncio.sleep(0)
    care.catalogue.replace({})
    with pytest.raises(asyncio.CancelledError):
        await task
    assert host.refreshing is None


async def test_new_settings_go_on_with_what_is_known(care: Care) -> None:
    care.upstream.every_call = DOWN
    host = care.host()
    assert not host.with_settings(host.settings).first_attempt.is_set()
    await care.catalogue.refresh(host)
    settings = HostSettings("weather", "built-in", "weather", "f", DeadlineSettings(1.0))
    renewed = host.with_settings(settings)
    assert renewed.upstream is host.upstream
    assert (renewed.state, renewed.checked_at, renewed.failure) == ("failed", host.checked_at, host.failure)
    care.hold(renewed)
    care.upstream.every_call = Step()
    await care.clock.advance(1.0)  # the pause after the first failure, as if nothing had been changed
    await until(lambda: renewed.state == "ready")


async def test_what_nobody_foresaw_is_a_failure_like_others(care: Care, caplog: pytest.LogCaptureFixture) -> None:
    class Odd(InMemoryUpstream):
        async def describe(self, caller: Any = None) -> Any:
            raise ZeroDivisionError("odd")

    host = HostedServer(HostSettings("odd", "built-in", "odd", "f"), Odd("odd", weather_server()))
    care.catalogue.replace({"odd": host})
    await care.catalogue.refresh(host)
    assert host.state == "failed"
    assert host.failure is not None
    assert host.failure.message == "server 'odd': listing it failed by an error of ours; see the log"
    assert "ZeroDivisionError" in caplog.text


async def test_an_upstream_that_finds_no_fault_with_its_tools_has_them_all(care: Care) -> None:
    class Learner(InMemoryUpstream):
        def learn_tools(self, tools: list[tuple[str, Any]]) -> dict[str, str]:
            return {}

    host = HostedServer(HostSettings("it", "built-in", "it", "f"), Learner("it", weather_server()))
    await care.catalogue.refresh(host)
    assert host.listing is not None
    assert len(host.listing.items(TOOLS)) == 2


async def test_a_catalogue_that_was_never_started_can_be_closed(tmp_path: Path) -> None:
    await Catalogue(FakeClock(), KnownLists(tmp_path), on_change=lambda: None, on_news=lambda *_: None).close()
