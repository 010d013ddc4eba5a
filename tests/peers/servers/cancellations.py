"""A wait that notes when it is cancelled, for servers that show whether a cancel reaches them."""

import time
from collections.abc import Awaitable, Callable

import anyio

WAIT_SECONDS = 20.0
_cancelled_at: dict[str, float] = {}


async def wait_for_cancel(key: str, say: Callable[[str], Awaitable[None]]) -> str:
    """Say that the wait began, then wait; note the time when cancelled."""
    try:
        await say("waiting")
        await anyio.sleep(WAIT_SECONDS)
    except anyio.get_cancelled_exc_class():
        _cancelled_at[key] = time.time()
        raise
    return "nobody cancelled"


def cancelled_at(key: str) -> str:
    """Seconds since the epoch at which the wait of that key was cancelled; empty when it was not."""
    return repr(_cancelled_at[key]) if key in _cancelled_at else ""
