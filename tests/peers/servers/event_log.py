"""The last events of a server's streams, so that a client may close one, or lose it, and resume.

Knows: the SDK's interface. Does not know: sessions; the SDK names a stream by its request's id alone.
Invariant: holds at most `LIMIT` events; an id that has left is unknown, and nothing is replayed for it.
"""

from collections import OrderedDict

from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp_types import JSONRPCMessage

LIMIT = 512


class EventLog(EventStore):
    """Events in the order of their numbers."""

    def __init__(self) -> None:
        self._events: OrderedDict[str, tuple[str, JSONRPCMessage | None]] = OrderedDict()
        self._count = 0

    async def store_event(self, stream_id: str, message: JSONRPCMessage | None) -> str:
        """Note an event, or (None) that a stream opened."""
        self._count += 1
        self._events[str(self._count)] = (stream_id, message)
        if len(self._events) > LIMIT:
            self._events.popitem(last=False)
        return str(self._count)

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        """Send what the stream of that event has carried since; the stream's name, if the event is known."""
        if last_event_id not in self._events:
            return None
        stream_id = self._events[last_event_id][0]
        for event_id, (name, message) in list(self._events.items()):
            if name == stream_id and message is not None and int(event_id) > int(last_event_id):
                await send_callback(EventMessage(message, event_id))
        return stream_id
