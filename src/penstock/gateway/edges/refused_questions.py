"""What a server is told that asks a client something it cannot be asked.

Knows: the errors of clients. Does not know: who asked whom.

Source: 2025-11-25 client/elicitation, client/sampling, client/roots, "Error Handling".
"""

from penstock.protocol.errors import INVALID_PARAMS, METHOD_NOT_FOUND
from penstock.protocol.messages import RpcError


def not_declared(method: str) -> RpcError:
    """The answer to what a client has not declared it can be asked: that of a client that does not know it."""
    if method == "elicitation/create":
        return RpcError(INVALID_PARAMS, "the client has not declared that it can be asked in this way")
    return RpcError(METHOD_NOT_FOUND, f"the client has not declared that it answers {method}")
