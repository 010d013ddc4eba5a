"""Changes that stdio servers tell of, in both eras and over all that becomes of their processes."""

import asyncio
from typing import Any

import pytest

from penstock.protocol.subscriptions import LIST_CHANGED, UPDATED
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Call, Failure, Raw
from penstock.upstreams.stdio import StdioUpstream
from tests.unit.upstreams.stdio_kit import (
    LEGACY_CALLER,
    MODERN_CALLER,
    Notices,
    Waiting,
    ask,
    shown,
    stdio_server,
    tool_call,
    until,
)

TOOLS = LIST_CHANGED["tools"]
EVERY_LIST = set(LIST_CHANGED.values())


async def announce(upstream: StdioUpstream, method: str, **params: Any) -> None:
    await ask(upstream, "announce", {"method": method, "params": params})


async def hear(upstream: StdioUpstream) -> Notices:
    """As the catalogue does: described first, then heard."""
    heard = Notices()
    description = await upstream.describe()
    upstream.hear(heard)
    if description.eras[0] is Era.MODERN:
        await listened(upstream)
    return heard


async def listened(upstream: StdioUpstream, *uris: str) -> None:
    async def named() -> list[Any]:
        return [listen.get("resourceSubscriptions", []) for listen in (await shown(upstream))["listens"]]

    async def listens() -> None:
        while await named() != [list(uris)]:  # noqa: ASYNC110 - the child cannot tell us
            await asyncio.sleep(0.01)

    await asyncio.wait_for(listens(), 10)


def methods(heard: Notices) -> list[str]:
    return [method for method, _ in heard.items]


async def die(upstream: StdioUpstream) -> None:
    with pytest.raises(Exception, match="exited"):
        await upstream.call(tool_call("die"))


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_lists_and_resources_are_told_of(era: str) -> None:
    async with stdio_server(era) as upstream:
        heard = await hear(upstream)
        assert await upstream.subscribe("a://1") is None
        for method in sorted(EVERY_LIST):
            await announce(upstream, method)
        await announce(upstream, UPDATED, uri="a://1")
        assert methods(heard) == [*sorted(EVERY_LIST), UPDATED]
        assert heard.items[-1][1]["uri"] == "a://1"
        await upstream.unsubscribe("a://1")
        await upstream.unsubscribe("a://1")
        if era == "modern":
            await listened(upstream)
        else:
            assert (await shown(upstream))["subscribed"] == []


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_a_refused_resource_is_refused_and_the_others_go_on(era: str) -> None:
    async with stdio_server(era) as upstream:
        heard = await hear(upstream)
        assert await upstream.subscribe("a://1") is None
        refusal = await upstream.subscribe("a://refused")
        assert isinstance(refusal, Failure)
        await announce(upstream, UPDATED, uri="a://1")
        assert methods(heard) == [UPDATED]


async def test_nothing_is_told_before_anybody_hears() -> None:
    async with stdio_server("legacy") as upstream:
        await announce(upstream, TOOLS)
        assert upstream.state()["other_notifications"] == 1
        heard = await hear(upstream)
        await announce(upstream, TOOLS)
        assert methods(heard) == [TOOLS]


async def test_the_last_one_given_hears_and_the_server_is_asked_once() -> None:
    async with stdio_server("modern") as upstream:
        first, second = await hear(upstream), Notices()
        upstream.hear(second)
        await announce(upstream, TOOLS)
        assert (first.items, methods(second)) == ([], [TOOLS])
        assert len((await shown(upstream))["listens"]) == 1


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_a_new_process_is_asked_again_and_everything_counts_as_changed(era: str) -> None:
    async with stdio_server(era) as upstream:
        heard = await hear(upstream)
        await upstream.subscribe("a://1")
        if era == "modern":
            await listened(upstream, "a://1")
        await die(upstream)
        await until(lambda: len(heard.items) >= 4)
        assert sorted(methods(heard)) == sorted([*EVERY_LIST, UPDATED])
        assert (UPDATED, {"uri": "a://1"}) in heard.items
        if era == "modern":
            await listened(upstream, "a://1")
        else:
            assert (await shown(upstream))["subscribed"] == ["a://1"]
        heard.items.clear()
        await announce(upstream, UPDATED, uri="a://1")
        assert methods(heard) == [UPDATED]


