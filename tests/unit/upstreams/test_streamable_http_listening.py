"""The gateway's own session at a legacy HTTP server, and changes of which a server tells in other places than it should."""

import json

import pytest

from penstock.protocol.client_capabilities import EVERYTHING, declared
from penstock.protocol.subscriptions import LIST_CHANGED, UPDATED
from penstock.protocol.versions import Era
from penstock.upstreams.calls import PENSTOCK, Caller, Result
from tests.unit.upstreams.feed_kit import server_of
from tests.unit.upstreams.scripted_http import LEGACY, MODERN, call_of, chunk, rpc
from tests.unit.upstreams.stdio_kit import until


async def test_the_session_that_lists_is_listened_to_before_it_lists_and_by_one_stream() -> None:
    async with server_of(Era.LEGACY) as server:
        await server.upstream.call(call_of(PENSTOCK))
        assert [asked.rpc for asked in server.scripted.asked][-2:] == ["GET", "tools/call"]
        server.upstream.hear(server.heard)
        assert await server.upstream.subscribe("a://1") is None
        await server.say(UPDATED, uri="a://1")
        await until(lambda: server.methods == [UPDATED])
        assert len(server.gets) == 1


async def test_the_session_that_lists_declares_all_there_is_and_refuses_what_it_is_asked() -> None:
    async with server_of(Era.LEGACY) as server:
        await server.upstream.call(call_of(PENSTOCK))
        (asked,) = server.asked("initialize")
        assert asked.body["params"]["capabilities"] == json.loads(declared(EVERYTHING, "2025-11-25"))
        for method in ("roots/list", "sampling/createMessage", "elicitation/create"):
            await server.lines[0].write(chunk(b"data: " + rpc(id=method, method=method) + b"\n\n"))
            refused = await server.scripted.wait_for(f"-> {method}")
            assert refused.body["error"]["code"] == -32601
            assert refused.headers["mcp-session-id"] == "s-1"


async def test_callers_that_declare_all_there_is_do_not_share_the_session_that_lists() -> None:
    async with server_of(Era.LEGACY) as server:
        able = Caller(Era.MODERN, "2026-07-28", None, PENSTOCK.capabilities, PENSTOCK.client_info)
        for caller in (PENSTOCK, able, Caller(Era.MODERN, "2026-07-28", None), PENSTOCK):
            await server.upstream.call(call_of(caller))
        used = [asked.headers["mcp-session-id"] for asked in server.asked("tools/call")]
        assert used == ["s-1", "s-2", "s-3", "s-1"]


@pytest.mark.parametrize("era", Era)
@pytest.mark.parametrize("caller", [LEGACY, MODERN, PENSTOCK], ids=["session", "pool", "ours"])
async def test_changes_that_are_told_in_the_course_of_a_call_are_heard(era: Era, caller: Caller) -> None:
    async with server_of(era) as server:
        await server.hear()
        server.news = [rpc(method=method, params={}) for method in LIST_CHANGED.values()]
        server.news += [rpc(method=UPDATED, params={"uri": "a://1"}), rpc(method="notifications/odd")]
        notes: list[str] = []
        call = call_of(caller, notify=lambda method, _: notes.append(method))
        assert isinstance(await server.upstream.call(call), Result)
        assert server.methods == [*LIST_CHANGED.values(), UPDATED]
        assert (notes, server.upstream.state()["other_notifications"]) == ([], 1)


async def test_a_modern_server_is_asked_for_its_lists_by_somebody_who_can_do_everything() -> None:
    async with server_of(Era.MODERN) as server:
        await server.upstream.call(call_of(PENSTOCK))
        (asked,) = server.asked("tools/call")
        told = asked.body["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"]
        assert told == json.loads(declared(EVERYTHING, "2026-07-28"))
