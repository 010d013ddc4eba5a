"""How tasks get on, told to one modern client that listens for it: one `subscriptions/listen` at each server that has any.

Knows: the tasks of one listener, at which servers they are. Does not know: seals, who may watch what, HTTP.
Each client has a listen of its own, in its own name: tasks belong to one caller, so nobody could share it. Servers tell of tasks
if they like; whoever is not told polls.
Invariants: a client hears of the tasks it named and no others; listens of one server are bounded in number, so that they leave
its connections to the calls; when one of them ends, so does what the client listens to, and it can begin anew.

Source: SEP-2663, Task Status Notifications.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from penstock.errors import ServerError
from penstock.gateway.hosting import HostedServer
from penstock.protocol.subscriptions import ACKNOWLEDGED, Filter, read_honoured, write_filter
from penstock.protocol.tasks import NOTIFICATION, task_id_of
from penstock.upstreams.calls import Call, Caller, Failure

_log = logging.getLogger(__name__)
MAX_LISTENS: Final = 16
"""Clients that are told of tasks of one server at a time, by one worker."""
Tell = Callable[[dict[str, msgspec.Raw], str], None]
"""Takes a notification's params, and the id by which the client knows the task."""


class TaskWatches:
    """How many there are of each server; all of one worker."""

    __slots__ = ("_most", "_open")

    def __init__(self, *, most: int = MAX_LISTENS) -> None:
        self._most: Final = most
        self._open: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<TaskWatches {self._open}>"

    def enter(self, server: str) -> bool:
        """Whether there may be one more."""
        count = self._open.get(server, 0)
        if count >= self._most:
            return False
        self._open[server] = count + 1
        return True

    def leave(self, server: str) -> None:
        """One less."""
        self._open[server] -= 1
        if not self._open[server]:
            del self._open[server]


class TaskWatch:
    """Tasks of one server, of which one client wants to hear."""

    __slots__ = ("_acknowledged", "_caller", "_listen", "_server", "_tell", "_tokens", "honoured")

    def __init__(self, server: HostedServer, tokens: Mapping[str, str], caller: Caller, tell: Tell) -> None:
        """`tokens`: by the server's own id of a task, that of the client."""
        self._server: Final = server
        self._tokens: Final = tokens
        self._caller: Final = caller
        self._tell: Final = tell
        self._acknowledged = asyncio.Event()
        self._listen: asyncio.Task[None] | None = None
        self.honoured: tuple[str, ...] = ()
        """The client's ids of the tasks the server will tell of."""

    def __repr__(self) -> str:
        return f"<TaskWatch {self._server.name} {len(self.honoured)} of {len(self._tokens)}>"

    async def begin(self, watches: TaskWatches) -> None:
        """Ask the server, and wait until it has said what it will tell of, or will not."""
        if not watches.enter(self._server.name):
            return
        self._listen = asyncio.get_running_loop().create_task(self._run(watches), name=f"tasks of {self._server.name}")
        await self._acknowledged.wait()

    def on_over(self, then: Callable[[], None]) -> None:
        """Tell when the server tells no more, unless `close` was the reason."""
        if self._listen is not None:
            self._listen.add_done_callback(lambda task: None if task.cancelled() else then())

    def close(self) -> None:
        """Listen no more."""
        if self._listen is not None:
            self._listen.cancel()

    async def _run(self, watches: TaskWatches) -> None:
        wanted = Filter(frozenset(), (), tuple(self._tokens))
        params = {"notifications": msgspec.Raw(write_filter(wanted))}
        call = Call("subscriptions/listen", params, self._caller, hear=self._hear)
        try:
            answer = await self._server.upstream.call(call)
            if isinstance(answer, Failure):
                _log.info("server '%s' does not tell of tasks: %s", self._server.name, answer.message[:200])
        except ServerError as error:
            _log.info("%s", error.message)
        except Exception:  # the task's top: the client polls
            _log.exception("tasks of server '%s' are not heard of by an error of ours", self._server.name)
        finally:
            watches.leave(self._server.name)
            self._acknowledged.set()

    def _hear(self, method: str, params: dict[str, msgspec.Raw]) -> None:
        if method == ACKNOWLEDGED:
            wanted = Filter(frozenset(), (), tuple(self._tokens))
            taken = read_honoured(params.get("notifications"), wanted).tasks
            self.honoured = tuple(self._tokens[task] for task in taken)
            self._acknowledged.set()
        elif method == NOTIFICATION:
            token = self._tokens.get(task_id_of(msgspec.json.encode(params)) or "")
            if token is not None and token in self.honoured:
                self._tell(params, token)
