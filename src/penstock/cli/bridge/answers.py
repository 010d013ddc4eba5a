"""What a gateway's HTTP answer is as a line for the client.

Knows: JSON-RPC, statuses, what the bridge itself refuses. Does not know: connections, sessions, when an answer is final.
Invariant: every line is one MCP message; the error of a request carries that request's id.
"""

from typing import Final

from penstock.http.client import Response
from penstock.protocol.envelopes import decode, decode_batch, encode_error, is_batch, one_line
from penstock.protocol.errors import reason_data
from penstock.protocol.messages import Fault, Message, Reply

_SHOWN_BYTES: Final = 200


def refusal(id: bytes | None, code: int, message: str, reason: str, *, null_id: bool = False) -> bytes:
    """An error of the bridge's own; `code` is that of an HTTP status, as everywhere in Penstock."""
    return encode_error(id, code, message, reason_data(reason), null_id=null_id)


def answer_line(id: bytes, response: Response, url: str) -> bytes:
    """The answer to a request that was answered plainly."""
    body = response.body
    if response.status == 200 and response.headers.get(b"content-type", b"").startswith(b"application/json") and body:
        return one_line(body)
    reply = decode(body) if body else None
    if isinstance(reply, Reply):
        if reply.id == id:
            return one_line(body)
        if reply.id is None and reply.error is not None:
            error = reply.error
            return encode_error(id, error.code, error.message, error.data, null_id=False)
    if response.status == 404:
        message = f"there is nothing at {url}: check the name given with --view, and the gateway's URL"
        return refusal(id, 404, message, "not_found")
    said = f": {_shown(body)}" if body else ""
    message = f"the gateway at {url} answered with status {response.status} and no JSON-RPC message{said}"
    return refusal(id, response.status if response.status >= 400 else 502, message, "bad_answer")


def error_of(response: Response) -> int | None:
    """The code of the JSON-RPC error that was answered plainly, if it is one."""
    if response.status < 400 or not response.body:
        return None
    reply = decode(response.body)
    return reply.error.code if isinstance(reply, Reply) and reply.error is not None else None


def event_line(data: bytes) -> tuple[bytes, set[bytes]] | None:
    """A message, or a batch, as a line, and the ids of the requests it answers; None when it is neither."""
    messages: list[Message | Fault] | Fault = decode_batch(data) if is_batch(data) else [decode(data)]
    if isinstance(messages, Fault) or any(isinstance(message, Fault) for message in messages):
        return None
    answered = {message.id for message in messages if isinstance(message, Reply) and message.id is not None}
    return one_line(data), answered


def _shown(body: bytes) -> str:
    text = body[:_SHOWN_BYTES].decode("utf-8", "replace")
    return "".join(character if character.isprintable() else " " for character in text)
