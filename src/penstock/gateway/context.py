"""What both edges share: the current snapshot and the parts that outlive it.

Knows: snapshot, catalogue, sessions, clock. Does not know: HTTP. `snapshot` is one reference, swapped whole by a reload;
whoever reads it twice during one request may see two generations, so readers take it once.
"""

from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from penstock.clock import Clock
from penstock.gateway.edges.sse_stream import SseStream
from penstock.gateway.hops import Hops
from penstock.gateway.hosting import Catalogue
from penstock.gateway.listeners import Listeners
from penstock.gateway.parking import Parking
from penstock.gateway.replay import Replay
from penstock.gateway.request_states import RequestStates
from penstock.gateway.sessions import Sessions
from penstock.gateway.snapshot import Snapshot
from penstock.gateway.subscriptions import Subscriptions
from penstock.gateway.task_ids import TaskIds
from penstock.gateway.task_watch import TaskWatches
from penstock.gateway.view import View


class Housekeeping(Protocol):
    """What edges may ask of the gateway that holds them."""

    def settle(self) -> None:
        """Bring the snapshot up to date."""

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something nobody waits for."""


class GatewayContext:
    """Held by edges and worker; made once."""

    def __init__(
        self,
        snapshot: Snapshot,
        catalogue: Catalogue,
        *,
        sessions: Sessions,
        request_states: RequestStates,
        task_ids: TaskIds,
        task_watches: TaskWatches,
        parking: Parking,
        replay: Replay,
        listeners: Listeners,
        subscriptions: Subscriptions,
        clock: Clock,
        keeper: Housekeeping,
    ) -> None:
        self.snapshot = snapshot
        self.catalogue: Final = catalogue
        self.sessions: Final = sessions
        self.request_states: Final = request_states
        self.task_ids: Final = task_ids
        self.task_watches: Final = task_watches
        self.parking: Final = parking
        self.replay: Final = replay
        self.listeners: Final = listeners
        self.subscriptions: Final = subscriptions
        self.clock: Final = clock
        self.in_background: Final = keeper.in_background
        self._settle = keeper.settle
        self.streams: Final[dict[str, SseStream]] = {}
        """Of clients over HTTP+SSE, by what they are called here."""
        self.hops: Hops | None = None
        """To the other workers, if there are any."""
        self.now: Final[Callable[[], float]] = clock.now

    def __repr__(self) -> str:
        return f"<GatewayContext {self.snapshot!r}>"

    @property
    def worker(self) -> int:
        """This worker's number."""
        return self.hops.index if self.hops is not None else 0

    def is_pending(self, view: View) -> bool:
        """Whether a server of the view was never listed and is worth waiting for."""
        now = None
        for server in view.servers:
            if server.listing is None:
                now = self.clock.now() if now is None else now
                if server.is_pending(now):
                    return True
        return False

    def has_view(self, name: str) -> bool:
        """Whether there is a view of that name by now."""
        return _path_of(name) in self.snapshot.endpoints

    async def listed_view(self, name: str) -> View | None:
        """The view once its servers had their chance to be listed; None when a reload removed it meanwhile."""
        path = _path_of(name)
        view = self.snapshot.endpoints.get(path)
        if view is not None:
            await self.catalogue.wait_for_first(view.servers)
            self._settle()
        return self.snapshot.endpoints.get(path)


def _path_of(view: str) -> str:
    return f"/mcp/{view}" if view else "/mcp"
