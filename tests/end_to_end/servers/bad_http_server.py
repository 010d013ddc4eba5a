"""An HTTP server that lists itself properly in both eras, and whose tools break their answers in the ways their names say.

usage: python -m tests.end_to_end.servers.bad_http_server     prints `ready PORT`; standard library only
"""

import asyncio
import contextlib
import functools
import json
import zlib
from collections.abc import Awaitable, Callable

from tests.end_to_end.servers.plain_mcp import Message, answer_without_tools, call_of, plain_tool, text_result

Writer = asyncio.StreamWriter
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_ENDLESS_PAUSE_SECONDS = 0.02


def plain(body: bytes, status: str = "200 OK", kind: str = "application/json", more: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(message: object) -> bytes:
    return chunk(b"data: %b\n\n" % json.dumps(message).encode())


async def never_answers(_writer: Writer, _message: Message) -> None:
    await asyncio.sleep(3600)


async def closes_at_once(writer: Writer, _message: Message) -> None:
    writer.close()


async def resets(writer: Writer, _message: Message) -> None:
    writer.transport.abort()


async def closes_in_head(writer: Writer, _message: Message) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-")
    writer.close()


async def closes_in_body(writer: Writer, _message: Message) -> None:
    writer.write(b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{"jsonrpc":')
    writer.close()


async def closes_in_stream(writer: Writer, _message: Message) -> None:
    writer.write(STREAM + chunk(b'data: {"jsonrpc":'))
    writer.close()


async def ends_stream_without_answer(writer: Writer, _message: Message) -> None:
    writer.write(STREAM + chunk(b": bye\n\n") + b"0\r\n\r\n")


async def wrong_id(writer: Writer, message: Message) -> None:
    writer.write(plain(json.dumps(text_result(message, "x") | {"id": "somebody else's"}).encode()))


async def wrong_id_in_stream(writer: Writer, message: Message) -> None:
    writer.write(STREAM + event(text_result(message, "x") | {"id": 987654321}) + b"0\r\n\r\n")


async def no_json(writer: Writer, _message: Message) -> None:
    writer.write(plain(b'{"jsonrpc":"2.0", this is no JSON'))


async def no_message(writer: Writer, message: Message) -> None:
    writer.write(plain(json.dumps({"id": message["id"], "answer": 42}).encode()))


async def result_is_no_object(writer: Writer, message: Message) -> None:
    writer.write(plain(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": "no object"}).encode()))


async def no_http(writer: Writer, _message: Message) -> None:
    writer.write(b"220 mail.example ESMTP ready\r\n")


async def endless_head(writer: Writer, _message: Message) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    await _repeat(writer, b"x-padding: " + b"x" * 8000 + b"\r\n")


async def endless_body(writer: Writer, _message: Message) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
    await _repeat(writer, chunk(b"x" * 65_536))


async def endless_event(writer: Writer, _message: Message) -> None:
    writer.write(STREAM + chunk(b"data: "))
    await _repeat(writer, chunk(b"x" * 65_536))


async def endless_comments(writer: Writer, _message: Message) -> None:
    writer.write(STREAM)
    await _repeat(writer, chunk(b": still here\n\n"))


async def endless_foreign_progress(writer: Writer, _message: Message) -> None:
    params = {"progressToken": "somebody else's", "progress": 1}
    writer.write(STREAM)
    await _repeat(writer, event({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}))


async def drips(writer: Writer, _message: Message) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n")
    await _repeat(writer, b" ")


async def redirects(writer: Writer, _message: Message) -> None:
    writer.write(plain(b"", "307 Temporary Redirect", more="location: https://elsewhere.example/mcp?key=secret\r\n"))


async def wants_authorization(writer: Writer, _message: Message) -> None:
    writer.write(plain(b"", "401 Unauthorized", more='www-authenticate: Bearer realm="x"\r\n'))


async def forbids(writer: Writer, _message: Message) -> None:
    writer.write(plain(b"not you", "403 Forbidden", "text/plain"))


async def not_found(writer: Writer, _message: Message) -> None:
    writer.write(plain(b"nothing here", "404 Not Found", "text/plain"))


async def too_many(writer: Writer, _message: Message) -> None:
    writer.write(plain(b"", "429 Too Many Requests", more="retry-after: 7\r\n"))


async def fails(writer: Writer, _message: Message) -> None:
    writer.write(plain(b"oh no", "500 Internal Server Error", "text/plain"))


async def is_overloaded(writer: Writer, _message: Message) -> None:
    writer.write(plain(b"", "503 Service Unavailable", "text/plain"))


async def says_html(writer: Writer, _message: Message) -> None:
    writer.write(plain(b"<html>Welcome</html>", kind="text/html"))


async def only_accepts(writer: Writer, _message: Message) -> None:
    writer.write(plain(b"", "202 Accepted"))


async def broken_gzip(writer: Writer, _message: Message) -> None:
    writer.write(plain(b"this is no gzip at all", more="content-encoding: gzip\r\n"))


async def gzip_bomb(writer: Writer, _message: Message) -> None:
    writer.write(plain(_bomb(), more="content-encoding: gzip\r\n"))


@functools.cache
def _bomb() -> bytes:
    """64 MiB in 64 KiB; made once, as that may take as long as a call may."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return packer.compress(b" " * 64 * 1024 * 1024) + packer.flush()


async def answers_twice(writer: Writer, message: Message) -> None:
    answer = json.dumps(text_result(message, "once")).encode()
    writer.write(plain(answer) + plain(answer))


async def _repeat(writer: Writer, data: bytes) -> None:
    while not writer.is_closing():
        writer.write(data)
        await writer.drain()
        await asyncio.sleep(_ENDLESS_PAUSE_SECONDS)


FAULTS: dict[str, Callable[[Writer, Message], Awaitable[None]]] = {
    fault.__name__: fault
    for fault in (
        never_answers, closes_at_once, resets, closes_in_head, closes_in_body, closes_in_stream,
        ends_stream_without_answer, wrong_id, wrong_id_in_stream, no_json, no_message, result_is_no_object, no_http,
        endless_head, endless_body, endless_event, endless_comments, endless_foreign_progress, drips, redirects,
        wants_authorization, forbids, not_found, too_many, fails, is_overloaded, says_html, only_accepts, broken_gzip,
        gzip_bomb, answers_twice,
    )
}  # fmt: skip
TOOLS = ["echo", *FAULTS]


async def serve(reader: asyncio.StreamReader, writer: Writer) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while not writer.is_closing():
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = next((line for line in head.split("\r\n") if line.startswith("content-length:")), "x:0")
            body = await reader.readexactly(int(length.partition(":")[2]))
            await handle(writer, head, body)
    writer.close()


async def handle(writer: Writer, head: str, body: bytes) -> None:
    if not head.startswith("post"):
        writer.write(plain(b"", "405 Method Not Allowed"))
        return
    message = json.loads(body)
    if message.get("method") != "tools/call":
        answer = answer_without_tools(message, TOOLS)
        session = "mcp-session-id: one\r\n" if message.get("method") == "initialize" else ""
        writer.write(plain(json.dumps(answer).encode(), more=session) if answer else plain(b"", "202 Accepted"))
        return
    answer = plain_tool(message)
    if answer is not None:
        writer.write(plain(json.dumps(answer).encode()))
    else:
        await FAULTS[call_of(message)[0]](writer, message)


async def main() -> None:
    _bomb()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print("ready", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
