"""What every upstream promises, whatever its transport and era (`penstock.upstreams.interface`)."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from penstock.errors import ServerError
from penstock.protocol.subscriptions import LIST_CHANGED, UPDATED
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Call, Caller, Failure, Notify, Raw, Result
from tests.contract.upstream_peers import (
    CALLERS,
    OpenPeer,
    Peer,
    in_memory,
    over_http,
    over_sse,
    over_stdio,
    sent_at_once,
)
from tests.unit.upstreams.stdio_kit import Notices, until

decode = msgspec.json.decode
PEERS: dict[str, OpenPeer] = {
    f"{kind}-{era.value}": open_peer(era)
    for kind, open_peer in (
        ("streamable_http", over_http),
        ("streamable_http_at_once", sent_at_once),
        ("in_memory", in_memory),
        ("stdio", over_stdio),
    )
    for era in Era
} | {"legacy_sse": over_sse(Era.LEGACY)}


@pytest.fixture(params=PEERS)
async def peer(request: pytest.FixtureRequest, anyio_backend: Any) -> AsyncIterator[Peer]:
    async with PEERS[request.param]() as opened:
        yield opened


@pytest.fixture(params=Era, ids=lambda era: f"{era.value}_caller")
def caller(request: pytest.FixtureRequest) -> Caller:
    return CALLERS[request.param]


def call_of(
    tool: str, caller: Caller, *, meta: dict[str, Any] | None = None, notify: Notify | None = None, **arguments: Any
) -> Call:
    encode = msgspec.json.encode
    raw = None if meta is None else {key: Raw(encode(value)) for key, value in meta.items()}
    params = {"name": Raw(encode(tool)), "arguments": Raw(encode(arguments))}
    return Call("tools/call", params, caller=caller, name=tool, meta=raw, notify=notify)


class TestUpstream:
    async def test_a_call_is_answered_in_the_servers_era(self, peer: Peer, caller: Caller) -> None:
        call = call_of("echo", caller, city="Zürich", deep=[{"a": None}])
        answer = await peer.upstream.call(call)
        assert isinstance(answer, Result)
        assert answer.era is peer.era
        assert type(answer.raw) is bytes
        assert json.loads(json.loads(answer.raw)["content"][0]["text"]) == {"city": "Zürich", "deep": [{"a": None}]}
        assert 0 < call.sent_at <= call.first_byte_at <= time.monotonic()
        assert "_meta" not in call.params

    async def test_many_calls_at_once_each_get_their_own_answer(self, peer: Peer, caller: Caller) -> None:
        answers = await asyncio.gather(*(peer.upstream.call(call_of("echo", caller, n=n)) for n in range(30)))
        for number, answer in enumerate(answers):
            assert isinstance(answer, Result)
            assert json.loads(json.loads(answer.raw)["content"][0]["text"]) == {"n": number}

    @pytest.mark.parametrize("token", ["mine", 7])
    async def test_progress_comes_with_the_callers_own_token(self, peer: Peer, caller: Caller, token: object) -> None:
        notes: list[tuple[str, Any, Any]] = []

        def notify(method: str, params: dict[str, Raw]) -> None:
            notes.append((method, decode(params["progressToken"]), decode(params["progress"])))

        call = call_of("progress", caller, meta={"progressToken": token}, notify=notify)
        assert isinstance(await peer.upstream.call(call), Result)
        assert notes == [("notifications/progress", token, step) for step in (1, 2, 3)]
        assert call.progress_at > 0

    async def test_a_caller_that_takes_no_notifications_gets_its_answer(self, peer: Peer, caller: Caller) -> None:
        call = call_of("progress", caller, meta={"progressToken": 1})
        assert isinstance(await peer.upstream.call(call), Result)
        assert call.progress_at > 0

    async def test_a_servers_own_error_is_passed_on_as_it_came(self, peer: Peer, caller: Caller) -> None:
        answer = await peer.upstream.call(call_of("refuse_call", caller))
        assert isinstance(answer, Failure)
        assert (answer.code, answer.message, answer.era) == (-32602, "no such thing", peer.era)
        assert json.loads(answer.data or b"") == {"why": "because"}

    async def test_cancelling_tells_the_server_and_the_next_call_is_answered(self, peer: Peer, caller: Caller) -> None:
        has_begun = asyncio.Event()
        call = call_of("wait", caller, meta={"progressToken": 1}, notify=lambda *_: has_begun.set())
        task = asyncio.create_task(peer.upstream.call(call))
        async with asyncio.timeout(5):
            await has_begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await peer.cancellation()
        assert isinstance(await peer.upstream.call(call_of("echo", caller)), Result)

    async def test_a_server_that_goes_away_is_named_and_the_next_call_is_answered(
        self, peer: Peer, caller: Caller
    ) -> None:
        await peer.upstream.call(call_of("echo", caller))
        with pytest.raises(ServerError) as caught:
            await peer.upstream.call(call_of("die", caller))
        assert caught.value.server == peer.upstream.name
        assert isinstance(await peer.upstream.call(call_of("echo", caller)), Result)

    async def test_it_describes_the_server_in_the_era_it_speaks(self, peer: Peer, caller: Caller) -> None:
        description = await peer.upstream.describe(caller)
        assert description.eras[0] is peer.era
        assert "tools" in decode(description.capabilities)
        assert await peer.upstream.describe() == description

    async def test_its_state_is_ready_for_json(self, peer: Peer, caller: Caller) -> None:
        await peer.upstream.call(call_of("echo", caller))
        state = json.loads(json.dumps(peer.upstream.state()))
        assert state["transport"] in {"streamable_http", "legacy_sse", "in_memory", "stdio"}
        assert state["eras"] == [peer.era.value]
        assert state["spoken_with"][caller.era.value] == peer.era.value
        assert state["last_error"] == ""
        assert isinstance(peer.upstream.recent_log(5), list)

    async def test_ending_a_session_twice_or_an_unknown_one_does_no_harm(self, peer: Peer, caller: Caller) -> None:
        await peer.upstream.call(call_of("echo", caller))
        for session in ("session", "session", "unknown"):
            await peer.upstream.close_session(session)
        assert isinstance(await peer.upstream.call(call_of("echo", caller)), Result)

    async def test_after_closing_calls_are_refused_and_closing_again_is_harmless(
        self, peer: Peer, caller: Caller
    ) -> None:
        await peer.upstream.call(call_of("echo", caller))
        await peer.upstream.close()
        await peer.upstream.close()
        with pytest.raises(ServerError):
            await peer.upstream.call(call_of("echo", caller))


class TestChanges:
    """`hear`, `subscribe`, `unsubscribe`."""

    @pytest.fixture
    async def heard(self, peer: Peer) -> AsyncIterator[Notices]:
        """What is told, once the server is listened to: it has to be described before that."""
        notices = Notices()
        await peer.upstream.describe()
        peer.upstream.hear(notices)
        assert await peer.upstream.subscribe("a://first") is None  # answered by a server that is listened to
        yield notices
        await peer.upstream.close()

    async def test_changed_lists_are_told_with_what_was_said(self, peer: Peer, heard: Notices) -> None:
        for method in LIST_CHANGED.values():
            await peer.announce(method, {})
        await until(lambda: len({method for method, _ in heard.items}) >= 3)
        told = dict.fromkeys(method for method, _ in heard.items)  # by each session in which the server says it
        assert list(told) == list(LIST_CHANGED.values())

    async def test_the_last_one_given_hears(self, peer: Peer, heard: Notices) -> None:
        again = Notices()
        peer.upstream.hear(again)
        await peer.announce(LIST_CHANGED["tools"], {})
        await until(lambda: bool(again.items))
        assert ({method for method, _ in again.items}, heard.items) == ({LIST_CHANGED["tools"]}, [])

    async def test_updates_of_a_resource_are_told_once_it_is_subscribed_to(self, peer: Peer, heard: Notices) -> None:
        assert await peer.upstream.subscribe("a://1") is None
        assert {"a://first", "a://1"} <= await peer.subscribed()
        await peer.announce(UPDATED, {"uri": "a://1"})
        await until(lambda: bool(heard.items))
        assert [(method, params["uri"]) for method, params in heard.items] == [(UPDATED, "a://1")]

    async def test_a_resource_that_is_unsubscribed_from_is_told_no_more_and_the_others_are(
        self, peer: Peer, heard: Notices
    ) -> None:
        assert await peer.upstream.subscribe("a://1") is None
        await peer.upstream.unsubscribe("a://1")
        await peer.upstream.unsubscribe("a://1")
        await peer.upstream.unsubscribe("a://unknown")
        async with asyncio.timeout(5):
            while await peer.subscribed() != {"a://first"}:  # noqa: ASYNC110 - the server tells nobody
                await asyncio.sleep(0.005)
        await peer.announce(UPDATED, {"uri": "a://first"})
        await until(lambda: bool(heard.items))
        assert [params["uri"] for _, params in heard.items] == ["a://first"]

    async def test_a_refused_resource_is_a_failure_of_the_server_and_harms_nothing(
        self, peer: Peer, heard: Notices
    ) -> None:
        refusal = await peer.upstream.subscribe("b://refused")
        assert isinstance(refusal, Failure)
        assert refusal.era is peer.era
        assert refusal.message
        await peer.announce(UPDATED, {"uri": "a://first"})
        await until(lambda: bool(heard.items))
        assert "b://refused" not in await peer.subscribed()

    async def test_calls_are_answered_while_it_is_listened_to(self, peer: Peer, heard: Notices) -> None:
        for caller in CALLERS.values():
            assert isinstance(await peer.upstream.call(call_of("echo", caller)), Result)
        assert heard.items == []

    async def test_nothing_is_told_after_closing(self, peer: Peer, heard: Notices) -> None:
        await peer.upstream.close()
        peer.upstream.hear(heard)
        assert heard.items == []
        with contextlib.suppress(ServerError):
            assert await peer.upstream.subscribe("a://1") is not None
        await asyncio.wait_for(_unsubscribed(peer), 5)


async def _unsubscribed(peer: Peer) -> None:
    with contextlib.suppress(ServerError):
        await peer.upstream.unsubscribe("a://first")
