"""Changes at HTTP servers of either era: sessions that are lost, streams that are refused, eras that change."""

import asyncio
import logging

import pytest

from penstock.errors import ServerUnavailable
from penstock.protocol.subscriptions import LIST_CHANGED, UPDATED
from penstock.protocol.versions import Era
from penstock.upstreams.calls import PENSTOCK, Caller, Failure, Result
from penstock.upstreams.sessions import MAX_SHARED
from penstock.upstreams.streamable_http_feed import RETRY_SECONDS, UNSUPPORTED_SECONDS, LegacyFeed
from tests.unit.upstreams.feed_kit import EVERY_LIST, heard, server_of
from tests.unit.upstreams.scripted_http import LEGACY, call_of, http
from tests.unit.upstreams.stdio_kit import Notices, until


async def test_what_a_legacy_server_says_on_its_stream_is_told_and_nothing_else() -> None:
    async with heard() as server:
        for method in (*LIST_CHANGED.values(), "notifications/message"):
            await server.say(method)
        await server.say(UPDATED, uri="a://1")
        await until(lambda: len(server.heard.items) == 4)
        assert server.methods == [*LIST_CHANGED.values(), UPDATED]
        (asked,) = server.gets
        assert asked.headers["mcp-session-id"] == "s-1"
        assert repr(server.upstream._feed) == "<LegacyFeed peer listening | 0 resources>"


@pytest.mark.parametrize("era", Era)
async def test_hearing_twice_listens_once_and_the_last_one_hears(era: Era) -> None:
    async with heard(era) as server:
        again = Notices()
        server.upstream.hear(again)
        await server.say(LIST_CHANGED["tools"])
        await until(lambda: bool(again.items))
        assert (server.heard.items, len(server.lines)) == ([], 1)


async def test_resources_are_subscribed_to_in_the_session_that_is_listened_to() -> None:
    async with heard() as server:
        assert await server.upstream.subscribe("a://1") is None
        (asked,) = server.asked("resources/subscribe")
        assert (asked.body["params"]["uri"], asked.headers["mcp-session-id"]) == ("a://1", "s-1")
        await server.upstream.unsubscribe("a://1")
        await server.upstream.unsubscribe("a://1")
        assert len(server.asked("resources/unsubscribe")) == 1


async def test_a_refusal_of_a_resource_is_the_servers_own_and_it_is_not_asked_for_again() -> None:
    async with heard() as server:
        server.refuses_resources = True
        refusal = await server.upstream.subscribe("a://1")
        assert isinstance(refusal, Failure)
        assert refusal.message == "no such thing"
        asked = len(server.asked("resources/subscribe"))
        server.forget()
        await server.until(lambda: len(server.lines) == 1)
        assert len(server.asked("resources/subscribe")) == asked


async def test_a_lost_session_is_opened_again_and_everything_counts_as_changed() -> None:
    async with heard() as server:
        await server.upstream.subscribe("a://1")
        server.forget()
        await server.until(lambda: len(server.lines) == 1 and len(server.methods) >= 4)
        assert server.sessions == ["s-1", "s-2"]
        assert server.asked("resources/subscribe")[-1].headers["mcp-session-id"] == "s-2"
        assert server.gets[-1].headers["mcp-session-id"] == "s-2"
        assert set(server.methods) == {*EVERY_LIST, UPDATED}
        assert (UPDATED, {"uri": "a://1"}) in server.heard.items


async def test_a_session_that_a_call_finds_lost_is_listened_to_anew_at_once() -> None:
    async with heard() as server:
        server.known.clear()  # its stream stays open, as with some servers
        assert isinstance(await server.upstream.call(call_of(PENSTOCK)), Result)
        await server.until(lambda: any(asked.headers["mcp-session-id"] == "s-2" for asked in server.gets))
        await server.until(lambda: len(server.lines) == 1 and set(server.methods) == set(EVERY_LIST))


async def test_a_stream_that_ended_is_opened_again_in_the_same_session_and_everything_counts_as_changed() -> None:
    async with heard() as server:
        await server.upstream.subscribe("a://1")
        server.end_stream()
        await server.until(lambda: len(server.lines) == 1)
        assert (server.sessions, len(server.gets)) == (["s-1"], 2)
        assert sorted(server.methods) == sorted([*EVERY_LIST, UPDATED])
        assert len(server.asked("resources/subscribe")) == 1  # the session knows of it


