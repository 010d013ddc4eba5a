"""A stdio server of both eras whose tools fail in the ways their names say; standard library only, to start quickly.

usage: python -m tests.end_to_end.servers.stdio_server [stubborn]     stubborn: goes on after its stdin was closed, and on SIGTERM
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

from tests.end_to_end.servers.plain_mcp import Message, answer_without_tools, call_of, plain_tool, text_result

_writing = threading.Lock()


def say(message: object) -> None:
    with _writing:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()


def slow(message: Message) -> None:
    """Answer after the seconds asked for, without keeping others waiting."""
    arguments = call_of(message)[1]
    answer = text_result(message, arguments.get("text", "slept"))
    timer = threading.Timer(float(arguments["seconds"]), lambda: say(answer))
    timer.daemon = True
    timer.start()


def asks(message: Message) -> None:
    """Ask the client, as legacy servers do; `main` answers the call with what it says."""
    question = f"q-{message['id']}"
    ASKED[question] = message
    schema = {"type": "object", "properties": {"name": {"type": "string"}}}
    params = {"mode": "form", "message": "Who?", "requestedSchema": schema}
    say({"jsonrpc": "2.0", "id": question, "method": "elicitation/create", "params": params})


def never(_message: Message) -> None:
    """No answer at all."""


def dies(_message: Message) -> None:
    os.write(2, b"fatal: the disk is full\n")
    os._exit(3)


def is_killed(_message: Message) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def closes_stdout(_message: Message) -> None:
    os.close(1)
    time.sleep(60)


def wrong_id(message: Message) -> None:
    say({"jsonrpc": "2.0", "id": "somebody else's", "result": {"content": []}})


def malformed(_message: Message) -> None:
    with _writing:
        sys.stdout.write("{this is no JSON\n")
        sys.stdout.flush()


def no_object(message: Message) -> None:
    say({"jsonrpc": "2.0", "id": message["id"], "result": "no object"})


def endless_line(_message: Message) -> None:
    with _writing:
        for _ in range(64):
            sys.stdout.write("x" * 65_536)
        sys.stdout.flush()
    time.sleep(60)


def endless_lines(_message: Message) -> None:
    """Log lines for as long as this process lives, beside whatever else it does."""

    def flood() -> None:
        notification = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x"}}
        while True:
            say(notification)
            time.sleep(0.005)

    threading.Thread(target=flood, daemon=True).start()


FAULTS: dict[str, Callable[[Message], None]] = {
    fault.__name__: fault
    for fault in (
        slow, asks, never, dies, is_killed, closes_stdout, wrong_id, malformed, no_object, endless_line, endless_lines,
    )
}  # fmt: skip
ASKED: dict[str, Message] = {}
"""Calls that wait for their client, by the questions' ids."""
TOOLS = ["echo", "pid", *FAULTS]


def main() -> None:
    if "stubborn" in sys.argv:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for line in sys.stdin:
        message = json.loads(line)
        if "method" not in message and message.get("id") in ASKED:
            answer: Message | None = text_result(ASKED.pop(message["id"]), json.dumps(message.get("result")))
        elif message.get("method") != "tools/call":
            answer = answer_without_tools(message, TOOLS)
        else:
            answer = plain_tool(message)
            if answer is None:
                FAULTS[call_of(message)[0]](message)
        if answer is not None:
            say(answer)
    while "stubborn" in sys.argv:
        time.sleep(60)


if __name__ == "__main__":
    main()
