"""The legacy sessions that a server has open, and which resources each one watches.

A server of 2025-11-25 or older tells a session of a change with a notification that belongs to no call: on its GET stream, its
event stream or its standard output.

Knows: sessions of the SDK. Does not know: what changes, or when.
Invariant: holds at most `LIMIT` sessions; the oldest are forgotten first. A notification to a session that ended is dropped.
"""

from collections import OrderedDict
from typing import Any

import mcp_types as types

LIMIT = 1024


class LiveSessions:
    """Whom to tell of changes."""

    def __init__(self) -> None:
        self._watched: OrderedDict[int, tuple[Any, set[str]]] = OrderedDict()

    async def opened(self, ctx: Any, params: types.NotificationParams) -> None:
        """Note a session whose client is ready (a handler of `notifications/initialized`)."""
        self._entry(ctx.session)

    async def watch(self, ctx: Any, params: types.SubscribeRequestParams) -> types.EmptyResult:
        """A handler of `resources/subscribe`."""
        self._entry(ctx.session).add(str(params.uri))
        return types.EmptyResult()

    async def stop_watching(self, ctx: Any, params: types.UnsubscribeRequestParams) -> types.EmptyResult:
        """A handler of `resources/unsubscribe`."""
        self._entry(ctx.session).discard(str(params.uri))
        return types.EmptyResult()

    async def tools_changed(self) -> None:
        """Tell everybody that the list of tools changed."""
        for session, _ in list(self._watched.values()):
            await session.send_tool_list_changed()

    async def prompts_changed(self) -> None:
        """Tell everybody that the list of prompts changed."""
        for session, _ in list(self._watched.values()):
            await session.send_prompt_list_changed()

    async def resource_updated(self, uri: str) -> None:
        """Tell whoever watches a resource that it changed."""
        for session, watched in list(self._watched.values()):
            if uri in watched:
                await session.send_resource_updated(uri)

    def _entry(self, session: Any) -> set[str]:
        """What a session watches. Requests have session objects of their own; what the client said of itself is the same one."""
        key = id(session.client_params)
        _, watched = self._watched.setdefault(key, (session, set()))
        while len(self._watched) > LIMIT:
            self._watched.popitem(last=False)
        return watched
