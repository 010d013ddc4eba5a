import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from penstock.gateway.admittance import Admittance
from penstock.gateway.edges.sse import MAX_IN_FLIGHT
from penstock.gateway.hops import Hops
from penstock.gateway.worker import Worker
from penstock.http.limits import ClientLimits, ServerLimits
from penstock.http.server import HttpServer
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Answer, Call, Raw
from penstock.upstreams.in_memory import CallContext, InMemoryServer, InMemoryUpstream, InputRequired, Step
from tests.unit.gateway.conftest import Running, gateway_in, request_body, until, weather_server
from tests.unit.gateway.sse_client import SseClient, sse_client

ELICITS: dict[str, Any] = {"elicitation": {}}
FORM = {"message": "who?", "requestedSchema": {"type": "object", "properties": {}}}
FORECAST = {"name": "weather_forecast", "arguments": {"city": "Oslo"}}
NOW = {"name": "weather_now"}


def asking_server(era: Era) -> InMemoryServer:
    """A tool that asks the client, in its era's way."""
    server = InMemoryServer("asker", era=era)

    @server.tool("ask")
    async def ask(_arguments: dict[str, Any], context: CallContext) -> Any:
        if era is Era.LEGACY:
            return f"said {await context.ask('elicitation/create', FORM)}"
        if context.input_responses is None:
            return InputRequired({"q": {"method": "elicitation/create", "params": FORM}}, "state")
        return f"said {context.input_responses['q']}"

    return server


@pytest.fixture
async def upstream(running: Running) -> InMemoryUpstream:
    """The gateway's server, listed."""
    await running.listed()
    found = running.gateway.context.snapshot.servers["weather"].upstream
    assert isinstance(found, InMemoryUpstream)
    return found


@pytest.fixture
async def client(running: Running, upstream: InMemoryUpstream) -> AsyncIterator[SseClient]:
    """A client that has initialized."""
    async with sse_client(running) as it:
        await it.initialize(capabilities=ELICITS)
        yield it


async def held(upstream: InMemoryUpstream, client: SseClient) -> int:
    """A call that waits; returns its id."""
    upstream.every_call = Step(wait_for=asyncio.Event())
    request_id = await client.send("tools/call", NOW)
    await until(lambda: upstream.in_flight == 1)
    return request_id


