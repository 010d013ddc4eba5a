"""Who asks: told to another worker with every request of a caller, and to no other server."""

import pytest

from penstock.protocol.headers import decode_value
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Caller, Result
from tests.unit.upstreams.legacy_kit import legacy
from tests.unit.upstreams.scripted_http import (
    Asked,
    Line,
    Script,
    call_of,
    modern,
    result,
    serving,
)

WHO = "x-who"
TOLD = {"principal_header": WHO.encode()}


def caller(era: Era, principal: str, session: str | None = None) -> Caller:
    revision = "2026-07-28" if era is Era.MODERN else "2025-11-25"
    return Caller(era, revision, session, b'{"roots":{}}', b'{"name":"a","version":"1"}', principal)


async def echo(asked: Asked, _: Line) -> bytes:
    return result(asked, content=[], resultType="complete")


def server_of(era: Era) -> Script:
    return modern(echo) if era is Era.MODERN else legacy(echo)


@pytest.mark.parametrize("era", Era)
@pytest.mark.parametrize("principal", ["ada", "Žofie"])
async def test_each_request_of_a_caller_says_who_it_is(era: Era, principal: str) -> None:
    async with serving(server_of(era), **TOLD) as (scripted, upstream):
        await upstream.call(call_of(caller(era, "", "nobody's"), "warm"))
        before = len(scripted.asked)
        for _ in range(2):
            assert isinstance(await upstream.call(call_of(caller(era, principal, "s"), "work")), Result)
        await upstream.close_session("s")
        if era is Era.LEGACY:
            await scripted.wait_for("DELETE")
        of_nobody, of_somebody = scripted.asked[:before], scripted.asked[before:]
        assert not any(WHO in asked.headers for asked in of_nobody)
        told = {asked.rpc or asked.method: decode_value(asked.headers[WHO].encode()) for asked in of_somebody}
        assert set(told.values()) == {principal}
        wanted = (
            {"initialize", "notifications/initialized", "tools/call", "DELETE"} if era is Era.LEGACY else {"tools/call"}
        )
        assert told.keys() >= wanted


async def test_principals_share_no_session() -> None:
    async with serving(legacy(echo), **TOLD) as (scripted, upstream):
        for principal in ("ada", "bob", "ada"):
            await upstream.call(call_of(caller(Era.MODERN, principal), "work"))
        used = [(asked.headers[WHO], asked.headers["mcp-session-id"]) for asked in scripted.all("tools/call")]
        assert used[0] == used[2]
        assert len({session for _, session in used}) == 2


@pytest.mark.parametrize("era", Era)
async def test_no_other_server_is_told(era: Era) -> None:
    async with serving(server_of(era)) as (scripted, upstream):
        await upstream.call(call_of(caller(era, "ada", "s"), "work"))
        assert not any("ada" in str(asked.headers) for asked in scripted.asked)
