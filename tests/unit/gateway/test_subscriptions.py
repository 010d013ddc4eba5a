"""Subscriptions at servers: one for each resource, from the first listener to the last, whatever comes in between."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from penstock.clock import FakeClock
from penstock.errors import ServerError, ServerTimedOut, ServerUnavailable
from penstock.gateway.hosting import HostedServer, HostSettings
from penstock.gateway.listeners import Listener, Listeners
from penstock.gateway.listing import Listing, fetch_listing
from penstock.gateway.subscriptions import AGAIN_SECONDS, AT_ONCE, MAX_RESOURCES, Subscriptions
from penstock.upstreams.calls import Failure
from penstock.upstreams.in_memory import InMemoryServer, InMemoryUpstream, Step
from tests.unit.gateway.conftest import until, weather_server

MAP = "weather://map"
DOWN = Step(error=ServerUnavailable("weather", "it is down"))


class Recording(InMemoryUpstream):
    """Remembers what it was told of subscriptions, in order of the ends of the requests."""

    def __init__(self, server: InMemoryServer | None = None) -> None:
        super().__init__("weather", server or weather_server())
        self.told: list[str] = []
        self.most_at_once = self._at_once = 0
        self.hold_unsubscribe: asyncio.Event | None = None

    async def subscribe(self, uri: str) -> Failure | None:
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            return await super().subscribe(uri)
        finally:
            self._at_once -= 1
            self.told.append(f"+{uri}")

    async def unsubscribe(self, uri: str) -> None:
        if self.hold_unsubscribe is not None:
            await self.hold_unsubscribe.wait()
        self.told.append(f"-{uri}")
        await super().unsubscribe(uri)


class Desk:
    """Subscriptions with one server and a clock of their own."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.tasks: set[asyncio.Task[None]] = set()
        self.listeners = Listeners(self.clock, self.in_background)
        self.subscriptions = Subscriptions(self.listeners, self.in_background, self.clock)
        self.upstream = Recording()
        self.host = self.hosted(self.upstream)
        self.subscriptions.renew([self.host])

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def hosted(self, upstream: InMemoryUpstream, fingerprint: str = "f", **settings: Any) -> HostedServer:
        host = HostedServer(HostSettings("weather", "built-in", "weather", fingerprint, **settings), upstream)
        host.first_attempt.set()
        return host

    async def subscribe(self, listener: Listener, uri: str = MAP) -> Failure | ServerError | None:
        return await self.subscriptions.subscribe(listener, self.host, uri)

    async def idle(self) -> None:
        """Until nothing is under way in the background."""
        await until(lambda: not self.tasks)

    async def advance(self, seconds: float) -> None:
        """Let what has begun reach its sleep, then move time on."""
        for _ in range(5):
            await asyncio.sleep(0)
        await self.clock.advance(seconds)


def listener(view: str = "") -> Listener:
    return Listener(view, frozenset(), None, b"1")


@pytest.fixture
async def desk(anyio_backend: Any) -> AsyncIterator[Desk]:
    it = Desk()
    yield it
    await it.subscriptions.close()
    for task in list(it.tasks):
        task.cancel()
    await asyncio.gather(*it.tasks, return_exceptions=True)


async def test_a_server_is_told_once_for_many_listeners_and_again_after_the_last(desk: Desk) -> None:
    many = [listener() for _ in range(50)]
    assert await asyncio.gather(*(desk.subscribe(one) for one in many)) == [None] * 50
    assert (desk.upstream.told, len(desk.subscriptions)) == ([f"+{MAP}"], 1)
    assert await desk.subscribe(many[0]) is None  # twice by the same listener
    for one in many[:-1]:
        desk.subscriptions.release(one)
    await desk.idle()
    assert desk.upstream.told == [f"+{MAP}"]
    desk.subscriptions.unsubscribe(many[-1], MAP)
    await desk.idle()
    assert desk.upstream.told == [f"+{MAP}", f"-{MAP}"]
    assert (len(desk.subscriptions), desk.listeners.resources) == (0, 0)


async def test_a_refusal_reaches_all_who_asked_and_leaves_nothing_behind(desk: Desk) -> None:
    many = [listener() for _ in range(3)]
    for refusal in await asyncio.gather(*(desk.subscribe(one, "weather://nowhere") for one in many)):
        assert isinstance(refusal, Failure)
    desk.upstream.every_call = DOWN
    error = await desk.subscribe(many[0])
    assert isinstance(error, ServerUnavailable)
    assert [one.uris for one in many] == [{}, {}, {}]
    assert (len(desk.subscriptions), desk.listeners.resources, len(desk.tasks)) == (0, 0, 0)


