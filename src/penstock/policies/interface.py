"""What a policy is: one step on a call's way that may refuse it, answer it, or let it pass changed."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from penstock.upstreams.calls import Answer, Call, Cancellable

Handle = Callable[[Call], Awaitable[Answer]]
"""Takes a call all the rest of its way."""
Start = Callable[[Call], Cancellable | None]
"""Takes a call all the rest of its way if nothing has to be waited for; see `QuickUpstream.start`."""


class Policy(Protocol):
    """Sees each call of its route. Raises `ServerError` to refuse."""

    @property
    def is_transparent(self) -> bool:
        """Whether it only notes something and returns `proceed(call)` as it is.

        Then it is fit for `Start` as well, and sees a call twice that could not be started at once.
        """
        ...

    def __call__(self, proceed: Callable[[Call], Any], call: Call) -> Any:
        """What `proceed` returns, or a coroutine that ends with an answer."""
        ...
