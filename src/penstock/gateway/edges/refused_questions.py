"""What a server is told that asks a client something it cannot be asked, and what the client is told.

Knows: the errors of clients. Does not know: who asked whom.

Source: 2025-11-25 client/elicitation, client/sampling, client/roots, "Error Handling".
"""

from penstock.protocol.errors import (
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    MISSING_CLIENT_CAPABILITY,
    missing_capability_data,
)
from penstock.protocol.messages import RpcError
from penstock.protocol.versions import Era
from penstock.upstreams.calls import Failure


def not_declared(method: str) -> RpcError:
    """The answer to what a client has not declared it can be asked: that of a client that does not know it."""
    if method == "elicitation/create":
        return RpcError(INVALID_PARAMS, "the client has not declared that it can be asked in this way")
    return RpcError(METHOD_NOT_FOUND, f"the client has not declared that it answers {method}")


def lacking(needed: bytes) -> Failure:
    """What a modern client is told that did not declare what its call, or its task, turned out to need."""
    message = "The server needs a capability this client has not declared"
    return Failure(MISSING_CLIENT_CAPABILITY, message, missing_capability_data(needed), Era.MODERN)
