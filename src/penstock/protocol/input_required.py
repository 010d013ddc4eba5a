"""`input_required`: the modern way to ask a client, and what differs from the legacy one.

Knows: the shape of such results and of their retries. Does not know: who answers, how a state is protected.

Source: 2026-07-28 basic/patterns/mrtr, client/elicitation; 2025-11-25 client/elicitation (`elicitationId`, -32042).
"""

from typing import Final, NamedTuple

import msgspec
from msgspec import UNSET, Raw, UnsetType

from penstock.protocol.errors import INTERNAL_ERROR, INVALID_PARAMS
from penstock.protocol.messages import Fault
from penstock.protocol.methods import INPUT_REQUESTS

INPUT_REQUIRED: Final = b'"input_required"'
"""The `resultType`, as JSON."""
REQUEST_STATE: Final = "requestState"
INPUT_RESPONSES: Final = "inputResponses"
NOT_FOR_LEGACY: Final = frozenset({REQUEST_STATE, INPUT_RESPONSES, "task"})
"""Parameters that no legacy server is sent: words of the other era, and `task`, which 2025-11-25 lets nobody say to whom no tasks
were declared.
"""
MAX_REQUESTS: Final = 32
"""Requests in one result."""
_OF_THE_RETRY: Final = frozenset({"_meta", REQUEST_STATE, INPUT_RESPONSES})

_encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode
_decode_any = msgspec.json.Decoder().decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode


class InputRequest(NamedTuple):
    """One thing a client is asked."""

    method: str
    params: dict[str, Raw]


class InputRequired(NamedTuple):
    """What stands in such a result."""

    requests: dict[str, InputRequest]
    """By the name its answer must have; owned."""
    state: str | None
    """To be sent back exactly as it is."""


class _Request(msgspec.Struct):
    method: str
    params: dict[str, Raw] = {}


class _Result(msgspec.Struct, rename="camel"):
    input_requests: dict[str, _Request] | UnsetType = UNSET
    request_state: str | UnsetType = UNSET


_decode_result = msgspec.json.Decoder(_Result).decode
_decode_text = msgspec.json.Decoder(str).decode


def asks_for_input(result: bytes) -> bool:
    """Whether a server's modern result asks the client for something."""
    if INPUT_REQUIRED not in result:
        return False
    try:
        return bytes(_decode_members(result).get("resultType", b"")) == INPUT_REQUIRED
    except msgspec.DecodeError:
        return False


def read_input_required(result: bytes) -> InputRequired | Fault:
    """What a modern server asks; a Fault when no client could answer it."""
    found = read_input_requests(result)
    if isinstance(found, InputRequired) and not found.requests and found.state is None:
        return Fault(INTERNAL_ERROR, "The server asks for input without saying for which")
    return found


def read_input_requests(result: bytes) -> InputRequired | Fault:
    """The same of a task, which may wait for its client and ask nothing more."""
    try:
        found = _decode_result(result)
    except msgspec.DecodeError as error:
        return Fault(INTERNAL_ERROR, f"The server asks for input in a way that cannot be read: {error}")
    requests = {} if found.input_requests is UNSET else found.input_requests
    state = None if found.request_state is UNSET else found.request_state
    if len(requests) > MAX_REQUESTS:
        return Fault(INTERNAL_ERROR, f"The server asks for {len(requests)} inputs at once, more than {MAX_REQUESTS}")
    for request in requests.values():
        if request.method not in INPUT_REQUESTS:
            return Fault(INTERNAL_ERROR, f"The server asks for '{request.method[:64]}', which no client can be asked")
    return InputRequired({key: InputRequest(one.method, one.params) for key, one in requests.items()}, state)


def write_input_required(requests: dict[str, InputRequest], state: str | None) -> bytes:
    """The result that asks a modern client."""
    result: dict[str, object] = {"resultType": "input_required"}
    if requests:
        result["inputRequests"] = {
            key: {"method": one.method, **({"params": one.params} if one.params else {})}
            for key, one in requests.items()
        }
    if state is not None:
        result[REQUEST_STATE] = state
    return _encode(result)


def read_responses(params: dict[str, Raw]) -> dict[str, Raw] | Fault:
    """The `inputResponses` of a retry by name, each a JSON object; empty when there are none."""
    raw = params.get(INPUT_RESPONSES)
    if raw is None:
        return {}
    try:
        responses = _decode_members(raw)
    except msgspec.DecodeError:
        return Fault(INVALID_PARAMS, "Invalid params: 'inputResponses' must be an object")
    for name, response in responses.items():
        if bytes(response)[:1] != b"{":
            return Fault(INVALID_PARAMS, f"Invalid params: 'inputResponses.{name[:64]}' must be an object")
    return responses


def read_state(params: dict[str, Raw]) -> str | Fault | None:
    """The `requestState` of a retry; None when there is none."""
    raw = params.get(REQUEST_STATE)
    if raw is None:
        return None
    try:
        return _decode_text(raw)
    except msgspec.DecodeError:
        return Fault(INVALID_PARAMS, "Invalid params: 'requestState' must be a string")


def request_fingerprint(method: str, params: dict[str, Raw]) -> bytes:
    """The same bytes for a request and its retries, however their JSON is spaced and ordered.

    `_meta` and what belongs to the retry itself are left out. Parameters that hold a number beyond all bounds count as written.
    """
    told = {key: _canonical(params[key]) for key in sorted(params.keys() - _OF_THE_RETRY)}
    return method.encode() + b"\n" + _encode(told)


def _canonical(value: Raw) -> Raw:
    try:
        return Raw(_encode_sorted(_decode_any(value)))
    except msgspec.DecodeError:  # valid JSON, but not every number can be held
        return value


def for_modern_client(request: InputRequest) -> InputRequest:
    """A legacy server's request as a modern client knows it: without an `elicitationId` and tokens of another conversation."""
    params = {key: value for key, value in request.params.items() if key not in {"elicitationId", "_meta", "task"}}
    return InputRequest(request.method, params)


class _UrlElicitation(msgspec.Struct):
    url: str
    message: str = ""


class _Required(msgspec.Struct):
    elicitations: list[_UrlElicitation]


_decode_required = msgspec.json.Decoder(_Required).decode


def url_elicitations(data: bytes | None) -> dict[str, InputRequest]:
    """What the `data` of a -32042 asks, as a modern client is asked it; empty when it cannot be read."""
    try:
        found = _decode_required(data or b"").elicitations
    except msgspec.DecodeError:
        return {}
    return {
        f"url-{number}": InputRequest(
            "elicitation/create",
            {"mode": Raw(b'"url"'), "url": Raw(_encode(one.url)), "message": Raw(_encode(one.message))},
        )
        for number, one in enumerate(found[:MAX_REQUESTS], 1)
    }
