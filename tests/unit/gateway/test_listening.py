"""Clients of a whole gateway that hear of changes: mostly modern ones, with `subscriptions/listen`."""

import asyncio
import socket
from typing import Any

import pytest

from penstock.errors import ServerUnavailable
from penstock.gateway.gateway import ServerPlan
from penstock.gateway.snapshot import ViewSettings
from penstock.http.limits import ServerLimits
from penstock.http.server import HttpServer
from penstock.protocol.subscriptions import LIST_CHANGED, MAX_URIS
from penstock.upstreams.in_memory import CallContext, InMemoryServer, InMemoryUpstream, Step
from tests.unit.gateway.conftest import Running, plan_of, until, weather_server
from tests.unit.gateway.listening_kit import (
    ACKNOWLEDGED,
    EVERYTHING,
    SUBSCRIPTION,
    UPDATED,
    asked_to_listen,
    listen_body,
    listen_headers,
    listening,
    session_stream,
)

MAP = "weather://map"
TOOLS = {"toolsListChanged": True}


async def tool(_arguments: dict[str, Any], _context: CallContext) -> Any:
    return "done"


async def upstream_of(running: Running, name: str = "weather") -> InMemoryUpstream:
    await running.listed()
    upstream = running.gateway.context.snapshot.servers[name].upstream
    assert isinstance(upstream, InMemoryUpstream)
    return upstream


async def names(running: Running, path: str = "/mcp") -> set[str]:
    answer = await running.modern("tools/list", path=path)
    return {found["name"] for found in answer["result"]["tools"]}


def released(running: Running) -> bool:
    """Whether nothing is left of any listener."""
    listeners = running.gateway.listeners
    return (len(listeners), listeners.resources, len(running.gateway.context.subscriptions)) == (0, 0, 0)


