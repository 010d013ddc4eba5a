"""Penstock's own refusals of a call, worded as JSON-RPC errors a client can tell from a server's.

Knows: the error tree, both eras' envelopes. Does not know: HTTP exchanges.
"""

import msgspec

from penstock.errors import ServerError
from penstock.protocol.envelopes import encode_error


def refusal_body(request_id: bytes, error: ServerError) -> bytes:
    """The JSON-RPC error of a failed call: the HTTP status as its code, and in `data` the reason and the server's name."""
    data = {"reason": error.reason, "server": error.server, "retryable": error.retry_helps}
    return encode_error(request_id, error.status, error.message, msgspec.json.encode(data), null_id=False)
