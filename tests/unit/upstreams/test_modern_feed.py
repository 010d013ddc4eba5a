"""One `subscriptions/listen` at a modern server, kept open whatever becomes of it."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from penstock.clock import FakeClock
from penstock.errors import ServerError, ServerMisbehaved, ServerTimedOut, ServerUnavailable
from penstock.protocol.subscriptions import ACKNOWLEDGED, LIST_CHANGED, UPDATED
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Answer, Call, Failure, Raw, Result
from penstock.upstreams.modern_feed import HEALTHY_SECONDS, RETRY_SECONDS, UNSUPPORTED_SECONDS, ModernFeed
from tests.unit.cycles import nothing_left
from tests.unit.upstreams.stdio_kit import Notices, until

ALL = {"toolsListChanged": True, "promptsListChanged": True, "resourcesListChanged": True}
EVERY_LIST = sorted(LIST_CHANGED.values())
GRACEFUL = Result(b"{}", Era.MODERN)
DOWN = ServerUnavailable("s", "it is down")
UNKNOWN = Failure(-32601, "Method not found", None, Era.MODERN)


class Listen:
    """One listen as the server sees it."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.wanted: dict[str, Any] = json.loads(bytes(call.params["notifications"]))
        self.end: asyncio.Future[Answer | Exception] = asyncio.get_running_loop().create_future()

    @property
    def uris(self) -> list[str]:
        return list(self.wanted.get("resourceSubscriptions", []))

    @property
    def is_open(self) -> bool:
        return not self.end.done()

    def say(self, method: str, **params: Any) -> None:
        assert self.call.hear is not None
        self.call.hear(method, {key: Raw(json.dumps(value).encode()) for key, value in params.items()})

    def acknowledge(self, **notifications: Any) -> "Listen":
        self.say(ACKNOWLEDGED, notifications=notifications or self.wanted)
        return self


