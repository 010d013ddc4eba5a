"""One `subscriptions/listen` at a modern server, while it comes and goes."""

import pytest

from penstock.clock import FakeClock
from penstock.errors import ServerError, ServerUnavailable
from penstock.upstreams.interface import Answer, Call
from penstock.upstreams.modern_feed import ModernFeed


async def test_who_subscribes_while_the_server_is_away_learns_that_it_is_away() -> None:
    async def send(_call: Call) -> Answer:
        raise ServerUnavailable("peer", "it is being started again")

    feed = ModernFeed("peer", send, lambda _method, _params: None, FakeClock())
    try:
        with pytest.raises(ServerError, match="being started again"):
            await feed.subscribe("x://1")
        assert feed.uris == ()
    finally:
        await feed.close()