class TestOpening:
    async def test_the_stream_announces_where_to_post_to(self, running: Running) -> None:
        async with sse_client(running, "/sse/weather") as client:
            assert client.endpoint.startswith("/sse/weather?session_id=")
            assert len(client.endpoint) > 80
            async with sse_client(running, "/sse/weather") as other:
                assert other.endpoint != client.endpoint
                assert "2 streams" in repr(running.worker._sse)

    @pytest.mark.parametrize(
        ("asked", "agreed"),
        [("2024-11-05", "2024-11-05"), ("2025-06-18", "2025-06-18"), ("2026-07-28", "2025-11-25"), ("x", "2025-11-25")],
    )
    async def test_any_legacy_revision_can_be_agreed_on(self, running: Running, asked: str, agreed: str) -> None:
        async with sse_client(running) as client:
            said = await client.initialize(asked)
            assert (said["protocolVersion"], said["serverInfo"]["name"]) == (agreed, "penstock")
            assert "tools" in said["capabilities"]

    async def test_initialize_waits_for_a_server_that_was_never_listed(self, empty: Running) -> None:
        ready = asyncio.Event()
        slow = InMemoryUpstream("weather", weather_server())
        slow.every_call = Step(wait_for=ready)
        await empty.apply({"weather": lambda: slow})
        async with sse_client(empty) as client:
            params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {}}
            request_id = await client.send("initialize", params)
            ready.set()
            assert "prompts" in (await client.answer(request_id))["result"]["capabilities"]

    async def test_nothing_but_ping_is_answered_before_and_initialize_only_once(self, running: Running) -> None:
        async with sse_client(running) as client:
            assert (await client.ask("ping"))["result"] == {}
            assert (await client.ask("server/discover"))["error"]["code"] == -32601
            refused = await client.ask("tools/list")
            assert (refused["error"]["code"], "initialize first" in refused["error"]["message"]) == (-32600, True)
            assert (await client.ask("initialize"))["error"]["code"] == -32602
            await client.notify("notifications/cancelled", {"requestId": 1})
            await client.initialize()
            assert "before" in (await client.ask("initialize"))["error"]["message"]

    @pytest.mark.parametrize(
        ("method", "path", "headers", "status"),
        [
            ("GET", "/sse/nobody", {}, 404),
            ("GET", "/sse", {"accept": "application/json"}, 406),
            ("GET", "/sse", {"origin": "http://evil.example"}, 403),
            ("POST", "/sse", {}, 405),
            ("POST", "/sse?session_id=x", {}, 404),
            ("POST", "/sse?session_id=%FF&session_id=", {}, 404),
            ("POST", "/sse?" + "a=1&" * 50, {}, 405),
            ("POST", "/sse?other=1", {}, 405),
            ("DELETE", "/sse", {}, 405),
            ("OPTIONS", "/sse", {"origin": "http://localhost:1"}, 204),
        ],
    )
    async def test_what_is_no_stream_of_ours_is_refused_with_a_status(
        self, running: Running, method: str, path: str, headers: dict[str, str], status: int
    ) -> None:
        response = await running.client.request(method, running.url + path, headers)
        assert response.status == status

    async def test_a_name_is_good_for_its_own_view_and_while_its_stream_lasts(self, running: Running) -> None:
        async with sse_client(running, "/sse/weather") as client:
            elsewhere = client.endpoint.replace("/sse/weather", "/sse")
            ping = request_body("ping")
            assert (await running.post(elsewhere, ping)).status == 404
            assert (await running.post(client.endpoint[:-2] + "AA", ping)).status == 404
            assert (await running.post(client.endpoint, ping)).status == 202
        await until(lambda: "0 streams" in repr(running.worker._sse))
        assert (await running.post(client.endpoint, ping)).status == 404

    async def test_a_browsers_page_that_is_let_in_may_read_all_of_it(self, running: Running) -> None:
        client = SseClient(running, "/sse")
        await client.open({"origin": "http://localhost:1"})
        response = await client.post(request_body("ping"), {"origin": "http://localhost:1"})
        assert response.headers[b"access-control-allow-origin"] == b"http://localhost:1"
        await client.close()


class TestMessages:
    async def test_lists_calls_prompts_and_resources_are_answered_on_the_stream(self, client: SseClient) -> None:
        listed = await client.ask("tools/list")
        assert [tool["name"] for tool in listed["result"]["tools"]] == ["weather_forecast", "weather_now"]
        for _ in range(3):  # the third one repeats what was judged before
            said = await client.ask("tools/call", FORECAST)
            assert said["result"]["content"][0]["text"] == "sunny in Oslo"
        prompt = await client.ask("prompts/get", {"name": "weather_ask"})
        assert prompt["result"]["messages"]
        read = await client.ask("resources/read", {"uri": "weather://map"})
        assert read["result"]["contents"][0]["text"] == "a map"
        assert (await client.ask("tools/call", {"name": "nobody"}))["error"]["code"] == -32602

    async def test_progress_comes_before_the_answer(self, client: SseClient) -> None:
        said = await client.ask("tools/call", FORECAST | {"_meta": {"progressToken": "p"}})
        steps = [message["params"] for message in client.all("notifications/progress")]
        assert steps == [{"progressToken": "p", "progress": step, "total": 2} for step in (1, 2)]
        assert client.messages[-1] is said

    async def test_many_requests_at_once_each_get_their_answer(self, client: SseClient) -> None:
        answers = await asyncio.gather(*(client.ask("tools/call", FORECAST) for _ in range(40)))
        assert len({answer["id"] for answer in answers}) == 40

    async def test_what_is_no_message_is_400(self, client: SseClient) -> None:
        assert (await client.post(b"{")).status == 400
        assert (await client.post([request_body("ping")])).status == 400

    async def test_members_of_a_batch_are_answered_one_by_one_where_the_revision_has_batches(
        self, running: Running
    ) -> None:
        async with sse_client(running) as client:
            await client.initialize("2025-03-26")
            batch = [request_body("ping", request_id="a"), 3, request_body("ping", request_id="b")]
            assert (await client.post(batch)).status == 202
            assert [(await client.answer(one))["result"] for one in "ab"] == [{}, {}]
            assert (await client.answer(None))["error"]["code"] == -32600
            assert (await client.post([])).status == 400

    async def test_cancelling_by_notification_ends_the_call_without_an_answer(
        self, client: SseClient, upstream: InMemoryUpstream
    ) -> None:
        request_id = await held(upstream, client)
        await client.notify("notifications/cancelled", {"requestId": request_id})
        await until(lambda: upstream.in_flight == 0)
        assert (await client.ask("ping"))["result"] == {}
        assert [message for message in client.messages if message.get("id") == request_id] == []
        assert upstream.cancelled

    async def test_no_more_than_a_bounded_number_waits(self, client: SseClient, upstream: InMemoryUpstream) -> None:
        await held(upstream, client)
        ids = [await client.send("tools/call", NOW) for _ in range(MAX_IN_FLIGHT)]
        refused = await client.answer(ids[-1])
        assert (refused["error"]["code"], refused["error"]["data"]["reason"]) == (503, "busy")
        assert upstream.every_call.wait_for is not None
        upstream.every_call.wait_for.set()
        assert "result" in await client.answer(ids[-2])
        assert "result" in await client.ask("tools/call", NOW)

    @pytest.mark.parametrize("has_begun", [True, False])
    async def test_a_fault_of_ours_answers_the_request_and_spares_the_others(
        self, empty: Running, caplog: pytest.LogCaptureFixture, has_begun: bool
    ) -> None:
        class Faulty(InMemoryUpstream):
            async def call(self, call: Call) -> Answer:
                if call.method != "tools/call":
                    return await super().call(call)
                if has_begun and call.notify is not None:
                    call.notify("notifications/progress", {"progressToken": Raw(b"1"), "progress": Raw(b"1")})
                raise RuntimeError("a fault of ours")

        await empty.apply({"weather": lambda: Faulty("weather", weather_server())})
        await empty.listed()
        async with sse_client(empty) as client:
            await client.initialize()
            assert (await client.ask("tools/call", NOW))["error"]["code"] in {500, -32603}
            assert len(client.all("notifications/progress")) == has_begun
            assert "a fault of ours" in caplog.text
            assert (await client.ask("ping"))["result"] == {}