class TestListen:
    @pytest.mark.parametrize("identity", [1, "one", 'with "quotes"'])
    async def test_it_is_acknowledged_first_with_its_own_id_and_every_message_carries_it(
        self, running: Running, identity: Any
    ) -> None:
        upstream = await upstream_of(running)
        ear = await asked_to_listen(running, {**TOOLS, "resourceSubscriptions": [MAP]}, identity)
        upstream.announce(UPDATED, uri=MAP)
        first, second = await ear.message(), await ear.message()
        assert (ear.status, ear.headers["content-type"]) == (200, "text/event-stream")
        assert first == {
            "jsonrpc": "2.0",
            "method": ACKNOWLEDGED,
            "params": {
                "_meta": {SUBSCRIPTION: identity},
                "notifications": {"toolsListChanged": True, "resourceSubscriptions": [MAP]},
            },
        }
        assert second["params"] == {"_meta": {SUBSCRIPTION: identity}, "uri": MAP}
        upstream.announce(LIST_CHANGED["tools"])
        third = await ear.message()
        assert (third["method"], third["params"]) == (LIST_CHANGED["tools"], {"_meta": {SUBSCRIPTION: identity}})
        ear.close()

    async def test_only_what_the_view_has_is_honoured(self, empty: Running) -> None:
        server = InMemoryServer("bare")
        server.tool("one")(tool)
        await empty.apply({"bare": lambda: InMemoryUpstream("bare", server)})
        await empty.listed()
        ear = await asked_to_listen(empty, {**EVERYTHING, "resourceSubscriptions": ["a://1"]})
        assert (await ear.message())["params"]["notifications"] == {"toolsListChanged": True}
        ear.close()

    async def test_only_resources_that_a_server_takes_are_honoured(self, running: Running) -> None:
        upstream = await upstream_of(running)
        wanted = ["weather://city/a", "nobody://has", "weather://nowhere", MAP]
        ear = await asked_to_listen(running, {"resourceSubscriptions": wanted})
        assert (await ear.message())["params"]["notifications"] == {"resourceSubscriptions": ["weather://city/a", MAP]}
        assert upstream.subscribed == {"weather://city/a", MAP}
        ear.close()
        await until(lambda: upstream.subscribed == set())

    async def test_nothing_is_told_that_was_not_asked_for(self, running: Running) -> None:
        upstream = await upstream_of(running)
        async with listening(running, {"promptsListChanged": True}) as ear:
            upstream.announce(UPDATED, uri=MAP)
            upstream.announce(LIST_CHANGED["tools"])
            upstream.announce(LIST_CHANGED["resources"])
            await until(lambda: not running.gateway.catalogue._changed)
            upstream.announce(LIST_CHANGED["prompts"])
            assert await ear.changed() == "prompts"
            running.gateway.listeners.end_all()
            assert [list(message) for message in await ear.rest()] == [["jsonrpc", "id", "result"]]

    async def test_a_client_may_listen_several_times_each_with_its_own_id(self, running: Running) -> None:
        upstream = await upstream_of(running)
        async with (
            listening(running, TOOLS, 1) as first,
            listening(running, {"resourceSubscriptions": [MAP]}, "1") as second,
            listening(running, {**TOOLS, "resourceSubscriptions": [MAP]}, 3) as third,
        ):
            upstream.announce(UPDATED, uri=MAP)
            upstream.announce(LIST_CHANGED["tools"])
            assert (await first.message())["params"] == {"_meta": {SUBSCRIPTION: 1}}
            assert (await second.message())["params"] == {"_meta": {SUBSCRIPTION: "1"}, "uri": MAP}
            assert [(await third.message())["method"] for _ in range(2)] == [UPDATED, LIST_CHANGED["tools"]]
            assert upstream.subscribed == {MAP}
        await until(lambda: released(running))

    @pytest.mark.parametrize(
        "notifications",
        [
            None,
            [],
            "tools",
            {"toolsListChanged": 1},
            {"resourceSubscriptions": [1]},
            {"resourceSubscriptions": [MAP] * (MAX_URIS + 1)},
        ],
        ids=["none", "list", "text", "number", "uris", "many"],
    )
    async def test_a_malformed_filter_is_refused(self, running: Running, notifications: Any) -> None:
        await running.listed()
        if notifications == {"resourceSubscriptions": [MAP] * (MAX_URIS + 1)}:
            notifications = {"resourceSubscriptions": [f"{MAP}/{number}" for number in range(MAX_URIS + 1)]}
        ear = await asked_to_listen(running, notifications)
        assert (ear.status, ear.code, ear.body["id"]) == (400, -32602, 7)
        ear.close()

    async def test_a_client_that_takes_no_stream_is_refused(self, running: Running) -> None:
        await running.listed()
        ear = await asked_to_listen(running, accept="application/json")
        assert (ear.status, ear.code) == (400, -32600)
        assert "text/event-stream" in ear.body["error"]["message"]
        ear.close()

    async def test_closing_the_stream_releases_what_it_held(self, running: Running) -> None:
        upstream = await upstream_of(running)
        async with listening(running, {**EVERYTHING, "resourceSubscriptions": [MAP]}):
            assert (len(running.gateway.listeners), upstream.subscribed) == (1, {MAP})
        await until(lambda: released(running) and not upstream.subscribed)

    async def test_a_client_that_leaves_before_its_servers_have_answered_leaves_nothing_behind(
        self, running: Running
    ) -> None:
        upstream = await upstream_of(running)
        gate = asyncio.Event()
        upstream.every_call = Step(wait_for=gate)
        line = await running.line()
        line.post(listen_body({"resourceSubscriptions": [MAP]}), listen_headers())
        await until(lambda: running.gateway.listeners.resources)
        line.close()
        await until(lambda: not running.server.tasks)  # at once, not when the servers have had their time
        assert running.gateway.listeners.resources == 0
        gate.set()
        await until(lambda: released(running) and not upstream.subscribed)

    async def test_a_listener_keeps_nothing_of_its_requests_body(self, running: Running) -> None:
        await running.listed()
        line = await running.line()
        line.post(listen_body(TOOLS) + b" " * 1_000_000, listen_headers())
        await line.until(b"\n\n")
        (connection,) = [one for one in running.server.open_connections if one._exchange is not None]
        assert connection._exchange is not None
        assert len(connection._exchange.request.body) == 0
        line.close()

    async def test_it_waits_for_servers_that_were_never_listed(self, empty: Running) -> None:
        gate = asyncio.Event()
        upstream = InMemoryUpstream("weather", weather_server())
        upstream.every_call = Step(wait_for=gate)
        await empty.apply({"weather": lambda: upstream})
        asking = asyncio.create_task(asked_to_listen(empty, {**EVERYTHING, "resourceSubscriptions": [MAP]}))
        await until(lambda: empty.server.tasks)
        gate.set()
        ear = await asking
        assert (await ear.message())["params"]["notifications"] == {**EVERYTHING, "resourceSubscriptions": [MAP]}
        ear.close()

    async def test_a_view_that_goes_while_it_waits_is_said_to_be_gone(self, empty: Running) -> None:
        upstream = InMemoryUpstream("weather", weather_server())
        upstream.every_call = Step(wait_for=asyncio.Event())
        await empty.apply({"weather": lambda: upstream})
        asking = asyncio.create_task(asked_to_listen(empty, path="/mcp/weather"))
        await until(lambda: empty.server.tasks)
        await empty.apply({})
        ear = await asking
        assert (ear.status, ear.code) == (404, -32601)
        ear.close()

    async def test_a_view_that_goes_while_its_resources_are_asked_for_is_said_to_be_gone(
        self, running: Running
    ) -> None:
        upstream = await upstream_of(running)
        gate = asyncio.Event()
        upstream.every_call = Step(wait_for=gate)
        asking = asyncio.create_task(asked_to_listen(running, {"resourceSubscriptions": [MAP]}, path="/mcp/weather"))
        await until(lambda: running.gateway.listeners.resources)
        await running.apply({})
        gate.set()
        ear = await asking
        assert (ear.status, ear.code) == (404, -32601)
        await until(lambda: released(running))
        ear.close()


