"""Fuzzes what reads text from elsewhere: event streams and JSON-RPC envelopes.

The first byte says which, the second how the rest is cut.
"""

from typing import Final

from penstock.protocol.envelopes import (
    compact_result,
    decode,
    decode_batch,
    encode_error,
    encode_notification,
    encode_request,
    encode_result,
    is_batch,
)
from penstock.protocol.event_stream import Event, EventParser, EventTooLarge, encode_event
from penstock.protocol.messages import Fault, Notification, Reply, Request
from tests.fuzz.invariants import Finding, Guard, pieces

MAX_EVENT_BYTES: Final = 256


def target(guard: Guard, data: bytes) -> None:
    """Try one input."""
    if len(data) >= 2:
        guard.run(_once(data))


async def _once(data: bytes) -> None:
    if data[0] % 2:
        _try_events(data[2:], data[1] % 64)
    else:
        _try_envelopes(data[2:])


def _events(parts: list[bytes]) -> list[Event] | None:
    parser = EventParser(MAX_EVENT_BYTES)
    events = []
    for part in parts:
        try:
            events += parser.feed(part)
        except EventTooLarge:
            return None
    return events


def _try_events(stream: bytes, step: int) -> None:
    whole, cut = _events([stream]), _events(pieces(stream, step))
    if whole is not None and cut is not None and whole != cut:
        raise Finding(f"cut otherwise, it reads otherwise: {cut}; whole: {whole}")
    for event in whole or ():
        data = bytes(event.data)
        if b"\n" in data or b"\r" in data or b"\0" in event.event:
            continue
        again = _events([encode_event(data, event=event.event, id=event.id)])
        if again not in ([event._replace(retry_ms=None)], None):
            raise Finding(f"{event} was written, {again} read")


def _try_envelopes(body: bytes) -> None:
    message = decode(body)
    is_batch(body)
    batch = decode_batch(body)
    if isinstance(batch, list) and not 1 <= len(batch) <= 100:
        raise Finding(f"a batch of {len(batch)}")
    if isinstance(message, Fault):
        return
    if decode(_encode(message)) != message:
        raise Finding(f"{message} was written, {decode(_encode(message))} read")
    if isinstance(message, Reply) and message.id is not None:
        short = compact_result(body, message.id)
        if short is not None and short[0] != message.result:
            raise Finding(f"the short way reads {short[0]!r}, the long way {message.result!r}")


def _encode(message: Request | Notification | Reply) -> bytes:
    if isinstance(message, Request):
        return encode_request(message.id, message.method, message.params)
    if isinstance(message, Notification):
        return encode_notification(message.method, message.params)
    if message.error is not None:
        error = message.error
        return encode_error(message.id, error.code, error.message, error.data, null_id=True)
    assert message.id is not None
    assert message.result is not None
    return encode_result(message.id, message.result)


TEXTS: Final = (
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"b":[1,2.5e3,null,true]}}}',
    b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"x","progress":0.5}}',
    b'{"jsonrpc":"2.0","id":"a\\u00e9\\ud83d\\ude00","result":{"content":[{"type":"text","text":"hi\\n"}]}}',
    b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"no","data":{"a":1}}}',
    b'[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","method":"x"}]',
    b'{"jsonrpc":"2.0","id":1,"id":2,"method":"ping","params":[]}',
    b'{"jsonrpc":"2.0","id":9007199254740993,"method":"ping"}',
    b'{"a":' * 70,
)
STREAMS: Final = (
    b"\xef\xbb\xbfdata: 1\n\ndata: 2\r\rdata: 3\r\n\r\n",
    b": comment\nid: 5\nevent: x\nretry: 100\ndata: a\ndata: b\n\n",
    b"data\n\ndata:\n\nid: \0\ndata:  two spaces\n\n",
)


def own_seeds() -> list[bytes]:
    """Envelopes and streams of every kind."""
    envelopes = [b"\0\0" + text for text in TEXTS]
    return envelopes + [bytes((1, cut)) + stream for stream in STREAMS for cut in (0, 1, 3)]
