"""Legacy clients of a whole gateway that hear of changes: the GET stream, `resources/subscribe`."""

import asyncio
from pathlib import Path

from penstock.errors import ServerUnavailable
from penstock.gateway.edges.listening import Listening
from penstock.protocol.subscriptions import LIST_CHANGED, MAX_URIS
from penstock.upstreams.calls import Failure
from penstock.upstreams.in_memory import Step
from tests.unit.gateway.conftest import Running, until
from tests.unit.gateway.listening_kit import (
    UPDATED,
    Ear,
    asked_for_stream,
    session_stream,
)
from tests.unit.gateway.test_listening import MAP, released, tool, upstream_of


class TestSessionStream:
    async def test_it_needs_a_session_that_there_is(self, running: Running, tmp_path: Path) -> None:
        await running.listed()
        session = (await running.initialize())[1]
        for ear, status in [
            (await asked_for_stream(running, None), 405),
            (await asked_for_stream(running, session, version="2026-07-28"), 405),
            (await asked_for_stream(running, session, accept="application/json"), 406),
            (await asked_for_stream(running, "nobody's"), 404),
            (await asked_for_stream(running, session, path="/mcp/weather"), 404),
            (await asked_for_stream(running, session, version="1999-01-01"), 400),
        ]:
            assert ear.status == status
            assert ear.body
            if status == 405:
                assert "GET" not in ear.headers["allow"].upper().split(", ")
            ear.close()

    async def test_it_tells_of_changed_lists_and_of_resources_subscribed_to_without_an_id(
        self, running: Running
    ) -> None:
        upstream = await upstream_of(running)
        session = (await running.initialize())[1]
        async with session_stream(running, session) as ear:
            subscribed = await running.legacy("resources/subscribe", {"uri": MAP}, session=session)
            assert subscribed["result"] == {}
            upstream.announce(UPDATED, uri=MAP)
            assert await ear.message() == {"jsonrpc": "2.0", "method": UPDATED, "params": {"uri": MAP}}
            upstream.server.tool("new")(tool)
            upstream.announce(LIST_CHANGED["tools"])
            assert await ear.message() == {"jsonrpc": "2.0", "method": LIST_CHANGED["tools"]}
            listed = await running.legacy("tools/list", session=session)
            assert "weather_new" in {found["name"] for found in listed["result"]["tools"]}

    async def test_a_second_one_takes_over(self, running: Running) -> None:
        upstream = await upstream_of(running)
        session = (await running.initialize())[1]
        async with session_stream(running, session) as first, session_stream(running, session) as second:
            assert await first.rest() == []
            first.close()
            upstream.announce(LIST_CHANGED["tools"])
            assert await second.changed() == "tools"
            assert len(running.gateway.listeners) == 1

    async def test_closing_it_keeps_the_subscriptions_for_the_next_one(self, running: Running) -> None:
        upstream = await upstream_of(running)
        session = (await running.initialize())[1]
        async with session_stream(running, session):
            await running.legacy("resources/subscribe", {"uri": MAP}, session=session)
        found = running.gateway.context.sessions.find("", session.encode())
        assert found is not None
        listener = found.listener
        await until(lambda: listener is not None and listener.stream is not None and not listener.stream.is_open)
        assert upstream.subscribed == {MAP}
        async with session_stream(running, session) as ear:
            upstream.announce(UPDATED, uri=MAP)
            assert await ear.changed() == MAP

    async def test_deleting_the_session_ends_it_and_releases_what_it_held(self, running: Running) -> None:
        upstream = await upstream_of(running)
        session = (await running.initialize())[1]
        async with session_stream(running, session) as ear:
            await running.legacy("resources/subscribe", {"uri": MAP}, session=session)
            headers = {"mcp-session-id": session, "mcp-protocol-version": "2025-11-25"}
            gone = await Ear.open(running, "DELETE", "/mcp", headers)
            assert gone.status == 204
            assert await ear.rest() == []
            gone.close()
        await until(lambda: released(running) and not upstream.subscribed)
        late = await asked_for_stream(running, session)
        assert late.status == 404
        late.close()