class TestGoodOrder:
    async def test_a_view_that_is_removed_ends_its_streams_and_releases_what_they_held(self, running: Running) -> None:
        upstream = await upstream_of(running)
        keep = {"weather": plan_of("weather", lambda: upstream)}
        await running.gateway.apply(keep, [ViewSettings("v", ("weather",))])
        session = (await running.initialize(path="/mcp/v"))[1]
        async with (
            listening(running, {**TOOLS, "resourceSubscriptions": [MAP]}, "a", path="/mcp/v") as modern,
            session_stream(running, session, path="/mcp/v") as legacy,
            listening(running, TOOLS) as other,
        ):
            subscribed = {"uri": "weather://city/a"}
            assert "result" in await running.legacy("resources/subscribe", subscribed, session=session, path="/mcp/v")
            await running.gateway.apply(keep, [])
            result = {"resultType": "complete", "_meta": {SUBSCRIPTION: "a"}}
            assert await modern.rest() == [{"jsonrpc": "2.0", "id": "a", "result": result}]
            assert await legacy.rest() == []
            await until(lambda: upstream.subscribed == set())
            assert (running.gateway.listeners.resources, len(running.gateway.listeners)) == (0, 1)
            upstream.announce(LIST_CHANGED["tools"])
            assert await other.changed() == "tools"

    async def test_a_gateway_that_drains_ends_all_streams_and_those_that_come_then(self, running: Running) -> None:
        upstream = await upstream_of(running)
        gate = asyncio.Event()
        session = (await running.initialize())[1]
        async with listening(running, TOOLS, 5) as modern, session_stream(running, session) as legacy:
            upstream.every_call = Step(wait_for=gate)
            late = asyncio.create_task(asked_to_listen(running, {"resourceSubscriptions": [MAP]}, 6))
            await until(lambda: running.gateway.listeners.resources)
            running.gateway.listeners.end_all()
            draining = asyncio.create_task(running.server.drain(5))
            assert [message["id"] for message in await modern.rest()] == [5]
            assert await legacy.rest() == []
            gate.set()
            assert [message.get("id") for message in await (await late).rest()] == [None, 6]
            assert await draining


