"""The pipes of a child process, as what a conversation is carried over.

Knows: one child, lines. Does not know: messages, how the child is started and ended.
"""

import asyncio
from collections.abc import Callable

from penstock.errors import ServerError, ServerMisbehaved, ServerUnavailable
from penstock.upstreams.child_process import ChildProcess
from penstock.upstreams.conversation import Conversation
from penstock.upstreams.wire import Headers


class ChildWire:
    """See `Wire`; and the `ChildListener` of its child."""

    __slots__ = ("_line_bytes", "_server", "child", "talk")

    def __init__(self, server: str, line_bytes: int) -> None:
        """`line_bytes`: longest line; for people, the child keeps to it."""
        self._server = server
        self._line_bytes = line_bytes
        self.child: ChildProcess | None = None
        """Set as soon as there is a process; messages cannot come before."""
        self.talk: Conversation | None = None
        """Set before there is a process."""

    def __repr__(self) -> str:
        return f"<ChildWire {self._server} {self.child!r}>"

    @property
    def is_writable(self) -> bool:
        """See `Wire`."""
        return self.child is not None and self.child.is_writable

    @property
    def unsent_bytes(self) -> int:
        """See `Wire`."""
        return 0 if self.child is None else self.child.unsent_bytes

    @property
    def lines(self) -> str:
        """See `Wire`."""
        return "lines to stdout"

    def ask(self, message: bytes, lost: Callable[[ServerError], None], headers: Headers = ()) -> None:
        """See `Wire`; what the pipe took is lost with the process alone."""
        self.tell(message)

    def tell(self, message: bytes) -> None:
        """See `Wire`."""
        if self.child is not None:
            self.child.write(message + b"\n")

    def kill(self) -> None:
        """See `Wire`."""
        if self.child is not None:
            self.child.kill()

    def why_over(self, complaint: str, *, is_closing: bool) -> ServerError:
        """See `Wire`."""
        if complaint:
            return ServerMisbehaved(self._server, f"{complaint}; its process was ended and is started again")
        child = self.child
        if child is None or (is_closing and child.returncode is None):
            return ServerUnavailable(self._server, "it is being stopped")
        last_line = child.stderr.last_line()
        said = f"; its last line on stderr: {last_line}" if last_line else "; it wrote nothing to stderr"
        how = child.exit_words() if child.returncode is not None else "closed its input or output, or is being stopped"
        return ServerUnavailable(self._server, f"its process {how}{said}")

    # what the child says

    def line_received(self, line: bytes) -> None:
        """Callback of the child."""
        if self.talk is not None:
            self.talk.received(line)

    def line_too_long(self) -> None:
        """Callback of the child, which is being killed."""
        if self.talk is not None:
            self.talk.give_up(f"it sent a line of more than {self._line_bytes} bytes")

    def process_ended(self, _: asyncio.Future[None]) -> None:
        """Callback of the child's end."""
        talk, self.talk = self.talk, None  # which holds us
        if talk is not None:
            talk.end()