class TestQuestions:
    @pytest.mark.parametrize("era", Era)
    async def test_a_server_of_either_era_asks_on_the_stream(self, empty: Running, era: Era) -> None:
        await empty.apply({"asker": lambda: InMemoryUpstream("asker", asking_server(era))})
        await empty.listed()
        async with sse_client(empty) as client:
            await client.initialize(capabilities=ELICITS)
            request_id = await client.send("tools/call", {"name": "asker_ask"})
            question = await client.message(lambda message: message.get("method") == "elicitation/create")
            answer = {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "decline"}}
            assert (await client.post(answer)).status == 202
            said = await client.answer(request_id)
            assert said["result"]["content"][0]["text"] == "said {'action': 'decline'}"

    async def test_a_client_is_not_asked_what_it_did_not_declare(self, empty: Running) -> None:
        await empty.apply({"asker": lambda: InMemoryUpstream("asker", asking_server(Era.LEGACY))})
        await empty.listed()
        async with sse_client(empty) as client:
            await client.initialize()
            assert "error" in await client.ask("tools/call", {"name": "asker_ask"})
            assert client.all("elicitation/create") == []

    async def test_a_client_that_goes_is_asked_no_more_and_its_call_ends(self, empty: Running) -> None:
        asker = InMemoryUpstream("asker", asking_server(Era.LEGACY))
        await empty.apply({"asker": lambda: asker})
        await empty.listed()
        async with sse_client(empty) as client:
            await client.initialize(capabilities=ELICITS)
            await client.send("tools/call", {"name": "asker_ask"})
            await client.message(lambda message: message.get("method") == "elicitation/create")
        await until(lambda: asker.in_flight == 0)
        assert len(empty.gateway.parking) == 0


class TestChanges:
    async def test_lists_and_resources_are_told_of_on_the_stream(
        self, client: SseClient, running: Running, upstream: InMemoryUpstream
    ) -> None:
        assert (await client.ask("resources/subscribe", {"uri": "weather://map"}))["result"] == {}
        assert upstream.subscribed == {"weather://map"}
        upstream.announce("notifications/resources/updated", uri="weather://map")
        upstream.server.remove_tool("now")
        upstream.announce("notifications/tools/list_changed")
        await client.message(lambda message: message.get("method") == "notifications/resources/updated")
        await client.message(lambda message: message.get("method") == "notifications/tools/list_changed")
        await client.close()
        await until(lambda: not upstream.subscribed)
        assert len(running.gateway.listeners) == 0

    async def test_who_has_not_initialized_hears_nothing(self, running: Running, upstream: InMemoryUpstream) -> None:
        async with sse_client(running) as silent, sse_client(running) as told:
            await told.initialize()
            upstream.server.remove_tool("now")
            upstream.announce("notifications/tools/list_changed")
            await told.message(lambda message: message.get("method") == "notifications/tools/list_changed")
            assert (await silent.ask("ping"))["result"] == {}
            assert len(silent.messages) == 1