async def test_a_listener_that_asks_twice_at_once_is_told_the_truth_twice(desk: Desk) -> None:
    one = listener()
    first, second = await asyncio.gather(
        desk.subscribe(one, "weather://nowhere"), desk.subscribe(one, "weather://nowhere")
    )
    assert isinstance(first, Failure)
    assert isinstance(second, Failure)


async def test_who_leaves_before_the_server_has_answered_leaves_no_subscription(desk: Desk) -> None:
    gate = asyncio.Event()
    desk.upstream.every_call = Step(wait_for=gate)
    one = listener()
    asking = asyncio.create_task(desk.subscribe(one))
    await until(lambda: desk.upstream._at_once)
    desk.subscriptions.release(one)
    gate.set()
    assert await asking is None
    await desk.idle()
    assert desk.upstream.told == [f"+{MAP}", f"-{MAP}"]
    assert (len(desk.subscriptions), desk.upstream.subscribed) == (0, set())


async def test_who_is_cancelled_leaves_no_subscription_and_others_keep_theirs(desk: Desk) -> None:
    gate = asyncio.Event()
    desk.upstream.every_call = Step(wait_for=gate)
    one, two = listener(), listener()
    leaving, staying = asyncio.create_task(desk.subscribe(one)), asyncio.create_task(desk.subscribe(two))
    await until(lambda: desk.upstream._at_once)
    leaving.cancel()
    await asyncio.wait((leaving,))
    assert one.uris == {}
    gate.set()
    assert await staying is None
    assert (len(desk.subscriptions), desk.upstream.subscribed) == (1, {MAP})


async def test_who_is_cancelled_in_the_moment_of_success_leaves_no_subscription(desk: Desk) -> None:
    one = listener()
    asking = asyncio.create_task(desk.subscribe(one))
    while not len(desk.subscriptions):  # noqa: ASYNC110 - the loop's own turns are what is waited for
        await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait((asking,))
    await desk.idle()
    assert (len(desk.subscriptions), desk.upstream.subscribed, one.uris) == (0, set(), {})


async def test_the_end_of_a_subscription_never_overtakes_the_next_one(desk: Desk) -> None:
    first, second = listener(), listener()
    await desk.subscribe(first)
    gate = desk.upstream.hold_unsubscribe = asyncio.Event()
    desk.subscriptions.release(first)
    asking = asyncio.create_task(desk.subscribe(second))
    await desk.advance(0)
    assert not asking.done()
    gate.set()
    assert await asking is None
    assert desk.upstream.told == [f"+{MAP}", f"-{MAP}", f"+{MAP}"]
    assert desk.upstream.subscribed == {MAP}


async def test_who_comes_while_a_flight_finds_nobody_interested_is_subscribed_all_the_same(desk: Desk) -> None:
    first, second, third = listener(), listener(), listener()
    await desk.subscribe(first)
    gate = desk.upstream.hold_unsubscribe = asyncio.Event()
    desk.subscriptions.release(first)
    leaving = asyncio.create_task(desk.subscribe(second))  # waits for the end of the one before
    await desk.advance(0)
    desk.subscriptions.release(second)
    gate.set()
    while not leaving.done():
        await asyncio.sleep(0)
        if not third.uris and not desk.subscriptions._ending:
            coming = asyncio.create_task(desk.subscribe(third))
            await asyncio.sleep(0)
    assert await leaving is None
    assert await coming is None
    assert (desk.upstream.subscribed, len(desk.subscriptions)) == ({MAP}, 1)


async def test_a_server_that_does_not_answer_holds_nobody_for_long(desk: Desk) -> None:
    desk.subscriptions = Subscriptions(desk.listeners, desk.in_background, desk.clock, answer_seconds=0.02)
    desk.upstream.every_call = Step(wait_for=asyncio.Event())
    one = listener()
    refusal = await asyncio.wait_for(desk.subscribe(one), 2)
    assert isinstance(refusal, ServerTimedOut)
    assert "within 0.02 s" in refusal.message
    await desk.idle()
    assert desk.upstream.told == [f"+{MAP}", f"-{MAP}"]  # it may have taken it all the same
    desk.upstream.every_call = Step()
    assert await desk.subscribe(one) is None