class Server:
    """Takes listens; answers by `on_listen`, if there is one."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.listens: list[Listen] = []
        self.heard = Notices()
        self.on_listen: Callable[[Listen], None] = lambda _: None
        self.feeds: list[ModernFeed] = []

    async def send(self, call: Call) -> Answer:
        listen = Listen(call)
        self.listens.append(listen)
        self.on_listen(listen)
        try:
            outcome = await listen.end
        finally:
            listen.end.cancel()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def feed(self, **more: Any) -> ModernFeed:
        self.feeds.append(ModernFeed("s", self.send, self.heard, self.clock, **more))
        return self.feeds[-1]

    @property
    def open(self) -> list[Listen]:
        return [listen for listen in self.listens if listen.is_open]

    @property
    def methods(self) -> list[str]:
        return [method for method, _ in self.heard.items]

    async def listened(self, count: int = 1) -> Listen:
        """The last listen, once there are so many."""
        await until(lambda: len(self.listens) >= count)
        assert len(self.listens) == count
        return self.listens[-1]

    async def advance(self, seconds: float) -> None:
        for _ in range(8):
            await asyncio.sleep(0)
        await self.clock.advance(seconds)
        for _ in range(8):
            await asyncio.sleep(0)


@pytest.fixture
async def server(anyio_backend: Any) -> AsyncIterator[Server]:
    it = Server()
    yield it
    for feed in it.feeds:
        await feed.close()


def take_all(listen: Listen) -> None:
    listen.acknowledge()


async def listening(server: Server, **more: Any) -> ModernFeed:
    feed = server.feed(**more)
    server.on_listen = take_all
    await until(lambda: feed.is_listening)
    return feed


async def test_it_asks_for_every_list_and_hands_on_what_is_said(server: Server) -> None:
    feed = await listening(server)
    (listen,) = server.listens
    assert (listen.wanted, listen.call.method) == (ALL, "subscriptions/listen")
    assert server.heard.items == []  # nothing was missed
    listen.say(LIST_CHANGED["tools"])
    listen.say(UPDATED, uri="a://1")
    assert server.heard.items == [(LIST_CHANGED["tools"], {}), (UPDATED, {"uri": "a://1"})]
    assert repr(feed) == "<ModernFeed s listening | 0 resources>"


async def test_nothing_is_heard_before_the_acknowledgement(server: Server) -> None:
    feed = server.feed()
    listen = await server.listened()
    listen.say(LIST_CHANGED["tools"])
    assert (server.heard.items, feed.is_listening) == ([], False)
    assert repr(feed) == "<ModernFeed s not listening | 0 resources>"


async def test_a_new_resource_is_asked_for_by_a_new_listen_and_the_old_one_ends_after_it(server: Server) -> None:
    feed = await listening(server)
    server.on_listen = lambda _: None
    subscribing = asyncio.create_task(feed.subscribe("a://1"))
    second = await server.listened(2)
    assert (second.uris, len(server.open)) == (["a://1"], 2)
    server.listens[0].say(LIST_CHANGED["tools"])  # the old one tells until the new one does
    second.acknowledge()
    assert await subscribing is None
    await until(lambda: server.open == [second])
    second.say(UPDATED, uri="a://1")
    assert server.methods == [LIST_CHANGED["tools"], UPDATED]
    assert feed.uris == ("a://1",)


async def test_what_the_old_listen_still_says_is_not_told_twice(server: Server) -> None:
    feed = await listening(server)
    first = server.listens[0]
    assert await feed.subscribe("a://1") is None
    for listen in server.listens:
        listen.say(LIST_CHANGED["tools"])
    assert server.methods == [LIST_CHANGED["tools"]]
    await until(lambda: not first.is_open)


async def test_many_resources_at_once_are_few_listens(server: Server) -> None:
    feed = await listening(server)
    await asyncio.gather(*(feed.subscribe(f"a://{number}") for number in range(3_000)))
    assert len(server.listens) <= 3
    assert len(server.listens[-1].uris) == 3_000
    assert len(feed.uris) == 3_000


async def test_what_is_not_acknowledged_is_refused_and_not_asked_for_again(server: Server) -> None:
    feed = await listening(server)
    server.on_listen = lambda listen: (listen.acknowledge(**ALL, resourceSubscriptions=["a://1", "z://"]), None)[1]
    taken, refused = await asyncio.gather(feed.subscribe("a://1"), feed.subscribe("a://2"))
    assert taken is None
    assert isinstance(refused, Failure)
    assert (refused.code, "a://2" in refused.message) == (-32602, True)
    assert feed.uris == ("a://1",)
    server.on_listen = take_all
    assert await feed.subscribe("a://3") is None
    assert server.listens[-1].uris == ["a://1", "a://3"]


async def test_a_server_that_refuses_one_resource_goes_on_telling_of_others(server: Server) -> None:
    feed = await listening(server)
    assert await feed.subscribe("a://1") is None
    before = server.listens[-1]
    server.on_listen = lambda listen: listen.end.set_result(Failure(-32602, "no such thing", None, Era.MODERN))
    refused = await feed.subscribe("a://bad")
    assert isinstance(refused, Failure)
    assert refused.message == "no such thing"
    assert (server.open, feed.is_listening, feed.uris) == ([before], True, ("a://1",))
    before.say(UPDATED, uri="a://1")
    assert server.methods == [UPDATED]
    server.on_listen = take_all
    assert await feed.subscribe("a://2") is None
    assert server.listens[-1].uris == ["a://1", "a://2"]


async def test_a_server_that_cannot_be_reached_for_a_new_resource_is_no_refusal(server: Server) -> None:
    feed = await listening(server)
    before = server.listens[0]
    server.on_listen = lambda listen: listen.end.set_result(DOWN)
    with pytest.raises(ServerUnavailable):
        await feed.subscribe("a://1")
    assert (server.open, feed.uris) == ([before], ())


async def test_a_server_that_does_not_acknowledge_a_new_resource_keeps_nobody_waiting(server: Server) -> None:
    feed = server.feed(acknowledge_seconds=0.05)
    (await server.listened()).acknowledge()
    with pytest.raises(ServerTimedOut, match=r"within 0\.05 s"):
        await feed.subscribe("a://1")
    assert server.open == [server.listens[0]]


async def test_a_resource_nobody_wants_any_more_is_left_out(server: Server) -> None:
    feed = await listening(server)
    await feed.subscribe("a://1")
    await feed.unsubscribe("a://1")
    await feed.unsubscribe("a://1")
    assert (await server.listened(3)).uris == []


async def test_who_is_unsubscribed_before_it_was_asked_for_is_answered(server: Server) -> None:
    feed = server.feed()
    await server.listened()
    subscribing = asyncio.create_task(feed.subscribe("a://1"))
    await asyncio.sleep(0)
    await feed.unsubscribe("a://1")
    assert isinstance(await asyncio.wait_for(subscribing, 2), Failure)


class TestGap:
    @pytest.mark.parametrize("end", [GRACEFUL, DOWN], ids=["in good order", "torn"])
    async def test_after_a_gap_it_listens_again_and_everything_counts_as_changed(
        self, server: Server, end: Answer | ServerError
    ) -> None:
        feed = await listening(server)
        await feed.subscribe("a://1")
        server.heard.items.clear()
        server.listens[-1].end.set_result(end)
        await until(lambda: not feed.is_listening)
        await server.advance(RETRY_SECONDS[0] - 0.1)
        assert len(server.listens) == 2
        await server.advance(0.2)
        assert (await server.listened(3)).uris == ["a://1"]
        await until(lambda: feed.is_listening)
        assert sorted(server.methods) == sorted([*EVERY_LIST, UPDATED])
        assert (UPDATED, {"uri": "a://1"}) in server.heard.items

    async def test_only_what_is_honoured_then_counts_as_changed(self, server: Server) -> None:
        feed = await listening(server)
        server.on_listen = lambda listen: (listen.acknowledge(toolsListChanged=True), None)[1]
        server.listens[0].end.set_result(DOWN)
        await server.advance(RETRY_SECONDS[0])
        await until(lambda: feed.is_listening)
        assert server.methods == [LIST_CHANGED["tools"]]

    async def test_what_changed_while_the_first_attempts_failed_was_missed_too(self, server: Server) -> None:
        server.on_listen = lambda listen: listen.end.set_result(DOWN)
        feed = server.feed()
        await server.listened()
        await server.advance(0)
        server.on_listen = take_all
        await server.advance(RETRY_SECONDS[0])
        await until(lambda: feed.is_listening)
        assert sorted(server.methods) == EVERY_LIST

    async def test_many_resources_are_told_in_slices(self, server: Server) -> None:
        turn, turns = 0, []
        feed = ModernFeed(
            "s", server.send, lambda *_: turns.append(turn), server.clock, [f"a://{n}" for n in range(500)]
        )
        server.feeds.append(feed)
        server.on_listen = take_all
        await until(lambda: feed.is_listening)
        server.listens[0].end.set_result(DOWN)
        await until(lambda: not feed.is_listening)
        advancing = asyncio.create_task(server.advance(RETRY_SECONDS[0]))
        while len(turns) < 503:
            await asyncio.sleep(0)
            turn += 1
        await advancing
        assert max(turns.count(one) for one in set(turns)) <= 64 + len(LIST_CHANGED)

    async def test_pauses_grow_even_when_each_listen_is_acknowledged_and_ends_at_once(self, server: Server) -> None:
        def take_and_end(listen: Listen) -> None:
            listen.acknowledge()
            listen.end.set_result(GRACEFUL)

        server.on_listen = take_and_end
        server.feed()
        await server.listened()
        moments: list[float] = []
        for _ in range(1_200):
            before = len(server.listens)
            await server.clock.advance(0.1)
            moments += [server.clock.now() - 1_000] * (len(server.listens) - before)
        gaps = [later - earlier for earlier, later in zip([0.0, *moments], moments, strict=False)]
        assert [round(gap) for gap in gaps[:7]] == [1, 2, 5, 10, 30, 30, 30]

    async def test_a_listen_that_lasted_is_followed_soon_by_the_next(self, server: Server) -> None:
        feed = await listening(server)
        for number in range(1, 4):
            await server.advance(HEALTHY_SECONDS)
            server.listens[-1].end.set_result(GRACEFUL)
            await server.advance(RETRY_SECONDS[0])
            await server.listened(number + 1)
            await until(lambda: feed.is_listening)


class TestUnsupported:
    @pytest.mark.parametrize("failure", [UNKNOWN, Failure(-32600, "no", None, Era.MODERN)])
    async def test_a_server_that_refuses_is_left_alone_for_long(
        self, server: Server, failure: Failure, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "penstock.upstreams.modern_feed")
        server.on_listen = lambda listen: listen.end.set_result(failure)
        server.feed()
        await server.listened()
        await server.advance(UNSUPPORTED_SECONDS - 1)
        assert len(server.listens) == 1
        await server.advance(2)
        assert len(server.listens) == 2
        assert caplog.messages == [f"server 's' cannot be listened to: {failure.message}"] * 2
        assert server.heard.items == []

    async def test_who_wants_to_subscribe_there_hears_why_not(self, server: Server) -> None:
        server.on_listen = lambda listen: listen.end.set_result(UNKNOWN)
        feed = server.feed()
        await server.listened()
        assert await feed.subscribe("a://1") is UNKNOWN
        assert (len(server.listens), feed.uris) == (2, ())
        await feed.unsubscribe("a://1")
        await server.advance(60)
        assert len(server.listens) == 2

    async def test_a_resource_it_does_not_take_from_the_start_does_not_keep_its_lists_from_being_heard(
        self, server: Server
    ) -> None:
        def by_resource(listen: Listen) -> None:
            if listen.uris:
                listen.end.set_result(Failure(-32602, "no such thing", None, Era.MODERN))
            else:
                listen.acknowledge()

        server.on_listen = by_resource
        feed = server.feed(uris=["a://gone"])
        await until(lambda: feed.is_listening)
        assert [listen.uris for listen in server.listens] == [["a://gone"], []]

    async def test_an_error_of_ours_is_logged_and_ends_nothing(
        self, server: Server, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(listen: Listen) -> None:
            listen.end.set_result(ZeroDivisionError("odd"))

        server.on_listen = fail
        feed = server.feed()
        await server.listened()
        await server.advance(0)
        assert "ZeroDivisionError" in caplog.text
        with pytest.raises(ServerMisbehaved):
            await feed.subscribe("a://1")
        server.on_listen = take_all
        await server.advance(RETRY_SECONDS[1])
        await until(lambda: feed.is_listening)

    async def test_a_server_that_answers_without_acknowledging_is_asked_again(self, server: Server) -> None:
        server.on_listen = lambda listen: listen.end.set_result(GRACEFUL)
        server.feed()
        await server.listened()
        await server.advance(RETRY_SECONDS[0])
        assert len(server.listens) == 2


class TestClose:
    async def test_it_ends_the_listen_and_answers_who_waits(self, server: Server) -> None:
        feed = server.feed()
        await server.listened()
        subscribing = asyncio.create_task(feed.subscribe("a://1"))
        await asyncio.sleep(0)
        await feed.close()
        assert isinstance(await asyncio.wait_for(subscribing, 2), Failure)
        assert (server.open, feed.is_listening) == ([], False)
        assert isinstance(await asyncio.wait_for(feed.subscribe("a://2"), 2), Failure)
        await feed.close()

    async def test_it_ends_both_listens_while_one_takes_over_from_the_other(self, server: Server) -> None:
        slow = asyncio.Event()

        class Slow(Server):
            async def send(self, call: Call) -> Answer:
                try:
                    return await super().send(call)
                except asyncio.CancelledError:
                    await slow.wait()
                    raise

        server = Slow()
        feed = await listening(server)
        subscribing = asyncio.create_task(feed.subscribe("a://1"))
        await subscribing
        assert len(server.listens) == 2
        closing = asyncio.create_task(feed.close())
        await asyncio.sleep(0)
        slow.set()
        await closing
        await until(lambda: not server.open)

    async def test_it_can_be_closed_while_it_rests_and_before_it_began(self, server: Server) -> None:
        server.on_listen = lambda listen: listen.end.set_result(DOWN)
        feed = server.feed()
        await server.listened()
        await server.advance(0)
        await feed.close()
        await server.feed().close()
        assert server.open == []


async def test_a_server_that_is_away_for_long_leaves_no_cycles(server: Server) -> None:
    """Each try fails with an error that came through the frames of the listen; a minute's tries held half a megabyte."""
    server.on_listen = lambda listen: listen.end.set_exception(ServerUnavailable("s", "it is down"))
    with nothing_left():
        feed = server.feed()
        for pause in RETRY_SECONDS:
            await server.advance(pause)
        with pytest.raises(ServerUnavailable):
            await feed.subscribe("a://1")
        server.on_listen = take_all
        await server.advance(RETRY_SECONDS[-1])
        assert feed.is_listening
        await feed.close()
        server.listens.clear()
        server.feeds.clear()
        server.on_listen = lambda _: None
        del feed
