"""What one principal was given opens nothing for another, and nothing that was altered opens anything; no server hears of it."""

from typing import Any

import pytest

from penstock.gateway.admittance import Admittance
from penstock.gateway.request_states import RequestState, RequestStates, binding_of
from penstock.identity.seal import Sealer, SealingKey
from penstock.protocol.versions import Era
from penstock.upstreams.in_memory import CallContext, InMemoryUpstream, InputRequired
from tests.unit.gateway.asking import (
    ACCEPTED,
    EVERYTHING,
    FORM,
    LegacyClient,
    ModernClient,
    post,
    text_of,
    with_tool,
    work,
)
from tests.unit.gateway.conftest import Running, gateway_in, request_body

WHO = "x-principal"
MODERN_STATE = "the server's own"


class ByHeader(Admittance):
    """Whoever asks says who it is."""

    def principal(self, headers: dict[bytes, bytes]) -> str:
        return headers.get(WHO.encode(), b"").decode()


class Principal(ModernClient):
    """A modern client that says who it is."""

    def __init__(self, running: Running, name: str) -> None:
        super().__init__(running)
        self.name = name

    def _request(
        self, method: str, params: dict[str, Any], meta: dict[str, Any] | None
    ) -> tuple[dict[str, Any], dict[str, str]]:
        body, headers = super()._request(method, params, meta)
        return body, headers | {WHO: self.name}


async def legacy(running: Running, name: str) -> LegacyClient:
    params = {
        "protocolVersion": "2025-11-25",
        "capabilities": EVERYTHING,
        "clientInfo": {"name": "test", "version": "1"},
    }
    response = await running.post("/mcp", request_body("initialize", params), {WHO: name})
    session = response.headers[b"mcp-session-id"].decode()
    return LegacyClient(running, {"mcp-session-id": session, "mcp-protocol-version": "2025-11-25", WHO: name})


async def asks_a_form(_arguments: dict[str, Any], context: CallContext) -> Any:
    return str(await context.ask("elicitation/create", FORM))


async def asks_with_state(_arguments: dict[str, Any], context: CallContext) -> Any:
    question = {"method": "elicitation/create", "params": FORM}
    if context.input_responses is None:
        return InputRequired({"who": question}, MODERN_STATE)
    return f"{context.request_state}"


async def with_two(running: Running, tool: Any, era: Era) -> InMemoryUpstream:
    running.worker.admittance = ByHeader()
    return await with_tool(running, tool, era)


def calls_of(upstream: InMemoryUpstream) -> int:
    return sum(call.method == "tools/call" for call in upstream.calls)


async def status_of(running: Running, method: str, headers: dict[str, str], body: bytes = b"") -> int:
    sent = {"accept": "application/json, text/event-stream", "content-type": "application/json", **headers}
    return (await running.client.request(method, running.url + "/mcp", sent, body, timeout=5)).status


def altered(token: str) -> dict[str, str]:
    """The same one, but not quite."""
    middle = len(token) // 2
    other = "A" if token[middle] != "A" else "B"
    return {
        "tampered": token[:middle] + other + token[middle + 1 :],
        "truncated": token[:-5],
        "longer": token + "AAAA",
        "half": token[:middle],
    }


async def test_a_session_is_unknown_to_another_principal(empty: Running) -> None:
    upstream = await with_two(empty, asks_a_form, Era.LEGACY)
    ann = await legacy(empty, "ann")
    before, known = len(upstream.calls), len(empty.gateway.context.sessions)
    for name in ("bob", ""):
        stolen = ann.headers | {WHO: name}
        response = await post(empty, request_body("tools/call", work()), stolen, lambda _event: None)
        assert response.status == 404
        for method in ("GET", "DELETE"):
            assert await status_of(empty, method, stolen) == 404
        assert await status_of(empty, "GET", stolen | {"last-event-id": "0.c1.1"}) == 404
    assert (len(upstream.calls), len(empty.gateway.context.sessions)) == (before, known)
    conversation = ann.call()
    await ann.answer(await conversation.asked(), ACCEPTED)
    assert "accept" in text_of(await conversation.answer())