async def test_a_server_that_does_not_answer_the_end_is_not_waited_for(desk: Desk) -> None:
    desk.subscriptions = Subscriptions(desk.listeners, desk.in_background, desk.clock, answer_seconds=0.02)
    one = listener()
    await desk.subscribe(one)
    desk.upstream.hold_unsubscribe = asyncio.Event()
    desk.subscriptions.release(one)
    await desk.idle()
    assert await asyncio.wait_for(desk.subscribe(one), 2) is None


async def test_the_number_of_resources_is_bounded_but_not_that_of_their_listeners(desk: Desk) -> None:
    desk.subscriptions = Subscriptions(desk.listeners, desk.in_background, desk.clock, most=2)
    one, gate = listener(), asyncio.Event()
    desk.upstream.every_call = Step(wait_for=gate)
    asking = [asyncio.create_task(desk.subscribe(one, f"weather://city/{name}")) for name in "abc"]
    await until(asking[2].done)  # those that are still asked for count as well
    refusal = asking[2].result()
    assert isinstance(refusal, ServerError)
    assert "2 resources are subscribed to, the most that may" in refusal.message
    gate.set()
    assert await asyncio.gather(*asking[:2]) == [None, None]
    assert await desk.subscribe(listener(), "weather://city/a") is None
    assert MAX_RESOURCES == 10_000


async def test_a_resource_that_another_server_has_by_now_is_subscribed_to_there(desk: Desk) -> None:
    one = listener()
    await desk.subscribe(one)
    other = HostedServer(HostSettings("other", "built-in", "other", "f"), Recording())
    assert await desk.subscriptions.subscribe(one, other, MAP) is None
    await desk.idle()
    assert one.uris == {MAP: "other"}
    assert (desk.upstream.subscribed, len(desk.subscriptions), desk.listeners.resources) == (set(), 1, 1)