@pytest.mark.parametrize("status", [405, 404])
async def test_a_server_without_such_a_stream_is_left_alone_for_long_and_says_nothing_changed(status: int) -> None:
    async with server_of(Era.LEGACY) as server:
        server.get = http(status)
        await server.hear()
        await until(lambda: len(server.gets) == 1)
        assert await server.upstream.subscribe("a://1") is None  # it may take it all the same
        for _ in range(2):
            before = len(server.gets)
            await server.clock.advance(UNSUPPORTED_SECONDS - 10)
            assert len(server.gets) == before
            await server.until(lambda: len(server.gets) > before)  # noqa: B023 - awaited here
        assert server.heard.items == []
        assert server.sessions == ["s-1"]


@pytest.mark.parametrize("status", [404, 400, 406])
async def test_a_server_without_sessions_that_refuses_the_stream_is_left_alone_too(status: int) -> None:
    async with server_of(Era.LEGACY) as server:
        server.get, server.issues_ids = http(status, b"no"), False
        await server.hear()
        await until(lambda: len(server.gets) == 1)
        await server.clock.advance(UNSUPPORTED_SECONDS - 10)
        assert (len(server.gets), server.sessions) == (1, ["None"])


@pytest.mark.parametrize("status", [429, 503, 401])
async def test_a_server_that_refuses_for_now_is_asked_again_in_the_same_session(status: int) -> None:
    async with server_of(Era.LEGACY) as server:
        server.get = http(status)
        await server.hear()
        await until(lambda: len(server.gets) == 1)
        began_at = server.clock.now()
        await server.until(lambda: len(server.gets) == 4)
        assert server.clock.now() - began_at >= sum(RETRY_SECONDS[:3])
        server.get = None
        await server.until(lambda: len(server.lines) == 1)
        assert server.sessions == ["s-1"]
        assert server.heard.items == []


async def test_a_server_that_is_away_for_a_while_is_heard_again_and_everything_counts_as_changed() -> None:
    async with heard(resume_tries=1) as server:
        await server.upstream.subscribe("a://1")
        server.is_down = True
        server.forget()
        await server.until(lambda: server.clock.now() > 1_020)
        server.heard.items.clear()
        server.is_down = False
        await server.until(lambda: len(server.lines) == 1 and set(server.methods) == {*EVERY_LIST, UPDATED})
        assert server.gets[-1].headers["mcp-session-id"] == server.sessions[-1]
        assert server.asked("resources/subscribe")[-1].headers["mcp-session-id"] == server.sessions[-1]


async def test_a_resource_that_is_not_answered_does_not_keep_the_others_from_being_heard(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "penstock.upstreams.streamable_http_feed")
    async with heard() as server:
        await asyncio.gather(*(server.upstream.subscribe(f"a://{number}") for number in range(40)))
        server.subscribe = http(503)
        server.forget()
        await server.until(lambda: len(server.lines) == 1 and LIST_CHANGED["tools"] in server.methods)
        assert len([line for line in caplog.messages if "does not tell of updates of a://" in line]) == 40
        await server.say(LIST_CHANGED["tools"])
        await until(lambda: server.methods.count(LIST_CHANGED["tools"]) >= 2)


async def test_the_session_that_is_listened_to_is_not_ended_to_make_room() -> None:
    async with heard() as server:
        for number in range(MAX_SHARED + 5):
            caller = Caller(Era.MODERN, "2026-07-28", None, b"{}", b"", f"principal {number}")
            await server.upstream.call(call_of(caller))
        assert "s-1" in server.known
        assert len(server.lines) == 1


@pytest.mark.parametrize("era", Era)
async def test_closing_ends_stream_and_task(era: Era) -> None:
    async with heard(era) as server:
        await server.upstream.close()
        await until(lambda: not server.lines)
        assert server.upstream._feed is None
        server.upstream.hear(server.heard)
        assert server.upstream._feed is None
        assert isinstance(await server.upstream.subscribe("a://1"), Failure)
        await server.upstream.unsubscribe("a://1")


async def test_a_server_that_was_never_listened_to_takes_no_subscription() -> None:
    async with server_of(Era.LEGACY) as server:
        refusal = await server.upstream.subscribe("a://1")
        assert isinstance(refusal, Failure)
        assert refusal.code == -32601
        await server.upstream.unsubscribe("a://1")
        server.upstream.hear(server.heard)  # nobody knows its era yet
        assert server.upstream._feed is None


