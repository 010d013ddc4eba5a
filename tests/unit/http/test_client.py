"""The convenience client, other people's servers as its peers, and that nothing grows."""

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from aiohttp import web

from penstock.http.client import BadResponse, ClientConnection, ConnectionLost, HttpClient, connect
from penstock.http.limits import ClientLimits
from penstock.protocol.event_stream import Event
from tests.unit.http.client_scripted import GET, Peer, says, serving
from tests.unit.http.test_client_connect import contexts, tls_server

__all__ = ["contexts"]

JSON = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\nb\r\ndata: one\n\n\r\n"
BODY = b'{"result":"' + b"abc" * 20_000 + b'"}'


Hook = Callable[[ClientConnection], None]


def then(hook: Hook, event: asyncio.Event) -> Hook:
    """The hook, and the event set after it."""

    def both(connection: ClientConnection) -> None:
        hook(connection)
        event.set()

    return both


def is_final(event: Event) -> bool:
    return event.data == b"one"


async def test_a_post_carries_what_it_was_given() -> None:
    seen: list[bytes] = []

    async def answer(peer: Peer) -> None:
        while request := await peer.read_request():
            seen.append(request)
            await peer.send(JSON)

    async with serving(answer) as origin, HttpClient() as client:
        await client.post(f"{origin}/mcp?a=b", {"Content-Type": "application/json", "X-A": " é "}, b"{}")
        await client.get(f"{origin}/", {"accept": "text/plain", "accept-encoding": "identity"})
        await client.post(f"{origin}/")
    host = origin.authority.encode()
    assert seen == [
        b"POST /mcp?a=b HTTP/1.1\r\nhost: " + host + b"\r\ncontent-type: application/json\r\nx-a: \xe9\r\n"
        b"accept: */*\r\naccept-encoding: gzip, deflate\r\ncontent-length: 2\r\n\r\n{}",
        b"GET / HTTP/1.1\r\nhost: " + host + b"\r\naccept: text/plain\r\naccept-encoding: identity\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: " + host + b"\r\n"
        b"accept: */*\r\naccept-encoding: gzip, deflate\r\ncontent-length: 0\r\n\r\n",
    ]


@pytest.mark.parametrize(
    "headers",
    [{"x": "a\r\nb: c"}, {"x": "a\0"}, {"x y": "a"}, {"": "a"}, {"Host": "a"}, {"Content-Length": "a"}, {"x": "☃"}],
)
async def test_a_header_that_would_break_the_request_is_refused_without_its_value(headers: dict[str, str]) -> None:
    client = HttpClient()
    with pytest.raises(ValueError, match="header") as caught:
        await client.get("http://127.0.0.1:1/", headers)
    assert "a\r" not in str(caught.value)


async def test_a_method_that_is_no_token_is_refused() -> None:
    with pytest.raises(ValueError, match="method"):
        await HttpClient().request("GET /x", "http://127.0.0.1:1/")


async def test_connections_are_kept_and_used_again() -> None:
    connections = 0

    async def answer(peer: Peer) -> None:
        nonlocal connections
        connections += 1
        await says(JSON)(peer)

    async with serving(answer) as origin:
        client = HttpClient(idle_per_origin=2)
        for _ in range(5):
            assert (await client.get(str(origin))).body == b"{}"
        assert connections == 1
        await asyncio.gather(*[client.get(str(origin)) for _ in range(5)])
        assert "2 idle | in use" in repr(client)
        await client.aclose()
        await client.aclose()
        assert repr(client) == "<HttpClient 0 open 0 idle | closed>"
        with pytest.raises(RuntimeError, match="closed"):
            await client.get(str(origin))


