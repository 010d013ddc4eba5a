import asyncio

import pytest

from penstock.clock import FakeClock
from penstock.errors import NeedsAuthorization, ServerMisbehaved, ServerUnavailable
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Failure, Result
from tests.unit.upstreams.scripted_http import (
    LEGACY,
    MODERN,
    Asked,
    Line,
    Script,
    call_of,
    discovered,
    error,
    http,
    initialized,
    result,
    rpc,
    serving,
)


class Switchable:
    """A server whose eras a test may change."""

    def __init__(self, *eras: Era) -> None:
        self.eras = set(eras)

    async def __call__(self, asked: Asked, _: Line) -> bytes:
        if asked.method == "DELETE" or asked.rpc.startswith("notifications/"):
            return http(202)
        is_modern = "io.modelcontextprotocol/protocolVersion" in asked.body.get("params", {}).get("_meta", {})
        if is_modern and Era.MODERN in self.eras:
            return discovered(asked) if asked.rpc == "server/discover" else result(asked, era="modern")
        if not is_modern and Era.LEGACY in self.eras:
            return initialized(asked) if asked.rpc == "initialize" else result(asked, era="legacy")
        if is_modern:
            return http(400, rpc(id=None, error={"code": -32000, "message": "Bad Request: Server not initialized"}))
        return error(asked, 400, -32020, "MCP-Protocol-Version is missing")


def fixed(discover: bytes | None, initialize: bytes | None = None) -> Script:
    """Always the same answers, with the right id when they carry none."""

    async def answer(asked: Asked, _: Line) -> bytes:
        raw = {"server/discover": discover, "initialize": initialize}.get(asked.rpc)
        return http(404) if raw is None else raw.replace(b'"ID"', str(asked.id).encode().ljust(4))

    return answer


@pytest.mark.parametrize("caller", [MODERN, LEGACY])
@pytest.mark.parametrize(
    ("eras", "spoken"),
    [
        ((Era.MODERN,), {Era.MODERN: b"modern", Era.LEGACY: b"modern"}),
        ((Era.LEGACY,), {Era.MODERN: b"legacy", Era.LEGACY: b"legacy"}),
        ((Era.MODERN, Era.LEGACY), {Era.MODERN: b"modern", Era.LEGACY: b"legacy"}),
    ],
)
async def test_the_callers_era_is_spoken_if_the_server_has_it(
    caller: object, eras: tuple[Era, ...], spoken: dict[Era, bytes]
) -> None:
    who = LEGACY if caller is LEGACY else MODERN
    async with serving(Switchable(*eras)) as (server, upstream):
        for _ in range(2):
            answer = await upstream.call(call_of(who))
            assert isinstance(answer, Result)
            assert spoken[who.era] in answer.raw
        assert len(server.all("server/discover")) == 1
        assert len(server.all("initialize")) <= 1
        description = await upstream.describe(who)
        assert description.eras[0].value.encode() == spoken[who.era]


async def test_many_callers_wait_for_one_probe() -> None:
    async with serving(Switchable(Era.MODERN)) as (server, upstream):
        await asyncio.gather(*(upstream.call(call_of(MODERN)) for _ in range(10)))
        assert len(server.all("server/discover")) == 1


@pytest.mark.parametrize("start", [Era.MODERN, Era.LEGACY])
@pytest.mark.parametrize("caller", [MODERN, LEGACY])
async def test_a_server_that_changed_its_era_is_asked_again_and_no_call_is_lost(start: Era, caller: object) -> None:
    who = LEGACY if caller is LEGACY else MODERN
    peer = Switchable(start)
    other = Era.LEGACY if start is Era.MODERN else Era.MODERN
    async with serving(peer) as (_, upstream):
        await upstream.call(call_of(who))
        peer.eras = {other}
        answer = await upstream.call(call_of(who))
        assert isinstance(answer, Result)
        assert other.value.encode() in answer.raw
        assert upstream.state()["reprobes"] == 1
        peer.eras = {start}
        answer = await upstream.call(call_of(who))
        assert isinstance(answer, Result)
        assert start.value.encode() in answer.raw
        assert (await upstream.describe(who)).eras == (start,)