class TestReload:
    async def test_a_server_opened_anew_is_told_again_once_it_was_listed(self, desk: Desk) -> None:
        for name in "abc":
            await desk.subscribe(listener(), f"weather://city/{name}")
        new = Recording()
        host = desk.hosted(new, "g")
        host.first_attempt.clear()
        desk.subscriptions.renew([host])
        await desk.advance(60)
        assert new.told == []
        host.first_attempt.set()
        await desk.idle()
        assert sorted(new.told) == [f"+weather://city/{name}" for name in "abc"]
        one = listener()
        desk.host = host
        assert await desk.subscribe(one, "weather://city/a") is None
        desk.subscriptions.release(one)
        await desk.idle()
        assert len(new.told) == 3  # the others are still there

    async def test_a_server_that_cannot_be_had_yet_is_asked_again_ever_more_slowly(self, desk: Desk) -> None:
        await desk.subscribe(listener())
        new = Recording()
        host = desk.hosted(new, "g")
        host.failure = ServerUnavailable("weather", "it is down")
        desk.subscriptions.renew([host])
        await desk.advance(AGAIN_SECONDS[0] + AGAIN_SECONDS[1] + 0.1)
        assert new.told == []
        host.failure, new.every_call = None, DOWN
        await desk.advance(AGAIN_SECONDS[2])
        assert (new.told, new.subscribed) == ([f"+{MAP}"], set())
        new.every_call = Step()
        await desk.advance(AGAIN_SECONDS[3] - 1)
        assert len(new.told) == 1
        await desk.advance(1)
        await desk.idle()
        assert new.subscribed == {MAP}

    async def test_a_known_list_of_an_earlier_run_is_not_enough(self, desk: Desk) -> None:
        await desk.subscribe(listener())
        listing: Listing = await fetch_listing(desk.upstream, wall=0.0, started_at=0.0)
        new = Recording()
        host = desk.hosted(new, "g")
        host.listing, host.is_stale = listing, True
        desk.subscriptions.renew([host])
        await desk.advance(0.1)
        assert new.told == []
        host.is_stale = False
        await desk.advance(AGAIN_SECONDS[0])
        await desk.idle()
        assert new.subscribed == {MAP}

    async def test_a_server_that_refuses_by_now_is_not_asked_again_but_the_next_listener_hears_why(
        self, desk: Desk
    ) -> None:
        one = listener()
        await desk.subscribe(one, "weather://city/a")
        desk.host = desk.hosted(Recording(InMemoryServer("weather")), "g")
        desk.subscriptions.renew([desk.host])
        await desk.idle()
        assert len(desk.subscriptions) == 0
        assert isinstance(await desk.subscribe(one, "weather://city/a"), Failure)

    async def test_new_settings_of_the_same_server_ask_nothing(self, desk: Desk) -> None:
        one = listener()
        await desk.subscribe(one)
        desk.subscriptions.renew([desk.host.with_settings(desk.host.settings)])
        await desk.idle()
        desk.subscriptions.release(one)
        await desk.idle()
        assert desk.upstream.told == [f"+{MAP}", f"-{MAP}"]

    async def test_settings_that_change_while_a_server_is_awaited_do_not_lose_it(self, desk: Desk) -> None:
        await desk.subscribe(listener())
        new = Recording()
        host = desk.hosted(new, "g")
        host.failure = ServerUnavailable("weather", "it is down")
        desk.subscriptions.renew([host])
        await desk.advance(0.1)
        again = host.with_settings(HostSettings("weather", "built-in", "weather", "g", list_seconds=1.0))
        desk.subscriptions.renew([again])
        again.failure = None
        await desk.advance(AGAIN_SECONDS[0])
        await desk.idle()
        assert new.subscribed == {MAP}

    async def test_a_reload_while_the_old_server_is_asked_subscribes_at_the_new_one(self, desk: Desk) -> None:
        gate = asyncio.Event()
        desk.upstream.every_call = Step(wait_for=gate)
        asking = asyncio.create_task(desk.subscribe(listener()))
        await until(lambda: desk.upstream._at_once)
        new = Recording()
        desk.subscriptions.renew([desk.hosted(new, "g")])
        gate.set()
        assert await asking is None
        await desk.idle()
        assert new.subscribed == {MAP}

    async def test_who_leaves_while_the_new_server_is_asked_leaves_no_subscription(self, desk: Desk) -> None:
        one, gate = listener(), asyncio.Event()
        await desk.subscribe(one)
        new = Recording()
        new.every_call = Step(wait_for=gate)
        desk.subscriptions.renew([desk.hosted(new, "g")])
        await until(lambda: new._at_once)
        desk.subscriptions.release(one)
        gate.set()
        await until(lambda: f"+{MAP}" in new.told)
        await desk.idle()
        assert (new.subscribed, len(desk.subscriptions)) == (set(), 0)

    async def test_who_leaves_while_the_new_server_is_awaited_is_not_asked_for(self, desk: Desk) -> None:
        one = listener()
        await desk.subscribe(one)
        new = Recording()
        host = desk.hosted(new, "g")
        host.failure = ServerUnavailable("weather", "it is down")
        desk.subscriptions.renew([host])
        await desk.advance(0.1)
        desk.subscriptions.release(one)
        host.failure = None
        await desk.advance(AGAIN_SECONDS[0])
        await desk.idle()
        assert not any(word.startswith("+") for word in new.told)

    async def test_many_resources_are_renewed_some_at_a_time(self, desk: Desk) -> None:
        one = listener()
        uris = [f"weather://city/{number}" for number in range(3 * AT_ONCE)]
        await asyncio.gather(*(desk.subscribe(one, uri) for uri in uris))
        new = Recording()
        gate = asyncio.Event()
        new.every_call = Step(wait_for=gate)
        desk.subscriptions.renew([desk.hosted(new, "g")])
        await until(lambda: new._at_once == AT_ONCE)
        gate.set()
        await desk.idle()
        assert new.subscribed == set(uris)
        assert new.most_at_once <= AT_ONCE


async def test_a_view_that_loses_a_server_hears_no_more_of_it_and_others_do(desk: Desk) -> None:
    mine, theirs = listener("v"), listener("w")
    await desk.subscribe(mine)
    await desk.subscribe(theirs)
    desk.subscriptions.leave("v", {"other"})
    assert mine.uris == {MAP: "weather"}
    desk.subscriptions.leave("v", {"weather"})
    assert (mine.uris, theirs.uris) == ({}, {MAP: "weather"})
    await desk.idle()
    assert desk.upstream.told == [f"+{MAP}"]


async def test_a_view_that_is_gone_leaves_no_subscription_whether_it_was_streamed_or_not(desk: Desk) -> None:
    streamed, silent = listener("v"), listener("v")
    desk.listeners.add(streamed)
    await desk.subscribe(streamed)
    await desk.subscribe(silent, "weather://city/a")
    desk.subscriptions.end_view("v")
    await desk.idle()
    assert (len(desk.subscriptions), desk.listeners.resources, len(desk.listeners)) == (0, 0, 0)
    assert desk.upstream.subscribed == set()


async def test_what_it_shows(desk: Desk) -> None:
    await desk.subscribe(listener())
    assert repr(desk.subscriptions) == "<Subscriptions [1]>"
