"""What a policy is: one step on a call's way that may refuse it, answer it, or let it pass changed."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from penstock.upstreams.interface import Answer, Call

Handle = Callable[[Call], Awaitable[Answer]]
"""Takes a call all the rest of its way."""


class Policy(Protocol):
    """Sees each call of its route once. Raises `ServerError` to refuse."""

    def __call__(self, call: Call, proceed: Handle) -> Awaitable[Answer]:
        """Usually a coroutine function; a policy that only notes something returns `proceed(call)` and costs no frame."""
        ...