async def test_a_call_that_is_refused_again_costs_the_others_neither_their_session_nor_the_era() -> None:
    class Picky(Switchable):
        """Answers calls of one tool as if it were no MCP server."""

        async def __call__(self, asked: Asked, line: Line) -> bytes:
            if asked.rpc == "tools/call" and asked.body["params"]["name"] == "refused":
                return http(400)
            return await super().__call__(asked, line)

    clock = FakeClock()
    async with serving(Picky(Era.MODERN, Era.LEGACY), clock=clock) as (server, upstream):
        await upstream.call(call_of(LEGACY))
        for _ in range(5):
            with pytest.raises(ServerMisbehaved, match="HTTP 400"):
                await upstream.call(call_of(MODERN, "refused"))
            assert isinstance(await upstream.call(call_of(MODERN)), Result)
            assert isinstance(await upstream.call(call_of(LEGACY)), Result)
        assert (upstream.state()["reprobes"], len(server.all("server/discover"))) == (1, 2)
        assert len(server.all("initialize")) == 1
        await clock.advance(10.0)
        with pytest.raises(ServerMisbehaved):
            await upstream.call(call_of(MODERN, "refused"))
        assert upstream.state()["reprobes"] == 2


async def test_a_description_is_asked_for_each_time_and_notices_a_change_of_era() -> None:
    peer = Switchable(Era.MODERN)
    async with serving(peer) as (server, upstream):
        assert (await upstream.describe(MODERN)).eras == (Era.MODERN,)
        assert len(server.all("server/discover")) == 1
        assert (await upstream.describe(MODERN)).versions == ("2026-07-28",)
        assert len(server.all("server/discover")) == 2
        peer.eras = {Era.LEGACY}
        assert (await upstream.describe(MODERN)).versions == ("2025-11-25",)


async def test_what_was_remembered_is_not_asked_again() -> None:
    remembered = {
        "modern": {"spoken": True, "version": "2026-07-28"},
        "legacy": {"spoken": False, "version": "2025-11-25"},
    }
    async with serving(Switchable(Era.MODERN), remembered=remembered) as (server, upstream):
        await upstream.call(call_of(MODERN))
        assert [asked.rpc for asked in server.asked] == ["tools/call"]
        assert upstream.eras.export() == remembered


async def test_whoever_only_asks_whether_calls_are_bound_here_lets_the_era_be_found_out() -> None:
    async with serving(Switchable(Era.MODERN)) as (server, upstream):
        await upstream.describe(MODERN)
        assert upstream.binds(LEGACY)  # for all that is known it may keep sessions
        assert upstream.binds(LEGACY)
        async with asyncio.timeout(5):
            while upstream.binds(LEGACY):  # noqa: ASYNC110 - what is waited for tells nobody
                await asyncio.sleep(0.002)
        assert len(server.all("initialize")) == 1
        assert server.all("tools/call") == []


async def test_an_era_that_is_being_found_out_does_not_outlive_its_upstream() -> None:
    async def silent(asked: Asked, line: Line) -> bytes:
        if asked.rpc == "initialize":
            await asyncio.Event().wait()
        return await Switchable(Era.MODERN)(asked, line)

    async with serving(silent) as (server, upstream):
        await upstream.describe(MODERN)
        assert upstream.binds(LEGACY)
        async with asyncio.timeout(5):
            while not server.all("initialize"):  # noqa: ASYNC110 - what is waited for tells nobody
                await asyncio.sleep(0.002)
            await upstream.close()
        assert not any("era" in task.get_name() for task in asyncio.all_tasks())


@pytest.mark.parametrize(("protocol", "rpcs"), [("2026-07-28", 1), ("2025-06-18", 4)])
async def test_a_pinned_revision_is_not_probed(protocol: str, rpcs: int) -> None:
    async with serving(Switchable(Era.MODERN, Era.LEGACY), protocol=protocol) as (server, upstream):
        await upstream.call(call_of(LEGACY))
        assert len(server.asked) == rpcs
        assert "server/discover" not in [asked.rpc for asked in server.asked]
        if protocol == "2025-06-18":
            assert server.all("initialize")[0].body["params"]["protocolVersion"] == "2025-06-18"


async def test_a_pin_that_does_not_fit_is_named() -> None:
    async with serving(Switchable(Era.LEGACY), protocol="2026-07-28") as (server, upstream):
        for _ in range(2):
            with pytest.raises(ServerMisbehaved, match="'protocol' pins it to 2026-07-28"):
                await upstream.call(call_of(MODERN))
        assert len(server.asked) == 2


@pytest.mark.parametrize(
    "discover",
    [
        http(404, b'{"jsonrpc":"2.0","id":"ID","error":{"code":-32601,"message":"Method not found"}}'),
        http(400, b'{"jsonrpc":"2.0","id":"ID","error":{"code":-32021,"message":"capability"}}'),
    ],
)
async def test_a_modern_server_that_does_not_describe_itself_is_known_by_its_errors(discover: bytes) -> None:
    async with serving(fixed(discover)) as (_, upstream):
        description = await upstream.describe(MODERN)
        assert description.eras == (Era.MODERN,)
        assert bytes(description.server_info) == b"{}"