class TestTheEnd:
    async def test_a_client_that_goes_ends_its_calls_and_what_servers_hold_for_it(
        self, client: SseClient, running: Running, upstream: InMemoryUpstream
    ) -> None:
        await held(upstream, client)
        await client.close()
        await until(lambda: upstream.in_flight == 0)
        await until(lambda: upstream.closed_sessions)
        assert [call.method for call in upstream.cancelled] == ["tools/call"]

    async def test_a_client_that_goes_while_it_initializes_leaves_nothing(self, empty: Running) -> None:
        slow = InMemoryUpstream("weather", weather_server())
        slow.every_call = Step(wait_for=asyncio.Event())
        await empty.apply({"weather": lambda: slow})
        async with sse_client(empty) as client:
            params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {}}
            await client.send("initialize", params)
        await until(lambda: "0 streams" in repr(empty.worker._sse))
        assert slow.every_call.wait_for is not None
        slow.every_call.wait_for.set()
        await empty.listed()
        await until(lambda: not empty.server.tasks)
        assert len(empty.gateway.listeners) == 0

    async def test_streams_end_at_once_when_the_gateway_stops_but_not_before_calls_under_way(
        self, running: Running, client: SseClient, upstream: InMemoryUpstream
    ) -> None:
        async with sse_client(running) as idle, sse_client(running) as fresh:
            await idle.initialize()
            request_id = await held(upstream, client)
            running.worker.is_draining = True
            running.gateway.listeners.end_all()
            drained = asyncio.create_task(running.server.drain(5))
            for one in (idle, fresh):
                response = await one.ended()
                assert response is not None
                assert response.status == 200
            assert client.over is not None
            assert not client.over.done()
            assert upstream.every_call.wait_for is not None
            upstream.every_call.wait_for.set()
            assert "result" in await client.answer(request_id)
            assert await client.ended() is not None
            assert await drained

    async def test_a_view_that_is_removed_ends_its_streams(self, running: Running) -> None:
        async with sse_client(running, "/sse/weather") as client:
            await client.initialize()
            await running.apply({})
            assert await client.ended() is not None
            assert (await client.post(request_body("ping"))).status == 404

    async def test_no_stream_is_opened_while_the_gateway_stops(self, running: Running) -> None:
        running.worker.is_draining = True
        response = await running.client.get(running.url + "/sse", {"accept": "text/event-stream"})
        assert response.status == 503


async def test_a_message_that_reaches_another_worker_goes_to_the_one_that_has_the_stream(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(gateway_in(tmp_path / str(number))) for number in range(2)]
        paths = [tmp_path / f"{number}.sock" for number in range(2)]
        for number, one in enumerate(workers):
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(paths[number]))
            context = one.gateway.context
            context.hops = Hops(
                number, paths, clock=context.clock, limits=ClientLimits(), in_background=context.in_background
            )
            stack.push_async_callback(context.hops.close)
            door = Worker(context, Admittance(is_internal=True))
            inner = await HttpServer.start_at(door, listener, limits=ServerLimits(), clock=context.clock)
            stack.callback(inner.close)
            await one.apply({"weather": lambda: InMemoryUpstream("weather", weather_server())})
            await one.listed()
        home, other = workers
        async with sse_client(home) as client:
            client.post_to = other
            await client.initialize()
            said = await client.ask("tools/call", FORECAST | {"_meta": {"progressToken": "p"}})
            assert said["result"]["content"][0]["text"] == "sunny in Oslo"
            assert len(client.all("notifications/progress")) == 2
            assert (await client.ask("logging/setLevel", {"level": "error"}))["result"] == {}
        await until(lambda: not home.gateway.context.streams)
        assert (await other.post(client.endpoint, request_body("ping"))).status == 404
