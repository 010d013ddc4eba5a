"""Resources that a client session is subscribed to in its own session at a legacy server, as many servers tell nobody else.

Knows: one such session, its client's stream. Does not know: transports, how the session is opened; that the same resources
are subscribed to in the gateway's session as well, for everybody else.
Invariant: from when the server has taken the subscription until the session is over, what the client is told of a resource
comes from this session alone; before and after that it is told what the gateway's session hears.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import msgspec

from penstock.errors import PenstockError
from penstock.protocol.subscriptions import uri_of
from penstock.upstreams.calls import Answer, Call, Caller, Raw, Result, Sink

ANSWER_SECONDS: Final = 10.0
"""How long a server may take to answer one: nobody's deadline bounds it."""
_AT_ONCE: Final = 16


class OwnSubscriptions:
    """Those of one session."""

    __slots__ = ("_asking", "_call", "_client", "_is_over", "_renewing", "_server", "_sink", "_uris")

    def __init__(self, server: str, client: Caller, sink: Sink, call: Callable[[Call], Awaitable[Answer]]) -> None:
        """`call` sends a request in that session."""
        self._server: Final = server
        self._client: Final = client
        self._sink: Final = sink
        self._call: Final = call
        self._uris: dict[str, None] = {}
        self._asking: dict[str, asyncio.Task[object]] = {}
        """What the server is just being told, by resource."""
        self._is_over = False
        self._renewing: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<OwnSubscriptions {self._server} [{len(self._uris)}]>"

    @property
    def is_in_use(self) -> bool:
        """Whether a client listens to what is subscribed to."""
        return bool(self._uris) and self._sink.is_open

    def renew(self) -> None:
        """The session may be another one than before: subscribe to all that its client wants to hear of."""
        uris = list(self._sink.subscriptions(self._server))
        if uris:
            self._renewing = asyncio.get_running_loop().create_task(self._subscribe_all(uris))

    async def subscribe(self, uri: str) -> None:
        """Let the server tell of it in this session, if it does that."""
        await self._settled(uri)
        if uri not in self._uris and not self._is_over:
            await self._begin(uri, self._subscribe(uri))

    async def unsubscribe(self, uri: str) -> None:
        """Stop that; whatever the server says."""
        await self._settled(uri)
        if self._uris.pop(uri, self) is None:
            self._sink.hear_apart(uri, apart=False)
            await self._begin(uri, self._ask("resources/unsubscribe", uri))

    def heard(self, params: dict[str, Raw]) -> bool:
        """A resource was updated, or a part of one: tell the client, and nobody else, if it was subscribed to here."""
        uri = uri_of(params)
        return uri is not None and bool(self._uris) and self._sink.updated(uri)

    def missed(self) -> None:
        """Something may have been missed: everything counts as updated."""
        for uri in list(self._uris):
            self._sink.updated(uri)

    def close(self) -> None:
        """The session is over, or not listened to any more: its client hears what the gateway hears."""
        self._is_over = True
        for task in (*self._asking.values(), *([self._renewing] if self._renewing is not None else [])):
            task.cancel()
        self._renewing = None
        uris, self._uris = self._uris, {}
        for uri in uris:
            self._sink.hear_apart(uri, apart=False)

    async def _settled(self, uri: str) -> None:
        """Of one resource the server is told one thing at a time: the end of a subscription never overtakes the next one."""
        while (asking := self._asking.get(uri)) is not None:
            await asyncio.wait((asking,))

    async def _begin(self, uri: str, work: Coroutine[Any, Any, object]) -> None:
        """It goes on though nobody waits for it any more."""
        task = self._asking[uri] = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(lambda _: self._asking.pop(uri, None))
        await asyncio.wait((task,))

    async def _subscribe_all(self, uris: list[str]) -> None:
        for at in range(0, len(uris), _AT_ONCE):
            await asyncio.gather(*(self.subscribe(uri) for uri in uris[at : at + _AT_ONCE]))

    async def _subscribe(self, uri: str) -> None:
        if await self._ask("resources/subscribe", uri):
            self._uris[uri] = None
            self._sink.hear_apart(uri, apart=True)

    async def _ask(self, method: str, uri: str) -> bool:
        call = Call(method, {"uri": Raw(msgspec.json.encode(uri))}, caller=self._client, name=uri)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return isinstance(await self._call(call), Result)
        except (PenstockError, TimeoutError):
            return False  # it is told what the gateway hears, which is what most servers tell everybody