async def test_a_kept_connection_that_died_is_replaced() -> None:
    async def once(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(JSON)

    async with serving(once) as origin, HttpClient() as client:
        for _ in range(3):
            await client.get(str(origin))
            for connection in list(client._open):
                gone = asyncio.Event()
                connection.on_closed = then(client._forget, gone)
                await asyncio.wait_for(gone.wait(), 5)
        assert "0 open 0 idle" in repr(client)


async def test_a_kept_connection_that_turns_out_closed_is_replaced_because_nothing_was_sent() -> None:
    async with serving(says(JSON)) as origin, HttpClient() as client:
        await client.get(str(origin))
        (kept,) = client._open
        client._take_idle = lambda _, first=[kept]: first.pop() if first else None  # type: ignore[method-assign,misc]
        kept.close()
        assert (await client.get(str(origin))).body == b"{}"


async def test_a_connection_beyond_its_keep_alive_hint_is_not_used_again() -> None:
    hinting = JSON.replace(b"\r\n\r\n", b"\r\nKeep-Alive: timeout=0\r\n\r\n")
    async with serving(says(hinting)) as origin, HttpClient() as client:
        await client.get(str(origin))
        (kept,) = client._open
        await client.get(str(origin))
        assert kept.is_closed()


async def test_a_lost_request_is_not_sent_twice() -> None:
    requests = 0

    async def answer(peer: Peer) -> None:
        nonlocal requests
        await peer.read_request()
        requests += 1
        if requests == 1:
            await peer.send(JSON)
            await peer.read_request()
            requests += 1

    async with serving(answer) as origin, HttpClient() as client:
        await client.get(str(origin))
        with pytest.raises(ConnectionLost):
            await client.get(str(origin))
    assert requests == 2


async def test_an_early_finish_gives_the_connection_back_when_the_stream_has_ended() -> None:
    end = asyncio.Event()

    async def answer(peer: Peer) -> None:
        while await peer.read_request():
            await peer.send(SSE)
            await end.wait()
            await peer.send(b"0\r\n\r\n")

    async with serving(answer) as origin, HttpClient() as client:
        await client.post(str(origin), on_event=is_final)
        assert "1 open 0 idle" in repr(client)
        (connection,) = client._open
        settled = asyncio.Event()
        give_back = connection.on_settled
        assert give_back is not None
        connection.on_settled = then(give_back, settled)
        end.set()
        await asyncio.wait_for(settled.wait(), 5)
        assert "1 open 1 idle" in repr(client)


async def test_a_request_that_takes_too_long_is_given_up() -> None:
    async def mute(peer: Peer) -> None:
        await peer.closed_by_client()

    async with serving(mute) as origin, HttpClient() as client:
        with pytest.raises(TimeoutError):
            await client.get(str(origin), timeout=0.02)
        assert "0 idle" in repr(client)


async def test_a_redirect_is_returned_as_it_is() -> None:
    moved = b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    async with serving(says(moved)) as origin, HttpClient() as client:
        answer = await client.get(str(origin))
        assert (answer.status, answer.headers[b"location"]) == (307, b"http://127.0.0.1:1/")


async def test_https_uses_the_given_trust_or_the_systems(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server = await tls_server(contexts[0])
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    async with HttpClient(tls=contexts[1]) as client:
        assert (await client.get(url)).body == b"{}"
    async with HttpClient() as client:
        with pytest.raises(ConnectionLost, match="not trusted"):
            await client.get(url)
    server.close()


async def test_a_malformed_answer_is_raised() -> None:
    async with serving(says(b"nonsense")) as origin, HttpClient() as client:
        with pytest.raises(BadResponse):
            await client.get(str(origin))


# other people's servers


@asynccontextmanager
async def aiohttp_server() -> AsyncIterator[str]:
    async def echo(request: web.Request) -> web.StreamResponse:
        return web.Response(body=await request.read(), content_type="application/json")

    async def chunks(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        answer.enable_chunked_encoding()
        if request.path == "/packed":
            answer.enable_compression()
        if request.path == "/events":
            answer.content_type = "text/event-stream"
        await answer.prepare(request)
        parts = [b"data: zero\n\n", b"data: one\n\n"] if request.path == "/events" else [BODY[:999], BODY[999:]]
        for part in parts:
            await answer.write(part)
        await answer.write_eof()
        return answer

    application = web.Application(client_max_size=1 << 30)
    application.router.add_post("/echo", echo)
    for path in ("/chunks", "/packed", "/events"):
        application.router.add_post(path, chunks)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]


async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """The same four answers as an ASGI application."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    path = scope["path"]
    headers = [(b"content-type", b"text/event-stream" if path == "/events" else b"application/json")]
    parts = {
        "/echo": [body],
        "/chunks": [BODY[:999], BODY[999:]],
        "/packed": [(packed := gzip.compress(BODY))[:99], packed[99:]],
        "/events": [b"data: zero\n\n", b"data: one\n\n"],
    }[path]
    if path == "/packed":
        headers.append((b"content-encoding", b"gzip"))
    if path == "/echo":
        headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for part in parts:
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def uvicorn_server() -> AsyncIterator[str]:
    config = uvicorn.Config(application, port=0, lifespan="off", log_config=None, ws="none")
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await server.shutdown()


@pytest.mark.parametrize("peer", [aiohttp_server, uvicorn_server])
async def test_servers_of_other_projects_are_understood(peer: Callable[[], Any]) -> None:
    large = BODY * 50
    async with peer() as url, HttpClient() as client:
        for _ in range(3):
            assert (await client.post(f"{url}/echo", body=b"{}")).body == b"{}"
            assert (await client.post(f"{url}/echo", body=large)).body == large
            assert (await client.post(f"{url}/chunks")).body == BODY
            packed = await client.post(f"{url}/packed")
            assert packed.body == BODY
            assert packed.headers[b"content-encoding"] in {b"gzip", b"deflate"}
            events: list[Event] = []

            def take(event: Event, events: list[Event] = events) -> bool:
                events.append(event)
                return False

            assert (await client.post(f"{url}/events", on_event=take)).body == b""
            assert [event.data for event in events] == [b"zero", b"one"]
        assert "1 open 1 idle" in repr(client), "everything went over one connection"


# growth


def descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


async def test_two_thousand_requests_leave_no_task_and_no_descriptor() -> None:
    async with serving(says(JSON)) as origin:
        connection = await connect(origin, limits=ClientLimits())
        await connection.request(GET)
        tasks, before = len(asyncio.all_tasks()), descriptors()
        for _ in range(2000):
            await connection.request(GET)
        assert (len(asyncio.all_tasks()), descriptors()) == (tasks, before)
        assert connection.requests_done == 2001
        connection.close()


async def test_cancelled_requests_leave_no_task_and_no_descriptor() -> None:
    ended = 0

    async def mute(peer: Peer) -> None:
        nonlocal ended
        await peer.closed_by_client()
        peer.writer.close()
        await peer.writer.wait_closed()
        ended += 1
        if ended == 200:
            asyncio.get_running_loop().call_soon(server_side_done.set)

    server_side_done = asyncio.Event()

    async with serving(mute) as origin:
        tasks, before = len(asyncio.all_tasks()), descriptors()
        for _ in range(200):
            connection = await connect(origin, limits=ClientLimits())
            gone = asyncio.Event()
            connection.on_closed = then(lambda _: None, gone)
            request = asyncio.ensure_future(connection.request(GET))
            await asyncio.sleep(0)
            request.cancel()
            with pytest.raises(asyncio.CancelledError):
                await request
            await asyncio.wait_for(gone.wait(), 5)
        async with asyncio.timeout(5):
            await server_side_done.wait()
        assert (len(asyncio.all_tasks()), descriptors()) == (tasks, before)
