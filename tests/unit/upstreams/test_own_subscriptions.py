"""Resources that a client subscribes to in its own session at a legacy server: what is heard there is for it alone."""

import asyncio
from typing import Any

import pytest

from penstock.clock import FakeClock
from penstock.protocol.subscriptions import LIST_CHANGED, UPDATED
from penstock.upstreams.calls import Result
from tests.unit.upstreams.feed_kit import OwnStream, Server, heard
from tests.unit.upstreams.scripted_http import MODERN, SESSIONLESS, Asked, call_of, http, rpc, serving
from tests.unit.upstreams.sse_kit import SseScript, Stream
from tests.unit.upstreams.stdio_kit import until


async def subscribed(server: Server, client: OwnStream, uri: str = "a://1") -> str:
    """As the gateway does it: for everybody, then apart. Returns the client's own session."""
    assert await server.upstream.subscribe(uri) is None
    await server.upstream.subscribe_apart(client.caller, uri)
    return server.asked("resources/subscribe")[-1].headers["mcp-session-id"]


async def test_what_a_clients_own_session_hears_is_for_it_alone_and_what_ours_hears_is_for_all() -> None:
    async with heard() as server:
        client = OwnStream()
        assert await subscribed(server, client) == "s-2"
        assert client.apart == {"a://1"}
        await server.say_in("s-2", UPDATED, uri="a://1")
        await until(lambda: client.told == ["a://1"])
        await server.say_in("s-1", UPDATED, uri="a://1")
        await until(lambda: server.methods == [UPDATED])
        assert client.told == ["a://1"]


async def test_changed_lists_and_resources_it_did_not_subscribe_to_are_news_for_all() -> None:
    async with heard() as server:
        client = OwnStream()
        await subscribed(server, client)
        await server.say_in("s-2", LIST_CHANGED["tools"])
        await server.say_in("s-2", UPDATED, uri="a://other")
        await until(lambda: server.methods == [LIST_CHANGED["tools"], UPDATED])
        assert client.told == []


async def test_what_is_told_in_the_course_of_its_own_call_is_for_it_alone_too() -> None:
    async with heard() as server:
        client = OwnStream()
        await subscribed(server, client)
        server.news = [rpc(method=UPDATED, params={"uri": "a://1"}), rpc(method=LIST_CHANGED["tools"], params={})]
        assert isinstance(await server.upstream.call(call_of(client.caller)), Result)
        assert (client.told, server.methods) == (["a://1"], [LIST_CHANGED["tools"]])


async def test_it_is_unsubscribed_from_apart_once() -> None:
    async with heard() as server:
        client = OwnStream()
        await subscribed(server, client)
        for _ in range(2):
            await server.upstream.unsubscribe_apart(client.caller, "a://1")
        (asked,) = server.asked("resources/unsubscribe")
        assert (asked.headers["mcp-session-id"], client.apart) == ("s-2", set())


async def test_the_end_of_one_never_overtakes_the_next_one() -> None:
    async with heard() as server:
        client = OwnStream()
        await subscribed(server, client)
        server.delay = asyncio.Event()
        ending = asyncio.create_task(server.upstream.unsubscribe_apart(client.caller, "a://1"))
        await server.scripted.wait_for("resources/unsubscribe")
        again = asyncio.create_task(server.upstream.subscribe_apart(client.caller, "a://1"))
        await asyncio.sleep(0)
        assert client.apart == set()
        server.delay.set()
        await asyncio.gather(ending, again)
        told = [asked.rpc for asked in server.scripted.asked if asked.rpc.startswith("resources/")]
        assert told[-2:] == ["resources/unsubscribe", "resources/subscribe"]
        assert client.apart == {"a://1"}


async def test_asking_twice_at_once_asks_the_server_once() -> None:
    async with heard() as server:
        client = OwnStream("a://1")  # which its session is subscribed to as soon as it is there
        await asyncio.gather(*(server.upstream.subscribe_apart(client.caller, "a://1") for _ in range(3)))
        await server.upstream.subscribe_apart(client.caller, "a://1")
        assert (len(server.asked("resources/subscribe")), client.apart) == (1, {"a://1"})


