"""Logs of a modern server for a client that set no level: a legacy one takes them all, a modern one none."""

import json
from typing import Any

import pytest

from penstock.protocol.meta import LOG_LEVEL
from penstock.protocol.versions import Era
from penstock.upstreams.calls import PENSTOCK, Call, Caller
from penstock.upstreams.in_memory import CallContext, InMemoryServer, InMemoryUpstream
from penstock.upstreams.log_levels import EVERY_LOG, asking_for_logs
from penstock.upstreams.streamable_http_modern_requests import ModernRequests
from tests.unit.upstreams.scripted_http import (
    LEGACY,
    MODERN,
    SESSIONLESS,
    Asked,
    Line,
    call_of,
    discovered,
    rpc,
    serving,
    stream,
)
from tests.unit.upstreams.stdio_kit import Notices, shown, stdio_server, tool_call


def written(call: Call) -> dict[str, Any]:
    """The `_meta` that is sent, in which no key stands twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len({key for key, _ in pairs}) == len(pairs), pairs
        return dict(pairs)

    body = REQUESTS.write(call)[1]
    meta: dict[str, Any] = json.loads(body, object_pairs_hook=once)["params"]["_meta"]
    return meta


REQUESTS = ModernRequests(b"POST / HTTP/1.1\r\n", b'{"name":"penstock","version":"1"}')


@pytest.mark.parametrize(
    ("caller", "level"),
    [(LEGACY, "debug"), (SESSIONLESS, None), (MODERN, None), (PENSTOCK, None)],
    ids=["legacy session", "legacy without", "modern", "the gateway"],
)
def test_only_legacy_sessions_are_asked_for_every_log(caller: Caller, level: str | None) -> None:
    for meta in (None, {"traceparent": "00-1"}, {"progressToken": "mine"}, None):
        assert written(call_of(caller, meta=meta)).get(LOG_LEVEL) == level


@pytest.mark.parametrize("caller", [LEGACY, SESSIONLESS, MODERN], ids=repr)
def test_the_level_that_was_set_is_the_one_that_counts(caller: Caller) -> None:
    for _ in range(2):
        meta = written(call_of(caller, meta={LOG_LEVEL: "warning", "traceparent": "00-1"}))
        assert (meta[LOG_LEVEL], meta["traceparent"]) == ("warning", "00-1")
        assert meta["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"
        assert written(call_of(caller)).get(LOG_LEVEL) == ("debug" if caller is LEGACY else None)


def test_what_is_asked_for_does_not_change_what_the_call_says() -> None:
    said = call_of(LEGACY, meta={"traceparent": "00-1"}).meta
    assert asking_for_logs(LEGACY, said) == {**(said or {}), LOG_LEVEL: EVERY_LOG}
    assert LOG_LEVEL not in (said or {})


@pytest.mark.parametrize(("caller", "comes"), [(LEGACY, True), (MODERN, False)], ids=repr)
async def test_lines_of_a_server_that_declares_no_logging_reach_who_takes_them(caller: Caller, comes: bool) -> None:
    async def script(asked: Asked, _: Line) -> bytes:
        if asked.rpc == "server/discover":
            return discovered(asked)
        line = rpc(method="notifications/message", params={"level": "debug", "data": 1})
        asks = LOG_LEVEL in asked.body["params"]["_meta"]
        return stream(*([line] if asks else []), rpc(id=asked.id, result={"content": [], "resultType": "complete"}))

    lines: list[str] = []
    async with serving(script, protocol="2026-07-28") as (_, upstream):
        await upstream.call(call_of(caller, notify=lambda method, _: lines.append(method)))
    assert lines == (["notifications/message"] if comes else [])


async def test_a_child_process_is_asked_likewise() -> None:
    legacy = Caller(Era.LEGACY, "2025-11-25", "session", b"{}", b'{"name":"old","version":"1"}')
    async with stdio_server("modern") as upstream:
        assert (await shown(upstream, caller=legacy))["params"]["_meta"][LOG_LEVEL] == "debug"
        told = await shown(upstream, caller=legacy, meta={LOG_LEVEL: "error"})
        assert told["params"]["_meta"][LOG_LEVEL] == "error"
        assert LOG_LEVEL not in (await shown(upstream))["params"]["_meta"]


@pytest.mark.parametrize(("caller", "count"), [(LEGACY, 1), (MODERN, 0), (SESSIONLESS, 0)], ids=repr)
async def test_a_server_in_this_process_does_likewise(caller: Caller, count: int) -> None:
    server = InMemoryServer("fake")

    @server.tool("say")
    async def say(_arguments: dict[str, Any], context: CallContext) -> Any:
        context.log("debug", "x")
        return "said"

    notices = Notices()
    await InMemoryUpstream("fake", server).call(tool_call("say", caller=caller, notify=notices))
    assert len(notices.items) == count