async def test_nobody_answers_what_another_principal_was_asked(empty: Running) -> None:
    await with_two(empty, asks_a_form, Era.LEGACY)
    ann, bob = await legacy(empty, "ann"), await legacy(empty, "bob")
    conversation = ann.call()
    question = await conversation.asked()
    assert await bob.answer(question, {"action": "accept", "content": {"name": "Bob"}}) == 202
    thief = LegacyClient(empty, ann.headers | {WHO: "bob"})
    assert await thief.answer(question, {"action": "accept", "content": {"name": "Bob"}}) == 404
    assert len(empty.gateway.parking) == 1
    await ann.answer(question, ACCEPTED)
    assert "Ann" in text_of(await conversation.answer())


async def test_nobody_cancels_a_call_of_another_principal(empty: Running) -> None:
    await with_two(empty, asks_a_form, Era.LEGACY)
    ann, bob = await legacy(empty, "ann"), await legacy(empty, "bob")
    conversation = ann.call(request_id="the-id")
    question = await conversation.asked()
    await bob.notify("notifications/cancelled", requestId="the-id")
    await ann.answer(question, ACCEPTED)
    assert "result" in await conversation.answer()


@pytest.mark.parametrize("how", ["tampered", "truncated", "longer", "half", "other keys"])
async def test_a_session_id_that_is_none_of_ours_is_404_and_reaches_no_server(
    empty: Running, tmp_path: Any, how: str
) -> None:
    upstream = await with_two(empty, asks_a_form, Era.LEGACY)
    ann = await legacy(empty, "ann")
    token = ann.headers["mcp-session-id"]
    if how == "other keys":
        async with gateway_in(tmp_path / "other", key=SealingKey(b"test", b"o" * 32)) as other:
            other.worker.admittance = ByHeader()
            token = (await legacy(other, "ann")).headers["mcp-session-id"]
    else:
        token = altered(token)[how]
    before = len(upstream.calls)
    headers = ann.headers | {"mcp-session-id": token}
    response = await post(empty, request_body("tools/call", work()), headers, lambda _event: None)
    assert (response.status, await status_of(empty, "GET", headers), await status_of(empty, "DELETE", headers)) == (
        404,
        404,
        404,
    )
    assert len(upstream.calls) == before


@pytest.mark.parametrize(("tool", "era"), [(asks_a_form, Era.LEGACY), (asks_with_state, Era.MODERN)])
async def test_a_request_state_takes_up_nothing_for_another_principal(empty: Running, tool: Any, era: Era) -> None:
    """Both a call that is parked here, and a state that is the server's own."""
    upstream = await with_two(empty, tool, era)
    ann, bob = Principal(empty, "ann"), Principal(empty, "bob")
    asked = await ann.call()
    (key,) = asked["result"]["inputRequests"]
    before, parked = calls_of(upstream), len(empty.gateway.parking)
    for thief in (bob, Principal(empty, "")):
        refused = await thief.resume(asked, {key: ACCEPTED})
        assert refused["error"]["code"] == -32602
    for token in altered(asked["result"]["requestState"]).values():
        forged = {"result": asked["result"] | {"requestState": token}}
        assert (await ann.resume(forged, {key: ACCEPTED}))["error"]["code"] == -32602
    assert (calls_of(upstream), len(empty.gateway.parking)) == (before, parked)
    done = await ann.resume(asked, {key: ACCEPTED})
    assert text_of(done) == (MODERN_STATE if era is Era.MODERN else str(ACCEPTED))


async def test_a_state_of_another_gateways_keys_takes_up_nothing(empty: Running) -> None:
    upstream = await with_two(empty, asks_a_form, Era.LEGACY)
    ann = Principal(empty, "ann")
    asked = await ann.call()
    (key,) = asked["result"]["inputRequests"]
    states = RequestStates(Sealer([SealingKey(b"test", b"o" * 32)]), empty.gateway.context.clock)
    (place,) = empty.gateway.parking._places
    binding = binding_of("ann", "desk", "tools/call", upstream.calls[-1].params)
    foreign = {"result": asked["result"] | {"requestState": states.seal(RequestState("parked", place), binding)}}
    assert (await ann.resume(foreign, {key: ACCEPTED}))["error"]["code"] == -32602
    assert len(empty.gateway.parking) == 1
    assert "result" in await ann.resume(asked, {key: ACCEPTED})