class TestLists:
    async def test_a_client_that_lists_as_soon_as_it_hears_has_the_new_list(self, running: Running) -> None:
        upstream = await upstream_of(running)
        async with listening(running, TOOLS) as ear:
            for number in range(3):
                upstream.server.tool(f"new{number}")(tool)
                upstream.announce(LIST_CHANGED["tools"])
                assert await ear.changed() == "tools"
                assert f"weather_new{number}" in await names(running)

    async def test_it_is_told_even_of_a_slow_listing_only_once_the_list_is_there(self, running: Running) -> None:
        upstream = await upstream_of(running)
        gate = asyncio.Event()
        async with listening(running, TOOLS) as ear:
            upstream.every_call = Step(wait_for=gate)
            upstream.server.tool("new")(tool)
            upstream.announce(LIST_CHANGED["tools"])
            hearing = asyncio.create_task(ear.changed())
            host = running.gateway.context.snapshot.servers["weather"]
            await until(lambda: host.refreshing is not None)
            assert not hearing.done()
            gate.set()
            assert await hearing == "tools"
            assert "weather_new" in await names(running)

    async def test_a_listing_that_fails_is_not_told_until_it_is_made_up_for(self, running: Running) -> None:
        upstream = await upstream_of(running)
        async with listening(running, TOOLS) as ear:
            upstream.every_call = Step(error=ServerUnavailable("weather", "it is down"))
            upstream.server.tool("new")(tool)
            upstream.announce(LIST_CHANGED["tools"])
            hearing = asyncio.create_task(ear.changed())
            host = running.gateway.context.snapshot.servers["weather"]
            await until(lambda: host.failure is not None and not running.gateway.catalogue._changed)
            assert not hearing.done()
            upstream.every_call = Step()
            assert await hearing == "tools"  # as soon as it was listed again
            assert "weather_new" in await names(running)

    async def test_a_storm_leads_to_few_listings_and_few_messages(self, running: Running) -> None:
        upstream = await upstream_of(running)
        async with listening(running, TOOLS) as ear:
            before = sum(call.method == "tools/list" for call in upstream.calls)
            for number in range(1_000):
                upstream.announce(LIST_CHANGED["tools"])
                if number % 100 == 0:
                    await asyncio.sleep(0)
            assert await ear.changed() == "tools"
            await until(lambda: not running.gateway.catalogue._changed)
            assert sum(call.method == "tools/list" for call in upstream.calls) - before <= 2
            running.gateway.listeners.end_all()
            assert len([message for message in await ear.rest() if "method" in message]) <= 1

    async def test_a_server_that_comes_and_one_that_goes_is_told(self, running: Running) -> None:
        upstream = await upstream_of(running)
        other = InMemoryServer("other")
        other.tool("one")(tool)
        plans: dict[str, ServerPlan] = {"weather": plan_of("weather", lambda: upstream)}
        both = plans | {"other": plan_of("other", lambda: InMemoryUpstream("other", other))}
        async with listening(running, TOOLS) as ear:
            await running.gateway.apply(both, ())
            assert await ear.changed() == "tools"
            assert "other_one" in await names(running)
            await running.gateway.apply(plans, ())
            assert await ear.changed() == "tools"
            assert "other_one" not in await names(running)

    async def test_a_view_whose_selection_changes_is_told_and_others_are_not(self, running: Running) -> None:
        upstream = await upstream_of(running)
        keep = {"weather": plan_of("weather", lambda: upstream)}
        await running.gateway.apply(keep, [ViewSettings("v", ("weather",))])
        async with listening(running, TOOLS, 1, path="/mcp/v") as mine, listening(running, TOOLS, 2) as other:
            await running.gateway.apply(keep, [ViewSettings("v", ("weather",), exclude=("*_now",))])
            assert await mine.changed() == "tools"
            assert await names(running, "/mcp/v") == {"weather_forecast"}
            running.gateway.listeners.end_all()
            assert [list(message) for message in await other.rest()] == [["jsonrpc", "id", "result"]]

    async def test_a_view_that_loses_a_server_hears_no_more_of_its_resources(self, running: Running) -> None:
        upstream = await upstream_of(running)
        keep = {
            "weather": plan_of("weather", lambda: upstream),
            "other": plan_of("other", lambda: InMemoryUpstream("other", weather_server())),
        }
        await running.gateway.apply(keep, [ViewSettings("v", ("weather", "other"))])
        await running.listed()
        wanted = {"resourceSubscriptions": [MAP], **TOOLS}
        async with listening(running, wanted, 1, path="/mcp/v") as mine, listening(running, wanted, 2) as other:
            await running.gateway.apply(keep, [ViewSettings("v", ("other",))])
            assert await mine.changed() == "tools"
            upstream.announce(UPDATED, uri=MAP)
            assert await other.changed() == MAP
            running.gateway.listeners.end_all()
            assert [list(message) for message in await mine.rest()] == [["jsonrpc", "id", "result"]]

    async def test_a_server_opened_anew_goes_on_telling(self, running: Running) -> None:
        old, new = await upstream_of(running), InMemoryUpstream("weather", weather_server())
        async with listening(running, {**TOOLS, "resourceSubscriptions": [MAP]}) as ear:
            await running.gateway.apply({"weather": plan_of("weather", lambda: new, fingerprint="other")}, ())
            await running.listed()
            await until(lambda: new.subscribed == {MAP})
            new.announce(UPDATED, uri=MAP)
            assert await ear.changed() == MAP
            new.server.tool("new")(tool)
            new.announce(LIST_CHANGED["tools"])
            while "weather_new" not in await names(running):  # the reload itself may be told first
                assert await ear.changed() == "tools"
        assert not old.subscribed or old._is_closed

    async def test_a_reload_while_a_changed_list_is_fetched_does_not_lose_the_change(self, running: Running) -> None:
        old, new = await upstream_of(running), InMemoryUpstream("weather", weather_server())
        async with listening(running, TOOLS) as ear:
            gate = asyncio.Event()
            old.every_call = Step(wait_for=gate)
            old.announce(LIST_CHANGED["tools"])
            host = running.gateway.context.snapshot.servers["weather"]
            await until(lambda: host.refreshing is not None)
            await running.gateway.apply({"weather": plan_of("weather", lambda: new, fingerprint="other")}, ())
            await running.listed()
            new.server.tool("new")(tool)
            new.announce(LIST_CHANGED["tools"])
            assert await ear.changed() == "tools"
            await until(lambda: not running.gateway.catalogue._changed)
            assert "weather_new" in await names(running)


