"""Penstock's own refusals of a call, worded as JSON-RPC errors a client can tell from a server's.

Knows: the error tree, both eras' envelopes. Does not know: HTTP exchanges.
"""

import msgspec

from penstock.errors import PenstockError, ServerError
from penstock.protocol.envelopes import encode_error


def away(request_id: bytes | None, error: PenstockError) -> tuple[int, bytes]:
    """Status and body for a modern client whose request another worker would have to answer, which cannot be reached."""
    message = (
        f"the worker that holds what this request is about cannot be reached; try again shortly ({error.message[:200]})"
    )
    return 503, encode_error(request_id, 503, message, b'{"reason":"worker_away","retryable":true}', null_id=False)


def refusal_body(request_id: bytes, error: ServerError) -> bytes:
    """The JSON-RPC error of a failed call: the HTTP status as its code, and in `data` the reason and the server's name."""
    data = {"reason": error.reason, "server": error.server, "retryable": error.retry_helps}
    return encode_error(request_id, error.status, error.message, msgspec.json.encode(data), null_id=False)
