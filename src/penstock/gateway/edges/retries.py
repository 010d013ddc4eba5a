"""A modern client comes back with what it was asked for: whose call that is, and what its server gets to see.

Knows: sealed states, what is parked. Does not know: HTTP, how the client was asked.
Invariant: what was not sealed for this very request reaches no server, and takes up no call.
"""

from typing import Final, NamedTuple

import msgspec

from penstock.gateway.context import GatewayContext
from penstock.gateway.edges.modern_dialogue import ModernDialogue
from penstock.gateway.request_states import binding_of
from penstock.gateway.route import Route
from penstock.protocol.errors import INVALID_PARAMS
from penstock.protocol.input_required import INPUT_RESPONSES, REQUEST_STATE, read_responses, read_state
from penstock.protocol.messages import Fault, Request
from penstock.upstreams.calls import Caller

_NOT_OURS: Final = Fault(
    INVALID_PARAMS,
    "Invalid params: 'requestState' was not given for this request, was altered or has expired; send the request without it",
)
_GONE: Final = Fault(
    INVALID_PARAMS,
    "Invalid params: the call this 'requestState' belongs to was taken up already or waited too long; send it anew",
)


class Elsewhere(NamedTuple):
    """The call is parked at another worker."""

    worker: int


class Retry(NamedTuple):
    """A parked call, and what its client answers."""

    dialogue: ModernDialogue
    responses: dict[str, msgspec.Raw]


def retried(
    context: GatewayContext, route: Route, request: Request, caller: Caller
) -> Retry | Elsewhere | Fault | None:
    """The parked call a retry takes up; None when it is to be sent to its server, as `request.params` are then."""
    params = request.params
    if route.server.settings.is_elsewhere:
        return None  # the worker that has the server has sealed what there is, and opens it
    responses, token = read_responses(params), read_state(params)
    if isinstance(responses, Fault):
        return responses
    if isinstance(token, Fault):
        return token
    if token is None:
        return None
    binding = binding_of(caller.principal, route.server.name, request.method, params)
    state = context.request_states.open(token, binding)
    if state is None:
        return _NOT_OURS
    if state.kind == "parked":
        hops, worker = context.hops, state.text.partition(".")[0]
        if hops is not None and worker.isdigit() and hops.home_of(int(worker)) != hops.index:
            return Elsewhere(hops.home_of(int(worker)))
        parked = context.parking.find(state.text)
        return Retry(parked, responses) if isinstance(parked, ModernDialogue) else _GONE
    if state.kind == "server":
        params[REQUEST_STATE] = msgspec.Raw(msgspec.json.encode(state.text))
    else:
        del params[REQUEST_STATE]
        params.pop(INPUT_RESPONSES, None)
    return None
