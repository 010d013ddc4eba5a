"""One exchange at a time over HTTP, with nothing done for the caller: what a check sends is what goes out.

Knows: HTTP, events, JSON. Does not know: eras, sessions, what should come back.
"""

import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Self
from urllib.parse import urlsplit

from tests.conformance.mutations import Event

SECONDS: Final = 8.0
"""How long anything may take. Nothing here takes long; a run with a mutation waits for less."""

Json = dict[str, Any]
_thread = threading.local()


def note_sockets(sockets: list[socket.socket]) -> None:
    """From now on, in this thread, each new connection's socket goes into that list as well."""
    _thread.sockets = sockets


class SilenceError(AssertionError):
    """What had to come did not come in time."""


class Reply:
    """An answer that is read as it arrives. Close it, or use it as a context manager, if it is not read to its end."""

    def __init__(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> None:
        self._connection = connection
        self._response = response
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.events: list[Event] = []
        """Those read so far, also the ones without a message."""
        self.seen: list[Any] = []
        """The messages read so far."""
        self.body = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Reply {self.status} {self.headers.get('content-type')} {self.seen or self.body!r}>"

    @property
    def is_stream(self) -> bool:
        """Whether the answer is an event stream."""
        return self.headers.get("content-type", "").startswith("text/event-stream")

    def close(self) -> None:
        """Hang up."""
        self._response.close()
        self._connection.close()

    def next(self) -> Any:
        """The next message; None at the end.

        Raises:
            SilenceError: nothing came in time.
        """
        try:
            return next(self._messages(), None)
        except TimeoutError:
            self.close()
            raise SilenceError(f"nothing came within {self._connection.timeout} s after {self.seen}") from None

    def until(self, wanted: Callable[[Any], bool]) -> Any:
        """The next message that is wanted; those before it are in `seen`.

        Raises:
            SilenceError: the stream ended, or was silent for too long.
        """
        while (message := self.next()) is not None:
            if wanted(message):
                return message
        raise SilenceError(f"the answer ended ({self.status}) without what was waited for: {self.seen or self.body!r}")

    def read(self) -> "Reply":
        """Read to the end."""
        while self.next() is not None:
            pass
        self.close()
        return self

    def response(self) -> Json:
        """The message that ends the call: what it asked for, or an error. Read to there, and hang up."""
        message: Json = self.until(lambda message: "method" not in message)
        self.close()
        return message

    @property
    def result(self) -> Json:
        """The response's result."""
        said = self.response() if not self.seen or "method" in self.seen[-1] else self.seen[-1]
        assert "result" in said, f"a result was expected, got {self}"
        result: Json = said["result"]
        return result

    @property
    def error(self) -> Json:
        """The response's error."""
        said = self.response() if not self.seen or "method" in self.seen[-1] else self.seen[-1]
        assert "error" in said, f"an error was expected, got {self}"
        error: Json = said["error"]
        return error

    def _messages(self) -> Iterator[Any]:
        if not self.is_stream:
            if body := self._response.read():
                self.body += body
                if self.headers.get("content-type", "").startswith("application/json"):
                    self.seen.append(json.loads(body))
                    yield self.seen[-1]
            return
        fields: list[tuple[str, str]] = []
        while line := self._response.readline():
            text = line.decode().rstrip("\r\n")
            if text:
                name, _, value = text.partition(":")
                fields.append((name, value.removeprefix(" ")))
            elif fields:
                self.events.append(Event(fields))
                fields = []
                message = self.events[-1].message()
                if message is not None:
                    self.seen.append(message)
                    yield message


def send(url: str, verb: str, headers: Mapping[str, str], body: bytes | None = None, seconds: float = SECONDS) -> Reply:
    """Send a request over a connection of its own."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=seconds)
    try:
        connection.connect()
        if hasattr(_thread, "sockets"):
            _thread.sockets.append(connection.sock)
        connection.request(verb, parts.path, body, dict(headers))
        return Reply(connection, connection.getresponse())
    except TimeoutError:
        connection.close()
        raise SilenceError(f"no answer to {verb} {parts.path} within {seconds} s") from None
    except BaseException:
        connection.close()
        raise
