"""Ask in a thread of its own, for answers that are kept back while a check looks at something else.

Knows: threads, replies. Does not know: what is asked.
"""

import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from tests.conformance.wire import SECONDS, Reply, SilenceError, note_sockets


class Asking:
    """A request whose answer has not come yet."""

    def __init__(self, ask: Callable[[], Reply]) -> None:
        self._ask = ask
        self._reply: Reply | None = None
        self._error: BaseException | None = None
        self._connections: list[socket.socket] = []
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def reply(self, seconds: float = SECONDS) -> Reply:
        """The answer, when it has come.

        Raises:
            SilenceError: it has not.
        """
        self.thread.join(seconds)
        if self._error is not None:
            raise self._error
        if self._reply is None:
            raise SilenceError(f"no answer within {seconds} s")
        return self._reply

    def hang_up(self) -> None:
        """Close its connection, answer or not."""
        for connection in self._connections:
            with suppress(OSError):  # it is closed already
                connection.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        try:
            note_sockets(self._connections)
            self._reply = self._ask()
        except (OSError, AssertionError, http.client.HTTPException) as error:
            self._error = error


@contextmanager
def meanwhile(ask: Callable[[], Reply]) -> Iterator[Asking]:
    """Ask, and go on; when the block ends, so does the asking."""
    asking = Asking(ask)
    try:
        yield asking
    finally:
        asking.hang_up()
        asking.thread.join(SECONDS)