class TestSlowReader:
    async def test_who_reads_nothing_is_cut_and_costs_bounded_memory(self, running: Running) -> None:
        upstream = await upstream_of(running)
        limits = ServerLimits(stalled_reader_seconds=1.0, stream_queue_events=20)
        server = await HttpServer.start(running.worker, host="127.0.0.1", port=0, limits=limits)
        body = listen_body({"resourceSubscriptions": [MAP]})
        head = "".join(f"{name}: {value}\r\n" for name, value in listen_headers().items())
        asked = f"POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n{head}\r\n".encode() + body
        loop = asyncio.get_running_loop()
        try:
            with socket.socket() as slow:
                slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                slow.setblocking(False)
                await loop.sock_connect(slow, server.addresses[0])
                await loop.sock_sendall(slow, asked)
                await until(lambda: upstream.subscribed)
                (connection,) = server.open_connections
                await until(lambda: connection._stream is not None)
                stream = connection._stream
                assert stream is not None
                while stream.dropped < 10:
                    for number in range(50):
                        upstream.announce(UPDATED, uri=f"{MAP}/{number}{'x' * 100_000}")
                    await until(lambda: not running.gateway.listeners._is_telling_updates)
                    assert (len(stream._queue) <= 20, stream._bytes <= limits.stream_queue_bytes) == (True, True)
                await until(lambda: not server.open_connections)  # by the sweep
                await until(lambda: released(running) and not upstream.subscribed)
        finally:
            server.close()