class TestResourcesSubscribe:
    async def test_unsubscribing_ends_it(self, running: Running) -> None:
        upstream = await upstream_of(running)
        session = (await running.initialize())[1]
        for _ in range(2):
            assert (await running.legacy("resources/subscribe", {"uri": MAP}, session=session))["result"] == {}
        assert upstream.subscribed == {MAP}
        for _ in range(2):
            assert (await running.legacy("resources/unsubscribe", {"uri": MAP}, session=session))["result"] == {}
        await until(lambda: released(running) and not upstream.subscribed)

    async def test_a_resource_nobody_has_is_not_found_in_the_words_of_the_clients_revision(
        self, running: Running
    ) -> None:
        await running.listed()
        for path, uri in (("/mcp", "nobody://has"), ("/mcp/weather", "nobody://has"), ("/mcp/weather", "weather://no")):
            session = (await running.initialize(path=path))[1]
            answer = await running.legacy("resources/subscribe", {"uri": uri}, session=session, path=path)
            assert (answer["status"], answer["error"]["code"], answer["id"]) == (200, -32002, 7), (path, uri)
        assert released(running)

    async def test_it_needs_a_session_and_a_uri(self, running: Running) -> None:
        await running.listed()
        session = (await running.initialize())[1]
        without = await running.legacy("resources/subscribe", {"uri": MAP})
        assert (without["status"], without["error"]["code"]) == (200, -32600)
        for params in ({}, {"uri": 5}):
            answer = await running.legacy("resources/subscribe", params, session=session)
            assert (answer["status"], answer["error"]["code"]) == (200, -32602)
        assert "result" in await running.legacy("resources/unsubscribe", {"uri": MAP}, session=session)

    async def test_what_a_session_may_subscribe_to_is_bounded(self, running: Running) -> None:
        await running.listed()
        session = (await running.initialize())[1]
        await asyncio.gather(
            *(running.legacy("resources/subscribe", {"uri": f"weather://city/{n}"}, session=session) for n in range(10))
        )
        found = running.gateway.context.sessions.find("", session.encode())
        assert found is not None
        assert found.listener is not None
        for number in range(10, MAX_URIS):
            running.gateway.listeners.subscribe(found.listener, "weather", f"weather://city/{number}")
        refused = await running.legacy("resources/subscribe", {"uri": MAP}, session=session)
        assert (refused["status"], refused["error"]["code"]) == (200, -32600)
        assert f"{MAX_URIS} resources" in refused["error"]["message"]
        again = await running.legacy("resources/subscribe", {"uri": "weather://city/5"}, session=session)
        assert "result" in again

    async def test_a_server_that_is_down_is_named(self, running: Running) -> None:
        upstream = await upstream_of(running)
        session = (await running.initialize())[1]
        upstream.every_call = Step(error=ServerUnavailable("weather", "it is down"))
        answer = await running.legacy("resources/subscribe", {"uri": MAP}, session=session)
        assert (answer["status"], answer["error"]["code"]) == (200, 503)
        assert released(running)

    async def test_a_session_that_ends_in_the_same_moment_leaves_no_subscription(self, running: Running) -> None:
        upstream = await upstream_of(running)
        session = (await running.initialize())[1]
        headers = {"mcp-session-id": session, "mcp-protocol-version": "2025-11-25"}
        subscribing, deleting = await running.line(), await running.line()
        subscribing.post({"jsonrpc": "2.0", "id": 1, "method": "resources/subscribe", "params": {"uri": MAP}}, headers)
        deleting.writer.write(
            b"DELETE /mcp HTTP/1.1\r\nhost: localhost\r\n"
            + "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()
            + b"\r\n"
        )
        status, answer = await subscribing.answer()
        assert status in {200, 404}
        await deleting.until(b"\r\n\r\n")
        await until(lambda: released(running) and not upstream.subscribed)
        assert answer is not None
        subscribing.close()
        deleting.close()

    async def test_nothing_is_begun_for_a_session_that_has_ended(self, running: Running) -> None:
        upstream = await upstream_of(running)
        token = (await running.initialize())[1]
        context = running.gateway.context
        session = context.sessions.find("", token.encode())
        assert session is not None
        context.sessions.end(session)  # while the request waited for its turn of the loop
        refusal = await Listening(context).subscribe(context.snapshot.endpoints["/mcp"], session, MAP)
        assert isinstance(refusal, Failure)
        assert released(running)
        assert not upstream.subscribed
