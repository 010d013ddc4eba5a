"""Calls that have to wait for something before they can be sent: each has one task.

Knows: how such a call ends. Does not know: how it is answered and counted.
"""

import asyncio
from typing import Protocol

from penstock.errors import ServerError
from penstock.policies.interface import Handle
from penstock.upstreams.calls import Answer, Call


class Ending(Protocol):
    """Who takes the end of the call; see `RunningCall`."""

    def ended(self, outcome: Answer | ServerError | None) -> None:
        """Answered, failed, or cancelled (None)."""

    def leave(self, call: Call) -> None:
        """It ends by a fault of ours, which is answered elsewhere."""

    def lost(self) -> None:
        """So it has."""


async def wait(handle: Handle, call: Call, ending: Ending) -> None:
    """Send the call by its pipeline, and tell how it ended."""
    outcome: Answer | ServerError
    try:
        outcome = await handle(call)
    except ServerError as error:
        outcome = error
    except asyncio.CancelledError:
        ending.ended(None)
        raise
    except Exception:  # a fault of ours, which the exchange logs and answers
        ending.leave(call)
        ending.lost()
        raise
    ending.ended(outcome)


class Waiting:
    """The task of such a call."""

    __slots__ = ("_task",)

    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task

    def cancel(self) -> None:
        """Not before the task's first turn: one that never ran could not say how it ended."""
        self._task.get_loop().call_soon(self._task.cancel)