async def test_a_session_that_is_lost_leaves_its_client_to_what_all_hear_and_the_next_one_subscribes_again() -> None:
    async with heard() as server:
        client = OwnStream()
        await subscribed(server, client)
        client.uris = ["a://1", "a://2"]
        server.known.discard("s-2")
        assert isinstance(await server.upstream.call(call_of(client.caller)), Result)
        await until(lambda: client.apart == {"a://1", "a://2"})
        sessions = [asked.headers["mcp-session-id"] for asked in server.asked("resources/subscribe")]
        assert sessions == ["s-1", "s-2", "s-3", "s-3"]
        await server.upstream.close_session("own")
        assert client.apart == set()


async def test_a_stream_that_breaks_off_counts_as_an_update_of_what_may_have_been_missed() -> None:
    async with heard() as server:
        client = OwnStream()
        await subscribed(server, client)
        server.streams["s-2"].close()
        await server.until(lambda: client.told == ["a://1"])
        assert client.apart == {"a://1"}


async def test_where_the_server_refuses_or_is_not_listened_to_the_client_hears_what_all_hear() -> None:
    async with heard() as server:
        client = OwnStream()
        server.refuses_resources = True
        await server.upstream.subscribe_apart(client.caller, "a://1")
        assert client.apart == set()
        await server.say_in("s-2", UPDATED, uri="a://1")
        await until(lambda: server.methods == [UPDATED])
        server.refuses_resources, server.get = False, http(405)
        await server.upstream.close_session("own")
        asked = len(server.asked("resources/subscribe"))
        await server.upstream.subscribe_apart(client.caller, "a://1")
        assert (client.apart, len(server.asked("resources/subscribe"))) == (set(), asked)


async def test_a_stream_that_is_refused_later_leaves_the_client_to_what_all_hear() -> None:
    async with heard() as server:
        client = OwnStream()
        await subscribed(server, client)
        server.get = http(405)
        server.streams["s-2"].close()
        await server.until(lambda: client.apart == set())


async def test_callers_without_a_session_of_their_own_subscribe_to_nothing_apart() -> None:
    async with heard() as server:
        for caller in (MODERN, SESSIONLESS):
            await server.upstream.subscribe_apart(caller, "a://1")
            await server.upstream.unsubscribe_apart(caller, "a://1")
        assert server.asked("resources/subscribe") == []


async def test_a_session_in_which_a_client_listens_to_a_resource_does_not_count_as_idle() -> None:
    async with heard(session_idle_seconds=60.0) as server:
        client = OwnStream()
        await subscribed(server, client)
        await server.clock.advance(100)
        assert server.asked("DELETE") == []
        client.is_open = False
        await server.clock.advance(100)
        await server.scripted.wait_for("DELETE")
        assert client.apart == set()


class TestSse:
    @pytest.mark.parametrize("way", ["lost", "closed"])
    async def test_its_own_conversation_is_for_it_alone_for_as_long_as_it_lasts(self, way: str) -> None:
        said: list[tuple[str, Any]] = []

        async def echo(asked: Asked, stream: Stream) -> None:
            if asked.id is not None:
                await stream.say(id=asked.id, result={"content": []})

        script, client = SseScript(echo), OwnStream()
        script.capabilities = {"tools": {"listChanged": True}, "resources": {"subscribe": True}}
        async with serving(script, path="/sse", clock=FakeClock()) as (server, upstream):
            await upstream.describe()
            upstream.hear(lambda method, params: said.append((method, bytes(params.get("uri", b"")))))
            await upstream.subscribe_apart(client.caller, "x://1")
            assert client.apart == {"x://1"}
            own = next(one for one in script.streams if any(m.rpc == "resources/subscribe" for m in one.messages))
            await own.say(method=UPDATED, params={"uri": "x://1"})
            await until(lambda: client.told == ["x://1"])
            await own.say(method=UPDATED, params={"uri": "x://2"})
            await own.say(method=LIST_CHANGED["tools"])
            await until(lambda: said == [(UPDATED, b'"x://2"'), (LIST_CHANGED["tools"], b"")])
            if way == "closed":
                await upstream.close_session("own")
            else:
                own.line.close()
                await until(lambda: client.apart == set())
                client.uris = ["x://1"]
                await upstream.call(call_of(client.caller))
                await until(lambda: client.apart == {"x://1"})
                await upstream.unsubscribe_apart(client.caller, "x://1")
                await server.wait_for("resources/unsubscribe")
            assert client.apart == set()
