"""Sealed states: each opens for the request it was made for, and for nothing else."""

import base64
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from penstock.clock import FakeClock
from penstock.gateway.request_states import (
    LIFETIME_SECONDS,
    MAX_SERVER_STATE,
    Kind,
    RequestState,
    RequestStates,
    binding_of,
)
from penstock.identity.seal import Sealer, SealingKey

KEY = SealingKey(b"test", b"k" * 32)
PARAMS = b'{"name":"book","arguments":{"seat":{"row":1,"letter":"A"}}}'


def binding(principal: str = "ann", server: str = "air", method: str = "tools/call", params: bytes = PARAMS) -> bytes:
    return binding_of(principal, server, method, msgspec.json.decode(params, type=dict[str, Raw]))


def states(clock: FakeClock | None = None, key: SealingKey = KEY) -> RequestStates:
    return RequestStates(Sealer([key]), clock or FakeClock())


@pytest.mark.parametrize("kind", ["parked", "server", "again"])
@pytest.mark.parametrize("text", ["", "key", '{"step":1,"name":"\u00e9\U0001f600"}'])
def test_a_state_says_what_was_sealed_for_its_own_request(kind: Kind, text: str) -> None:
    it = states()
    token = it.seal(RequestState(kind, text), binding())
    assert it.open(token, binding()) == RequestState(kind, text)
    assert repr(it) == "<RequestStates <Sealer 1 keys, newest 74657374>>"


def test_the_same_parameters_in_another_order_open_it() -> None:
    it = states()
    token = it.seal(RequestState("parked", "k"), binding())
    reordered = b'{ "arguments" : {"seat":{"letter":"\\u0041","row":1}}, "requestState":"x", "inputResponses":{}, "name":"book"}'
    assert it.open(token, binding(params=reordered)) == RequestState("parked", "k")
    assert it.open(token, binding(params=PARAMS[:-1] + b',"_meta":{"progressToken":2}}')) is not None


@pytest.mark.parametrize(
    "other",
    [
        {"principal": "bob"},
        {"principal": ""},
        {"principal": "ann\nair"},
        {"server": "rail"},
        {"method": "prompts/get"},
        {"params": b'{"name":"book","arguments":{"seat":{"row":2,"letter":"A"}}}'},
        {"params": b'{"name":"cancel","arguments":{"seat":{"row":1,"letter":"A"}}}'},
        {"params": b'{"name":"book"}'},
        {"params": b'{"name":"book","arguments":{"seat":{"row":1,"letter":"A"}},"extra":null}'},
    ],
)
def test_it_opens_for_no_other_request(other: dict[str, Any]) -> None:
    it = states()
    token = it.seal(RequestState("server", "secret"), binding())
    assert it.open(token, binding(**other)) is None


def test_any_change_of_the_token_makes_it_worthless() -> None:
    it = states()
    token = it.seal(RequestState("server", "secret"), binding())
    for place in range(0, len(token), 7):
        altered = token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
        assert it.open(altered, binding()) is None, place
    for altered in ("", token[:-4], token + "AAAA", token * 2, "\u00e9" + token[1:], "made up", token.upper()):
        assert it.open(altered, binding()) is None, altered


def test_it_is_good_for_a_while_only() -> None:
    clock = FakeClock()
    it = states(clock)
    token = it.seal(RequestState("server", "s"), binding())
    clock._now += LIFETIME_SECONDS - 1
    assert it.open(token, binding()) is not None
    clock._now += 2
    assert it.open(token, binding()) is None


def test_another_gateways_state_and_another_purpose_do_not_pass() -> None:
    token = states(key=SealingKey(b"othr", b"o" * 32)).seal(RequestState("server", "s"), binding())
    same_name = states(key=SealingKey(b"test", b"o" * 32)).seal(RequestState("server", "s"), binding())
    assert states().open(token, binding()) is None
    assert states().open(same_name, binding()) is None
    sealer = Sealer([KEY])
    inside = sealer.open(b"requestState", states().seal(RequestState("server", "s"), binding()))
    assert states().open(sealer.seal(b"session", inside), binding()) is None
    assert states().open(sealer.seal(b"requestState", inside), binding()) == RequestState("server", "s")


@pytest.mark.parametrize("inside", [b"", b"\xc1", msgspec.msgpack.encode(["x"]), msgspec.msgpack.encode({"a": 1})])
def test_what_is_sealed_but_no_state_is_none(inside: bytes) -> None:
    assert states().open(Sealer([KEY]).seal(b"requestState", inside), binding()) is None


@pytest.mark.parametrize("letter", ["s", "\u00e9", "\u6f22", "\U0001f600"])
def test_the_largest_state_of_a_server_opens_again(letter: str) -> None:
    it = states()
    state = RequestState("server", letter * MAX_SERVER_STATE)
    assert it.open(it.seal(state, binding()), binding()) == state


def test_a_token_beyond_all_bounds_is_not_even_decoded() -> None:
    huge = base64.urlsafe_b64encode(b"x" * 8 * MAX_SERVER_STATE).decode()
    assert states().open(huge, binding()) is None


def test_a_state_shows_nothing_of_what_it_holds() -> None:
    token = states().seal(RequestState("server", "seat 1A"), binding())
    decoded = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    assert b"seat" not in decoded
    assert token != states().seal(RequestState("server", "seat 1A"), binding()), "no two are alike"