class TestModern:
    async def test_it_is_listened_to_with_one_request_and_subscribed_to_with_another(self) -> None:
        async with heard(Era.MODERN) as server:
            await server.say(LIST_CHANGED["tools"])
            assert await server.upstream.subscribe("a://1") is None
            await until(lambda: len(server.lines) == 1)
            await server.say(UPDATED, uri="a://1")
            await until(lambda: server.methods == [LIST_CHANGED["tools"], UPDATED])
            first, second = server.asked("subscriptions/listen")
            assert first.headers["mcp-method"] == "subscriptions/listen"
            assert second.body["params"]["notifications"]["resourceSubscriptions"] == ["a://1"]

    async def test_a_stream_that_ends_is_opened_again_and_everything_counts_as_changed(self) -> None:
        async with heard(Era.MODERN) as server:
            await server.upstream.subscribe("a://1")
            await until(lambda: len(server.lines) == 1)
            server.end_stream()
            await server.until(lambda: len(server.lines) == 1)
            await until(lambda: len(server.methods) == 4)
            assert set(server.methods) == {*EVERY_LIST, UPDATED}

    @pytest.mark.parametrize(
        "answer",
        [http(405), http(404), http(404, b"<html>", "text/html"), http(400)],
        ids=["405", "404", "page", "400"],
    )
    async def test_one_that_cannot_be_listened_to_is_left_alone_and_not_taken_for_another_era(
        self, answer: bytes
    ) -> None:
        async with server_of(Era.MODERN) as server:
            server.listen = answer
            await server.hear()
            await server.scripted.wait_for("subscriptions/listen")
            assert isinstance(await server.upstream.call(call_of(LEGACY)), Result)
            await server.clock.advance(UNSUPPORTED_SECONDS - 10)
            assert len(server.asked("subscriptions/listen")) == 1
            assert len(server.asked("server/discover")) == 1
            assert server.upstream.state()["reprobes"] == 0
            refusal = await server.upstream.subscribe("a://1")
            assert isinstance(refusal, Failure)
            assert refusal.code == -32601


class TestAnotherEra:
    @pytest.mark.parametrize("era", Era)
    async def test_a_server_that_changes_its_era_is_heard_in_the_new_one(self, era: Era) -> None:
        after = Era.LEGACY if era is Era.MODERN else Era.MODERN
        async with heard(era) as server:
            await server.upstream.subscribe("a://1")
            server.era = after
            server.forget()
            assert isinstance(await server.upstream.call(call_of(PENSTOCK)), Result)
            await server.until(lambda: len(server.lines) == 1 and set(server.methods) >= set(EVERY_LIST))
            assert isinstance(server.upstream._feed, LegacyFeed) is (after is Era.LEGACY)
            assert server.upstream._feed is not None
            assert server.upstream._feed.uris == ("a://1",)
            server.heard.items.clear()
            await server.say(UPDATED, uri="a://1")
            await until(lambda: UPDATED in server.methods)

    async def test_one_that_is_away_meanwhile_is_asked_until_it_is_there(self) -> None:
        async with heard(Era.MODERN) as server:
            await server.upstream.subscribe("a://1")
            server.era = Era.LEGACY
            server.forget()
            server.hold = asyncio.Event()
            task = asyncio.create_task(server.upstream.call(call_of(PENSTOCK)))
            await until(lambda: server.upstream._reopening is not None)
            server.hold.set()
            await asyncio.gather(task, return_exceptions=True)
            with pytest.raises(ServerUnavailable):
                await server.upstream.subscribe("a://1")
            unsubscribing = asyncio.create_task(server.upstream.unsubscribe("a://1"))
            server.hold = None
            await server.until(lambda: len(server.lines) == 1)
            await unsubscribing
            assert server.upstream._feed is not None
            assert server.upstream._feed.uris == ()

    @pytest.mark.parametrize("answered", [False, True], ids=["asking", "resting"])
    async def test_closing_while_it_is_asked_leaves_no_task(self, answered: bool) -> None:
        async with heard(Era.MODERN) as server:
            server.era = Era.LEGACY
            server.forget()
            server.hold = asyncio.Event()
            task = asyncio.create_task(server.upstream.call(call_of(PENSTOCK)))
            await until(lambda: server.upstream._reopening is not None)
            if answered:
                server.hold.set()
                await asyncio.gather(task, return_exceptions=True)
            await server.upstream.close()
            await asyncio.gather(task, return_exceptions=True)
            assert not server.lines

    @pytest.mark.parametrize("era", Era)
    async def test_closing_before_the_first_step_of_it_leaves_no_task(self, era: Era) -> None:
        async with heard(era) as server:
            server.upstream._forget(sessions_too=True)
            await server.upstream.close()
            await until(lambda: not server.lines)