async def test_a_server_that_names_only_legacy_revisions_is_initialized_with_one_of_them() -> None:
    async def script(asked: Asked, _: Line) -> bytes:
        if asked.rpc == "server/discover":
            supported = {"supported": ["2025-06-18", "2025-03-26"], "requested": "2026-07-28"}
            return error(asked, 400, -32022, "Unsupported protocol version", data=supported)
        if asked.rpc == "initialize":
            return initialized(asked, None, asked.body["params"]["protocolVersion"])
        return http(202) if asked.rpc.startswith("notifications/") else result(asked)

    async with serving(script) as (server, upstream):
        await upstream.call(call_of(MODERN))
        assert server.all("initialize")[0].body["params"]["protocolVersion"] == "2025-06-18"


@pytest.mark.parametrize(
    ("discover", "initialize", "words"),
    [
        (None, None, "speaks no revision of MCP .* HTTP 404.* check its URL"),
        (http(200, b"<html>", "text/html"), http(200, b"<html>", "text/html"), "instead of JSON"),
        (
            http(
                400,
                b'{"jsonrpc":"2.0","id":"ID","error":{"code":-32022,"message":"v","data":{"supported":["2099-01-01"]}}}',
            ),
            None,
            "supports only 2099-01-01",
        ),
        (http(200, b'{"jsonrpc":"2.0","id":"ID","result":{}}'), http(405), "HTTP 405"),
        (
            http(200, b"junk"),
            http(200, b'{"jsonrpc":"2.0","id":"ID","result":{}}'),
            "answered initialize with something else",
        ),
        (
            http(200, b'{"jsonrpc":"2.0","id":"ID","error":{"code":-32601,"message":"?"}}'),
            http(200, b'{"jsonrpc":"2.0","id":"ID","error":{"code":-32601,"message":"unknown"}}'),
            "refused initialize with error -32601 .unknown",
        ),
    ],
)
async def test_a_server_that_speaks_neither_era_is_named_with_both_reasons_and_asked_again_later(
    discover: bytes | None, initialize: bytes | None, words: str
) -> None:
    async with serving(fixed(discover, initialize)) as (server, upstream):
        for times in (1, 2):
            with pytest.raises(ServerMisbehaved, match=words):
                await upstream.call(call_of(MODERN))
            assert len(server.all("server/discover")) == times


@pytest.mark.parametrize(
    ("raw", "kind"),
    [(http(401), NeedsAuthorization), (http(503), ServerUnavailable), (http(302), ServerMisbehaved)],
)
async def test_what_says_nothing_of_the_era_is_not_remembered(raw: bytes, kind: type[Exception]) -> None:
    async with serving(fixed(raw, raw)) as (_, upstream):
        with pytest.raises(kind):
            await upstream.describe()
        assert upstream.eras.has(Era.MODERN) is None
        assert upstream.state()["last_error"]


async def test_a_server_that_does_not_answer_the_probe_is_given_up() -> None:
    async def script(_: Asked, line: Line) -> None:
        await line.until_closed()

    async with serving(script, handshake_seconds=0.05) as (_, upstream):
        with pytest.raises(ServerMisbehaved, match=r"server/discover within 0\.05 s"):
            await upstream.call(call_of(MODERN))
    async with serving(script, handshake_seconds=0.05, protocol="2025-11-25") as (_, upstream):
        with pytest.raises(ServerUnavailable, match=r"initialize within 0\.05 s"):
            await upstream.call(call_of(MODERN))


async def test_a_refused_version_makes_the_server_be_asked_again() -> None:
    async def script(asked: Asked, _: Line) -> bytes:
        if asked.rpc == "server/discover":
            return discovered(asked)
        return error(asked, 400, -32022, "no more", data={"supported": []})

    async with serving(script) as (server, upstream):
        with pytest.raises(ServerMisbehaved, match="refused revision 2026-07-28"):
            await upstream.call(call_of(MODERN))
        assert len(server.all("server/discover")) == 2
        assert len(server.all("tools/call")) == 2


async def test_a_missing_capability_is_the_callers_to_hear() -> None:
    async def script(asked: Asked, _: Line) -> bytes:
        if asked.rpc == "server/discover":
            return discovered(asked)
        return http(400, rpc(id=None, error={"code": -32021, "message": "sampling"}))

    async with serving(script) as (_, upstream):
        answer = await upstream.call(call_of(MODERN))
        assert isinstance(answer, Failure)
        assert answer.code == -32021