async def test_a_listen_that_the_server_ends_is_sent_again() -> None:
    async with stdio_server("modern") as upstream:
        heard = await hear(upstream)
        await ask(upstream, "end_listens")
        await until(lambda: len(heard.items) == 3)
        assert set(methods(heard)) == EVERY_LIST
        await listened(upstream)


async def test_a_server_that_knows_nothing_of_it_is_left_alone() -> None:
    async with stdio_server("modern", "--no-listen") as upstream:
        heard = Notices()
        await upstream.describe()
        upstream.hear(heard)
        refusal = await upstream.subscribe("a://1")
        assert isinstance(refusal, Failure)
        assert refusal.code == -32601
        seen = (await shown(upstream))["seen"]
        assert seen.count("subscriptions/listen") <= 2
        assert heard.items == []


async def test_what_only_listens_is_no_call_in_flight() -> None:
    async with stdio_server("modern") as upstream:
        await hear(upstream)
        assert upstream.state()["in_flight"] == 0
        waiting = await Waiting(upstream).arrived()
        assert upstream.state()["in_flight"] == 1
        await ask(upstream, "release")
        await waiting.task


async def test_several_processes_do_not_each_tell_of_the_same_resource() -> None:
    async with stdio_server("legacy", instances=2) as upstream:
        heard = await hear(upstream)
        await upstream.subscribe("a://1")
        first, second = upstream._instances
        talk = await second.ready()
        with pytest.raises(Exception, match="exited"):
            await talk.call(tool_call("die"))
        await until(lambda: len(heard.items) >= 3)
        assert set(methods(heard)) == EVERY_LIST
        talk = await second.ready()
        for instance, subscribed in ((first, ["a://1"]), (second, [])):
            assert instance.talk is not None
            shows = await instance.talk.call(tool_call("show"))
            assert f'\\"subscribed\\": {subscribed!r}'.replace("'", '\\"') in bytes(shows.raw).decode()  # type: ignore[union-attr]


async def test_an_id_that_is_not_ours_is_told_to_nobody() -> None:
    async with stdio_server("modern") as upstream:
        heard = await hear(upstream)
        await upstream.subscribe("a://1")
        before = upstream.state()["other_notifications"]
        await ask(upstream, "log")  # which says, without an id, that its tools have changed
        assert (heard.items, upstream.state()["other_notifications"]) == ([], before + 1)


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_closing_leaves_nothing_to_hear(era: str) -> None:
    async with stdio_server(era) as upstream:
        heard = await hear(upstream)
        await upstream.close()
        upstream.hear(heard)
        assert upstream._feed is None
        assert heard.items == []


async def test_a_process_that_does_not_read_is_not_asked_for_more() -> None:
    async with stdio_server("legacy", max_unsent_bytes=1 << 16) as upstream:
        heard = await hear(upstream)
        upstream._memory.habits.uris = dict.fromkeys(f"a://{'x' * 1_000}{number}" for number in range(1_000))
        await die(upstream)
        await until(lambda: len(heard.items) >= 1_003 and upstream.state()["instances"][0]["unsent_bytes"] == 0)
        assert (await shown(upstream, caller=LEGACY_CALLER))["subscribed"]
        assert upstream.state()["restarts"] == 1


async def test_a_modern_client_of_a_legacy_server_and_the_other_way_hear_the_same() -> None:
    async with stdio_server("legacy") as upstream:
        heard = await hear(upstream)
        call = Call(
            "tools/call", dict(tool_call("announce", {"method": TOOLS}).params), caller=MODERN_CALLER, name="announce"
        )
        await upstream.call(call)
        assert heard.items == [(TOOLS, {})]
        assert isinstance(call.params["name"], Raw)
